"""The garbage collector of a process that measures.

A record on its way to its receipt is a few objects, and hundreds of them wait at one time. With
Python's usual thresholds that makes the collector go through everything the process has ever
imported: 25 to 40 ms, more than once a second at 20,000 records a second, which would be told as
the cluster's latency. Programs that send so much gain by the same calls.
"""

from __future__ import annotations

import gc
from typing import Final

#: As a node has them.
GC_THRESHOLDS: Final = (50_000, 20, 20)


def calm() -> None:
    """Leaves out of collections what is there now, and makes them rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
