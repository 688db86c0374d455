"""What the node processes take: CPU time and resident memory, read from the operating system.

Only processes on this machine that we started can be watched, so a cluster elsewhere has no such
figures. CPU time is user and system together, of all threads. Resident memory counts pages that a
process shares with others once for each of them, so sums are slightly too high.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from psutil import Process

#: Between two looks at the memory.
SAMPLE_S: Final = 0.2


class Usage:
    """Watches some running processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        # It comes with the server's packages; a client alone has no processes to watch.
        from psutil import Process  # noqa: PLC0415

        self._processes: list[Process] = [Process(pid) for pid in pids]
        self.rss_peak_bytes: list[int] = [0 for _ in self._processes]

    def cpu_s(self) -> list[float]:
        """CPU seconds of each process since its start."""
        times = [process.cpu_times() for process in self._processes]
        return [each.user + each.system for each in times]

    def rss_bytes(self) -> list[int]:
        """Resident memory of each process."""
        return [process.memory_info().rss for process in self._processes]

    async def watch_memory(self) -> None:
        """Keeps the peaks up to date until it is cancelled."""
        while True:
            pairs = zip(self.rss_peak_bytes, self.rss_bytes(), strict=True)
            self.rss_peak_bytes = [max(pair) for pair in pairs]
            await asyncio.sleep(SAMPLE_S)
