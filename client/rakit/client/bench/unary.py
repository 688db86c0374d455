"""`rakit bench unary`: one record a call, as a generated stub without any help does it.

Many callers each call `Produce` with one row, await the answer, and call again. Each caller is an
idempotent producer with a partition of its own choice and one call in flight, as the contract asks
of a client without batching. The reference is the same loop with the same requests on a bare gRPC
server that gives every message back: what is left of its rate is rakit's share.

Rules:

- Both sides are measured in turn, in rounds, because the machine changes its speed within minutes;
  every other round begins with the other side. The share is that of a round, and what counts is the
  median over the rounds, and the lower end of its 95 % interval.
- Channels are as many on both sides as the cluster was told addresses of, and the callers of each
  partition are spread over them, wherever it is led. Nodes are not stopped while the reference is
  measured; three that nobody uses take one or two percent of a core.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, cast

import grpc.aio

from rakit.api.v1.log_service_pb2 import InitProducerRequest, ProduceRequest, ProduceResponse
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.client.bench.background import together
from rakit.client.bench.echo import CALL, echo_process
from rakit.client.bench.figures import lower_end, median, summarise
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report, at_least, latency_figures
from rakit.client.bench.target import bench_topic, cluster_at
from rakit.client.bench.usage import Spent, Usage, spent_during
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.errors import from_rpc_error

if TYPE_CHECKING:
    from rakit.api.v1.log_service_pb2_grpc import LogServiceAsyncStub

WARM_UP_S: Final = 0.5
OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)
GOALS: Final = {"share_low": at_least(40)}


@dataclass(frozen=True, slots=True)
class UnarySettings:
    """How many call, with what, and for how long each side is measured in a round."""

    callers: int = 64
    record_bytes: int = 100
    partitions: int = 6
    rounds: int = 5
    seconds: float = 4


class Caller:
    """One producer without batching."""

    def __init__(self, topic: str, partition: int, settings: UnarySettings) -> None:
        self._request = ProduceRequest(topic=topic, partition=partition)
        self._request.rows.records.add(value=bytes(settings.record_bytes))
        self._stamp = self._request.producer

    async def begin(self, stub: LogServiceAsyncStub) -> None:
        """Becomes a producer that nobody was before."""
        answer = await stub.InitProducer(InitProducerRequest())
        self._stamp.producer_id, self._stamp.epoch = answer.producer_id, answer.epoch

    def next_request(self) -> ProduceRequest:
        """The next record. The message is valid until the next one is asked for."""
        self._stamp.sequence += 1
        return self._request


Call = Callable[[ProduceRequest], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side did in one round."""

    times_s: list[float]
    spent: Spent

    @property
    def per_s(self) -> float:
        """Calls a second."""
        return len(self.times_s) / self.spent.seconds


async def bench_unary(bootstrap: str | None, settings: UnarySettings, say: Say) -> Report:
    """Measures the cluster and the reference in turn."""
    rounds: list[tuple[Turn, Turn]] = []
    async with (
        cluster_at(bootstrap) as target,
        Client(target.bootstrap) as client,
        bench_topic(client, settings.partitions) as topic,
        _channels(target.bootstrap.split(",")) as channels,
        echo_process() as server,
        _channels([server.address] * len(channels)) as echo_channels,
    ):
        description, usage = target.description, target.usage()
        callers = [
            Caller(topic, number % settings.partitions, settings)
            for number in range(settings.callers)
        ]
        stubs = [LogServiceStub(channel) for channel in channels]
        for number, caller in enumerate(callers):
            await caller.begin(stubs[number % len(stubs)])
        # Of the callers of each partition as many call each node: two of three are forwarded.
        places = [number // settings.partitions % len(stubs) for number in range(len(callers))]
        calls = [_durable(stubs[place]) for place in places]
        echoes = [_echo(echo_channels[place]) for place in places]
        for number in range(settings.rounds):
            say(f"unary: round {number + 1} of {settings.rounds}")
            if number % 2:
                echo = await _turn(callers, echoes, settings.seconds, None)
                rounds.append((await _turn(callers, calls, settings.seconds, usage), echo))
            else:
                turn = await _turn(callers, calls, settings.seconds, usage)
                rounds.append((turn, await _turn(callers, echoes, settings.seconds, None)))
    figures = figures_of(rounds)
    return Report("unary", {"cluster": description, **asdict(settings)}, figures).aiming(GOALS)


def figures_of(rounds: list[tuple[Turn, Turn]]) -> tuple[Figure, ...]:
    """Returns what rounds of (cluster, echo) come to."""
    shares = [100 * turn.per_s / echo.per_s for turn, echo in rounds]
    per_s = median([turn.per_s for turn, _ in rounds])
    echo_per_s = median([echo.per_s for _, echo in rounds])
    times_s = [each for turn, _ in rounds for each in turn.times_s]
    calls = len(times_s)
    client_cpu_s = sum(turn.spent.client_cpu_s for turn, _ in rounds)
    figures = [
        Figure("calls_per_s", "acknowledged, median", per_s, "calls/s"),
        *latency_figures("call", "a call", summarise(times_s)),
        Figure("client_cpu_us", "CPU of the client, a call", 1e6 * client_cpu_s / calls, "us"),
    ]
    if rounds[0][0].spent.node_cpu_s:
        cpu_s = sum(sum(turn.spent.node_cpu_s) for turn, _ in rounds)
        figures.append(
            Figure("nodes_cpu_us", "CPU of all nodes, a call", 1e6 * cpu_s / calls, "us")
        )
    return (
        *figures,
        Figure("echo_per_s", "reference: bare gRPC", echo_per_s, "calls/s", per_s / echo_per_s),
        Figure("share_median", "share of bare gRPC, median", median(shares), "%"),
        Figure("share_low", "the same, lower end of 95 %", lower_end(shares), "%"),
    )


@asynccontextmanager
async def _channels(addresses: list[str]) -> AsyncGenerator[list[grpc.aio.Channel]]:
    """A connection of its own for each address."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=OPTIONS))
            for address in addresses
        ]


def _durable(stub: LogServiceAsyncStub) -> Call:
    async def call(request: ProduceRequest) -> ProduceResponse:
        answer = await stub.Produce(request)
        if not answer.fsynced or answer.duplicate:
            raise CommandError("a record was acknowledged without being stored durably, and anew")
        return answer

    return call


def _echo(channel: grpc.aio.Channel) -> Call:
    method = channel.unary_unary(CALL, ProduceRequest.SerializeToString, ProduceRequest.FromString)

    async def call(request: ProduceRequest) -> object:
        return await cast("Callable[[ProduceRequest], Awaitable[object]]", method)(request)

    return call


async def _turn(
    callers: list[Caller], calls: list[Call], seconds: float, usage: Usage | None
) -> Turn:
    await _loop(callers, calls, min(seconds, WARM_UP_S), [])
    times_s: list[float] = []
    spent = await spent_during(usage, _loop(callers, calls, seconds, times_s))
    return Turn(times_s, spent)


async def _loop(
    callers: list[Caller], calls: list[Call], seconds: float, times_s: list[float]
) -> None:
    """Lets every caller call until the time is over; adds how long each call took."""
    end_s = time.perf_counter() + seconds

    async def one(caller: Caller, call: Call) -> None:
        while (began_s := time.perf_counter()) < end_s:
            await call(caller.next_request())
            times_s.append(time.perf_counter() - began_s)

    try:
        await together(one(caller, call) for caller, call in zip(callers, calls, strict=True))
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure, "the cluster") from failure
