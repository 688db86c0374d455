"""Failed batches, until it is known whether somebody has heard of each failure.

Whoever awaits a delivery may do so long after its batch has failed. So it is not decided when a
batch fails whether anybody cares, but when somebody asks: at `flush()`, or in `until_unheard()`.

Limit: `KEPT_COUNT_MAX` batches. Beyond it the oldest is decided as things stand; a producer that
never asks would otherwise keep every failure of its life.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from rakit.client.errors import RakitError
from rakit.client.producing.batch import Batch

KEPT_COUNT_MAX: Final = 1000


class Failures:
    """What failed since it was last forgotten."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        # Of a batch that is not kept any more and that nobody had heard of.
        self._oldest: RakitError | None = None
        self._end: RakitError | None = None
        self._changed = asyncio.Event()

    def add(self, batch: Batch) -> None:
        """Takes a batch that has just failed."""
        assert isinstance(batch.outcome, RakitError), "what was acknowledged has not failed"
        self._batches.append(batch)
        if len(self._batches) > KEPT_COUNT_MAX:
            oldest = self._batches.popleft()
            self._oldest = self._oldest or _unheard(oldest)
        self._changed.set()

    def first_unheard(self) -> RakitError | None:
        """Returns the first failure with a record whose delivery nobody has heard of."""
        if self._oldest is not None:
            return self._oldest
        return next((error for error in map(_unheard, self._batches) if error is not None), None)

    async def until_unheard(self) -> RakitError:
        """Waits for a failure that nobody has heard of when it comes; raises the end."""
        while (error := self.first_unheard()) is None:
            if self._end is not None:
                raise self._end.again()
            self._changed.clear()
            await self._changed.wait()
        return error

    def forget(self) -> None:
        """Begins anew."""
        self._batches.clear()
        self._oldest = None

    def close(self, error: RakitError) -> None:
        """Nothing that fails from here on is of interest; whoever waits hears the error."""
        self.forget()
        self._end = error
        self._changed.set()


def _unheard(batch: Batch) -> RakitError | None:
    return None if batch.is_heard or not isinstance(batch.outcome, RakitError) else batch.outcome
