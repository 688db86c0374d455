"""Shared by the store's tests: opening, writing, a disk that fails on command, crash images."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig, WriteStalledError
from rakit.multiraft.store.engine import Engine, EngineError, Operation, Pair, RocksEngine
from rakit.multiraft.store.errors import classify
from tests.multiraft.store.conformance import key

NODE = "n1"
WAIT_SECONDS = 20.0

DEAD_DISK = "IO error: While appending to file: /d/db/000004.log: Input/output error"
FULL_DISK = (
    "IO error: No space left on device: While appending to file: /d/db/000004.log:"
    " No space left on device"
)
BAD_SECTOR = "IO error: While pread offset 40960 len 20048: /d/db/000009.sst: Input/output error"
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


def crash_image(directory: Path, kind: str) -> int:
    """Let a child process write a store and die by SIGKILL; see ``child``. Returns its boot."""
    argv = [sys.executable, "-m", "tests.multiraft.store.child", str(directory), kind]
    died = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert died.returncode == -9, f"the child was to kill itself: {died.stderr}"
    return int(died.stdout)


def copy_of(image: Path, target: Path) -> Path:
    shutil.copytree(image, target)
    return target


def newest(directory: Path, pattern: str) -> Path:
    return max((directory / "db").glob(pattern))


class FailingEngine:
    """A real engine that fails where a test asks for it, with what RocksDB would say.

    ``texts`` holds the error of each call that is to fail; ``flush_gate`` can hold flushes up.
    """

    def __init__(self, path: Path, config: StoreConfig, *, create: bool) -> None:
        self.real = RocksEngine(path, config, create=create)
        self.texts: dict[str, str] = {}
        self.calls: list[str] = []
        self.flush_begun = threading.Event()
        self.flush_gate = threading.Event()
        self.flush_gate.set()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.texts:
            text = self.texts[name]
            raise EngineError(classify(Exception(text)), text)

    def get(self, key: bytes) -> bytes | None:
        self._called("get")
        return self.real.get(key)

    def chunk(self, lo: bytes, hi: bytes, bytes_max: int, *, bounded: bool = False) -> list[Pair]:
        self._called("chunk")
        return self.real.chunk(lo, hi, bytes_max, bounded=bounded)

    def last_below(self, lo: bytes, hi: bytes) -> Pair | None:
        self._called("last_below")
        return self.real.last_below(lo, hi)

    def write(self, operations: Sequence[Operation]) -> None:
        self._called("write")
        self.real.write(operations)

    def flush_wal(self) -> None:
        self.flush_begun.set()
        assert self.flush_gate.wait(WAIT_SECONDS), "the test never let the flush go"
        self._called("flush_wal")
        self.real.flush_wal()

    def compact(self, lo: bytes, hi: bytes) -> None:
        self._called("compact")
        self.real.compact(lo, hi)

    def close(self) -> None:
        self._called("close")
        self.real.close()


def open_breakable(config: StoreConfig) -> tuple[RocksStore, FailingEngine]:
    """A store with a failing engine under it, which does not fail yet."""
    engines: list[FailingEngine] = []

    def opener(path: Path, config: StoreConfig, *, create: bool) -> Engine:
        engines.append(FailingEngine(path, config, create=create))
        return engines[-1]

    store = RocksStore.open(config, NODE, opener)
    engines[-1].calls.clear()
    engines[-1].flush_begun.clear()
    return store, engines[-1]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to get there."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("the condition never came true")
