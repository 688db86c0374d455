"""Shared by the store's tests: opening, writing, a disk that fails on command, crash images."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig, WriteStalledError
from rakit.multiraft.store.engine import RocksEngine
from tests.multiraft.store.conformance import key

NODE = "n1"
WAIT_SECONDS = 20.0

DEAD_DISK = "IO error: While appending to file: /d/db/000004.log: Input/output error"
FULL_DISK = (
    "IO error: No space left on device: While appending to file: /d/db/000004.log:"
    " No space left on device"
)
STALL = "Result incomplete: Write stall"


def open_store(directory: Path) -> RocksStore:
    return RocksStore.open(StoreConfig.small(directory), NODE)


def entries(number: int, value: bytes) -> WriteBatch:
    batch = WriteBatch()
    batch.put(key(number), value)
    return batch


def write_some(store: RocksStore, count: int, *, value: bytes = bytes(300), start: int = 0) -> int:
    """One entry in each write, unsynced; returns the number of the last write."""
    number = store.last_number
    for each in range(start, start + count):
        number = write_patiently(store, entries(each, value))
    return number


def write_patiently(store: RocksStore, batch: WriteBatch) -> int:
    """What the host does about a stall: the same batch again (S12)."""
    for _ in range(100_000):
        try:
            return store.write(batch)
        except WriteStalledError:
            threading.Event().wait(0.001)  # back-pressure: the disk needs the time, not the test
    raise AssertionError("the store never came out of its stall")


def entries_in(store: RocksStore) -> list[int]:
    return [int.from_bytes(k[1:], "big") for k, _ in store.scan(key(0), key(2**32))]


def crash_image(directory: Path, kind: str) -> None:
    """Let a child process write a store and die by SIGKILL; see ``child``."""
    argv = [sys.executable, "-m", "tests.multiraft.store.child", str(directory), kind]
    died = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert died.returncode == -9, f"the child was to kill itself: {died.stderr}"


def copy_of(image: Path, target: Path) -> Path:
    shutil.copytree(image, target)
    return target


def newest(directory: Path, pattern: str) -> Path:
    return max((directory / "db").glob(pattern))


class FailingRdict:
    """A database that raises what RocksDB would, where and as often as a test asks for."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.texts: dict[str, str] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real: Any = getattr(self._real, name)
        if name not in ("write", "flush_wal", "close", "get", "iter"):
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            if name in self.texts:
                raise Exception(self.texts[name])  # noqa: TRY002 - what the binding raises
            return real(*arguments, **named)

        return call


def break_under(store: RocksStore) -> FailingRdict:
    """Put a failing database under an open store."""
    engine = store._engine
    assert isinstance(engine, RocksEngine)
    failing = FailingRdict(engine._db)
    engine._db = failing  # type: ignore[assignment]  # stands in for the binding's class
    return failing


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to get there."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("the condition never came true")
