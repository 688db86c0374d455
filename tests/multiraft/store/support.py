"""Shared by the store's tests: opening, writing, a disk that fails on command, crash images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig, WriteStalledError
from rakit.multiraft.store.apart import Reference
from rakit.multiraft.store.engine import (
    DEFAULT,
    NO_SEGMENTS,
    Engine,
    EngineError,
    Operation,
    Pair,
    RocksEngine,
)
from rakit.multiraft.store.errors import Fault, classify
from rakit.multiraft.store.witness import Witness
from tests.multiraft.store.conformance import key
from tests.multiraft.store.history import Kept

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


def settle(store: RocksStore) -> None:
    """What the syncer does after a while."""
    store.flush_wal()
    store.save_witness(store.position())
    store.maintain()


def entries_in(store: RocksStore) -> list[int]:
    return [keys.number_of(k) for k, _ in store.scan(key(0), key(2**32))]


def crash_image(directory: Path, kind: str) -> int:
    """Let a child process write a store and die by SIGKILL; see ``child``. Returns its boot."""
    argv = [sys.executable, "-m", "tests.multiraft.store.child", str(directory), kind]
    died = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert died.returncode == -9, f"the child was to kill itself: {died.stderr}"
    return int(died.stdout)


@dataclass(frozen=True)
class Lived:
    """What a child that went through a history tells of it."""

    #: The number of the write of each step.
    numbers: list[int]
    #: The lengths of the files of values when the newest write was synced that was.
    values: dict[tuple[int, int], int]
    #: The newest write that was synced, and where the log ended then.
    synced: int
    wal: int
    length: int


def crash_history(directory: Path, seed: int, kept: Sequence[Kept], steps: int) -> Lived:
    """Let a child process go through some steps of a history and die by SIGKILL."""
    arguments = [str(directory), "history", str(seed), json.dumps(kept), str(steps)]
    argv = [sys.executable, "-m", "tests.multiraft.store.child", *arguments]
    died = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert died.returncode == -9, f"the child was to kill itself: {died.stderr}"
    numbers, values, synced = json.loads(died.stdout)
    return Lived(numbers, {(segment, file): size for segment, file, size in values}, *synced)


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
        self._damaged, self._fault = (DEFAULT, b"", b""), Fault.CORRUPTION
        self.calls: list[str] = []
        self.flush_begun = threading.Event()
        self.flush_gate = threading.Event()
        self.flush_gate.set()

    def replay_log(self, durable: Callable[[Witness], None]) -> int:
        return self.real.replay_log(durable)

    def reference(self, key: bytes, segment: int) -> Reference | None:
        self._called("reference")
        self._meet(key, key + b"\0", segment)
        return self.real.reference(key, segment)

    def sync_values(self) -> None:
        self.real.sync_values()

    def forget_log(self, before: int) -> None:
        self._called("forget_log")
        self.real.forget_log(before)

    def abandon(self) -> None:
        self.calls.append("abandon")
        if "abandon" not in self.texts:  # else as if the process had ended before
            self.real.abandon()

    def begin_log(self) -> None:
        self.real.begin_log()
        log = self.real._ahead  # pyright: ignore[reportPrivateUsage]
        assert log is not None
        put = log._put  # pyright: ignore[reportPrivateUsage]

        def gated(pieces: Sequence[bytes]) -> None:
            if pieces:
                self.flush_begun.set()
                assert self.flush_gate.wait(WAIT_SECONDS), "the test never let the flush go"
            put(pieces)

        log._put = gated  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.texts:
            text = self.texts[name]
            raise EngineError(classify(Exception(text)), text)

    def damage(
        self,
        bounds: tuple[bytes, bytes],
        segment: int = DEFAULT,
        fault: Fault = Fault.CORRUPTION,
    ) -> None:
        """Rows of a family in this range cannot be read from here on."""
        self._damaged, self._fault = (segment, *bounds), fault

    def _meet(self, lo: bytes, hi: bytes, segment: int) -> None:
        damaged, start, end = self._damaged
        if segment == damaged and max(lo, start) < min(hi, end):
            raise EngineError(self._fault, "Corruption: block checksum")

    def get(self, key: bytes, segment: int = DEFAULT) -> bytes | None:
        self._called("get")
        self._meet(key, key + b"\0", segment)
        return self.real.get(key, segment)

    def chunk(
        self, lo: bytes, hi: bytes, bytes_max: int, segment: int = DEFAULT, *, bounded: bool = False
    ) -> list[Pair]:
        self._called("chunk")
        self._meet(lo, hi, segment)
        return self.real.chunk(lo, hi, bytes_max, segment, bounded=bounded)

    def last_below(self, lo: bytes, hi: bytes, segment: int = DEFAULT) -> Pair | None:
        self._called("last_below")
        self._meet(lo, hi, segment)
        return self.real.last_below(lo, hi, segment)

    def write(
        self,
        number: int,
        operations: Sequence[Operation],
        segments: Mapping[int, Sequence[Operation]] = NO_SEGMENTS,
    ) -> None:
        self._called("write")
        self.real.write(number, operations, segments)

    def segments(self) -> list[int]:
        return self.real.segments()

    def table_bytes(self, segment: int) -> int:
        return self.real.table_bytes(segment)

    def make_segment(self, number: int) -> None:
        self._called("make_segment")
        self.real.make_segment(number)

    def drop_segment(self, number: int) -> None:
        self._called("drop_segment")
        self.real.drop_segment(number)

    def flush_wal(self, *, durably: bool = True) -> Witness:
        self._called("flush_wal")
        return self.real.flush_wal(durably=durably)

    def release_log(self) -> int:
        self._called("release_log")
        return self.real.release_log()

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


def ended(store: RocksStore) -> None:
    """What is left when its process has ended: a failed store is not closed before that."""
    engine = store._engine  # pyright: ignore[reportPrivateUsage]
    real = engine.real if isinstance(engine, FailingEngine) else engine
    assert isinstance(real, RocksEngine)
    try:
        store.close()
    finally:
        real.abandon()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to get there."""
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS * 1000)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("the condition never came true")
