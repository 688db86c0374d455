"""What need not be durable waits for what must: fewer writes of the store.

A commit index by itself, a row of positions, the start of a log that moves up: nobody waits for
such a write, and a crash may take it. But it costs a leader's turn as much as the write of an entry
does, between a majority's acknowledgement and the answer (docs/decisions/0027). So it goes with the
next batch that must be synced, at the latest with the step after the next tick.

Rules:

- The order stays: what is held lies before all that the driver writes later, in one batch with it.
  So a commit index is on the disk before, or with, all that was written after it, and a crash takes
  an end of it all. (The store's own writes, and notes about other stores, do not wait: they say
  nothing of groups.)
- Until then the disk says what was so before. Nobody takes that for a fact: the objects in memory
  know where a log begins and what is committed, rows of positions are hints, and of what was
  deleted nothing is read.
- It is bounded, in time by a tick and in memory by `HELD_BYTES_MAX`.
"""

from __future__ import annotations

from typing import Final

from rakit.multiraft.effects import Effects
from rakit.multiraft.kv import WriteBatch

#: More is written at once: it costs more than the write itself.
HELD_BYTES_MAX: Final = 64 << 10


class HeldWrites:
    """The writes of one node that wait for others."""

    def __init__(self) -> None:
        self._batch = WriteBatch()
        #: Whether they have waited long enough.
        self.is_due = False

    def __bool__(self) -> bool:
        return bool(self._batch)

    def end_the_wait(self) -> None:
        """Lets what waits now go with the next effects, whatever they are: a tick has passed."""
        self.is_due = bool(self._batch)

    def join(self, effects: Effects) -> None:
        """Puts what waits in front of the batch of the effects, or takes the batch out of them."""
        batch = effects.batch
        if self._batch:
            self._batch.extend(batch)
            batch = self._batch
        if effects.must_sync or self.is_due or batch.size_bytes > HELD_BYTES_MAX:
            effects.batch, self._batch, self.is_due = batch, WriteBatch(), False
        else:
            effects.batch, self._batch = WriteBatch(), batch
