"""A group service whose streams the test holds in its hands.

Each Subscribe stream becomes a `Line`: what the client sends can be awaited, and the test sends
what a server would. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc.aio

from rakit.api.v1 import group_service_pb2 as wire
from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1.record_pb2 import Records
from rakit.client.records import fill_columns

from .fake_cluster import Context, RefusalError, refuse, to_bytes

Names = Sequence[tuple[str, int]]


class Line:
    """One stream."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[wire.SubscribeResponse | RefusalError | None] = asyncio.Queue()
        self.requests: list[wire.SubscribeRequest] = []
        self._seen = 0
        self._came = asyncio.Event()
        self.is_over = asyncio.Event()

    # What the test says.

    def joined(self, token: bytes = b"token", *, resumed: bool = False) -> None:
        self._send(
            joined=wire.Joined(member_id="m", member_epoch=1, resume_token=token, resumed=resumed)
        )

    def assigned(
        self,
        added: dict[tuple[str, int], int],
        owned: Names | None = None,
        *,
        reset: bool = False,
        topic_id: int = 7,
        more: bool = False,
    ) -> None:
        message = wire.Assigned(member_epoch=1, more=more)
        for (topic, partition), offset in added.items():
            message.added.add(
                topic=topic, partition=partition, offset=offset, reset=reset, topic_id=topic_id
            )
        for topic, partition in added if owned is None else owned:
            message.owned.add(topic=topic, partition=partition)
        self._send(assigned=message)

    def records(
        self, topic: str, partition: int, offset: int, values: Sequence[bytes], charged: int = 100
    ) -> None:
        columns = Records()
        fill_columns(columns, values)
        message = wire.Delivery(charged_bytes=charged)
        data = message.data
        data.topic, data.partition = topic, partition
        data.next_offset = data.high_watermark = offset + len(values)
        data.batches.add(
            base_offset=offset, record_count=len(values), append_time_ms=1, records=columns
        )
        self._send(records=message)

    def revoking(self, *names: tuple[str, int]) -> None:
        partitions = [wire.TopicPartition(topic=topic, partition=at) for topic, at in names]
        self._send(revoking=wire.Revoking(partitions=partitions, deadline_ms=1_000))

    def committed(
        self, tag: int, refused: dict[tuple[str, int], RefusalError] | None = None
    ) -> None:
        message = wire.Committed(tag=tag)
        for (topic, partition), error in (refused or {}).items():
            message.errors.add(topic=topic, partition=partition, error=error.status())
        self._send(committed=message)

    def sought(self, tag: int, offset: int) -> None:
        self._send(sought=wire.Sought(tag=tag, offset=offset))

    def not_sought(self, tag: int, refusal: RefusalError) -> None:
        self._send(sought=wire.Sought(tag=tag, error=refusal.status()))

    def unreadable(self, topic: str, partition: int, refusal: RefusalError) -> None:
        message = wire.Delivery()
        message.data.topic, message.data.partition = topic, partition
        message.data.error.CopyFrom(refusal.status())
        self._send(records=message)

    def fail(self, reason: str, /, **metadata: str) -> None:
        self._events.put_nowait(RefusalError(reason, **metadata))

    def end(self) -> None:
        self._events.put_nowait(None)

    def _send(self, **event: object) -> None:
        self._events.put_nowait(wire.SubscribeResponse(**event))  # type: ignore[arg-type]

    # What the client said.

    async def next(self, kind: str) -> wire.SubscribeRequest:
        """The next request of a kind that was not looked at; others are passed over."""
        while True:
            while self._seen < len(self.requests):
                request = self.requests[self._seen]
                self._seen += 1
                if request.WhichOneof("request") == kind:
                    return request
            self._came.clear()
            await self._came.wait()

    def kinds(self) -> list[str]:
        return [each.WhichOneof("request") or "" for each in self.requests]

    async def serve(
        self, requests: AsyncIterator[wire.SubscribeRequest], context: Context
    ) -> AsyncIterator[wire.SubscribeResponse]:
        listening = asyncio.create_task(self._listen(requests))
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, RefusalError):
                    await refuse(context, event)
                    return
                yield event
        finally:
            listening.cancel()
            self.is_over.set()

    async def _listen(self, requests: AsyncIterator[wire.SubscribeRequest]) -> None:
        async for request in requests:
            self.requests.append(request)
            self._came.set()


