"""The binding's traps, shown on the binding itself.

Each is why ``engine`` does what it does. A release that mends one turns its test red: then the
rule can be looked at again. That the engine keeps clear of them is shown by the conformance and
damage tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict, ReadOptions, WriteBatch


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Rdict]:
    database = Rdict(str(tmp_path / "db"), Options(raw_mode=True))
    for number in range(10):
        database[bytes([number])] = b"v"
    yield database
    database.close()


def test_trap_the_lower_bound_sets_the_upper_one(database: Rdict) -> None:
    bounds: Any = ReadOptions()
    bounds.set_iterate_lower_bound(bytes([3]))
    assert list(database.keys(read_opt=bounds)) == [bytes([0]), bytes([1]), bytes([2])]


def test_trap_keys_end_silently_at_a_damaged_block_and_only_status_tells(tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    database = Rdict(str(path), Options(raw_mode=True))
    for number in range(5000):
        database[number.to_bytes(8, "big")] = bytes(200)
    database.close()
    table = next(path.glob("*.sst"))
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 4
    table.write_bytes(data)

    database = Rdict(str(path), Options(raw_mode=True))
    assert len(list(database.keys())) < 5000
    walk = database.iter()
    walk.seek_to_first()
    while walk.valid():
        walk.next()
    with pytest.raises(Exception, match="Corruption"):
        walk.status()
    del walk
    database.close()


def test_trap_a_batch_is_consumed_by_its_write(database: Rdict) -> None:
    """Hence our own batches, which a stall does not eat (S12)."""
    batch = WriteBatch(raw_mode=True)
    batch.put(b"k", b"v")
    database.write(batch)
    with pytest.raises(Exception, match="consumed"):
        database.write(batch)


def test_trap_without_raw_mode_values_are_pickled(tmp_path: Path) -> None:
    path = str(tmp_path / "pickles")
    database = Rdict(path)
    database["k"] = ["v"]
    database.close()
    raw = Rdict(path, Options(raw_mode=True))
    (value,) = list(raw.values())
    assert b"\x80" in value, "the mark of a pickle"
    raw.close()


def test_trap_a_database_stays_open_while_an_iterator_lives(tmp_path: Path) -> None:
    """Hence no iterator outlives the call that made it."""
    path = str(tmp_path / "db")
    database = Rdict(path, Options(raw_mode=True))
    database[b"k"] = b"v"
    walk = database.iter()
    database.close()
    with pytest.raises(Exception, match="lock"):
        Rdict(path, Options(raw_mode=True))
    del walk
    Rdict(path, Options(raw_mode=True)).close()
