"""What one task waits for and others ring: an event with a single waiter, which hearing resets.

`asyncio.Event` serves any number of waiters, and a wait costs it nine calls. On the way of a record
through a node a task goes to sleep a dozen times, so that shows.
"""

from __future__ import annotations

import asyncio


class Bell:
    """Rung by anybody in the loop, heard by one task."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_rung(self) -> bool:
        """Whether it was rung since it was heard last."""
        return self._rung

    def ring(self) -> None:
        """Wakes the task that listens, or lets the next `heard` return at once."""
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def heard(self) -> None:
        """Waits until it was rung since it was heard last. One task at a time may wait."""
        if not self._rung:
            assert self._waiter is None, "a bell is heard by one task"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._rung = False
