"""Memory that is full before a measurement: what was read is in the system's cache."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.bench.memory import MEMORY, PIECE_BYTES, fill, to_fill_bytes

SIZE_BYTES = 5 * PIECE_BYTES + 4096


def is_cached(path: Path, at: int) -> bool:
    """Whether a byte can be read without asking the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        # In memory is all that such a file system has.
        return error.errno == errno.EOPNOTSUPP
    finally:
        os.close(descriptor)


def test_a_file_without_content_fills_the_cache_further_each_time(tmp_path: Path) -> None:
    path = tmp_path / "filler"
    for end in (SIZE_BYTES, 2 * SIZE_BYTES):
        fill(path, SIZE_BYTES)
        assert path.stat().st_size == end
        assert is_cached(path, end - SIZE_BYTES)
        assert is_cached(path, end - 1)
    assert path.stat().st_blocks == 0, "it takes room on the disk"


def test_what_is_free_is_filled_and_some_stays_free() -> None:
    meminfo = "MemTotal:  1600 kB\nMemFree:  {} kB\nMemAvailable:  1550 kB\n"
    assert to_fill_bytes(meminfo.format(1500)) == 1400 << 10
    assert to_fill_bytes(meminfo.format(90)) == 0
    assert to_fill_bytes(MEMORY.read_text()) >= 0
