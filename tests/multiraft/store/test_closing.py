"""Closing a store waits for a healthy disk, and for no other (S13)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rakit.multiraft.store import StoreConfig, StoreFailedError, close_in_time
from tests.multiraft.store.support import (
    DEAD_DISK,
    entries_in,
    open_breakable,
    open_store,
    wait_until,
    write_some,
)


async def test_a_healthy_store_is_closed_with_all_that_was_written(tmp_path: Path) -> None:
    store, _ = open_breakable(StoreConfig.small(tmp_path / "n1"))
    write_some(store, 3)
    assert await close_in_time(store, 20)
    store = open_store(tmp_path / "n1")
    assert len(entries_in(store)) == 3
    store.close()


async def test_s13_a_disk_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    store, engine = open_breakable(StoreConfig.small(tmp_path / "n1"))
    write_some(store, 1)
    engine.flush_gate.clear()
    assert not await close_in_time(store, 0.1)
    assert engine.flush_begun.is_set()
    engine.flush_gate.set()
    wait_until(lambda: all(each.name != "rakit-close" for each in threading.enumerate()))


async def test_s12_what_closing_meets_is_raised_where_it_is_waited_for(tmp_path: Path) -> None:
    store, engine = open_breakable(StoreConfig.small(tmp_path / "n1"))
    engine.texts["flush_wal"] = DEAD_DISK
    write_some(store, 1)
    with pytest.raises(StoreFailedError):
        await close_in_time(store, 20)
    engine.real.close()
