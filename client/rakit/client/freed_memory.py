"""Memory that was freed is used again, instead of fresh pages of the system each time.

What travels is megabytes at a time, and glibc takes what is large from the system and gives it back
at once: 270 page faults and more for each MiB that is joined, copied or received, a sixth of what
reading costs (docs/decisions/0016, 0021). Python offers no call for that, but glibc learns: once it
sees something large given back it keeps what is smaller, and what lies at the end of a heap up to
twice that size.

A process learns it once and keeps it. `MALLOC_MMAP_THRESHOLD_` in the environment has the say as
ever. Left out: other allocators, which do as they do.
"""

from __future__ import annotations

from typing import Final

#: glibc learns no more than the double of this.
KEPT_BYTES_MAX: Final = 16 << 20

#: What this process has asked for so far, at most.
_learnt_bytes: Final = [0]


def keep_freed_memory(size_bytes: int) -> None:
    """Has what is smaller than this, and than `KEPT_BYTES_MAX`, used again when it is freed.

    A mapping that nobody ever touches is enough (M_MMAP_THRESHOLD in mallopt(3)). Once it is learnt
    the same request would be met from the heap, and cleared, so nothing is asked for twice.
    Elsewhere it does nothing.
    """
    size = min(size_bytes, KEPT_BYTES_MAX)
    if size <= _learnt_bytes[0]:
        return
    _learnt_bytes[0] = size
    untouched = bytes(size)
    del untouched
