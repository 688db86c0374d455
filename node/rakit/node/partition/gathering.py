"""Small batches of many callers, which wait for each other and become one entry.

An entry costs three nodes far more than the record in it. Callers that each await their answer, as
generated stubs do without any help, therefore share entries: while one of the partition is on its
way, what comes gathers, and leaves when that one is settled. This is the pace of the links between
nodes as well (`rakit.multiraft.gather`). A caller that is alone waits for nobody.

When an entry is settled its callers are answered, and those that have more to say come back within
a millisecond or two. So what has gathered waits for them: until as many have come as were
answered, but at most `HOLD_S` for each of them and `HOLD_S_MAX` in all. Where few call, the wait is
as short as what they could save; where many do, a moment makes entries of dozens. Without it, a
leader that is fast makes entries of three, and has no time left for its callers.

Rules:

- Order: what comes later is judged later, whether it gathers or not. The owner flushes before it
  decides on anything else.
- Nothing is judged or promised while it waits, so only what is certainly new may wait: of a retry
  more may be known, and its caller is not to be told less. A caller that goes away meanwhile is
  forgotten: its batch was never proposed.
- One batch of a producer waits at a time.
- What waits is bounded: at `BYTES_MAX` or `COUNT_MAX` it leaves, whatever is on its way.
- What waits, waits for an entry that is settled one day, lost or applied, or for a timer. So nobody
  is forgotten, also when the leadership is over.

Left out: what an entry may hold (`pending`), and what becomes of it (`appender`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rakit.node.partition.answers import Appended, GatheredAnswer, broken, fetch_error
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp

#: A larger batch costs more than an entry does, and is proposed at once.
BATCH_BYTES_MAX: Final = 4096
#: Of all that becomes one flush.
BYTES_MAX: Final = 64 << 10
COUNT_MAX: Final = 256
#: For each caller that may come back: about what an entry of its own costs the nodes more.
HOLD_S: Final = 0.0005
HOLD_S_MAX: Final = 0.01


@dataclass(frozen=True, slots=True)
class Request:
    """A batch whose turn has not come."""

    batch: Batch
    stamp: Stamp | None
    answer: GatheredAnswer


class Gathering:
    """What waits for one partition's next entry."""

    def __init__(self, propose: Callable[[list[Request]], None]) -> None:
        self._propose = propose
        self._requests: list[Request] = []
        self._producer_ids: set[int] = set()
        self._size_bytes = 0
        #: The entry that is waited for.
        self._behind = 0
        #: As many as may come at all before the hold is over.
        self._enough = COUNT_MAX
        self._hold: asyncio.TimerHandle | None = None

    def knows(self, stamp: Stamp | None) -> bool:
        """Tells whether a batch of this producer waits."""
        return stamp is not None and stamp.producer_id in self._producer_ids

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._requests)

    def add(self, batch: Batch, stamp: Stamp | None, behind: int) -> asyncio.Future[Appended]:
        """Has a batch wait for what already waits, or else for the entry at `behind`."""
        if not self._requests:
            self._behind = behind
        answer = GatheredAnswer()
        answer.add_done_callback(fetch_error)
        self._requests.append(Request(batch, stamp, answer))
        if stamp is not None:
            assert not self.knows(stamp), "one batch of a producer waits at a time"
            self._producer_ids.add(stamp.producer_id)
        self._size_bytes += len(batch.content)
        if len(self._requests) >= self._enough or self._size_bytes >= BYTES_MAX:
            self.flush()
        return answer

    def settled(self, index: int, batch_count: int) -> None:
        """Takes note that an entry is settled, and that so many callers are answered by it."""
        if not self._requests or index != self._behind:
            return
        self._enough = min(COUNT_MAX, len(self._requests) + batch_count)
        delay_s = min(HOLD_S_MAX, HOLD_S * batch_count)
        self._hold = asyncio.get_running_loop().call_later(delay_s, self.flush)

    def flush(self) -> None:
        """Has everything proposed that waits."""
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        self._enough = COUNT_MAX
        self._size_bytes = 0
        self._producer_ids.clear()
        requests, self._requests = self._requests, []
        try:
            if requests:
                self._propose(requests)
        except BaseException:
            # A bug. It is raised to whoever made them leave, but all of them must be told.
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(broken())
            raise