class FakeGroups:
    """The group service of one node."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self.address = ""
        self.resets: list[wire.ResetOffsetsRequest] = []
        self.commits: list[wire.CommitOffsetsRequest] = []
        self.partition_count = 1
        #: What GetGroup answers, one after the other, and what it was asked.
        self.pages: list[wire.Group] = []
        self.page_tokens: list[str] = []
        self._server = grpc.aio.server()

    async def start(self) -> None:
        handler: Callable[..., AsyncIterator[wire.SubscribeResponse]] = self._subscribe
        method = grpc.stream_stream_rpc_method_handler(
            handler, wire.SubscribeRequest.FromString, to_bytes
        )
        resetting: Callable[..., Awaitable[wire.ResetOffsetsResponse]] = self._reset
        getting: Callable[..., Awaitable[wire.GetGroupResponse]] = self._get
        committing: Callable[..., Awaitable[wire.CommitOffsetsResponse]] = self._commit
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "CommitOffsets": grpc.unary_unary_rpc_method_handler(
                committing, wire.CommitOffsetsRequest.FromString, to_bytes
            ),
            "Subscribe": method,
            "GetGroup": grpc.unary_unary_rpc_method_handler(
                getting, wire.GetGroupRequest.FromString, to_bytes
            ),
            "ResetOffsets": grpc.unary_unary_rpc_method_handler(
                resetting, wire.ResetOffsetsRequest.FromString, to_bytes
            ),
        }
        asking: Callable[..., Awaitable[log.GetOffsetsResponse]] = self._get_offsets
        log_methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetOffsets": grpc.unary_unary_rpc_method_handler(
                asking, log.GetOffsetsRequest.FromString, to_bytes
            ),
        }
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("rakit.api.v1.GroupService", methods),
                grpc.method_handlers_generic_handler("rakit.api.v1.LogService", log_methods),
            )
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def line(self) -> Line:
        """The next stream that is opened."""
        return await self._lines.get()

    async def _subscribe(
        self, requests: AsyncIterator[wire.SubscribeRequest], context: Context
    ) -> AsyncIterator[wire.SubscribeResponse]:
        line = Line()
        self._lines.put_nowait(line)
        async for event in line.serve(requests, context):
            yield event

    async def _get(self, request: wire.GetGroupRequest, _context: Context) -> wire.GetGroupResponse:
        self.page_tokens.append(request.page_token)
        at = len(self.page_tokens)
        token = f"page {at}" if at < len(self.pages) else ""
        return wire.GetGroupResponse(group=self.pages[at - 1], next_page_token=token)

    async def _commit(
        self, request: wire.CommitOffsetsRequest, _context: Context
    ) -> wire.CommitOffsetsResponse:
        """Takes all of it."""
        self.commits.append(request)
        return wire.CommitOffsetsResponse()

    async def _get_offsets(
        self, _request: log.GetOffsetsRequest, _context: Context
    ) -> log.GetOffsetsResponse:
        """Each log ends before 10."""
        answer = log.GetOffsetsResponse()
        for partition in range(self.partition_count):
            answer.partitions.add(partition=partition, earliest=0, latest=10)
        return answer

    async def _reset(
        self, request: wire.ResetOffsetsRequest, _context: Context
    ) -> wire.ResetOffsetsResponse:
        """Moves what is named by number to there, and all of a topic from 10 to 7."""
        self.resets.append(request)
        answer = wire.ResetOffsetsResponse()
        for target in request.targets:
            whole = range(self.partition_count)
            for partition in [target.partition] if target.HasField("partition") else whole:
                answer.changes.add(topic=target.topic, partition=partition, before=10, after=7)
        return answer
