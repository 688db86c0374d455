"""What has been received and not yet stepped, bounded over all peers.

Streams put, the step loop takes. When the inbox is full a stream reads no further, which its peer
notices as a window that stays closed: nothing is dropped, and memory stays bounded by this limit
plus one request for each stream.

The two lanes stay apart here too: what came by a control lane is taken first, and has room of its
own, so that a heartbeat waits neither in a socket nor here behind megabytes of appends (S17).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from rakit.multiraft.effects import Envelope

#: What stepping a message costs beside its bytes: so much could be stepped in one piece meanwhile.
_MESSAGE_COST_BYTES: Final = 16 << 10


class Requester(Protocol):
    """The stream that a request came by; told when the request is worked off."""

    def stepped(self, number: int, write: int) -> None:
        """The request was stepped; `write` names the write that it waits for, 0 for none."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """The messages of one request or one response."""

    envelopes: list[Envelope]
    size_bytes: int
    #: It came by a control lane.
    urgent: bool
    #: Of a request: who asks and its number. Of a response: None and 0.
    requester: Requester | None = None
    number: int = 0


class Inbox:
    """A queue with a limit, filled by many streams and emptied by one loop."""

    def __init__(self, bytes_max: int, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._urgent = _Queue(bytes_max)
        self._bulk = _Queue(bytes_max)

    def __len__(self) -> int:
        return len(self._urgent.arrivals) + len(self._bulk.arrivals)

    async def put(self, arrival: Arrival) -> None:
        """Adds an arrival, when there is room; an empty inbox takes any."""
        await (self._urgent if arrival.urgent else self._bulk).put(arrival)
        self._wake()

    def take(self, urgent_bytes_max: int, bulk_bytes_max: int) -> list[Arrival]:
        """Returns the oldest arrivals, about so much of each lane, urgent ones first.

        Messages count for more than their bytes, so that what is taken is stepped in bounded time.
        """
        return self._urgent.take(urgent_bytes_max) + self._bulk.take(bulk_bytes_max)


class _Queue:
    """The arrivals of one kind of lane."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._size_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self.arrivals: deque[Arrival] = deque()

    async def put(self, arrival: Arrival) -> None:
        while self.arrivals and self._size_bytes + arrival.size_bytes > self._bytes_max:
            self._room.clear()
            await self._room.wait()
        self.arrivals.append(arrival)
        self._size_bytes += arrival.size_bytes

    def take(self, bytes_max: int) -> list[Arrival]:
        taken, cost = list[Arrival](), 0
        if not self.arrivals:
            return taken
        while self.arrivals and cost < bytes_max:
            arrival = self.arrivals.popleft()
            self._size_bytes -= arrival.size_bytes
            cost += arrival.size_bytes + _MESSAGE_COST_BYTES * len(arrival.envelopes)
            taken.append(arrival)
        self._room.set()
        return taken
