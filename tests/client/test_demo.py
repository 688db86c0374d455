"""The demonstration's judge must see every kind of broken promise."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from rakit.client.demo.flights import Flight, parse
from rakit.client.demo.processes import node_environment
from rakit.client.demo.verify import NotDurableError, Read, Verdict, durable, judge
from rakit.client.model import Receipt

SENT = [Flight(b"N1" if number % 3 else None, b"%d" % number) for number in range(12)]
RECEIPTS = [(number % 2, number // 2) for number in range(12)]


def faithful() -> list[Read]:
    read = [
        Read(partition, offset, flight.key, flight.value)
        for flight, (partition, offset) in zip(SENT, RECEIPTS, strict=True)
    ]
    return sorted(read, key=lambda one: (one.partition, one.offset))


def test_an_acknowledgement_without_fsync_ends_the_run() -> None:
    receipt = Receipt("t", 0, 0, 1, 0, 1, 2, 3, fsynced=True, duplicate=False)
    assert durable(receipt) is receipt
    with pytest.raises(NotDurableError, match="acknowledged without fsync"):
        durable(receipt._replace(fsynced=False))


def test_nodes_that_are_thrown_away_hear_nothing_of_settings_for_others() -> None:
    given = {"RAKIT_DATA_DIR": "/var/lib/rakit", "RAKIT_SEEDS": "a:7071", "PATH": "/bin"}
    assert node_environment(given) == {"PATH": "/bin", "GRPC_ENABLE_FORK_SUPPORT": "0"}


def judged(read: list[Read]) -> Verdict:
    return judge(SENT, RECEIPTS, read)


def test_a_faithful_log_is_kept() -> None:
    by_key = [replace(one, key=None) for one in SENT]
    receipts = [(0, number) for number in range(12)]
    read = [Read(0, number, None, one.value) for number, one in enumerate(by_key)]
    verdict = judge(by_key, receipts, read)
    assert verdict == Verdict(12, 12, 0, 0, 0, 0, 0)
    assert verdict.kept


def test_a_lost_record_is_seen() -> None:
    read = faithful()
    gone = read.pop(3)
    assert gone.value
    verdict = judged(read)
    assert (verdict.lost, verdict.gaps) == (1, 1)
    assert not verdict.kept


def test_a_lost_last_record_is_seen() -> None:
    assert judged(faithful()[:-1]).lost == 1


def test_a_doubled_record_is_seen() -> None:
    read = faithful()
    read.append(replace(read[-1], offset=read[-1].offset + 1))
    verdict = judged(read)
    assert (verdict.doubled, verdict.lost) == (1, 0)
    assert not verdict.kept


def test_swapped_records_of_one_key_are_seen() -> None:
    sent = [Flight(b"N1", b"0"), Flight(b"N1", b"1")]
    read = [Read(0, 0, b"N1", b"1"), Read(0, 1, b"N1", b"0")]
    verdict = judge(sent, [(0, 0), (0, 1)], read)
    assert (verdict.out_of_order, verdict.wrong) == (1, 2)
    assert not verdict.kept


@pytest.mark.parametrize(
    "change",
    [{"key": b"N9"}, {"value": b"never sent"}, {"partition": 1, "offset": 99}],
)
def test_a_record_that_is_not_what_was_acknowledged_is_seen(change: dict[str, bytes]) -> None:
    read = faithful()
    read[0] = replace(read[0], **change)  # type: ignore[arg-type]  # one field of several types
    assert judged(read).wrong
    assert not judged(read).kept


def test_flights_without_a_tail_number_have_no_key() -> None:
    table = io.StringIO("year,tailnum,dest\n2013,N14228,IAH\n2013,,MIA\n2013,NA,BQN\n")
    assert parse(table) == [
        Flight(b"N14228", b"0,2013,N14228,IAH"),
        Flight(None, b"1,2013,,MIA"),
        Flight(None, b"2,2013,NA,BQN"),
    ]
