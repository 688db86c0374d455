"""RocksDB does what every disk must do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multiraft.store.conformance import KeyValueConformance
from tests.multiraft.store.support import open_store


class TestRocksStore(KeyValueConformance):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[object]:
        store = open_store(tmp_path / "n1")
        yield store
        store.close()
