"""Reading the write-ahead log: whole, torn, damaged; and what to cut (S8), without a database."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from rakit.multiraft.checksum import crc32c
from rakit.multiraft.store import tail, wal
from rakit.multiraft.store.directory import wal_directory, wal_path
from rakit.multiraft.store.tail import Cut, Lost
from rakit.multiraft.store.wal import Flaw, Operation, Survey
from rakit.multiraft.store.witness import Witness


def log_of(payloads: list[bytes], first: int = 1) -> tuple[bytes, list[int]]:
    """A file with a write of each payload, by the format's description, and where each ends."""
    data = bytearray()
    ends: list[int] = []
    for number, payload in enumerate(payloads, first):
        fields = struct.pack("<IIQQ", crc32c(payload), len(payload), number, number - 1)
        data += struct.pack("<I", crc32c(fields)) + fields + payload
        ends.append(len(data))
    return bytes(data), ends


@pytest.fixture
def payloads() -> list[bytes]:
    """Small and large writes."""
    rng = random.Random(3)
    sizes = [100, 0, 32_500, 40_000, 5, 100_000, 1, 32_754, 200, 65_000, 300]
    return [rng.randbytes(size) for size in sizes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{1:020}.wal"


def survey_of(path: Path, data: bytes, start: int = 0, after: int | None = None) -> Survey:
    path.write_bytes(data)
    return wal.survey(path, start, after)


def test_a_whole_log_is_whole_from_any_write_on(path: Path, payloads: list[bytes]) -> None:
    data, ends = log_of(payloads)
    for count, start in enumerate([0, *ends]):
        for after in (count, None) if count else (None,):
            found = survey_of(path, data, start, after)
            assert found == Survey(len(data), len(data), Flaw.NONE)


def test_what_is_written_is_read_as_it_was(path: Path) -> None:
    rng = random.Random(4)
    written: list[dict[int, list[Operation]]] = []
    data = b""
    for number in range(1, 30):
        families: dict[int, list[Operation]] = {
            family: [
                (rng.randrange(3), rng.randbytes(rng.choice((0, 1, 17, 300))), rng.randbytes(size))
                for size in rng.choices((0, 5, 8191, 8192, 100_000), k=rng.randrange(5))
            ]
            for family in (0, 1, 70_000)
        }
        default = families.pop(0)
        segments = {segment: placed for segment, placed in families.items() if placed}
        written.append({0: default, **segments})
        pieces, size = wal.encode(number, number - 1, default, segments)
        assert size == sum(map(len, pieces))
        data += b"".join(pieces)
    path.write_bytes(data)
    walk = wal.Walk(path)
    for number, (frame, families) in enumerate(zip(walk, written, strict=True), 1):
        assert (frame.number, frame.previous) == (number, number - 1)
        assert wal.decode(frame.payload) == families
    assert walk.survey == Survey(len(data), len(data), Flaw.NONE)


def test_a_log_cut_anywhere_is_torn_or_ends_at_a_write(path: Path, payloads: list[bytes]) -> None:
    data, ends = log_of(payloads)
    rng = random.Random(5)
    for length in [*ends, *(end - 1 for end in ends), *rng.sample(range(1, len(data)), 100)]:
        found = survey_of(path, data[:length])
        valid = max((end for end in ends if end <= length), default=0)
        assert found.valid_length == valid
        wanted = Flaw.NONE if length == valid else Flaw.TORN
        assert found.flaw is wanted, "a cut adds no wrong byte"


def test_a_flipped_bit_anywhere_is_found_where_it_is(path: Path, payloads: list[bytes]) -> None:
    data, ends = log_of(payloads)
    rng = random.Random(6)
    headers = [end + at for end in [0, *ends[:-1]] for at in range(wal.HEADER_BYTES)]
    for at in [*rng.sample(range(len(data)), 200), *headers]:
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        found = survey_of(path, bytes(changed))
        assert found.flaw is Flaw.DAMAGED, "not even a wrong length passes for a tear"
        assert found.valid_length == max((end for end in ends if end <= at), default=0)


@pytest.mark.parametrize("count", [1, 6, 7, 8, 27, 28, 5000, 70_000])
def test_zeros_at_the_end_are_damage(path: Path, payloads: list[bytes], count: int) -> None:
    data, _ = log_of(payloads)
    found = survey_of(path, data + bytes(count))
    assert found == Survey(len(data), len(data) + count, Flaw.DAMAGED)


def test_an_empty_log_is_whole(path: Path) -> None:
    assert survey_of(path, b"") == Survey(0, 0, Flaw.NONE)


def test_a_write_of_another_place_is_damage(path: Path, payloads: list[bytes]) -> None:
    """Each is whole in itself: of before, after a gap, of a file misnamed."""
    data, ends = log_of(payloads)
    before = data[: ends[4]] + data[: ends[0]] + data[ends[4] :]
    assert survey_of(path, before) == Survey(ends[4], len(before), Flaw.DAMAGED)
    gap = data[: ends[4]] + data[ends[5] :]
    assert survey_of(path, gap) == Survey(ends[4], len(gap), Flaw.DAMAGED)
    assert survey_of(path, data, ends[4], 5).flaw is Flaw.NONE
    assert survey_of(path, data, ends[4], 6) == Survey(ends[4], len(data), Flaw.DAMAGED)
    second, _ = log_of(payloads, first=2)
    assert survey_of(path, second) == Survey(0, len(second), Flaw.DAMAGED)


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
    wal_directory(tmp_path / "db").mkdir(parents=True)
    return tmp_path / "db"


def test_s7_a_file_shorter_than_the_witness_saw_is_loss(database: Path) -> None:
    data, ends = log_of([b"x" * 100] * 5, first=4)
    wal_path(database, 4).write_bytes(data[: ends[2]])
    assert tail.inspect(database, Witness(7, 4, ends[3])) == Lost(
        f"{4:020}.wal has {ends[2]} bytes; {ends[3]} were durable"
    )


def test_s8_only_what_lies_after_the_witness_is_looked_at(database: Path) -> None:
    data, ends = log_of([b"x" * 100] * 5, first=4)
    damaged = bytearray(data)
    damaged[20] ^= 1
    wal_path(database, 3).write_bytes(b"garbage")
    wal_path(database, 4).write_bytes(damaged)
    assert tail.inspect(database, Witness(7, 4, ends[3])) is None, "replay judges the rest"
    assert tail.inspect(database, Witness(3, 4, 0)) == Cut(4, 0, ())


def test_s8_a_cut_that_was_interrupted_is_found_again(database: Path) -> None:
    first, ends = log_of([b"x" * 100] * 5, first=4)
    second, _ = log_of([b"x" * 100] * 5, first=9)
    third, ends_of_third = log_of([b"x" * 100] * 5, first=14)
    wal_path(database, 4).write_bytes(first[: ends[3]] + bytes(50))
    wal_path(database, 9).write_bytes(second)
    wal_path(database, 14).write_bytes(third[: ends_of_third[2]])
    aside = database.parent / "cut"
    witness = Witness(4, 4, ends[0])
    planned = tail.inspect(database, witness)
    assert planned == Cut(4, ends[3], (9, 14))

    tail.apply(Cut(14, 0, ()), database, aside)  # as if it had stopped after the newest
    wal_path(database, 14).unlink()
    again = tail.inspect(database, witness)
    assert isinstance(again, Cut)
    assert again == Cut(4, ends[3], (9,))
    tail.apply(again, database, aside)
    assert tail.inspect(database, witness) is None
    assert list(wal_directory(database).iterdir()) == [wal_path(database, 4)]
    assert wal_path(database, 4).read_bytes() == first[: ends[3]]
    assert (aside / f"{9:020}.wal@0.pending").read_bytes() == second
    assert tail.pending(aside, "uuid") is not None
    tail.settle(aside)
    assert tail.pending(aside, "uuid") is None
