"""What goes down a member's stream, in an order that a client can rely on.

Two write: whoever has events (`put`), and whoever has records (`Parcel`). Records are made long
before they are written, for the client may be slow; meanwhile their partition may have been taken
away, or sought elsewhere.

Rules:

- Events that were put before a parcel is written go first. So `assigned` and `sought` precede the
  records that they are about, and `revoking` is followed by none.
- A parcel asks at the very last moment whether it is still right, and is dropped if it is not.
- After `HEARTBEAT_S` without anything to write there is a heartbeat.
- Who puts events because of requests looks at `is_full` before taking more of them: a client that
  does not read stops being read from.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from rakit.api.v1.log_service_pb2 import ReadHeartbeat
from rakit.multiraft.bell import Bell
from rakit.peer.v1.opaque_pb2 import OpaqueSubscribeResponse

HEARTBEAT_S: Final = 5.0
#: Beyond it no more requests are taken.
EVENTS_COUNT_MAX: Final = 1024
#: How long a stream that ends waits for its client to take what was to be said before.
FLUSH_S: Final = 1.0


class ByteStream(Protocol):
    """The client's side of a stream."""

    async def write_bytes(self, data: bytes) -> None:
        """Hands an answer over; waits while the client does not read."""
        ...

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has a callback called when the transport holds nothing of the stream any more."""
        ...


class Outbox:
    """All that is written to one stream."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._events: deque[OpaqueSubscribeResponse] = deque()
        self._put = Bell()
        self._writing = asyncio.Lock()
        self._heartbeat_at = 0.0
        self._taken = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more requests should be taken."""
        return len(self._events) >= EVENTS_COUNT_MAX

    def put(self, event: OpaqueSubscribeResponse) -> None:
        """Has an event written."""
        self._events.append(event)
        self._put.ring()

    async def room(self) -> None:
        """Waits until it is not full."""
        while self.is_full:
            self._taken.clear()
            await self._taken.wait()

    async def run(self) -> None:
        """Writes events and heartbeats until it is cancelled."""
        loop = asyncio.get_running_loop()
        self._heartbeat_at = loop.time() + HEARTBEAT_S
        while True:
            try:
                async with asyncio.timeout_at(self._heartbeat_at):
                    await self._put.heard()
            except TimeoutError:
                # Records may have been written meanwhile.
                if not self._events and loop.time() >= self._heartbeat_at:
                    now_ms = int(time.time() * 1000)
                    self.put(OpaqueSubscribeResponse(heartbeat=ReadHeartbeat(time_ms=now_ms)))
            async with self._writing:
                await self._write_events()

    async def flushed(self) -> None:
        """Waits until all events are written, though not for long."""
        try:
            async with asyncio.timeout(FLUSH_S), self._writing:
                await self._write_events()
        except TimeoutError:
            return

    async def _write_events(self) -> None:
        while self._events:
            event = self._events[0]
            await self._write(event.SerializeToString())
            self._events.popleft()
            self._taken.set()

    async def _write(self, data: bytes) -> None:
        await self._stream.write_bytes(data)
        self._heartbeat_at = asyncio.get_running_loop().time() + HEARTBEAT_S

    async def send(self, data: bytes, begin: Callable[[], bool]) -> None:
        """Writes records, if `begin` says at the last moment that they are still right."""
        async with self._writing:
            await self._write_events()
            if begin():
                await self._write(data)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has a callback called when the transport holds nothing of the stream any more."""
        self._stream.on_end(callback)


class Parcel:
    """Records on their way to the client; what a lease of the read budget writes to."""

    def __init__(self, outbox: Outbox, begin: Callable[[], bool]) -> None:
        self._outbox = outbox
        self._begin = begin

    async def write_bytes(self, data: bytes) -> None:
        """Writes the records, or drops them."""
        await self._outbox.send(data, self._begin)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Has a callback called when the transport holds nothing of the stream any more."""
        self._outbox.on_end(callback)
