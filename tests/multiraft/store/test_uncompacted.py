"""A block that cannot be read ends a store once, and not at every start (S9, S12)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    StoreDamagedError,
    StoreFailedError,
    uncompacted,
)
from rakit.multiraft.store.engine import Engine
from rakit.multiraft.store.errors import Fault
from tests.multiraft.store.support import (
    BAD_SECTOR,
    DEAD_DISK,
    NODE,
    FailingEngine,
    ended,
    open_breakable,
    open_store,
    write_patiently,
)

pytestmark = pytest.mark.damage

#: Of random values: more than there are between one compaction and the next.
MANY = 600
#: More than a block of a table.
VALUE_BYTES = 20_000


def key(number: int) -> bytes:
    """Of a row in the family whose tables are rewritten."""
    return keys.local(number.to_bytes(8, "big"))


def entries(number: int, value: bytes) -> WriteBatch:
    batch = WriteBatch()
    batch.put(key(number), value)
    return batch


def write_some(store: RocksStore, count: int, *, value: bytes, start: int = 0) -> None:
    for each in range(start, start + count):
        write_patiently(store, entries(each, value))


def damaged(directory: Path) -> bytes:
    """A closed store with a table of which one block is damaged; returns what was in the block."""
    store = open_store(directory)
    values = [random.Random(number).randbytes(VALUE_BYTES) for number in range(3)]
    for number, value in enumerate(values):
        store.write(entries(number, value))
    store.close()
    path = next(each for each in (directory / "db").glob("*.sst") if values[1] in each.read_bytes())
    data = bytearray(path.read_bytes())
    data[data.find(values[1])] ^= 4
    path.write_bytes(data)
    return values[1]


def write_until_it_fails(store: RocksStore) -> StoreFailedError:
    with pytest.raises(StoreFailedError) as failure:
        write_and_sync(store)
    return failure.value


def end_by_the_block(directory: Path) -> None:
    refused: StoreDamagedError | None = None
    try:
        store = open_store(directory)
    except StoreDamagedError as error:
        refused = error
    else:
        write_until_it_fails(store)
        ended(store)
    assert refused is None or not refused.is_lost, "the log is well, and all but a block"


def write_and_sync(store: RocksStore) -> None:
    for number in range(100, 100 + MANY):
        write_some(store, 1, value=random.Random(number).randbytes(5000), start=number)
        store.flush_wal()


def test_s9_a_damaged_block_ends_a_store_once_and_not_at_every_start(tmp_path: Path) -> None:
    damaged(tmp_path)
    store = open_store(tmp_path)
    assert not store.uncompacted
    failure = write_until_it_fails(store)
    assert failure.exit_code == 11
    last = store.synced_counter
    ended(store)

    for start in range(1, 3):
        store = open_store(tmp_path)
        assert "Corruption" in store.uncompacted
        assert store.opened_counter >= last, "a failure loses nothing that was synced"
        # More tables than would be compacted otherwise.
        write_some(store, MANY, value=random.Random(7).randbytes(5000), start=1000 * start)
        store.flush_wal()
        assert store.get(key(0)) is not None
        with pytest.raises(StoreCorruptError):
            store.get(key(1))
        assert store.get(key(1000 * start + MANY - 1)) is not None
        last = store.synced_counter
        store.close()


def test_s9_without_the_note_it_would_end_again(tmp_path: Path) -> None:
    """What the test above rests on: compaction meets the block again, perhaps at once."""
    damaged(tmp_path)
    for _ in range(2):
        end_by_the_block(tmp_path)
        assert uncompacted.reason(tmp_path)
        (tmp_path / uncompacted.NAME).unlink()


def test_s9_a_store_that_cannot_make_its_first_write_for_damage_makes_it_at_the_next_start(
    tmp_path: Path,
) -> None:
    open_store(tmp_path).close()

    def opener(path: Path, config: StoreConfig, *, create: bool) -> Engine:
        engine = FailingEngine(path, config, create=create)
        engine.texts["write"] = "Corruption: block checksum"
        return engine

    with pytest.raises(StoreFailedError):
        RocksStore.open(StoreConfig.small(tmp_path), NODE, opener)
    store = open_store(tmp_path)
    assert store.uncompacted == "Corruption: block checksum"
    store.close()


def test_s9_deleted_ranges_of_such_a_store_are_not_compacted_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncompacted.note(tmp_path, Fault.CORRUPTION, "of an earlier start")
    store, database = open_breakable(StoreConfig.small(tmp_path))
    assert not store.uncompacted, "a database that is made anew has nothing of the old one"
    store.close()
    uncompacted.note(tmp_path, Fault.CORRUPTION, "of an earlier start")
    store, database = open_breakable(StoreConfig.small(tmp_path))
    monkeypatch.setattr(type(store._space), "tight", True)  # pyright: ignore[reportPrivateUsage]
    batch = entries(1, b"x")
    batch.delete_range(b"e", b"f")
    batch.delete_range(keys.entry(7, 0), keys.entry(7, 9))
    store.write(batch)
    store.maintain()
    assert "compact" not in database.calls
    store.close()


@pytest.mark.parametrize(
    ("text", "noted"),
    [("Corruption: block checksum", True), (BAD_SECTOR, True), (DEAD_DISK, False)],
)
def test_s9_only_a_table_that_cannot_be_read_leaves_a_note(
    tmp_path: Path, text: str, *, noted: bool
) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    database.texts["write"] = text
    with pytest.raises(StoreFailedError):
        write_patiently(store, entries(1, b"x"))
    store.close()
    assert bool(uncompacted.reason(tmp_path)) is noted


def test_a_disk_that_takes_no_note_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    database.texts["write"] = "Corruption: block checksum"

    def refuse(_path: Path, _data: bytes) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(uncompacted, "write_durably", refuse)
    with pytest.raises(StoreFailedError, match="block checksum"):
        store.write(entries(1, b"x"))
    assert "no note of the table" in caplog.text
    ended(store)
    store = RocksStore.open(StoreConfig.small(tmp_path), NODE)
    assert store.get(key(1)) is None
    assert not store.uncompacted
    store.close()
