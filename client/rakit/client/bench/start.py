"""`rakit bench start`: from the start of a process to a node that serves.

What `rakit dev` does: one node on an empty directory founds a cluster by itself. The time runs from
just before the process is started until it says that it is ready, so it holds the interpreter's
start and all imports.
"""

from __future__ import annotations

import time
from typing import Final

from rakit.client.bench.figures import median
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.target import own_cluster

STARTS_COUNT: Final = 5


async def bench_start(say: Say) -> Report:
    """Starts one node after the other."""
    times: list[float] = []
    for number in range(1, STARTS_COUNT + 1):
        say(f"start: {number} of {STARTS_COUNT}")
        began_s = time.perf_counter()
        async with own_cluster(1):
            times.append(time.perf_counter() - began_s)
    figures = (
        Figure("ready_median_s", "ready, median", median(times), "s"),
        Figure("ready_max_s", "ready, longest", max(times), "s"),
    )
    return Report("start", {"starts": STARTS_COUNT}, figures)
