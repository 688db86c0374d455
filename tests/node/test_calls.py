"""A channel closed under a call, because its node moved, leaves nobody without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc.aio
import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.node.calls import on_channel
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands
from rakit.node.metadata.admission import Admission, AdmissionConfig
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.greeter import Greeter
from rakit.node.peers import Peers
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.node_service_pb2 import (
    ForwardedBatch,
    ForwardOffsetsRequest,
    ForwardOffsetsResponse,
    ForwardProduceRequest,
    ForwardProduceResponse,
)
from tests.cluster.harness import free_port
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.machines import connect
from tests.node.metadata.support import Log

LIMIT_S = 10


class Silent(grpc.GenericRpcHandler):
    """Takes every call and answers none, but for the hello of a stream."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler_call_details.method.endswith("/ForwardProduce"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, _data: bytes, _context: object) -> bytes:
        self.taken.set()
        await asyncio.Event().wait()
        return b""

    async def _stream(self, _requests: object, context: Any) -> None:
        await context.read()
        await context.write(ForwardProduceResponse().SerializeToString())
        assert ForwardProduceRequest.FromString(await context.read()).batches
        self.taken.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def silence() -> AsyncGenerator[tuple[Silent, grpc.aio.Channel]]:
    """A node that is silent, and the channel to it."""
    silent, server, port = Silent(), grpc.aio.server(), free_port()
    server.add_generic_rpc_handlers((silent,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with connect(f"127.0.0.1:{port}") as channel:
        yield silent, channel
    await server.stop(None)


async def reason_of(answer: asyncio.Future[Any]) -> str:
    with pytest.raises(RakitError) as caught:
        await asyncio.wait_for(asyncio.shield(answer), LIMIT_S)
    return reason_name(caught.value.reason)


@pytest.mark.parametrize(("mutates", "reason"), [(True, "OUTCOME_UNKNOWN"), (False, "NO_LEADER")])
async def test_a_forwarded_call_is_answered_when_its_channel_is_closed(
    mutates: bool, reason: str
) -> None:
    async with silence() as (silent, channel):
        call = asyncio.create_task(
            Peers("cluster", lambda _node_id: channel).call(
                2,
                "ForwardOffsets",
                ForwardOffsetsRequest(),
                ForwardOffsetsResponse,
                timeout_s=LIMIT_S,
                mutates=mutates,
            )
        )
        await silent.taken.wait()
        await channel.close()
        assert await reason_of(call) == reason


async def test_s22_a_forwarded_batch_is_unknown_when_its_channel_is_closed() -> None:
    async with silence() as (silent, channel):
        link = Peers("cluster", lambda _node_id: channel).link(2)
        answer = link.send(ForwardedBatch(group_id=5, record_count=1, content=b"x"))
        await silent.taken.wait()
        await channel.close()
        assert await reason_of(answer) == "OUTCOME_UNKNOWN"
        await link.close()


async def test_s22_a_forwarded_command_is_unknown_when_its_channel_is_closed() -> None:
    host = FakeHost(1, Log().found())
    client = MetadataClient(host, host.log.registry, lambda: 77)
    async with silence() as (silent, channel):
        host.leaders.becomes(2)
        host.channels[2] = channel
        command = commands.create_topic(CreateTopicRequest(name="t"))
        submitting = asyncio.create_task(client.submit(command, 0.5))
        await silent.taken.wait()
        host.leaders.becomes(0)
        await channel.close()
        assert await reason_of(submitting) == "OUTCOME_UNKNOWN"


async def test_a_request_to_join_waits_when_its_channel_is_closed() -> None:
    host = FakeHost(1, Log().found())
    client = MetadataClient(host, host.log.registry, lambda: 77)
    admission = Admission(AdmissionConfig(), host, client, Greeter(connect, 1), lambda: 77)
    async with silence() as (silent, channel):
        host.leaders.becomes(2)
        host.channels[2] = channel
        asking = asyncio.create_task(admission.admit(wire.JoinRequest(), wire.Standing(), []))
        await silent.taken.wait()
        await channel.close()
        answer = await asyncio.wait_for(asyncio.shield(asking), LIMIT_S)
        assert "cannot be asked" in answer.wait


async def test_a_greeting_is_not_answered_when_its_channel_is_closed() -> None:
    async with silence() as (silent, channel):
        greeter = Greeter(lambda _address: channel, LIMIT_S * 1000)
        greeting = asyncio.create_task(greeter.greet("anywhere", wire.Standing()))
        await silent.taken.wait()
        await greeter.close()
        assert await asyncio.wait_for(asyncio.shield(greeting), LIMIT_S) is None


async def test_a_task_that_is_cancelled_while_it_calls_is_cancelled() -> None:
    async with silence() as (silent, channel):

        async def call() -> None:
            with on_channel():
                await cast("Any", channel).unary_unary("/service/Method")(b"")

        calling = asyncio.create_task(call())
        await silent.taken.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert calling.cancelled()
