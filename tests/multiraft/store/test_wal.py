"""Reading the write-ahead log: whole, torn, damaged; and what to cut (S8), without a database."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rakit.multiraft.store import tail, wal
from rakit.multiraft.store.tail import Cut, Lost
from rakit.multiraft.store.wal import Flaw, Survey
from rakit.multiraft.store.witness import Witness


def log_of(payloads: list[bytes]) -> tuple[bytes, list[int]]:
    """A log with these writes, by the format's description, and where each of them ends."""
    data = bytearray()
    ends: list[int] = []
    for payload in payloads:
        rest, first = payload, True
        while first or rest:
            room = wal.BLOCK_BYTES - len(data) % wal.BLOCK_BYTES
            if room < wal.HEADER_BYTES:
                data += bytes(room)
                continue
            piece, rest = rest[: room - wal.HEADER_BYTES], rest[room - wal.HEADER_BYTES :]
            kind = (1 if not rest else 2) if first else (4 if not rest else 3)
            data += wal.masked_crc(kind, piece).to_bytes(4, "little")
            data += len(piece).to_bytes(2, "little") + bytes([kind]) + piece
            first = False
        ends.append(len(data))
    return bytes(data), ends


@pytest.fixture
def payloads() -> list[bytes]:
    """Small and large writes, some ending so that a block's trailer follows."""
    rng = random.Random(3)
    sizes = [100, 0, 32_500, 40_000, 5, 100_000, 1, 32_754, 200, 65_000, 300]
    return [rng.randbytes(size) for size in sizes]


def survey_of(path: Path, data: bytes, start: int = 0) -> Survey:
    path.write_bytes(data)
    return wal.survey(path, start)


def test_a_whole_log_is_whole_from_any_write_on(tmp_path: Path, payloads: list[bytes]) -> None:
    data, ends = log_of(payloads)
    for start in [0, *ends]:
        assert survey_of(tmp_path / "w", data, start) == Survey(len(data), len(data), Flaw.NONE)


def test_a_log_cut_anywhere_is_torn_or_ends_at_a_write(
    tmp_path: Path, payloads: list[bytes]
) -> None:
    data, ends = log_of(payloads)
    rng = random.Random(5)
    for length in [*ends, *(end - 1 for end in ends), *rng.sample(range(1, len(data)), 100)]:
        found = survey_of(tmp_path / "w", data[:length])
        valid = max((end for end in ends if end <= length), default=0)
        assert found.valid_length == valid
        trailer = not any(data[valid:length])
        if length == valid:
            assert found.flaw is Flaw.NONE
        elif not trailer:
            assert found.flaw is Flaw.TORN, "a cut adds no wrong byte"


def test_a_flipped_bit_anywhere_is_found_where_it_is(tmp_path: Path, payloads: list[bytes]) -> None:
    data, ends = log_of(payloads)
    rng = random.Random(6)
    torn = 0
    for at in rng.sample(range(len(data)), 200):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        found = survey_of(tmp_path / "w", bytes(changed))
        assert found.flaw is not Flaw.NONE
        torn += found.flaw is Flaw.TORN
        assert found.valid_length == max((end for end in ends if end <= at), default=0)
    assert torn <= 2, "only a length in the last block can pass for a tear"


@pytest.mark.parametrize("count", [1, 6, 7, 8, 5000, 70_000])
def test_zeros_at_the_end_are_damage(tmp_path: Path, payloads: list[bytes], count: int) -> None:
    data, _ = log_of(payloads)
    found = survey_of(tmp_path / "w", data + bytes(count))
    assert found == Survey(len(data), len(data) + count, Flaw.DAMAGED)


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    assert survey_of(tmp_path / "w", b"") == Survey(0, 0, Flaw.NONE)


WHOLE = Survey(1000, 1000, Flaw.NONE)
TORN = Survey(900, 1000, Flaw.TORN)
DAMAGED = Survey(500, 1000, Flaw.DAMAGED)


@pytest.mark.parametrize(
    ("surveys", "verdict"),
    [
        ([], None),
        ([(4, WHOLE), (5, WHOLE)], None),
        ([(4, WHOLE), (5, TORN)], None),
        ([(4, WHOLE), (5, DAMAGED)], Cut(5, 500, ())),
        ([(4, TORN), (5, WHOLE)], Cut(4, 900, (5,))),
        ([(4, DAMAGED), (5, TORN), (6, WHOLE)], Cut(4, 500, (5, 6))),
    ],
)
def test_s8_the_first_flaw_decides(surveys: list[tuple[int, Survey]], verdict: Cut | None) -> None:
    assert tail.decide(surveys) == verdict


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "db").mkdir()
    return tmp_path / "db"


def test_s7_a_wal_shorter_than_the_witness_saw_is_loss(database: Path) -> None:
    data, ends = log_of([b"x" * 100] * 5)
    (database / "000004.log").write_bytes(data[: ends[2]])
    assert tail.inspect(database, Witness(4, 4, ends[3])) == Lost(
        f"000004.log has {ends[2]} bytes; {ends[3]} were durable"
    )


def test_s8_only_what_lies_after_the_witness_is_looked_at(database: Path) -> None:
    data, ends = log_of([b"x" * 100] * 5)
    damaged = bytearray(data)
    damaged[20] ^= 1
    (database / "000003.log").write_bytes(b"garbage")
    (database / "000004.log").write_bytes(damaged)
    assert tail.inspect(database, Witness(4, 4, ends[3])) is None, "RocksDB judges the rest"
    assert tail.inspect(database, Witness(1, 4, 0)) == Cut(4, 0, ())


def test_s8_a_cut_that_was_interrupted_is_found_again(database: Path) -> None:
    data, ends = log_of([b"x" * 100] * 5)
    (database / "000004.log").write_bytes(data[: ends[3]] + bytes(50))
    (database / "000005.log").write_bytes(data)
    (database / "000006.log").write_bytes(data[: ends[2]])
    aside = database.parent / "cut"
    witness = Witness(1, 4, ends[0])
    planned = tail.inspect(database, witness)
    assert planned == Cut(4, ends[3], (5, 6))

    tail.apply(Cut(6, 0, ()), database, aside)  # as if it had stopped after the newest
    (database / "000006.log").unlink()
    again = tail.inspect(database, witness)
    assert isinstance(again, Cut)
    assert again == Cut(4, ends[3], (5,))
    tail.apply(again, database, aside)
    assert tail.inspect(database, witness) is None
    assert [path.name for path in database.iterdir()] == ["000004.log"]
    assert (database / "000004.log").read_bytes() == data[: ends[3]]
    assert (aside / "000005.log@0.pending").read_bytes() == data
    assert tail.pending(aside, "uuid") is not None
    tail.settle(aside)
    assert tail.pending(aside, "uuid") is None
