"""A produce stream without a transport: the test is the client, the leader and the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio

from rakit.api.v1 import error_pb2
from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import (
    ProduceRequest,
    ProduceStreamRequest,
    ProduceStreamResponse,
    RestartPartition,
)
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.registry import TopicInfo
from rakit.node.produce import InFlight
from rakit.node.routing import Router
from rakit.node.services.admission import Targeting
from rakit.node.services.handlers import Call, Stream
from rakit.node.services.placement import ProduceParts
from rakit.node.services.produce_stream import ProduceSession
from tests.node.forwarding.world import ME, TOPIC, World
from tests.node.services.served import refusal_in, rows


class Client:
    """What a session sees of its call. Answers are taken while `reads` is set."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: list[ProduceStreamResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.changed = asyncio.Event()

    def time_remaining(self) -> float | None:
        return None

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> Any:
        raise AssertionError(f"{code} {details} {trailing_metadata}")

    async def read(self) -> Any:
        request = await self.requests.get()
        self.changed.set()
        return request

    async def write(self, message: bytes) -> None:
        await self.reads.wait()
        self.answers.append(ProduceStreamResponse.FromString(message))
        self.changed.set()

    async def send_initial_metadata(self, initial_metadata: tuple[()]) -> None:
        del initial_metadata


class Registry:
    """A metadata group that may be out of reach, and what this node knows of it meanwhile."""

    def __init__(self) -> None:
        self.known: TopicInfo | None = TOPIC
        self.confirmed: TopicInfo | None = TOPIC
        self.failure: error_pb2.ErrorReason.ValueType | None = None
        #: Set: a question is answered.
        self.answers = asyncio.Event()
        self.answers.set()
        self.nodes: dict[int, object] = {}

    @property
    def registry(self) -> Registry:
        return self

    def topic(self, name: str) -> TopicInfo | None:
        return self.known if name == "t" else None

    async def barrier(self, _timeout_seconds: float) -> Registry:
        confirmed, failure = self.confirmed, self.failure
        await self.answers.wait()
        await asyncio.sleep(0)
        if failure is not None:
            raise RakitError(failure, "as the test says")
        self.known = confirmed
        return self


class Scripted:
    """A session under way."""

    def __init__(self) -> None:
        self.world = World()
        self.world.lead(ME)
        self.registry = Registry()
        self.client = Client()
        self.closing = asyncio.Event()
        self.in_flight = InFlight()
        router = Router(ME, cast("MetadataClient", self.registry), self.world.leaders)
        parts = ProduceParts(
            router, self.world.dispatch, self.in_flight, Targeting(), ResponseHeader()
        )
        call = Call("default", asyncio.get_running_loop().time() + 1000)
        self.session = ProduceSession(call, Stream(self.client, self.closing), parts)
        self.running = asyncio.create_task(self.session.run())

    def send(self, tag: int, **fields: Any) -> None:
        fields = {"topic": "t", "rows": rows(b"%d" % tag), **fields}
        if "routing_key" not in fields:
            fields.setdefault("partition", 0)
        request = ProduceStreamRequest(tag=tag, produce=ProduceRequest(**fields))
        self.client.requests.put_nowait(request.SerializeToString())

    def restart(self, tag: int) -> None:
        message = RestartPartition(topic="t", partition=0)
        request = ProduceStreamRequest(tag=tag, restart=message)
        self.client.requests.put_nowait(request.SerializeToString())

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def answered(self, count: int) -> list[tuple[int, str]]:
        """What the client was told, once it is so much."""
        async with asyncio.timeout(5):
            while len(self.client.answers) < count:
                self.client.changed.clear()
                await self.client.changed.wait()
        return [(answer.tag, outcome(answer)) for answer in self.client.answers]

    async def finish(self) -> None:
        """The client has sent everything; the session ends when all is answered."""
        self.client.requests.put_nowait(grpc.aio.EOF)
        await asyncio.wait_for(self.running, 5)


def outcome(answer: ProduceStreamResponse) -> str:
    kind = answer.WhichOneof("outcome")
    return refusal_in(answer.error).reason if kind == "error" else str(kind)


@asynccontextmanager
async def scripted() -> AsyncGenerator[Scripted]:
    made = Scripted()
    try:
        yield made
    finally:
        made.running.cancel()
        await asyncio.gather(made.running, return_exceptions=True)
