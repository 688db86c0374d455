"""The store over its life: numbering, reopening, poison, stalls."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from rakit.multiraft import keys, pages
from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.quarantine import is_for_good
from rakit.multiraft.store import (
    LossKind,
    RocksStore,
    StoreConfig,
    StoreFailedError,
    WriteStalledError,
)
from rakit.multiraft.store.witness import WitnessFile
from tests.multiraft.store.conformance import key
from tests.multiraft.store.support import (
    DEAD_DISK,
    FULL_DISK,
    NODE,
    STALL,
    ended,
    entries,
    entries_in,
    open_breakable,
    open_store,
    write_patiently,
    write_some,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RocksStore]:
    store = open_store(tmp_path / "n1")
    yield store
    store.close()


def test_writes_are_numbered_without_a_gap_across_restarts(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = store.write(entries(1, b"a"))
    assert store.write(entries(2, b"b")) == first + 1
    assert store.write(WriteBatch()) == first + 2, "an empty batch is a write like any other"
    store.close()

    again = open_store(tmp_path)
    assert again.last_number == first + 4, "closing writes once, and opening, to prove that it can"
    assert again.synced_counter == again.last_number
    assert entries_in(again) == [1, 2]
    assert again.loss.kind is LossKind.NONE
    again.close()


def test_a_flush_covers_what_was_written_before_it(store: RocksStore) -> None:
    last = write_some(store, 5)
    assert store.synced_counter < last
    assert store.flush_wal() == last
    assert store.synced_counter == last


def test_a_closed_store_can_be_closed_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.close()
    store.close()


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o755)
    for name in ("old", "new"):
        store = open_store(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
        store.close()


def test_s12_a_stall_is_retryable_and_nothing_of_the_batch_was_written(tmp_path: Path) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    before = store.last_number
    batch = entries(1, b"a")
    database.texts["write"] = STALL
    with pytest.raises(WriteStalledError):
        store.write(batch)
    assert store.last_number == before
    assert store.get(key(1)) is None

    del database.texts["write"]
    assert store.write(batch) == before + 1, "the identical batch, under the same number"
    assert store.get(key(1)) == b"a"
    assert store.failed is None
    store.close()


def test_s12_a_real_stall_of_rocksdb_comes_and_goes(tmp_path: Path) -> None:
    """Two tiny memtables: the writer outruns the flushes, is told so, and gets through."""
    config = StoreConfig(
        directory=tmp_path, write_buffer_bytes=64 << 10, write_buffer_count=2, reserve_bytes=0
    )
    store = RocksStore.open(config, NODE)
    batches = [entries(number, bytes(20_000)) for number in range(200)]
    stalls = 0
    while batches:
        try:
            store.write(batches[0])
        except WriteStalledError:
            stalls += 1
        else:
            batches.pop(0)
    assert stalls > 0, "the test did not reach what it is about"
    assert entries_in(store) == list(range(200))
    store.close()


@pytest.mark.parametrize("call", ["write", "flush_wal"])
@pytest.mark.parametrize(
    ("text", "exit_code"), [(DEAD_DISK, 11), (FULL_DISK, 10), ("Corruption: block", 11)]
)
def test_s12_any_other_error_poisons_the_store(
    tmp_path: Path, call: str, text: str, exit_code: int
) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    store.write(entries(1, b"before"))
    database.texts[call] = text
    if call == "flush_wal":
        store.write(entries(2, b"x"))
    calls = {"write": lambda: store.write(entries(2, b"x")), "flush_wal": store.flush_wal}
    with pytest.raises(StoreFailedError) as failure:
        calls[call]()
    assert failure.value.exit_code == exit_code
    assert failure.value.disk_full is (exit_code == 10)

    database.texts.clear()  # the disk is well again, but nobody knows what it has lost
    database.calls.clear()
    with pytest.raises(StoreFailedError):
        store.write(entries(3, b"x"))
    with pytest.raises(StoreFailedError):
        store.flush_wal()
    assert "write" not in database.calls, "a poisoned store does not touch the disk"
    assert "flush_wal" not in database.calls, "an fsync that failed is never tried again"
    assert store.get(key(1)) == b"before", "reads go on, for the sake of a goodbye"
    store.close()


def test_a_poisoned_store_is_left_as_it_is(tmp_path: Path) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    database.texts.update(write=DEAD_DISK, close=DEAD_DISK)
    with pytest.raises(StoreFailedError):
        store.write(entries(1, b"x"))
    ended(store)
    assert "close" not in database.calls
    open_store(tmp_path).close()  # the directory was let go of


def test_a_read_that_fails_raises_and_does_not_pass_for_an_end(tmp_path: Path) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    write_some(store, 3)
    database.texts.update(get="Corruption: x", chunk=DEAD_DISK, last_below=DEAD_DISK)
    with pytest.raises(StoreCorruptError):
        store.get(key(1))
    with pytest.raises(StoreCorruptError):
        list(store.scan(key(0), key(9)))
    with pytest.raises(StoreCorruptError):
        store.last_below(key(0), key(9))
    store.close()


@pytest.mark.parametrize(
    ("text", "damaged"),
    [
        ("Corruption: block checksum mismatch", True),
        ("IO error: While open a file for random read: 7.sst: Too many open files", False),
        (DEAD_DISK, False),
    ],
    ids=["damage", "no file handle", "IO error"],
)
def test_s9_only_what_rocksdb_calls_corruption_is_told_as_damage(
    tmp_path: Path, text: str, damaged: bool
) -> None:
    store, database = open_breakable(StoreConfig.small(tmp_path))
    write_some(store, 3)
    database.texts.update(get=text, chunk=text, last_below=text)
    reads: list[Callable[[], object]] = [
        lambda: store.get(key(1)),
        lambda: list(store.scan(key(0), key(9))),
        lambda: store.last_below(key(0), key(9)),
    ]
    for read in reads:
        with pytest.raises(StoreCorruptError) as caught:
            read()
        assert isinstance(caught.value, StoreUnreadableError) is not damaged
        assert is_for_good(caught.value) is damaged
    database.texts.clear()
    assert store.get(key(1)) is not None
    store.close()


def three_tables(directory: Path, damaged: Collection[int]) -> RocksStore:
    """Rows 10 to 18, a block each and three to a table; some cannot be read any more.

    Each table has a row before and one behind them all, so that every row lies within its bounds.
    """
    # Nothing is compacted: that would meet the damage.
    config = StoreConfig(directory=directory, write_buffer_bytes=1 << 20, reserve_bytes=32 << 20)
    for table in range(3):
        store = RocksStore.open(config, NODE)
        for number in (table, *range(10 + 3 * table, 13 + 3 * table), 100 + table):
            store.write(entries(number, bytes([65 + number]) * 20_000))
        store.close()
    for path in (directory / "db").glob("*.sst"):
        data = bytearray(path.read_bytes())
        for number in damaged:
            if (at := data.find(bytes([65 + number]) * 20_000)) >= 0:
                data[at] ^= 1
        path.write_bytes(data)
    return RocksStore.open(config, NODE)


def test_a_look_for_a_key_reads_no_block_of_another_table(tmp_path: Path) -> None:
    """The last block of an older table and the first one of a newer table stand beside it."""
    store = three_tables(tmp_path, {10, 11, 12, 16, 17, 18})
    for number in (13, 14, 15):
        assert store.get(key(number)) == bytes([65 + number]) * 20_000
    with pytest.raises(StoreCorruptError):
        store.get(key(12))
    store.close()


def test_large_values_that_are_read_in_a_row_are_not_cached(tmp_path: Path) -> None:
    """What is read a second time comes from the disk, and is damaged there by then."""
    config = StoreConfig(directory=tmp_path, reserve_bytes=32 << 20, apart_bytes_min=1 << 20)
    store = RocksStore.open(config, NODE)
    for number in range(1, 4):
        store.write(entries(number, bytes([65 + number]) * (300 << 10)))
    store.close()
    store = RocksStore.open(config, NODE)
    for _ in range(2):
        for number in range(1, 4):
            assert store.get(key(number)) == bytes([65 + number]) * (300 << 10)
    for path in (tmp_path / "db").glob("*.sst"):
        data = bytearray(path.read_bytes())
        for number in range(1, 4):
            data[data.find(bytes([65 + number]) * 1000)] ^= 1
        path.write_bytes(data)
    assert store.get(key(1)) is not None, "it was the first of the row, when nobody knew"
    with pytest.raises(StoreCorruptError):
        store.get(key(2))
    store.close()


def test_a_walk_reads_no_table_before_its_turn(tmp_path: Path) -> None:
    store = three_tables(tmp_path, {13, 16})
    walk = store.scan(key(10), key(19))
    assert [next(walk)[0] for _ in range(3)] == [key(10), key(11), key(12)]
    with pytest.raises(StoreCorruptError):
        next(walk)
    store.close()


def test_a_look_behind_a_group_reads_no_block_of_it(tmp_path: Path) -> None:
    """A start looks there once for each group: a block of each table would be much of the store."""
    config = StoreConfig(directory=tmp_path, write_buffer_bytes=1 << 20, reserve_bytes=32 << 20)
    store = RocksStore.open(config, NODE)
    batch = WriteBatch()
    for group_id in (1, 2):
        batch.put(keys.entry(group_id, 10), bytes([group_id]) * 20_000)
    store.write(batch)
    store.close()
    (table,) = [
        path for path in (tmp_path / "db").glob("*.sst") if b"\1" * 20_000 in path.read_bytes()
    ]
    table.write_bytes(table.read_bytes().replace(b"\1" * 20_000, b"\1" * 19_999 + b"\0"))

    store = RocksStore.open(config, NODE)
    assert store.get(keys.entry(1, 11)) is None
    assert list(store.scan(keys.entry(1, 11), keys.entry(2, 0))) == []
    ((found, _),) = store.scan(*keys.group_range(keys.ENTRY, 2))
    assert found == keys.entry(2, 10)
    with pytest.raises(StoreCorruptError):
        store.get(keys.entry(1, 10))
    store.close()


def test_the_size_on_disk_grows_with_what_is_written(store: RocksStore) -> None:
    before = store.size_bytes
    write_some(store, 20, value=bytes(10_000))
    store.flush_wal()
    assert store.size_bytes >= before + 200_000
    assert store.free_bytes > 0


def test_without_fsync_nothing_claims_to_be_durable(tmp_path: Path) -> None:
    store = RocksStore.open(StoreConfig.small(tmp_path, fsync=False), NODE)
    assert not store.fsynced
    last = write_some(store, 3)
    witness = WitnessFile.load(tmp_path / "witness").current
    assert store.flush_wal() == last, "acknowledged, as the flag says"
    store.save_witness(store.position())
    assert WitnessFile.load(tmp_path / "witness").current == witness, (
        "no witness of what is not durable"
    )
    store.close()


def test_writing_large_batches_of_many_sizes_keeps_no_memory_of_python(store: RocksStore) -> None:
    value = bytes(1 << 20)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for size in range(128 << 10, 1 << 20, 64 << 10):
            write_patiently(store, entries(1, value[:size]))
            store.flush_wal()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < len(value) + (128 << 10), "the last value, and little for each size"
    assert pages.kept_bytes() <= pages.KEPT_BYTES_MAX
