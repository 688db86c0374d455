"""S14: the leader answers from applied state plus its own pending entries."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2
from rakit.multiraft.kv import WriteBatch
from rakit.node.errors import RakitError
from rakit.node.partition import pending
from rakit.node.partition.commands import Append, Fence
from rakit.node.partition.pending import Draft, Known, Outlook, Refusal, Wait
from rakit.node.partition.producers import Ruling, Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.snapshots import encode_state
from rakit.node.partition.state import Stored
from rakit.raft import Entry, EntryType
from tests.node.partition.fakes import SETTINGS, batch, new_machine
from tests.node.partition.test_producers import NaiveProducer


@dataclass
class Leader:
    """An outlook over a machine, with what lies between them."""

    outlook: Outlook = field(init=False)
    waiting: list[Entry] = field(default_factory=list[Entry])
    index: int = 1

    def __post_init__(self) -> None:
        self.machine = new_machine()
        self.outlook = Outlook(self.machine.state)

    def propose(self, draft: Draft) -> int:
        self.index += 1
        self.waiting.append(Entry(1, self.index, EntryType.NORMAL, b"".join(draft.pieces)))
        self.outlook.proposed(draft, 1, self.index)
        return self.index

    def append(
        self,
        count: int = 1,
        stamp: Stamp | None = None,
        *,
        now_ms: int = 1_000,
        topic: TopicSettings = SETTINGS,
    ) -> Append:
        draft = self.outlook.append(batch(count), stamp, None, now_ms, topic)
        assert isinstance(draft, Draft)
        assert isinstance(draft.command, Append)
        self.propose(draft)
        return draft.command

    def commit(self, count: int | None = None) -> None:
        taken, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for entry in taken:
            self.machine.apply(entry, WriteBatch())
            self.outlook.settled(entry.index)


def test_s14_offsets_continue_behind_pending_entries() -> None:
    leader = Leader()
    assert [leader.append(5).base_offset for _ in range(3)] == [0, 5, 10]
    leader.commit()
    assert leader.append().base_offset == 15


def test_s14_a_duplicate_of_a_pending_batch_waits_for_it() -> None:
    leader = Leader()
    stamp = Stamp(7, 0, 1, 0)
    leader.append(1, stamp)
    leader.append(1)
    again = leader.outlook.append(batch(), stamp, None, 1_000, SETTINGS)
    assert again == Wait(Stored(0, 1, 1_000, 1, 2))
    leader.commit()
    known = leader.outlook.append(batch(), stamp, None, 9_000, SETTINGS)
    assert isinstance(known, Known)
    assert (known.stored.base_offset, known.stored.append_time_ms) == (0, 1_000)
    assert (known.stored.term, known.stored.index) == (1, 2)


def test_s14_the_duplicate_check_comes_before_the_expected_offset() -> None:
    leader = Leader()
    stamp = Stamp(7, 0, 1, 0)
    draft = leader.outlook.append(batch(), stamp, 0, 1_000, SETTINGS)
    assert isinstance(draft, Draft)
    leader.propose(draft)
    assert isinstance(leader.outlook.append(batch(), stamp, 0, 1_000, SETTINGS), Wait)
    leader.commit()
    assert isinstance(leader.outlook.append(batch(), stamp, 0, 1_000, SETTINGS), Known)


def test_an_expected_offset_that_differs_is_refused_with_both() -> None:
    leader = Leader()
    leader.append(5)
    leader.commit()
    refusal = leader.outlook.append(batch(), None, 3, 1_000, SETTINGS)
    assert isinstance(refusal, Refusal)
    assert refusal.error.reason == error_pb2.ERROR_REASON_OFFSET_MISMATCH
    assert refusal.error.metadata == {"expected_offset": "3", "next_offset": "5"}
    text = "The batch was to begin at offset 3, but the next record gets 5. Nothing was appended."
    assert refusal.error.message == text
    assert refusal.index == 0, "it rests on nothing that is pending"
    assert isinstance(leader.outlook.append(batch(), None, 5, 1_000, SETTINGS), Draft)


def test_a_refusal_names_the_newest_entry_that_it_rests_on() -> None:
    leader = Leader()
    leader.append(4)
    leader.append(5)
    verdict = leader.outlook.append(batch(), None, 0, 1_000, SETTINGS)
    assert isinstance(verdict, Refusal)
    assert verdict.index == 3
    assert verdict.error.reason == error_pb2.ERROR_REASON_OFFSET_MISMATCH


def test_s21_a_pending_fence_is_in_force_for_what_follows() -> None:
    leader = Leader()
    leader.propose(leader.outlook.maintain(Fence(7, 3, 1_000)))
    verdict = leader.outlook.append(batch(), Stamp(7, 2, 1, 0), None, 1_000, SETTINGS)
    assert isinstance(verdict, Refusal)
    assert verdict.error.reason == error_pb2.ERROR_REASON_PRODUCER_FENCED


def test_s3_stamps_never_fall_also_over_pending_entries() -> None:
    leader = Leader()
    times = [leader.append(now_ms=now).append_time_ms for now in (500, 900, 100, 901)]
    assert times == [500, 900, 900, 901]
    leader.commit()


def test_more_than_64_in_flight_are_refused_and_others_are_not() -> None:
    leader = Leader()
    for number in range(64):
        leader.append(1, Stamp(7, 0, number + 1, number))
    with pytest.raises(RakitError) as caught:
        leader.outlook.append(batch(), Stamp(7, 0, 65, 64), None, 1_000, SETTINGS)
    assert caught.value.reason == error_pb2.ERROR_REASON_TOO_MANY_IN_FLIGHT
    assert caught.value.metadata == {"limit": "64"}
    assert "64 batches of producer 7 are in flight" in caught.value.message
    leader.append(1, Stamp(8, 0, 1, 0))
    again = leader.outlook.append(batch(), Stamp(7, 0, 1, 0), None, 1_000, SETTINGS)
    assert again == Wait(Stored(0, 1, 1_000, 1, 2))
    leader.commit(1)
    assert leader.outlook.in_flight(7) == 63
    leader.append(1, Stamp(7, 0, 65, 64))
    leader.commit()
    assert leader.outlook.in_flight(7) == leader.outlook.pending_count == 0


def test_a_flood_of_new_producers_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "PRODUCER_COUNT_HARD_MAX", 2)
    leader = Leader()
    leader.append(1, Stamp(1, 0, 1))
    leader.append(1, Stamp(2, 0, 1))
    with pytest.raises(RakitError) as caught:
        leader.append(1, Stamp(3, 0, 1))
    assert caught.value.reason == error_pb2.ERROR_REASON_THROTTLED
    assert caught.value.metadata["retry_delay_ms"] == "1000"
    leader.append(1, Stamp(2, 0, 2))


def test_s1_a_checkpoint_falls_due_by_bytes() -> None:
    topic = TopicSettings(segment_bytes=200)
    leader = Leader()
    flags: list[bool] = []
    for _ in range(12):
        due = leader.outlook.ahead.segment_bytes + len(batch(5).content) >= 200
        flags.append(leader.append(5, topic=topic).checkpoint)
        assert flags[-1] is due
    assert flags.count(True) >= 2
    leader.commit()
    assert len(leader.machine.state.marks) == flags.count(True)


def test_s1_a_checkpoint_falls_due_by_the_age_of_its_segment() -> None:
    topic = TopicSettings(segment_ms=10_000)
    leader = Leader()
    times = (50_000, 59_999, 60_000, 65_000, 70_001, 75_000)
    flags = [leader.append(1, now_ms=now, topic=topic).checkpoint for now in times]
    assert flags == [False, False, True, False, False, True]


attempts = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "commit", "fence", "new leader"]),
        st.integers(1, 2),  # producer
        st.integers(-3, 2),  # sequence, relative to the newest
        st.integers(1, 2),  # content, which here is the number of records
        st.integers(-1, 1),  # epoch, relative
        st.none() | st.integers(-1, 0),  # previous, relative
        st.none() | st.integers(-1, 1),  # expected offset, relative
    ),
    max_size=80,
)


@settings(max_examples=80)
@given(attempts)
def test_s14_pending_plus_applied_judges_like_a_log_that_commits_at_once(
    steps: list[tuple[str, int, int, int, int, int | None, int | None]],
) -> None:
    leader = Leader()
    naive = {1: NaiveProducer(), 2: NaiveProducer()}
    end = 0
    for kind, producer, relative, count, epoch_step, previous, expected in steps:
        known = naive[producer]
        newest = max(known.stored, default=0)
        if kind == "commit":
            leader.commit(count)
        elif kind == "fence":
            leader.propose(leader.outlook.maintain(Fence(producer, known.epoch + 1, 1_000)))
            known.epoch += 1
        elif kind == "new leader":
            leader.commit()
            leader.outlook = Outlook(leader.machine.state)
        else:
            stamp = Stamp(
                producer,
                max(0, known.epoch + epoch_step),
                max(1, newest + relative),
                None if previous is None else max(0, newest + previous),
            )
            at = None if expected is None else end + expected
            ruling = known.rule(stamp, batch(count).crc32c)
            got = attempt(leader, count, stamp, at)
            assert got == wanted(ruling, at, end)
            if got == "append":
                known.stored[stamp.sequence] = batch(count).crc32c
                known.epoch = stamp.epoch
                end += count
    leader.commit()
    assert encode_state(leader.machine.state) == encode_state(leader.outlook.ahead)
    assert leader.machine.state.next_offset == end


def attempt(leader: Leader, count: int, stamp: Stamp, expected: int | None) -> str:
    verdict = leader.outlook.append(batch(count), stamp, expected, 1_000, SETTINGS)
    if isinstance(verdict, Draft):
        leader.propose(verdict)
        return "append"
    if isinstance(verdict, Known | Wait):
        return "duplicate"
    assert verdict.index == (leader.index if leader.waiting else 0)
    return error_pb2.ErrorReason.Name(verdict.error.reason)


def wanted(ruling: Ruling, expected: int | None, end: int) -> str:
    if ruling is Ruling.APPEND and expected not in {None, end}:
        return "ERROR_REASON_OFFSET_MISMATCH"
    return {
        Ruling.APPEND: "append",
        Ruling.DUPLICATE: "duplicate",
        Ruling.TOO_OLD: "ERROR_REASON_SEQUENCE_TOO_OLD",
        Ruling.FENCED: "ERROR_REASON_PRODUCER_FENCED",
        Ruling.REUSED: "ERROR_REASON_SEQUENCE_REUSED",
        Ruling.OUT_OF_ORDER: "ERROR_REASON_OUT_OF_ORDER_SEQUENCE",
        Ruling.UNKNOWN_PRODUCER: "ERROR_REASON_UNKNOWN_PRODUCER",
    }[ruling]
