"""Traces of a run: every group's core tells its events, and each is checked by the specification.

The checker (`trace_check`) sees the events only, not the nodes or disks that the other invariants
look at. Events are gathered and judged after the step that they come from: an error that is raised
in the middle of the core would look like one of its own.
"""

from __future__ import annotations

from typing import TextIO

from rakit.raft import TraceEvent, Tracer
from rakit.raft.trace import line
from tests.sim.trace_check.group import GroupCheck


class Tracing:
    """The traces of one world. With a file they are written to it instead of being checked."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out
        self.waiting: list[tuple[int, TraceEvent]] = []
        self.groups: dict[int, GroupCheck] = {}

    def tracer(self, group_id: int) -> Tracer:
        waiting = self.waiting

        def keep(event: TraceEvent) -> None:
            waiting.append((group_id, event))

        return keep

    def judge(self) -> None:
        """Writes or checks what has happened; raises `BrokenRuleError`."""
        waiting = self.waiting[:]
        self.waiting.clear()
        for group_id, event in waiting:
            if self.out is not None:
                self.out.write(f"{line(event, group_id)}\n")
                continue
            check = self.groups.get(group_id)
            if check is None:
                check = self.groups[group_id] = GroupCheck()
            check.take(event)
