"""Real disks that lose power, die, or fill up under a running store (S7, S12)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.store import (
    LossKind,
    RocksStore,
    StoreConfig,
    StoreFailedError,
    WriteStalledError,
)
from rakit.multiraft.store.ahead import Ahead, replay
from rakit.multiraft.store.apart import Values
from rakit.multiraft.store.directory import live_wals
from tests.multiraft.store.conformance import key
from tests.multiraft.store.loop import LoopDisk, require_disks
from tests.multiraft.store.support import NODE, ended, entries, entries_in, open_store, write_some

pytestmark = pytest.mark.damage


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    require_disks()
    with LoopDisk(tmp_path, mebibytes=64) as disk:
        yield disk


def test_a_power_cut_takes_nothing_from_a_log_that_was_synced(disk: LoopDisk) -> None:
    database = disk.mount_point / "db"
    database.mkdir()
    values = Values(database, bytes_min=1 << 20, direct_io=False, fsync=True)
    log = Ahead(database, values, 0, file_bytes_max=1000, waiting_bytes_max=1 << 20, fsync=True)
    for number in range(1, 21):
        log.append(log.encode(number, [(Op.PUT, b"key", bytes(300))], {}))
        log.sync()
    assert len(live_wals(database)) > 3
    disk.shut_down()
    log.close()
    disk.power_cycle()
    assert [frame.number for frame, _ in replay(database, 0)] == list(range(1, 21))


@pytest.mark.parametrize("size", [300, 5000])
def test_without_fsync_a_power_cut_loses_writes_and_not_the_store(
    disk: LoopDisk, size: int
) -> None:
    config = StoreConfig.small(disk.mount_point / NODE, fsync=False)
    store = RocksStore.open(config, NODE)
    store.close()
    for _ in range(2):
        store = RocksStore.open(config, NODE)
        write_some(store, 30, value=bytes(size))
        store.flush_wal()
        store.save_witness(store.position())
        disk.shut_down()
        with pytest.raises(StoreFailedError):
            ended(store)
        disk.power_cycle()
    store = RocksStore.open(config, NODE)
    assert entries_in(store) == []
    store.close()


def _cut_under_unsynced_writes(
    disk: LoopDisk, config: StoreConfig, size: int = 300
) -> tuple[list[int], LossKind]:
    """150 writes are synced, 50 more are not; returns what a start after the cut finds."""
    store = RocksStore.open(config, NODE)
    write_some(store, 100, value=bytes(size))
    store.flush_wal()
    store.save_witness(store.position())
    write_some(store, 50, start=100, value=bytes(size))
    store.flush_wal()
    write_some(store, 50, start=150, value=bytes(size))
    disk.shut_down()
    with pytest.raises(StoreFailedError):
        store.flush_wal()
    ended(store)
    disk.power_cycle()

    store = RocksStore.open(config, NODE)
    found, loss = entries_in(store), store.loss.kind
    store.close()
    return found, loss


@pytest.mark.parametrize("size", [300, 5000])
def test_a_power_cut_keeps_what_was_synced_and_nothing_claims_more(
    disk: LoopDisk, size: int
) -> None:
    """One memtable holds it all, so that nothing but the log can bring anything back."""
    config = replace(StoreConfig.small(disk.mount_point / NODE), write_buffer_bytes=256 << 10)
    found, loss = _cut_under_unsynced_writes(disk, config, size)
    assert found == list(range(150)), "all that was synced, and no more"
    # Now and then the file has its new length and zeros in place of the data (S8).
    assert loss in (LossKind.NONE, LossKind.DAMAGED_TAIL_AFTER_WITNESS)


def test_a_power_cut_leaves_no_gap_where_a_memtable_was_flushed(disk: LoopDisk) -> None:
    """The memtable that is full at 172 writes is on its way to a table when the power goes.

    A table that was finished is durable without any sync of the log: what it holds beyond the
    synced writes comes back, and nothing that was written after it does.
    """
    config = StoreConfig.small(disk.mount_point / NODE)
    found, loss = _cut_under_unsynced_writes(disk, config)
    assert found == list(range(len(found))), "a prefix of what was written"
    assert 150 <= len(found) < 200, "all that was synced, and no unsynced write of the last log"
    assert loss in (LossKind.NONE, LossKind.DAMAGED_TAIL_AFTER_WITNESS)


def test_s12_a_dying_disk_poisons_the_store(disk: LoopDisk) -> None:
    store = open_store(disk.mount_point / NODE)
    write_some(store, 10)
    store.flush_wal()
    disk.shut_down()
    store.write(entries(10, b"x"))
    with pytest.raises(StoreFailedError) as failure:
        store.flush_wal()
    assert failure.value.exit_code == 11
    with pytest.raises(StoreFailedError):
        store.write(entries(11, b"x"))
    assert entries_in(store) == list(range(11)), "reads go on"
    store.close()


def test_s12_a_witness_on_a_dead_disk_poisons_the_store(disk: LoopDisk) -> None:
    store = open_store(disk.mount_point / NODE)
    write_some(store, 10)
    store.flush_wal()
    disk.shut_down()
    with pytest.raises(StoreFailedError):
        store.save_witness(store.position())
    assert store.failed is not None
    store.close()


def fill_up(store: RocksStore) -> tuple[list[int], StoreFailedError]:
    """Write and sync until the disk is full; returns what was acknowledged."""
    acknowledged: list[int] = []
    number = 0
    while True:
        batch = WriteBatch()
        batch.put(key(number), bytes([number % 251]) * 500_000)
        try:
            store.write(batch)
            store.flush_wal()
        except WriteStalledError:
            continue
        except StoreFailedError as failure:
            return acknowledged, failure
        acknowledged.append(number)
        number += 1


def take_the_rest(disk: LoopDisk) -> None:
    """Somebody else fills the disk to the last block: not even the log could be replayed."""
    other = os.open(disk.mount_point / "other", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left on device"):
        _write_for_ever(other)
    os.close(other)


def _write_for_ever(descriptor: int) -> None:
    while os.write(descriptor, bytes(4096)):
        pass


def test_s12_a_full_disk_ends_with_10_and_opens_again_on_its_ballast(disk: LoopDisk) -> None:
    """A failed flush on a full disk has corrupted other stores, though not each time."""
    config = replace(
        StoreConfig.small(disk.mount_point / NODE),
        write_buffer_bytes=2 << 20,
        reserve_bytes=30 << 20,
    )
    store = RocksStore.open(config, NODE)
    assert not store.low_space
    acknowledged, failure = fill_up(store)
    assert failure.exit_code == 10
    assert failure.disk_full
    ended(store)
    take_the_rest(disk)

    store = RocksStore.open(config, NODE)
    assert store.low_space, "produce is to be refused"
    assert not (config.directory / "ballast").exists(), "it was needed to replay the log"
    assert set(entries_in(store)) >= set(acknowledged)
    batch = WriteBatch()
    batch.delete_range(key(0), key(2**32))
    store.write(batch)
    store.flush_wal()
    assert entries_in(store) == []
    store.close()
