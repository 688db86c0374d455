"""The disk as a reference: append, make durable, repeat; in several files at once.

Three nodes on one machine share its disk, so the reference is three writers that do nothing else
than a node has to do at least: append each chunk and wait until it is durable. Threads are enough,
because both system calls release the interpreter.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
#: Different contents, for a disk that recognises the same block.
CHUNKS_COUNT: Final = 8


async def measure_disk(directory: Path, writers: int, seconds: float) -> float:
    """Returns the mean MB/s of each of so many writers that work at the same time."""
    chunks = [os.urandom(CHUNK_BYTES) for _ in range(CHUNKS_COUNT)]
    paths = [directory / f"reference-{number}" for number in range(writers)]
    # A thread cannot be cancelled: each looks at the clock and ends soon by itself.
    rates = await asyncio.gather(
        *(asyncio.to_thread(append_durably, path, chunks, seconds) for path in paths)
    )
    return sum(rates) / len(rates)


def append_durably(path: Path, chunks: Sequence[bytes], seconds: float) -> float:
    """Appends to a new file, durably after each chunk; returns MB/s. The file is removed again."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND)
    try:
        began_s = time.perf_counter()
        count = size_bytes = 0
        while (passed_s := time.perf_counter() - began_s) < seconds or not count:
            size_bytes += os.write(descriptor, chunks[count % len(chunks)])
            os.fdatasync(descriptor)
            count += 1
    finally:
        os.close(descriptor)
        path.unlink()
    return size_bytes / passed_s / 1e6
