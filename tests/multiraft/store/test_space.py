"""Ballast and the low-water mark (S12), on the ordinary file system with room as we please."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft.store import RocksStore, StoreConfig, StoreDamagedError, StoreFullError
from rakit.multiraft.store import space as spaces
from rakit.multiraft.store.engine import Engine, EngineError, RocksEngine
from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.space import Room, Space
from tests.multiraft.store.support import (
    DEAD_DISK,
    FULL_DISK,
    NODE,
    entries_in,
    open_store,
    write_some,
)

DISK = 1 << 30
RESERVE = 320 << 10
BALLAST = RESERVE // 5


class Disk:
    """How much room the file system says it has."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def room(self, path: Path) -> Room:
        del path
        return Room(self.free_bytes, DISK)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(free_bytes=1 << 29)
    monkeypatch.setattr(spaces, "room", disk.room)
    return disk


def config(tmp_path: Path) -> StoreConfig:
    return replace(StoreConfig.small(tmp_path), reserve_bytes=RESERVE)


def test_a_new_store_has_ballast_that_takes_real_room(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= BALLAST
    assert not store.low_space
    store.close()


def test_below_the_mark_space_is_low_until_there_is_a_tenth_more(
    tmp_path: Path, disk: Disk
) -> None:
    """Leaderships go away with it and come back: not at each file that comes or goes."""
    space = Space(config(tmp_path), tmp_path / "ballast")
    space.restore()
    disk.free_bytes = RESERVE
    assert not space.look()
    disk.free_bytes -= 1
    assert space.look()
    disk.free_bytes = RESERVE + RESERVE // 10 - 1
    assert space.look()
    disk.free_bytes += 1
    assert not space.look()
    disk.free_bytes = RESERVE
    assert not space.look()


def test_s13_whether_space_is_low_is_told_without_asking_the_disk(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop asks, and a disk that hangs may not even answer that; whoever flushes looks."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    space = Space(config(tmp_path), tmp_path / "ballast")
    space.restore()
    space.look_if_due()
    disk.free_bytes = 0
    now += 1000
    assert not space.low
    space.look_if_due()
    assert space.low
    disk.free_bytes = 1 << 29
    space.look_if_due()
    assert space.low, "it was looked at a moment ago"
    now += 0.1
    space.look_if_due()
    assert not space.low


def test_without_its_ballast_space_is_low_until_it_is_back(tmp_path: Path, disk: Disk) -> None:
    space = Space(config(tmp_path), tmp_path / "ballast")
    space.restore()
    assert space.release()
    assert space.look()
    assert not space.release(), "there is nothing left to give"

    disk.free_bytes = BALLAST
    space.restore()
    assert space.look(), "putting it back must not fill the disk again"
    disk.free_bytes = 1 << 29
    space.restore()
    assert not space.look()


@pytest.mark.parametrize(
    ("total_bytes", "reserve_bytes"), [(DISK, DISK // 20), (100 << 30, 5 << 30), (1 << 50, 5 << 30)]
)
def test_the_default_reserve_is_a_share_of_the_disk_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total_bytes: int, reserve_bytes: int
) -> None:
    wanted: list[int] = []
    free_bytes = total_bytes

    def allocate(_: int, start: int, size: int) -> None:
        wanted.append(start + size)

    def room(_: Path) -> Room:
        return Room(free_bytes, total_bytes)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    monkeypatch.setattr(spaces, "room", room)
    space = Space(replace(config(tmp_path), reserve_bytes=None), tmp_path / "ballast")
    space.restore()
    assert wanted == [reserve_bytes // 5]
    free_bytes = reserve_bytes
    assert not space.look()
    free_bytes -= 1
    assert space.look()


def test_a_ballast_that_does_not_fit_leaves_nothing_behind(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    space = Space(config(tmp_path), tmp_path / "ballast")
    space.restore()
    assert not (tmp_path / "ballast").exists()
    assert space.look()
    assert disk.free_bytes


def test_without_a_reserve_nothing_is_kept_back(tmp_path: Path, disk: Disk) -> None:
    space = Space(replace(config(tmp_path), reserve_bytes=0), tmp_path / "ballast")
    space.restore()
    disk.free_bytes = 0
    assert not (tmp_path / "ballast").exists()
    assert not space.look()


class FullUntilReleased:
    """An engine that opens only when the ballast is gone."""

    def __init__(self, ballast: Path) -> None:
        self.ballast = ballast
        self.tries = 0

    def __call__(self, path: Path, config: StoreConfig, *, create: bool) -> Engine:
        self.tries += 1
        if self.ballast.exists():
            raise EngineError(Fault.DISK_FULL, FULL_DISK)
        return RocksEngine(path, config, create=create)


def test_s12_a_full_disk_opens_without_the_ballast_and_refuses_produce(
    tmp_path: Path, disk: Disk
) -> None:
    store = RocksStore.open(config(tmp_path), NODE)
    write_some(store, 5)
    store.close()
    disk.free_bytes = 200 << 10  # enough by the look of it, and yet
    opener = FullUntilReleased(tmp_path / "ballast")
    store = RocksStore.open(config(tmp_path), NODE, opener)
    assert opener.tries == 2
    assert entries_in(store) == list(range(5))
    assert store.low_space
    store.maintain()
    assert store.low_space
    disk.free_bytes = 1 << 29
    store.maintain()
    assert not store.low_space
    store.close()


def test_s12_a_disk_with_less_room_than_log_to_replay_gives_the_ballast_up_first(
    tmp_path: Path, disk: Disk
) -> None:
    store = RocksStore.open(config(tmp_path), NODE)
    store.close()
    disk.free_bytes = 1000
    store = RocksStore.open(config(tmp_path), NODE)
    assert store.low_space
    store.close()


class NeverOpens:
    """An engine that fails to open, always."""

    def __init__(self, fault: Fault, text: str) -> None:
        self.error = EngineError(fault, text)

    def __call__(self, path: Path, config: StoreConfig, *, create: bool) -> Engine:
        del path, config, create
        raise self.error


def test_s12_a_disk_too_full_even_without_ballast_ends_with_10(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(StoreFullError) as refused:
        RocksStore.open(StoreConfig.small(tmp_path), NODE, NeverOpens(Fault.DISK_FULL, FULL_DISK))
    assert refused.value.exit_code == 10


def test_another_error_keeps_the_ballast_and_ends_with_11(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(StoreDamagedError) as refused:
        RocksStore.open(StoreConfig.small(tmp_path), NODE, NeverOpens(Fault.OTHER, DEAD_DISK))
    assert refused.value.exit_code == 11
    assert (tmp_path / "ballast").exists()
