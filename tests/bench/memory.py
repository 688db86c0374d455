"""The machine's memory as it is when it has run for long: full.

Most of a machine's memory is the cache of its file system, after a while. A virtual machine that
has much memory unused may have given that back to its host; who takes such a page pays for the host
to find one, here 2.5 s for each GB. A system that writes through the cache pays that for all that
it writes, one that passes the cache never, and so would the order of measurements and the time
since the last large file was deleted decide between systems.

So memory is filled before each measurement: a file without content is read, whose pages the kernel
drops as soon as anybody wants room. What the measurement before has freed is all that it costs.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.processes import field_of

MEMORY = Path("/proc/meminfo")
#: What stays free: a measurement does not begin with the kernel looking for its first page.
FREE_SHARE = 1 / 16
PIECE_BYTES = 1 << 20


def size_bytes(meminfo: str) -> int:
    """What there is to fill: all that the kernel would give, but for what stays free."""
    available_kib, total_kib = field_of(meminfo, "MemAvailable"), field_of(meminfo, "MemTotal")
    return max(0, available_kib - int(FREE_SHARE * total_kib)) << 10


def fill(path: Path, size: int) -> None:
    """Have the system's cache hold so many bytes of a file, which is made and stays."""
    with path.open("ab") as file:
        file.truncate(size)
    piece = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass
