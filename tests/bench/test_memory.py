"""Memory that is full before a measurement: what was read is in the system's cache."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.memory import MEMORY, PIECE_BYTES, fill, size_bytes

SIZE_BYTES = 5 * PIECE_BYTES + 4096


def is_cached(path: Path, at: int) -> bool:
    """Whether a byte can be read without asking the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def test_a_file_without_content_fills_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "filler"
    fill(path, SIZE_BYTES)
    assert is_cached(path, 0)
    assert is_cached(path, SIZE_BYTES - 1)
    assert path.stat().st_blocks == 0, "it takes room on the disk"
    assert path.stat().st_size == SIZE_BYTES


def test_some_memory_stays_free() -> None:
    meminfo = "MemTotal:  1600 kB\nMemFree:  100 kB\nMemAvailable:  {} kB\n"
    assert size_bytes(meminfo.format(1500)) == 1400 << 10
    assert size_bytes(meminfo.format(90)) == 0
    assert size_bytes(MEMORY.read_text()) >= 0
