"""Channels to nodes, and unary calls that find a node which answers.

Every node serves every call, so a unary request goes to any node that is believed to be alive, and
to another one when that fails. `Connections` knows addresses from two sources: the bootstrap list,
which is never forgotten, and what the cluster says about its nodes.

Rules:

- All unary requests of this package may be repeated: reads, and mutations that carry a request id,
  that only raise an epoch, or that name the leader to be. An error that is not retriable ends the
  attempts at once.
- The error that is raised says "maybe applied" as soon as one attempt ended with an unknown
  outcome.
- An address that failed is asked last for a while, never dropped: its node may be back. One that
  the cluster named and that never served may not be meant for us, as behind a load balancer: it is
  asked last for longer.
- One attempt is shorter than the whole request, so a node that hangs costs one attempt.
- Nobody's task is cancelled because the client is closed: gRPC then raises CancelledError in every
  call, as if the task had been told to stop, and that becomes a ClosedError.

Left out: streams (`producing.link`, `reading.source`, `consuming.session`) only take their stubs
from here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import grpc.aio

from rakit.api.v1.cluster_service_pb2_grpc import ClusterServiceStub
from rakit.api.v1.group_service_pb2_grpc import GroupServiceStub
from rakit.api.v1.log_service_pb2 import ProduceStreamResponse, ReadRequest, ReadResponse
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.api.v1.topic_service_pb2_grpc import TopicServiceStub
from rakit.client.config import MESSAGE_BYTES_MAX, ClientConfig
from rakit.client.errors import LocalReason, RakitError, from_rpc_error, make_error

if TYPE_CHECKING:
    # The names of the asynchronous stubs exist for type checkers only.
    from rakit.api.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub
    from rakit.api.v1.group_service_pb2_grpc import GroupServiceAsyncStub
    from rakit.api.v1.log_service_pb2_grpc import LogServiceAsyncStub
    from rakit.api.v1.topic_service_pb2_grpc import TopicServiceAsyncStub

#: How long the answer to a ping may take, which stands behind bulk where the way is slow. gRPC's
#: own limit is a minute; `keepalive_timeout_ms` is about what the other machine's kernel answers.
PING_TIMEOUT_MS: Final = 20_000
#: How long a failed address is asked last.
AVOID_S: Final = 2.0
#: How long one that never served is. Not for good: it may be the only node that is left.
UNPROVEN_AVOID_S: Final = 10.0
#: Nodes of the cluster that are remembered beside the bootstrap list.
ADDRESSES_COUNT_MAX: Final = 1_000

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services of one node."""

    address: str
    channel: grpc.aio.Channel
    log: LogServiceAsyncStub
    # As `log.ProduceStream`, of requests that were serialised, in pieces.
    produce_stream: grpc.aio.StreamStreamMultiCallable[Sequence[bytes], ProduceStreamResponse]
    # As `log.Read`, with the size in which each answer travelled.
    read: grpc.aio.UnaryStreamMultiCallable[ReadRequest, tuple[ReadResponse, int]]
    topic: TopicServiceAsyncStub
    cluster: ClusterServiceAsyncStub
    group: GroupServiceAsyncStub


def _sized(data: bytes) -> tuple[ReadResponse, int]:
    return ReadResponse.FromString(data), len(data)


