"""The answering end of one lane from one peer: a stream that a peer opened to this node.

It reads requests into the inbox and writes answers, together with how far the requests are worked
off. Everything that is ready when a write may begin leaves in one message. On the control lane a
request is worked off when it has been stepped; on the data lane when, in addition, what was written
because of it is durable. Either way every request is, or the peer would wait for ever.

Left out: pacing of answers. They are few for each request, and requests are paced. Their queue is
bounded all the same; an answer that does not fit is dropped and counted, since Raft asks again.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn, Protocol, cast

import grpc

from rakit.multiraft import codec
from rakit.multiraft.bell import Bell
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.effects import Envelope
from rakit.multiraft.frames import Frame
from rakit.multiraft.gather import Arrears, Gather, LinkProtocolError, check_senders
from rakit.multiraft.hello import CONTROL, DATA, Lane
from rakit.multiraft.inbox import Arrival
from rakit.multiraft.peer_events import PeerEvents
from rakit.peer.v1 import raft_service_pb2 as wire


class SessionEndedError(Exception):
    """This stream is over for a reason of ours: a newer one took its place, or the node stops."""


def received(data: object) -> Frame | None:
    """Returns a message that was read; None at the end of the stream, for which grpc has a mark."""
    return cast("Frame", data) if isinstance(data, bytes | memoryview) else None


class Stream(Protocol):
    """The part of an accepted stream that is used, of gRPC or framed; messages are bytes."""

    async def read(self) -> object:
        """Returns the next message; anything else than that is the end."""
        ...

    async def write(self, message: bytes, /) -> None:
        """Sends a message."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str, /) -> NoReturn:
        """Ends the stream with an error."""
        ...


class Session:
    """One accepted stream, after the hellos."""

    def __init__(self, node_id: int, lane: Lane, config: LinkConfig, events: PeerEvents) -> None:
        self.node_id = node_id
        self.lane = lane
        self._events = events
        self._bytes_max = config.request_bytes_max
        self._answers = Gather(config.control_queue_bytes_max, config.queue_count_max)
        self._arrears = Arrears()
        self._told = 0
        self._received = 0
        self._pong: wire.Ping | None = None
        self._wake = Bell()
        self._end_reason = ""
        self._ending = asyncio.Event()

    @property
    def refused_count(self) -> int:
        """Answers that were dropped because too many waited."""
        return self._answers.refused_count

    @property
    def waits_for_sync(self) -> bool:
        """Whether a request is not worked off because its write is not durable."""
        return bool(self._arrears)

    def offer(self, envelope: Envelope) -> bool:
        """Takes an answer to be sent; False when too many wait."""
        if not self._answers.offer(envelope):
            return False
        self._wake.ring()
        return True

    def stepped(self, number: int, write: int) -> None:
        """Notes that a request was stepped; `write` names the write that it waits for, or 0."""
        if self._arrears.stepped(number, write if self.lane == DATA else 0):
            self._wake.ring()

    def synced(self, write: int) -> None:
        """Notes that every write up to this one is durable."""
        if self._arrears.synced(write):
            self._wake.ring()

    def end(self, reason: str) -> None:
        """Has `run` raise `SessionEndedError` soon."""
        self._end_reason = reason
        self._ending.set()

    async def run(self, stream: Stream) -> None:
        """Serves the stream until the peer ends it; raises what ended it otherwise."""
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(self._write(stream)), tasks.create_task(self._end())]
            await self._read(stream)
            for each in others:
                each.cancel()

    async def _end(self) -> None:
        """Ends the stream whatever the others wait for."""
        await self._ending.wait()
        raise SessionEndedError(self._end_reason)

    async def _read(self, stream: Stream) -> None:
        while await self._read_one(stream):
            pass

    async def _read_one(self, stream: Stream) -> bool:
        """False at the end. Nothing of a message is held while the next one is waited for."""
        data = received(await stream.read())
        if data is None:
            return False
        size_bytes = len(data)
        request, envelopes = codec.read_request(data)
        # Its memory is of use to others while this waits for room.
        del data
        if request.HasField("ping"):
            self._pong = self._events.pinged(self.node_id, request.ping)
            self._wake.ring()
        if request.HasField("leaderships"):
            self._events.announced(self.node_id, request.leaderships)
        if request.number:
            await self._take(request.number, envelopes, size_bytes)
        return True

    async def _take(self, number: int, envelopes: list[Envelope], size_bytes: int) -> None:
        if number != self._received + 1:
            raise LinkProtocolError(f"request {number} came after {self._received}")
        self._received = number
        check_senders(self.node_id, envelopes)
        urgent = self.lane == CONTROL
        arrival = Arrival(envelopes, size_bytes, urgent, requester=self, number=number)
        await self._events.arrived(arrival)

    async def _write(self, stream: Stream) -> None:
        while True:
            processed = self._arrears.processed
            if processed == self._told and not len(self._answers) and self._pong is None:
                await self._wake.heard()
                continue
            self._told, pong, self._pong = processed, self._pong, None
            answers = self._answers.take(self._bytes_max)
            await stream.write(codec.encode_response(processed, answers, pong))
