"""How much of this node's memory the answers of Read may take, all streams together.

An answer costs memory from the look at the log until the client's transport has taken it, and a
client that does not read never takes it. So a stream asks for room before it looks, and holds it
until the answer is written. While it waits for room, or for records, it holds nothing.

Rules:

- Room is given in the order in which it was asked for. The fuller the budget, the smaller what is
  given, down to `ANSWER_BYTES_MIN`: then many readers go on in small steps instead of a few.
- What turns out larger than the room is dropped, and asked for again with what it needs.
- Whoever has kept others waiting with one write for `STALLED_S` is given up: its stream ends with
  THROTTLED. As long as nobody waits a client may take its time.
- What was given up still lies in the transport, until the client reads on or goes. It is counted
  apart, and nobody more is given up beyond the same limit: that is the bound for this node.

Left out: answers to Fetch, which the transport has as soon as they are made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError

#: Of answers that are being made or written, and again of those that were given up. The transport
#: has a copy of what is written, so that memory is about twice that.
READ_BYTES_MAX: Final = 128 << 20
#: Given to one answer: two of the batches that the SDK makes, heads included, and the least that is
#: worth it. More costs more for each byte, at either end (0016).
ANSWER_BYTES_MAX: Final = (2 << 20) + (64 << 10)
ANSWER_BYTES_MIN: Final = 512 << 10
#: The part of what is free that one answer may take, where that is between the two.
_SHARE: Final = 16
#: How long one write may take while others wait.
STALLED_S: Final = 10.0


class Sink(Protocol):
    """The client's side of a stream."""

    async def write_bytes(self, data: bytes) -> None:
        """Hands an answer over; waits while the client does not read."""
        ...

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has a callback called when the transport holds nothing of the stream any more."""
        ...


class ReadBudget:
    """The bytes of a node's Read answers."""

    def __init__(self, bytes_max: int = READ_BYTES_MAX, stalled_s: float = STALLED_S) -> None:
        self._bytes_max = bytes_max
        self._stalled_s = stalled_s
        #: Given out, and not written yet.
        self.held_bytes = 0
        #: Given up, and still with the transport.
        self.stalled_bytes = 0
        self._waiting: deque[Lease] = deque()
        #: Writes under way, the oldest first.
        self._writing: dict[Lease, float] = {}
        self._looking: asyncio.TimerHandle | None = None

    @property
    def free_bytes(self) -> int:
        """What is not given out."""
        return self._bytes_max - self.held_bytes

    def ask(self, least_bytes: int = ANSWER_BYTES_MIN) -> Lease:
        """Asks for room for an answer, which is to be used as a context. Never refuses."""
        lease = Lease(self, min(max(least_bytes, ANSWER_BYTES_MIN), self._bytes_max))
        self._waiting.append(lease)
        self._give()
        self._look_for_stalled()
        return lease

    def ask_now(self, size_bytes: int) -> Lease | None:
        """Room for an answer that is there already; None where others wait or there is none."""
        if self._waiting or size_bytes > self.free_bytes:
            return None
        lease = Lease(self, size_bytes)
        self._hold(lease)
        return lease

    def _give(self) -> None:
        while self._waiting and self._waiting[0].size_bytes <= self.free_bytes:
            lease = self._waiting.popleft()
            share = min(ANSWER_BYTES_MAX, self.free_bytes // _SHARE)
            lease.size_bytes = max(lease.size_bytes, share)
            self._hold(lease)

    def _hold(self, lease: Lease) -> None:
        self.held_bytes += lease.size_bytes
        lease.is_held = True
        lease.given.set()

    def begin_write(self, lease: Lease) -> None:
        """From now on the lease waits for a client."""
        self._writing[lease] = asyncio.get_running_loop().time()

    def end_write(self, lease: Lease) -> None:
        """The client's transport has taken it."""
        self._writing.pop(lease, None)

    def give_back(self, lease: Lease) -> None:
        """Takes back what a lease holds, or its place among those that wait."""
        if lease.is_held:
            lease.is_held = False
            self.held_bytes -= lease.size_bytes
            assert self.held_bytes >= 0, "nothing is given back twice"
            self._give()
        elif lease in self._waiting:
            self._waiting.remove(lease)
            self._give()

    def shrink(self, lease: Lease, size_bytes: int) -> None:
        """Takes back what a lease holds beyond this."""
        assert lease.is_held, "only what was given comes back"
        if size_bytes < lease.size_bytes:
            self.held_bytes -= lease.size_bytes - size_bytes
            lease.size_bytes = size_bytes
            self._give()

    def _look_for_stalled(self) -> None:
        """While somebody waits: gives up who has kept the room for too long, and looks again."""
        if self._looking is not None or not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        wait_s = self._stalled_s
        for lease, since in list(self._writing.items()):
            wait_s = since + self._stalled_s - now
            if wait_s > 0 or not self._waiting:
                break
            self._give_up(lease)
            wait_s = self._stalled_s
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(max(wait_s, 0.01), self._look_again)

    def _look_again(self) -> None:
        self._looking = None
        self._look_for_stalled()

    def _give_up(self, lease: Lease) -> None:
        size = lease.size_bytes
        if self.stalled_bytes + size > self._bytes_max:
            return
        self.end_write(lease)
        self.stalled_bytes += size
        self.give_back(lease)
        lease.give_up(partial(self._gone, size))

    def _gone(self, size_bytes: int) -> None:
        """The transport has let go of what was given up."""
        self.stalled_bytes -= size_bytes
        assert self.stalled_bytes >= 0, "nothing goes twice"

    def is_all(self, lease: Lease) -> bool:
        """Tells whether a lease holds as much as can be given."""
        return lease.size_bytes >= self._bytes_max


class Lease:
    """Room for one answer: waited for, held, given back. Used as a context."""

    def __init__(self, budget: ReadBudget, size_bytes: int) -> None:
        #: What is needed; what was given, once it is.
        self.size_bytes = size_bytes
        self.is_held = False
        self.given = asyncio.Event()
        self._budget = budget
        self._sink: Sink | None = None
        self._patience: asyncio.Timeout | None = None
        self._is_given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._budget.give_back(self)

    def has_room(self, size_bytes: int) -> bool:
        """Tells whether an answer fits; whoever has all that there is gets no more by asking."""
        return size_bytes <= self.size_bytes or self._budget.is_all(self)

    def keep(self, size_bytes: int) -> None:
        """Gives back what the answer does not need."""
        self._budget.shrink(self, size_bytes)

    async def write(self, sink: Sink, data: bytes) -> None:
        """Hands an answer to the client. Raises THROTTLED when it was given up."""
        assert self.is_held, "an answer is made with the room for it"
        self._sink = sink
        self._budget.begin_write(self)
        try:
            async with asyncio.timeout(None) as self._patience:
                await sink.write_bytes(data)
        except TimeoutError:
            assert self._is_given_up, "a write has no other time limit"
        finally:
            self._budget.end_write(self)
        if self._is_given_up:
            raise RakitError(
                error_pb2.ERROR_REASON_THROTTLED,
                "The client did not take an answer while other readers waited for the memory that"
                " it holds. Read on from the last offset.",
                {"retry_delay_ms": "1000"},
            )

    def give_up(self, gone: Callable[[], None]) -> None:
        """Breaks the write off; calls back when the transport has let go of it."""
        assert self._sink is not None, "only a write is given up"
        assert self._patience is not None, "only a write is given up"
        self._is_given_up = True
        self._sink.on_end(gone)
        self._patience.reschedule(asyncio.get_running_loop().time())
