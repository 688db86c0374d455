"""The machine's memory as it is when it has run for long: full.

Most of a machine's memory is the cache of its file system, after a while. A virtual machine that
has much memory unused may have given that back to its host; who takes such a page pays for the host
to find one, here 2.5 s for each GB. A system that writes through the cache pays that for all that
it writes, one that passes the cache never, and so would the order of measurements and the time
since the last large file was deleted decide between systems.

So memory is filled before each measurement: as much is read of a file without content as is free.
What is read is never read before, and never again: pages that were read twice count as useful to
the kernel, and it would take those of the systems first.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.processes import field_of

MEMORY = Path("/proc/meminfo")
#: What stays free: a measurement does not begin with the kernel looking for its first page.
FREE_SHARE = 1 / 16
PIECE_BYTES = 1 << 20


def to_fill_bytes(meminfo: str) -> int:
    """What is free, but for what stays so."""
    free_kib, total_kib = field_of(meminfo, "MemFree"), field_of(meminfo, "MemTotal")
    return max(0, free_kib - int(FREE_SHARE * total_kib)) << 10


def fill(path: Path, size_bytes: int) -> None:
    """Make a file so much longer, and have the system's cache hold that part of it."""
    with path.open("ab") as file:
        begins = file.seek(0, 2)
        file.truncate(begins + size_bytes)
    piece = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        file.seek(begins)
        while file.readinto(piece):
            pass
