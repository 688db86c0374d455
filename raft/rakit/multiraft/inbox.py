"""What has been received and not yet stepped, bounded over all peers.

Streams put, the step loop takes. When the inbox is full a stream reads no further, which its peer
notices as a window that stays closed: nothing is dropped, and memory stays bounded by this limit
plus one request for each stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rakit.multiraft.effects import Envelope


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
    #: Of a request: who asks and its number. Of a response: None and 0.
    requester: Requester | None = None
    number: int = 0


class Inbox:
    """A queue with a limit, filled by many streams and emptied by one loop."""

    def __init__(self, bytes_max: int, wake: Callable[[], None]) -> None:
        self._bytes_max = bytes_max
        self._wake = wake
        self._arrivals: deque[Arrival] = deque()
        self._room = asyncio.Event()
        self._room.set()
        #: Of what waits.
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    async def put(self, arrival: Arrival) -> None:
        """Adds an arrival, when there is room; an empty inbox takes any."""
        while self._arrivals and self.size_bytes + arrival.size_bytes > self._bytes_max:
            self._room.clear()
            await self._room.wait()
        self._arrivals.append(arrival)
        self.size_bytes += arrival.size_bytes
        self._wake()

    def take(self, bytes_max: int) -> list[Arrival]:
        """Returns the oldest arrivals, about `bytes_max` of them."""
        taken, size = list[Arrival](), 0
        while self._arrivals and size < bytes_max:
            arrival = self._arrivals.popleft()
            size += arrival.size_bytes
            taken.append(arrival)
        self.size_bytes -= size
        if not self._room.is_set():
            self._room.set()
        return taken
