"""The queue of a world: what happens when, in the order of time and then of being asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

#: When, its number, the node that it happens on (0: the world), that node's life (-1: any), what.
#: A tuple, because the queue compares them many times for each that happens.
Event: TypeAlias = tuple[int, int, int, int, Callable[[], None]]


class Events:
    """Invariant: `now_ms` never falls, and nothing is asked for in the past."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._count = 0
        self._queue: list[Event] = []

    def later(
        self, delay_ms: int, run: Callable[[], None], node_id: int = 0, boot: int = -1
    ) -> None:
        self._count += 1
        at_ms = self.now_ms + delay_ms
        heapq.heappush(self._queue, (at_ms, self._count, node_id, boot, run))

    def follows(self, node_id: int, act: Callable[..., None]) -> bool:
        """Tells whether the next event is the same kind of act, on the same node, at this time."""
        if not self._queue:
            return False
        at_ms, _, next_id, _, run = self._queue[0]
        return (
            at_ms == self.now_ms
            and next_id == node_id
            and isinstance(run, partial)
            and run.func == act
        )

    def again(self, event: Event, at_ms: int) -> None:
        """Puts an event off, before those that were asked for after it."""
        heapq.heappush(self._queue, (at_ms, *event[1:]))

    def next(self, end_ms: int) -> Event | None:
        """Takes the next event up to a time; the clock goes on to it, or to that time."""
        queue = self._queue
        if queue and queue[0][0] <= end_ms:
            event = heapq.heappop(queue)
            self.now_ms = event[0]
            return event
        self.now_ms = max(self.now_ms, end_ms)
        return None
