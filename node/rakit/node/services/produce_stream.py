"""ProduceStream: many batches over one stream, pipelined (contract 10).

A session reads requests, hands each over to be put into the lane of its partition (`placement`),
and writes answers as they come: in order within a partition, in any order between partitions.

Rules:

- What was read and has no written answer is bounded in bytes and count. Beyond that the session
  reads no further, which the client feels as flow control. For the whole node counts what has no
  answer yet (`InFlight`): a client that does not read its answers holds up nobody but itself.
- When the node drains, requests are refused with NODE_UNAVAILABLE, what is in flight gets its
  answer, and the stream ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import PartitionRestarted, ProduceStreamResponse
from rakit.multiraft.bell import Bell
from rakit.node.errors import RakitError, to_status
from rakit.node.forwarding.lanes import Lane, Parking, Request, Surroundings
from rakit.node.services.handlers import Call, Stream, draining_error
from rakit.node.services.placement import Placement, ProduceParts
from rakit.node.services.twins import StreamRequest, stream_request

#: Of one stream, read and without a written answer.
IN_FLIGHT_BYTES_MAX: Final = 32 << 20
IN_FLIGHT_COUNT_MAX: Final = 2048


class ProduceSession:
    """One produce stream."""

    def __init__(self, call: Call, stream: Stream, parts: ProduceParts) -> None:
        self._call = call
        self._stream = stream
        self._parts = parts
        self._tasks: asyncio.TaskGroup
        self._answers: deque[tuple[int, ProduceStreamResponse]] = deque()
        self._answer_ready = Bell()
        # Without a written answer.
        self._bytes = 0
        self._count = 0
        # Of these, without an answer at all.
        self._open_bytes = 0
        self._open_count = 0
        self._room = asyncio.Event()
        self._is_over = False
        surroundings = Surroundings(
            parts.router, parts.dispatch, Parking(), self._respond, self._spawn
        )
        self._placement = Placement(call, stream.closing, parts, surroundings, self)

    async def run(self) -> None:
        """Serves the stream until the client has finished and everything is answered."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                writer = self._tasks.create_task(self._write())
                closer = self._tasks.create_task(self._end_when_draining())
                await self._read()
                await self._all_answered()
                writer.cancel()
                closer.cancel()
        finally:
            self._is_over = True
            self._placement.close()
            self._parts.in_flight.give(self._open_bytes, self._open_count)

    def _spawn(self, work: Coroutine[None, None, None]) -> object:
        return self._tasks.create_task(work)

    async def _read(self) -> None:
        while True:
            while self._bytes >= IN_FLIGHT_BYTES_MAX or self._count >= IN_FLIGHT_COUNT_MAX:
                self._room.clear()
                await self._room.wait()
            data = await self._stream.read()
            if data is None:
                return
            try:
                request = stream_request(data)
            except RakitError as error:
                # It ends the stream, and so speaks for all that was taken and not answered.
                raise (error.as_unknown() if self._count else error) from None
            self._take(request, len(data))

    async def _all_answered(self) -> None:
        while self._count:
            self._room.clear()
            await self._room.wait()

    async def _end_when_draining(self) -> None:
        await self._stream.closing.wait()
        await self._all_answered()
        raise draining_error()

    async def _write(self) -> None:
        while True:
            while self._answers:
                size, answer = self._answers.popleft()
                await self._stream.write(answer)
                self._bytes -= size
                self._count -= 1
                self._room.set()
            await self._answer_ready.heard()

    def _take(self, request: StreamRequest, size: int) -> None:
        tag = request.tag
        self._bytes += size
        self._count += 1
        self._open_bytes += size
        self._open_count += 1
        self._parts.in_flight.take(size)
        if request.produce is not None:
            self._placement.produce(tag, request.produce, size)
        elif request.restart is not None:
            self._placement.restart(tag, size, request.restart)
        else:
            error = RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                "The message holds neither a produce request nor a restart.",
            )
            self.answer_error(tag, size, error)

    def _respond(self, lane: Lane, request: Request) -> None:
        outcome = request.outcome
        if isinstance(outcome, RakitError):
            listener = self._call.listener
            error = self._parts.router.placed(outcome, lane.topic, lane.partition, listener)
            self.answer_error(request.tag, request.size_bytes, error)
        elif isinstance(outcome, bool):
            self.answer_restarted(request.tag, request.size_bytes, lane.topic, lane.partition)
        else:
            assert outcome is not None, "a lane hands over finished requests only"
            answer = ProduceStreamResponse(tag=request.tag)
            answer.result.header.CopyFrom(self._parts.header)
            answer.result.partition = lane.partition
            outcome.fill(answer.result)
            self._answer(request.size_bytes, answer)

    def answer_restarted(self, tag: int, size: int, topic: str, partition: int) -> None:
        """Answers a restart message."""
        restarted = PartitionRestarted(topic=topic, partition=partition)
        self._answer(size, ProduceStreamResponse(tag=tag, restarted=restarted))

    def answer_error(self, tag: int, size: int, error: RakitError) -> None:
        """Answers with an error."""
        self._answer(size, ProduceStreamResponse(tag=tag, error=to_status(error)))

    def _answer(self, size: int, answer: ProduceStreamResponse) -> None:
        if self._is_over:
            return
        self._open_bytes -= size
        self._open_count -= 1
        self._parts.in_flight.give(size)
        self._answers.append((size, answer))
        self._answer_ready.ring()
