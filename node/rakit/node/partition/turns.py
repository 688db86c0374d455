"""When which partitions are looked after: those that rest cost nothing, however many there are.

A partition is due when something has happened to it since its last look (`stir`), and when the time
has come that its last look named (`plan`). Between the two its upkeep has nothing to do: what may
be due depends on the log's state, the topic's settings, the replica's role, and the time.

Invariants:

- `_planned` holds the earliest time that a partition was planned for, and the calendar holds that
  time. A later one is found out when the earlier one comes: so a partition that is written to all
  the time adds nothing to the calendar with each look.
- The calendar is at most twice as long as what is planned, and a bit.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

#: Outdated times that the calendar may hold beside as many as there are valid ones.
_OUTDATED_COUNT_MAX: Final = 64


class Turns:
    """The partitions of a node that have to be looked at, by group id."""

    def __init__(self) -> None:
        # A dict because it keeps the order.
        self._stirred: dict[int, None] = {}
        self._planned: dict[int, int] = {}
        #: (time, group), a heap; what `_planned` does not confirm is passed over.
        self._calendar: list[tuple[int, int]] = []

    @property
    def planned_count(self) -> int:
        """How many times the calendar holds, outdated ones among them."""
        return len(self._calendar)

    def stir(self, group_id: int) -> None:
        """Notes that something happened to a partition: it is due."""
        self._stirred[group_id] = None

    def stir_all(self, group_ids: Iterable[int]) -> None:
        """Notes the same of many."""
        self._stirred.update(dict.fromkeys(group_ids))

    def plan(self, group_id: int, time_ms: int) -> None:
        """Has a partition due from that time on, at the latest."""
        known_ms = self._planned.get(group_id)
        if known_ms is not None and known_ms <= time_ms:
            return
        self._planned[group_id] = time_ms
        if len(self._calendar) >= 2 * len(self._planned) + _OUTDATED_COUNT_MAX:
            self._calendar = [(each_ms, one) for one, each_ms in self._planned.items()]
            heapq.heapify(self._calendar)
        else:
            heapq.heappush(self._calendar, (time_ms, group_id))

    def forget(self, group_id: int) -> None:
        """Notes that a partition is gone."""
        self._stirred.pop(group_id, None)
        self._planned.pop(group_id, None)

    def take(self, now_ms: int) -> list[int]:
        """Returns those that are due, who are not due any more then."""
        while self._calendar and self._calendar[0][0] <= now_ms:
            time_ms, group_id = heapq.heappop(self._calendar)
            if self._planned.get(group_id) == time_ms:
                del self._planned[group_id]
                self._stirred[group_id] = None
        taken, self._stirred = self._stirred, {}
        return list(taken)
