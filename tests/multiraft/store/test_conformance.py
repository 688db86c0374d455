"""RocksDB, the simulator's disk and the driver's all do what every disk must do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from rakit.multiraft.kv import WriteBatch
from tests.multiraft.driver.memory_disk import MemoryDisk
from tests.multiraft.store.conformance import KeyValueConformance, WritableDisk
from tests.multiraft.store.support import open_store
from tests.sim.disk import SimDisk


class TestRocksStore(KeyValueConformance):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[WritableDisk]:
        store = open_store(tmp_path / "n1")
        yield store
        store.close()


class NumberingSimDisk(SimDisk):
    """The simulator numbers the writes itself."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    def write(self, batch: WriteBatch) -> None:  # type: ignore[override]  # numbered here
        super().write(next(self._numbers), batch)


class TestSimDisk(KeyValueConformance):
    @pytest.fixture
    def disk(self) -> WritableDisk:
        return NumberingSimDisk()


class TestMemoryDisk(KeyValueConformance):
    @pytest.fixture
    def disk(self) -> WritableDisk:
        return MemoryDisk()