class Connections:
    """Channels by address, with a memory of which addresses failed lately."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._stubs: dict[str, Stubs] = {}
        # In the order in which they are tried; a client starts at a random one.
        self._addresses = random.sample(config.bootstrap, len(config.bootstrap))
        self._failed_at: dict[str, float] = {}
        # Beside the bootstrap list: those that have served.
        self._proven: set[str] = set()
        self._closed = False

    async def close(self) -> None:
        """Closes all channels; what is under way fails."""
        self._closed = True
        stubs = list(self._stubs.values())
        self._stubs.clear()
        for each in stubs:
            await each.channel.close()

    def stubs(self, address: str) -> Stubs:
        """Returns the stubs for an address, connecting when they are first used."""
        if self._closed:
            raise make_error(LocalReason.CLOSED, "the client is closed", maybe_applied=False)
        found = self._stubs.get(address)
        if found is None:
            channel = grpc.aio.insecure_channel(address, options=self._options())
            found = Stubs(
                address,
                channel,
                LogServiceStub(channel),
                channel.stream_stream(
                    "/rakit.api.v1.LogService/ProduceStream",
                    request_serializer=b"".join,
                    response_deserializer=ProduceStreamResponse.FromString,
                ),
                channel.unary_stream(
                    "/rakit.api.v1.LogService/Read",
                    request_serializer=ReadRequest.SerializeToString,
                    response_deserializer=_sized,
                ),
                TopicServiceStub(channel),
                ClusterServiceStub(channel),
                GroupServiceStub(channel),
            )
            self._stubs[address] = found
        return found

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.keepalive_time_ms", self._config.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self._config.keepalive_timeout_ms),
            ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # A node's name may stand for another address when it comes back; gRPC's own is 30 s.
            ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ]

    def learn(self, addresses: Collection[str]) -> None:
        """Takes the client addresses of the cluster's nodes beside the bootstrap list."""
        known = dict.fromkeys((*self._config.bootstrap, *addresses))
        kept = [address for address in self._addresses if address in known]
        fresh = [address for address in known if address not in kept]
        self._addresses = (kept + fresh)[:ADDRESSES_COUNT_MAX]
        self._proven.intersection_update(known)

    def failed(self, address: str) -> None:
        """Notes that an address did not serve."""
        self._failed_at[address] = asyncio.get_running_loop().time()

    def served(self, address: str) -> None:
        """Notes that an address served."""
        self._failed_at.pop(address, None)
        self._proven.add(address)

    def is_avoided(self, address: str) -> bool:
        """Whether an address failed lately."""
        return asyncio.get_running_loop().time() < self._avoided_until_s(address)

    def _avoided_until_s(self, address: str) -> float:
        failed_at = self._failed_at.get(address)
        if failed_at is None:
            return 0.0
        is_proven = address in self._proven or address in self._config.bootstrap
        return failed_at + (AVOID_S if is_proven else UNPROVEN_AVOID_S)

    def pick(self, avoid: Collection[str] = ()) -> str:
        """Returns an address that probably serves: a good one, else the one that is due first."""
        good = [
            address
            for address in self._addresses
            if address not in avoid and not self.is_avoided(address)
        ]
        if good:
            return good[0]
        return min(self._addresses, key=self._avoided_until_s)

    async def call(
        self,
        method: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]],
        request: _Request,
        timeout_ms: int | None = None,
    ) -> _Response:
        """Calls a unary method on some node. Raises RakitError after the last attempt."""
        loop = asyncio.get_running_loop()
        total_ms = self._config.request_timeout_ms if timeout_ms is None else timeout_ms
        deadline = loop.time() + total_ms / 1000
        pause_s = self._config.backoff_ms / 1000
        patience_s = self._config.unreachable_timeout_ms / 1000
        silent_since = loop.time()
        doubt = False
        while True:
            address = self.pick()
            left_s = deadline - loop.time()
            try:
                answer = await method(self.stubs(address))(
                    request, timeout=min(left_s, self._config.attempt_timeout_ms / 1000)
                )
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure, address)
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                raise make_error(
                    LocalReason.CLOSED,
                    "the client was closed before this was answered",
                    maybe_applied=True,
                ) from None
            else:
                self.served(address)
                return answer
            doubt = doubt or error.maybe_applied
            if error.reason != LocalReason.UNREACHABLE:
                silent_since = loop.time()
            if is_nodes_fault(error):
                self.failed(address)
            end = min(deadline, silent_since + patience_s)
            if not error.retriable or loop.time() + pause_s >= end:
                raise error.as_maybe_applied() if doubt else error
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._config.backoff_ms_max / 1000)


def is_cancelled() -> bool:
    """Whether a CancelledError is meant for this task, and not for a call that it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def is_nodes_fault(error: RakitError) -> bool:
    """Whether another node may do better, whatever the request."""
    return error.reason in {
        LocalReason.UNREACHABLE,
        LocalReason.DEADLINE,
        LocalReason.FOREIGN_ERROR,
        "NODE_UNAVAILABLE",
        "STORAGE_FAILED",
        "INTERNAL",
        "NO_QUORUM",
    }
