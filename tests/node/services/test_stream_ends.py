"""How a stream's end speaks of what it has taken and not answered: nobody knows (contract 13)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.rpc.status_pb2 import Status

from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import ProduceRequest, ProduceStreamRequest
from rakit.node.produce import InFlight
from rakit.node.services import handlers
from rakit.node.services.admission import Targeting
from rakit.node.services.handlers import Call, Gate, Methods, Stream
from rakit.node.services.placement import ProduceParts
from rakit.node.services.produce_stream import ProduceSession
from tests.node.forwarding.world import OTHER, World
from tests.node.services.served import refusal_in, rows


class ScriptedContext:
    """A call whose client sends what the test puts, and whose end is noted."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[bytes] = asyncio.Queue()
        self.outcome = ""
        self.metadata: dict[str, str] = {}

    def time_remaining(self) -> float | None:
        return None

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> Any:
        del code, details
        trailers = dict(trailing_metadata)
        self.outcome = trailers["rakit-outcome"]
        self.metadata = refusal_in(Status.FromString(trailers["grpc-status-details-bin"])).metadata
        raise grpc.aio.AbortError

    async def read(self) -> bytes:
        return await self.requests.get()

    async def write(self, message: bytes) -> None:
        raise AssertionError(f"{message!r} is no answer that was expected")

    async def send_initial_metadata(self, initial_metadata: tuple[()]) -> None:
        del initial_metadata


async def end_of(context: ScriptedContext, world: World, gate: Gate) -> asyncio.Task[Any]:
    parts = ProduceParts(world.router, world.dispatch, InFlight(), Targeting(), ResponseHeader())

    async def run(call: Call, stream: Stream) -> None:
        await ProduceSession(call, stream, parts).run()

    methods = Methods("s", "default", gate)
    methods.bidirectional("ProduceStream", run)
    behave = cast("Any", methods.names["ProduceStream"]).stream_stream
    task: asyncio.Task[Any] = asyncio.create_task(behave(None, context))
    return task


def produce() -> bytes:
    request = ProduceRequest(topic="t", partition=0, rows=rows(b"v"))
    return ProduceStreamRequest(tag=1, produce=request).SerializeToString()


@pytest.mark.parametrize("taken", [True, False])
async def test_a_message_that_is_none_leaves_what_was_taken_unknown(taken: bool) -> None:
    world, context = World(), ScriptedContext()
    world.lead(OTHER)
    ending = await end_of(context, world, Gate())
    if taken:
        context.requests.put_nowait(produce())
        await world.until_sent(1)
    context.requests.put_nowait(b"\xff")
    with pytest.raises(grpc.aio.AbortError):
        await ending
    assert context.outcome == ("UNKNOWN" if taken else "NOT_APPLIED")


async def test_a_drain_whose_patience_ends_leaves_what_was_taken_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "STREAM_GRACE_S", 0.01)
    world, context, gate = World(), ScriptedContext(), Gate()
    world.lead(OTHER)
    ending = await end_of(context, world, gate)
    context.requests.put_nowait(produce())
    await world.until_sent(1)
    gate.close()
    with pytest.raises(grpc.aio.AbortError):
        await ending
    assert context.outcome == "UNKNOWN"


@pytest.mark.parametrize("others", [{"default": "other:7070"}, {}], ids=["another", "nobody"])
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "new"])
async def test_a_node_that_stops_tells_its_callers_where_else_to_go(
    is_open: bool, others: dict[str, str]
) -> None:
    world, context, gate = World(), ScriptedContext(), Gate()
    gate.elsewhere = lambda listener: others.get(listener, "")
    if not is_open:
        gate.close()
    ending = await end_of(context, world, gate)
    gate.close()
    with pytest.raises(grpc.aio.AbortError):
        await ending
    expected = {"other_address": "other:7070"} if others else {}
    assert (context.outcome, context.metadata) == ("NOT_APPLIED", expected)
