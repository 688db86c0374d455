"""ProduceStream: many batches over one stream, pipelined (contract 10).

A session reads requests, puts each into the lane of its partition, and writes answers as they come:
in order within a partition, in any order between partitions.

Rules:

- What was read and has no written answer is bounded in bytes and count. Beyond that the session
  reads no further, which the client feels as flow control.
- A request for a topic that this node does not know waits, with all later ones for that topic,
  until a majority has been asked (S22); other topics go on.
- A request that names no partition that exists fails by itself: there is no lane that it could
  break.
- When the node drains, requests are refused with NODE_UNAVAILABLE, what is in flight gets its
  answer, and the stream ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import PartitionRestarted, ProduceStreamResponse
from rakit.node.errors import RakitError, to_status
from rakit.node.forwarding.lanes import Lane, Parking, Request, Surroundings
from rakit.node.metadata.registry import TopicInfo
from rakit.node.produce import Dispatch, InFlight
from rakit.node.routing import Router, give_up_at
from rakit.node.services.admission import Targeting, admitted
from rakit.node.services.handlers import Call, Stream, draining_error
from rakit.node.services.twins import stream_request
from rakit.peer.v1.opaque_pb2 import OpaqueProduceRequest, OpaqueProduceStreamRequest

#: Of one stream, read and without a written answer.
IN_FLIGHT_BYTES_MAX: Final = 32 << 20
IN_FLIGHT_COUNT_MAX: Final = 2048


@dataclass(frozen=True, slots=True)
class ProduceParts:
    """What produce calls need of the node."""

    router: Router
    dispatch: Dispatch
    in_flight: InFlight
    targeting: Targeting
    header: ResponseHeader


class ProduceSession:
    """One produce stream."""

    def __init__(self, call: Call, stream: Stream, parts: ProduceParts) -> None:
        self._call = call
        self._stream = stream
        self._parts = parts
        self._tasks: asyncio.TaskGroup
        self._lanes: dict[tuple[str, int], Lane] = {}
        # Requests for topics that are being looked up, by topic.
        self._looked_up: dict[str, deque[tuple[int, OpaqueProduceRequest, int]]] = {}
        self._answers: deque[tuple[int, ProduceStreamResponse]] = deque()
        self._answer_ready = asyncio.Event()
        self._bytes = 0
        self._count = 0
        self._room = asyncio.Event()
        self._surroundings = Surroundings(
            parts.router, parts.dispatch, Parking(), self._respond, self._spawn
        )

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
            for lane in self._lanes.values():
                lane.close()
            self._parts.in_flight.give(self._bytes, self._count)

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
                self._parts.in_flight.give(size)
                self._room.set()
            self._answer_ready.clear()
            await self._answer_ready.wait()

    def _take(self, request: OpaqueProduceStreamRequest, size: int) -> None:
        tag = request.tag
        self._bytes += size
        self._count += 1
        self._parts.in_flight.take(size)
        match request.WhichOneof("request"):
            case "produce" if self._stream.closing.is_set():
                self._answer_error(tag, size, draining_error())
            case "produce":
                self._produce(tag, request.produce, size)
            case "restart":
                topic, partition = request.restart.topic, request.restart.partition
                lane = self._lanes.get((topic, partition))
                if lane is None:
                    self._answer_restarted(tag, size, topic, partition)
                else:
                    lane.restart(Request(tag, size, 0.0))
            case None:
                error = RakitError(
                    error_pb2.ERROR_REASON_INVALID_REQUEST,
                    "The message holds neither a produce request nor a restart.",
                )
                self._answer_error(tag, size, error)

    def _produce(self, tag: int, request: OpaqueProduceRequest, size: int) -> None:
        waiting = self._looked_up.get(request.topic)
        if waiting is not None:
            waiting.append((tag, request, size))
            return
        topic = self._parts.router.known_topic(request.topic)
        if topic is None or request.partition >= len(topic.partitions):
            self._looked_up[request.topic] = deque([(tag, request, size)])
            self._tasks.create_task(self._look_up(request.topic))
            return
        self._to_lane(tag, request, size, topic)

    async def _look_up(self, name: str) -> None:
        """Asks a majority about a topic, then goes on with what waits for the answer."""
        number = self._looked_up[name][0][1].partition
        topic: TopicInfo | None = None
        failure: RakitError | None = None
        give_up = give_up_at(self._call.deadline)
        try:
            topic, _ = await self._parts.router.partition(name, number, give_up)
        except RakitError as error:
            failure = error
            topic = self._parts.router.known_topic(name)
            if error.reason != error_pb2.ERROR_REASON_UNKNOWN_PARTITION:
                topic = None
        for tag, request, size in self._looked_up.pop(name):
            if topic is not None:
                self._to_lane(tag, request, size, topic)
            else:
                assert failure is not None, "a topic is there or there is a reason"
                self._answer_error(tag, size, failure)

    def _to_lane(
        self, tag: int, message: OpaqueProduceRequest, size: int, topic: TopicInfo
    ) -> None:
        try:
            partition = self._parts.targeting.partition_of(message, topic)
        except RakitError as error:
            self._answer_error(tag, size, error)
            return
        lane = self._lanes.get((topic.name, partition))
        if lane is None:
            lane = Lane(topic.name, partition, self._surroundings)
            self._lanes[topic.name, partition] = lane
        request = Request(tag, size, give_up_at(self._call.deadline))
        try:
            self._parts.in_flight.check()
            content = admitted(message, topic)
        except RakitError as error:
            lane.refuse(request, error)
            return
        request.batch, request.stamp = content.batch, content.stamp
        request.expected_offset = content.expected_offset
        if message.leader_only:
            request.leader_only_listener = self._call.listener
        lane.submit(request)

    def _respond(self, lane: Lane, request: Request) -> None:
        outcome = request.outcome
        if isinstance(outcome, RakitError):
            listener = self._call.listener
            error = self._parts.router.placed(outcome, lane.topic, lane.partition, listener)
            self._answer_error(request.tag, request.size_bytes, error)
        elif isinstance(outcome, bool):
            self._answer_restarted(request.tag, request.size_bytes, lane.topic, lane.partition)
        else:
            assert outcome is not None, "a lane hands over finished requests only"
            answer = ProduceStreamResponse(tag=request.tag)
            answer.result.header.CopyFrom(self._parts.header)
            answer.result.partition = lane.partition
            outcome.fill(answer.result)
            self._answer(request.size_bytes, answer)

    def _answer_restarted(self, tag: int, size: int, topic: str, partition: int) -> None:
        restarted = PartitionRestarted(topic=topic, partition=partition)
        self._answer(size, ProduceStreamResponse(tag=tag, restarted=restarted))

    def _answer_error(self, tag: int, size: int, error: RakitError) -> None:
        self._answer(size, ProduceStreamResponse(tag=tag, error=to_status(error)))

    def _answer(self, size: int, answer: ProduceStreamResponse) -> None:
        self._answers.append((size, answer))
        self._answer_ready.set()
