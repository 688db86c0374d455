"""Room comes back for what was deleted, without a single write more (S12)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig
from rakit.multiraft.store import reclaim as reclaims
from rakit.multiraft.store.engine import Operation, RocksEngine
from rakit.multiraft.store.reclaim import Reclaimer
from rakit.multiraft.store.space import Space
from tests.multiraft.store.support import NODE, wait_until, write_patiently


class SpySpace(Space):
    """Tight or not, as the test says."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(StoreConfig.small(tmp_path), tmp_path / "ballast")
        self.is_tight = False

    @property
    def tight(self) -> bool:
        return self.is_tight


class SpyEngine(RocksEngine):
    """Notes what is compacted, and takes as long as the test wants."""

    def __init__(self) -> None:
        self.compacted: list[tuple[bytes, bytes]] = []
        self.begun = Event()
        self.go = Event()
        self.go.set()

    def compact(self, lo: bytes, hi: bytes) -> None:
        self.begun.set()
        assert self.go.wait(20), "the test never let the compaction go on"
        self.compacted.append((lo, hi))


def deletion(group: int, lo: int, hi: int) -> Sequence[Operation]:
    batch = WriteBatch()
    batch.delete_range(keys.entry(group, lo), keys.entry(group, hi))
    return batch.ops


@pytest.fixture
def space(tmp_path: Path) -> SpySpace:
    return SpySpace(tmp_path)


@pytest.fixture
def engine() -> SpyEngine:
    return SpyEngine()


@pytest.fixture
def reclaimer(engine: SpyEngine, space: SpySpace) -> Reclaimer:
    return Reclaimer(engine, space, compacts=True)


def test_nothing_is_compacted_while_there_is_room(
    reclaimer: Reclaimer, engine: SpyEngine, space: SpySpace
) -> None:
    engine.go.clear()
    reclaimer.note(deletion(7, 1, 10))
    reclaimer.consider()
    assert all(thread.name != "rakit-reclaim" for thread in threading.enumerate())
    space.is_tight = True
    reclaimer.consider()
    engine.go.set()
    wait_until(lambda: bool(engine.compacted))
    assert reclaimer.close()


def test_the_ranges_of_a_group_are_joined_and_each_is_compacted_once(
    reclaimer: Reclaimer, engine: SpyEngine, space: SpySpace
) -> None:
    space.is_tight = True
    for group, lo, hi in [(7, 5, 10), (7, 1, 5), (9, 1, 2)]:
        reclaimer.note(deletion(group, lo, hi))
    reclaimer.consider()
    wait_until(lambda: len(engine.compacted) == 2)
    assert engine.compacted == [
        (keys.entry(7, 1), keys.entry(7, 10)),
        (keys.entry(9, 1), keys.entry(9, 2)),
    ]
    wait_until(reclaimer.close)
    reclaimer.consider()
    assert len(engine.compacted) == 2


def test_rows_that_are_not_entries_are_left_to_ordinary_compaction(
    reclaimer: Reclaimer, engine: SpyEngine, space: SpySpace
) -> None:
    space.is_tight = True
    batch = WriteBatch()
    batch.delete_range(keys.position(7, 0), keys.position(7, 9))
    batch.put(keys.entry(7, 1), b"")
    reclaimer.note(batch.ops)
    reclaimer.consider()
    assert reclaimer.close()
    assert engine.compacted == []


def test_too_many_groups_become_one_range(
    reclaimer: Reclaimer, engine: SpyEngine, space: SpySpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaims, "RANGE_COUNT_MAX", 3)
    space.is_tight = True
    for group in range(1, 20):
        reclaimer.note(deletion(group, 1, 10))
    reclaimer.consider()
    wait_until(lambda: bool(engine.compacted))
    assert engine.compacted == [keys.prefix_range(keys.ENTRY)]
    assert reclaimer.close()


def test_a_compaction_that_will_not_end_does_not_hold_up_the_stop(
    reclaimer: Reclaimer, engine: SpyEngine, space: SpySpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaims, "_CLOSE_WAIT_SECONDS", 0.05)
    space.is_tight = True
    engine.go.clear()
    reclaimer.note(deletion(7, 1, 10))
    reclaimer.note(deletion(9, 1, 10))
    reclaimer.consider()
    assert engine.begun.wait(20)
    assert not reclaimer.close()
    engine.go.set()
    wait_until(reclaimer.close)
    assert len(engine.compacted) == 1, "the next range is not begun any more"


def table_bytes(directory: Path) -> int:
    """Bytes of all tables; a compaction may delete some while they are counted."""
    total = 0
    for each in directory.glob("*.sst"):
        with suppress(FileNotFoundError):
            total += each.stat().st_size
    return total


def test_s12_deleting_a_group_on_a_tight_disk_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RocksStore.open(StoreConfig.small(tmp_path), NODE)
    for index in range(600):
        batch = WriteBatch()
        batch.put(keys.entry(7, index), bytes(3500))
        write_patiently(store, batch)
    # Tables of any number: a busy machine flushes several buffers into one.
    wait_until(lambda: table_bytes(tmp_path / "db") >= 1_000_000)
    store.flush_wal()
    full = store.size_bytes
    batch = WriteBatch()
    batch.delete_range(keys.entry(7, 0), keys.group_range(keys.ENTRY, 7)[1])
    store.write(batch)
    store.maintain()
    assert store.size_bytes > full // 2, "a power cut may take the deletion back"

    monkeypatch.setattr(Space, "tight", True)
    store.flush_wal()
    store.save_witness(store.position())
    for _ in range(30):  # what died, and the current segment, which is ended for it
        store.maintain()
        store.upkeep()

    def is_small() -> bool:
        store.maintain()
        return store.size_bytes < full // 4

    wait_until(is_small)
    store.close()
