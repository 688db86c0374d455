"""The sending end of forwarded batches: one paced stream to one peer.

A gRPC operation costs a tenth of a millisecond on either side whatever it carries, so one small
message is in flight and what arrives meanwhile goes out together; bulk gets a wider window. The
window is the one of the Raft links; what counts as worked off is told by `taken_number`.

Outcomes (S22):

- What still waits here when the stream breaks was never sent: NO_LEADER, NOT_APPLIED, so the
  caller may look for the leader again.
- What was handed to the stream and has no answer is OUTCOME_UNKNOWN. Nothing is handed over before
  the peer has said hello, so a peer that is not there costs no certainty.

Rules: a link connects when there is something to send and then stays; its queue is bounded in
bytes and count, and what does not fit is refused (THROTTLED), never something older dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProduceResponse
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.gather import LinkProtocolError, Window
from rakit.node.calls import ChannelClosedError, on_channel
from rakit.node.errors import RakitError, from_status
from rakit.node.partition.answers import Appended
from rakit.node.partition.state import Stored
from rakit.peer.v1.node_service_pb2 import (
    Destination,
    ForwardedBatch,
    ForwardProduceRequest,
    ForwardProduceResponse,
)

logger = logging.getLogger(__name__)

METHOD: Final = "/rakit.peer.v1.NodeService/ForwardProduce"
#: How long a peer may take to say hello on a new stream.
HELLO_S: Final = 2.0


class ForwardCall(Protocol):
    """What is used of a grpc.aio stream."""

    async def write(self, request: ForwardProduceRequest) -> None:
        """Hands a message to the transport."""
        ...

    async def read(self) -> object:
        """The next answer, or grpc.aio.EOF."""
        ...

    def cancel(self) -> bool:
        """Ends the stream."""
        ...


class LinkLostError(Exception):
    """The peer ended the stream or broke its rules."""


@dataclass(slots=True)
class _Waiting:
    batch: ForwardedBatch
    size_bytes: int
    answer: asyncio.Future[Appended]


class ForwardLink:
    """Sends batches to one peer and resolves their futures."""

    def __init__(
        self,
        destination: Destination,
        open_stream: Callable[[], ForwardCall],
        config: LinkConfig,
    ) -> None:
        self._destination = destination
        self._open_stream = open_stream
        self._config = config
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._sent: dict[int, asyncio.Future[Appended]] = {}
        # With the tag of the last batch before it ended.
        self._ended_lanes: deque[tuple[int, int]] = deque()
        self._next_tag = 1
        self._window = Window(config)
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def send(self, batch: ForwardedBatch) -> asyncio.Future[Appended]:
        """Queues a batch; fills in its tag. Raises THROTTLED when the queue is full."""
        size = len(batch.content) + 128
        over_bytes = self._queued_bytes + size > self._config.data_queue_bytes_max
        if self._queue and (over_bytes or len(self._queue) >= self._config.queue_count_max):
            raise RakitError(
                error_pb2.ERROR_REASON_THROTTLED,
                f"Too much waits for node {self._destination.node_id}, which leads the partition.",
                {"retry_delay_ms": "50"},
            )
        batch.tag = self._next_tag
        self._next_tag += 1
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(batch, size, answer))
        self._queued_bytes += size
        self._wake.set()
        if self._running is None or self._running.done():
            name = f"forward to node {self._destination.node_id}"
            self._running = asyncio.create_task(self._run(), name=name)
        return answer

    def end_lane(self, lane: int) -> None:
        """Lets the peer forget a lane; told with batches that go there, after all of its own."""
        if self._running is not None and not self._running.done():
            self._ended_lanes.append((lane, self._next_tag - 1))

    async def close(self) -> None:
        """Ends the stream; whatever has no answer gets one that is true."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        """One stream from hello to its end; the next batch begins another."""
        try:
            await self._exchange()
        except* (
            grpc.RpcError,
            asyncio.InvalidStateError,
            TimeoutError,
            ChannelClosedError,
            LinkLostError,
        ) as errors:
            logger.info(
                "the stream for forwarded batches ended",
                extra={"peer": self._destination.node_id, "why": repr(errors.exceptions[0])},
            )
        finally:
            self._break()

    async def _exchange(self) -> None:
        self._window = Window(self._config)
        call = self._open_stream()
        try:
            async with asyncio.timeout(HELLO_S):
                # A connection attempt into the void would hold the first write up for long.
                await _write(call, ForwardProduceRequest(destination=self._destination))
                await _answer(call)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._read(call))
                both.create_task(self._write(call))
        finally:
            call.cancel()

    async def _write(self, call: ForwardCall) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and self._window.is_open(self._queued_bytes):
                await _write(call, self._gathered())

    def _gathered(self) -> ForwardProduceRequest:
        """The next message: what waits, up to the size of a message, and at least one batch."""
        request = ForwardProduceRequest(number=self._window.next_number())
        size = 0
        while self._queue and (
            not size or size + self._queue[0].size_bytes <= self._config.request_bytes_max
        ):
            waiting = self._queue.popleft()
            size += waiting.size_bytes
            self._sent[waiting.batch.tag] = waiting.answer
            request.batches.append(waiting.batch)
        last_tag = request.batches[-1].tag
        while self._ended_lanes and self._ended_lanes[0][1] <= last_tag:
            request.ended_lanes.append(self._ended_lanes.popleft()[0])
        self._queued_bytes -= size
        assert self._queued_bytes >= 0, "a queue cannot hold less than nothing"
        return request

    async def _read(self, call: ForwardCall) -> None:
        while True:
            response = await _answer(call)
            try:
                self._window.worked_off(response.taken_number)
            except LinkProtocolError as error:
                raise LinkLostError(str(error)) from error
            for outcome in response.outcomes:
                answer = self._sent.pop(outcome.tag, None)
                if answer is None or answer.done():
                    continue
                if outcome.HasField("error"):
                    answer.set_exception(from_status(outcome.error))
                else:
                    answer.set_result(appended(outcome.result))
            if self._queue:
                self._wake.set()

    def _break(self) -> None:
        """Answers everything that the stream left without an answer."""
        sent, self._sent = self._sent, {}
        waiting, self._queue = self._queue, deque()
        self._queued_bytes = 0
        self._ended_lanes.clear()
        for answer in sent.values():
            _fail(
                answer,
                error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
                "The connection to the partition's leader broke after the batch was sent there: it"
                " may or may not have been stored.",
            )
        for each in waiting:
            _fail(
                each.answer,
                error_pb2.ERROR_REASON_NO_LEADER,
                "The partition's leader could not be reached; nothing was sent.",
            )


def _fail(
    answer: asyncio.Future[Appended], reason: error_pb2.ErrorReason.ValueType, text: str
) -> None:
    if not answer.done():
        answer.set_exception(RakitError(reason, text))
        # A caller that has gone must not make the loop complain about an error nobody fetched.
        answer.exception()


async def _write(call: ForwardCall, request: ForwardProduceRequest) -> None:
    with on_channel():
        await call.write(request)


async def _answer(call: ForwardCall) -> ForwardProduceResponse:
    with on_channel():
        response = await call.read()
    if not isinstance(response, ForwardProduceResponse):
        raise LinkLostError("the peer ended the stream")
    return response


def appended(response: ProduceResponse) -> Appended:
    """The answer of a leader on another node, as if it had been this one's."""
    stored = Stored(
        response.base_offset,
        response.end_offset,
        response.append_time_ms,
        response.term,
        response.index,
    )
    return Appended(stored, response.replicas, response.fsynced, response.duplicate)
