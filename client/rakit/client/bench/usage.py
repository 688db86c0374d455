"""What processes take: CPU time, memory and bytes written, read from the operating system.

Only processes on this machine that we started can be watched, so a cluster elsewhere has no such
figures. CPU time is user and system together, of all threads. Memory is the proportional share
(PSS) where the kernel tells it: a page that several processes have is divided among them, so the
sum over the nodes is what they take together. Elsewhere it is resident memory, which counts such a
page in each of them. Bytes written are what a process made the kernel send to a disk; memory file
systems count for nothing in it. Only Linux tells them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rakit.client.bench.background import running
from rakit.client.bench.report import Figure

if TYPE_CHECKING:
    from psutil import Process

#: Between two looks at the memory: the kernel walks all pages for it, 5 ms for a node of 220 MB,
#: which would be 3 % of a core for three nodes if it were done twice a second.
SAMPLE_S: Final = 1.0


class Usage:
    """Watches some running processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        # It comes with the server's packages; a client alone has no processes to watch.
        from psutil import Process  # noqa: PLC0415

        self._processes: list[Process] = [Process(pid) for pid in pids]
        self.memory_peak_bytes: list[int] = [0 for _ in self._processes]
        #: Of all together, at one moment: not more than the sum of the peaks.
        self.memory_peak_sum_bytes = 0

    def cpu_s(self) -> list[float]:
        """CPU seconds of each process since its start."""
        times = [process.cpu_times() for process in self._processes]
        return [each.user + each.system for each in times]

    def memory_bytes(self) -> list[int]:
        """Memory of each process."""
        return [_memory_bytes(process) for process in self._processes]

    def written_bytes(self) -> list[int]:
        """What each process has sent to a disk since its start; empty where nobody tells it."""
        if sys.platform != "linux":
            return []
        return [process.io_counters().write_bytes for process in self._processes]

    def look(self) -> None:
        """Brings the peaks up to date."""
        found = self.memory_bytes()
        pairs = zip(self.memory_peak_bytes, found, strict=True)
        self.memory_peak_bytes = [max(pair) for pair in pairs]
        self.memory_peak_sum_bytes = max(self.memory_peak_sum_bytes, sum(found))

    async def watch_memory(self) -> None:
        """Keeps the peaks up to date until it is cancelled."""
        while True:
            # In a thread: the load must not wait for the kernel to count pages.
            await asyncio.to_thread(self.look)
            await asyncio.sleep(SAMPLE_S)


def _memory_bytes(process: Process) -> int:
    if sys.platform == "linux":
        return process.memory_full_info().pss
    return process.memory_info().rss


@dataclass(frozen=True, slots=True)
class Spent:
    """What went by while something was done. The lists have an entry for each node.

    They are empty for nodes of others, and `node_written_bytes` also where nobody tells it.
    """

    seconds: float
    client_cpu_s: float
    node_cpu_s: Sequence[float] = ()
    node_memory_peak_bytes: Sequence[int] = ()
    # Of all nodes at one moment.
    memory_peak_bytes: int = 0
    node_written_bytes: Sequence[int] = ()

    def figures(self, payload_bytes: int) -> list[Figure]:
        """What each command shows of it, for so many bytes of values."""
        gb = payload_bytes / 1e9
        figures = [
            Figure("client_cpu_s", "CPU of the client", self.client_cpu_s, "s"),
            Figure("client_cpu_s_per_gb", "CPU of the client, a GB", self.client_cpu_s / gb, "s"),
        ]
        if self.node_cpu_s:
            cpu_s, memory_mb = sum(self.node_cpu_s), self.memory_peak_bytes / 1e6
            figures += [
                Figure("nodes_cpu_s", "CPU of all nodes", cpu_s, "s"),
                Figure("nodes_cpu_s_per_gb", "CPU of all nodes, a GB", cpu_s / gb, "s"),
                Figure("nodes_memory_peak_mb", "memory of all nodes, peak", memory_mb, "MB"),
            ]
        if self.node_written_bytes:
            times = sum(self.node_written_bytes) / payload_bytes
            text = "written to disk by all nodes, a MB"
            figures.append(Figure("written_mb_per_mb", text, times, "MB"))
        return figures

    def node_figures(self) -> list[Figure]:
        """Memory and bytes written of each node."""
        peaks = enumerate(self.node_memory_peak_bytes, 1)
        writes = enumerate(self.node_written_bytes, 1)
        return [
            *(
                Figure(f"node_{at}_memory_peak_mb", f"memory of node {at}, peak", each / 1e6, "MB")
                for at, each in peaks
            ),
            *(
                Figure(f"node_{at}_written_mb", f"written by node {at}", each / 1e6, "MB")
                for at, each in writes
            ),
        ]


async def spent_during(usage: Usage | None, work: Coroutine[None, None, None]) -> Spent:
    """Awaits work; returns what this process and the nodes used meanwhile."""
    if usage is None:
        began_s, client_cpu_s = time.perf_counter(), time.process_time()
        await work
        return Spent(time.perf_counter() - began_s, time.process_time() - client_cpu_s)
    async with running(usage.watch_memory()) as watch:
        began_s, client_cpu_s = time.perf_counter(), time.process_time()
        cpu_s, written = usage.cpu_s(), usage.written_bytes()
        await watch.during(work)
        seconds, client_cpu_s = time.perf_counter() - began_s, time.process_time() - client_cpu_s
        cpu_after_s, written_after = usage.cpu_s(), usage.written_bytes()
    # Work that was over before the first look has a peak, too.
    usage.look()
    return Spent(
        seconds,
        client_cpu_s,
        [after - before for before, after in zip(cpu_s, cpu_after_s, strict=True)],
        usage.memory_peak_bytes,
        usage.memory_peak_sum_bytes,
        [after - before for before, after in zip(written, written_after, strict=True)],
    )
