"""What processes take, from /proc: CPU time, memory, and bytes written to the disk.

A system is its root processes and all that descend from them: RabbitMQ's node is a child of a
shell.

Rules:

- Memory is PSS: a page that processes share counts once over all of them. Its peak is over the sum
  of a system, sampled each second; reading it walks page tables, so more often would be a load.
- CPU time is user and system, of all threads. What a process used before it ended in the middle of
  a measurement is lost; no system here ends any.
- Written bytes are those that the kernel was asked to bring to the disk, once each, whether it has
  done so or not: a page that is overwritten before it is written counts again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 1.0
#: What reading a file of a process that has ended raises.
GONE = (FileNotFoundError, ProcessLookupError)


def stat_of(text: str) -> tuple[int, float]:
    """The parent and the CPU seconds in /proc/PID/stat, whose name field may hold anything."""
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def field_of(text: str, name: str) -> int:
    """The number behind `name:` in a file of /proc/PID."""
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0])
    raise ValueError(f"no {name} in {text[:80]!r}")


def tree_of(roots: Iterable[int], parents: dict[int, int]) -> set[int]:
    """The processes that are or descend from roots."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [pid for pid in roots if pid in parents]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found


def _running() -> tuple[dict[int, int], dict[int, float]]:
    parents: dict[int, int] = {}
    cpu_s: dict[int, float] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(*GONE):
                pid = int(entry.name)
                parents[pid], cpu_s[pid] = stat_of((entry / "stat").read_text(errors="replace"))
    return parents, cpu_s


def _sum(pids: Iterable[int], file: str, name: str) -> int:
    total = 0
    for pid in pids:
        with suppress(*GONE):
            text = (PROC / str(pid) / file).read_text()
            # A process that has ended and was not waited for has no memory any more.
            total += field_of(text, name) if text else 0
    return total


@dataclass(frozen=True, slots=True)
class Taken:
    """What a system took so far."""

    cpu_s: float
    written_bytes: int


def taken(roots: Sequence[int]) -> Taken:
    """Looks at a system now."""
    parents, cpu_s = _running()
    pids = tree_of(roots, parents)
    return Taken(sum(cpu_s[pid] for pid in pids), _sum(pids, "io", "write_bytes"))


def pss_bytes(roots: Sequence[int]) -> int:
    """The memory of a system now."""
    return _sum(tree_of(roots, _running()[0]), "smaps_rollup", "Pss") << 10


class Watch:
    """What a system and this process take while the block runs."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._over = threading.Event()
        # Looking costs this process something that is none of the client's.
        self._looking_s = 0.0
        self._thread = threading.Thread(target=self._sample)
        self.peak_bytes = 0
        self.seconds = self.cpu_s = self.client_cpu_s = 0.0
        self.written_bytes = 0

    def __enter__(self) -> Self:
        self._before = taken(self._roots)
        self._thread.start()
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self._began[0]
        used_s = time.process_time() - self._began[1]
        self._over.set()
        self._thread.join()
        self.client_cpu_s = max(0.0, used_s - self._looking_s)
        after = taken(self._roots)
        self.cpu_s = after.cpu_s - self._before.cpu_s
        self.written_bytes = after.written_bytes - self._before.written_bytes

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, pss_bytes(self._roots))
            self._looking_s = time.thread_time()
            if self._over.wait(SAMPLE_S):
                return

    def figures(self) -> dict[str, float]:
        """As a result has them."""
        return {
            "seconds": self.seconds,
            "node_cpu_s": self.cpu_s,
            "client_cpu_s": self.client_cpu_s,
            "memory_mib": self.peak_bytes / (1 << 20),
            "written_mb": self.written_bytes / 1e6,
        }
