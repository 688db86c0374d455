"""How much may be unacknowledged, who waits for room, and when other tasks have their turn.

`send()` runs once per record and asks none of this as long as it has credit: bytes that are taken
already, for whichever records come next, and that end where the first of these questions has to be
asked. So it counts down instead, and compares once. The credit belongs to the producer, not to a
partition: what nobody uses is free to all, however many partitions there are.

Rules:

- What is taken is within both limits, the credit included. A record takes at least
  `RECORD_OVERHEAD_BYTES`, so a credit in bytes bounds its records, too.
- Credit makes nobody wait: it is taken back before anybody is told that there is no room.
- Who has to wait is served in order, and nobody passes one that was served and whose task has not
  run yet: while somebody waits there is no credit.
- One that is larger than all room is taken when nothing else is there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from rakit.client.producing.intake import RECORD_OVERHEAD_BYTES

#: Other tasks run after so much, even if there is room for more.
YIELD_EVERY_BYTES: Final = 32 << 10


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """Somebody who waits for room."""

    size_bytes: int
    count: int
    come: asyncio.Future[None]


class Room:
    """The room of one producer. Who takes what is in the credit counts it here, by hand."""

    __slots__ = (
        "_bytes",
        "_bytes_max",
        "_count_max",
        "_turns",
        "_waiting_count",
        "_yield_at_bytes",
        "count",
        "credit_bytes",
    )

    def __init__(self, bytes_max: int, count_max: int) -> None:
        self._bytes_max = bytes_max
        self._count_max = count_max
        # What was taken and is not acknowledged, the credit included.
        self._bytes = 0
        # Of this, what may be used without asking, as long as some is left.
        self.credit_bytes = 0
        # Records that were handed over and are not acknowledged.
        self.count = 0
        self._turns: deque[_Turn] = deque()
        # Those who wait, or have been served and have not run since.
        self._waiting_count = 0
        # Other tasks have their turn when so much is not acknowledged: a distance from `_bytes`.
        self._yield_at_bytes = YIELD_EVERY_BYTES

    @property
    def used_bytes(self) -> int:
        """What was handed over, or is about to be, and is not acknowledged."""
        return self._bytes - self.credit_bytes

    def take(self, size_bytes: int, count: int) -> bool:
        """Takes room for records if there is some and nobody waits for it; ends the credit."""
        self._bytes -= self.credit_bytes
        self.credit_bytes = 0
        if self._waiting_count or not self._fits(size_bytes, count):
            return False
        self._bytes += size_bytes
        self.count += count
        return True

    async def wait(self, size_bytes: int, count: int) -> None:
        """Takes room for records behind those who wait already."""
        assert not self.credit_bytes, "nobody waits for room that is lent"
        turn = _Turn(size_bytes, count, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        self._waiting_count += 1
        try:
            await turn.come
        except BaseException:
            # Cancelled: whether the turn had come or not, it is not used.
            if turn in self._turns:
                self._turns.remove(turn)
            else:
                self.give_back(size_bytes, count)
            raise
        finally:
            self._waiting_count -= 1
            self._serve()

    def give_back(self, size_bytes: int, count: int) -> None:
        """Frees room that was taken for records, by whatever end they had."""
        self._bytes -= size_bytes
        self.count -= count
        self._yield_at_bytes -= size_bytes
        self._serve()

    def lend(self) -> bool:
        """Begins a credit; returns whether other tasks are to run before more is sent."""
        assert not self.credit_bytes, "there is one credit at a time"
        is_long_run = self._bytes >= self._yield_at_bytes
        if is_long_run:
            self._yield_at_bytes = self._bytes + YIELD_EVERY_BYTES
        if not self._waiting_count:
            free_bytes = min(self._bytes_max, self._yield_at_bytes) - self._bytes
            free_count = self._count_max - self.count
            self.credit_bytes = max(0, min(free_bytes, free_count * RECORD_OVERHEAD_BYTES))
            self._bytes += self.credit_bytes
        return is_long_run

    def _fits(self, size_bytes: int, count: int) -> bool:
        return not self.count or (
            self._bytes + size_bytes <= self._bytes_max and self.count + count <= self._count_max
        )

    def _serve(self) -> None:
        """Counts for those whose turn has come, and wakes them, first come first served."""
        while self._turns and self._fits(self._turns[0].size_bytes, self._turns[0].count):
            turn = self._turns.popleft()
            self._bytes += turn.size_bytes
            self.count += turn.count
            if not turn.come.done():
                turn.come.set_result(None)
