"""Unary calls to other nodes, and what their failures mean.

An answer with our ErrorInfo means what it says. Any other failure means that the peer may or may
not have acted: for a read that is "no leader reached, look again", for a mutation it is
OUTCOME_UNKNOWN (S22). A call that never left counts as one that did; it cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from rakit.api.v1 import error_pb2
from rakit.multiraft.config import LinkConfig
from rakit.node.calls import ChannelClosedError, on_channel
from rakit.node.errors import DETAILS_TRAILER, RakitError, from_status
from rakit.node.forwarding.link import METHOD, ForwardCall, ForwardLink, LinkLostError
from rakit.peer.v1.node_service_pb2 import (
    Destination,
    ForwardProduceRequest,
    ForwardProduceResponse,
)

ResponseT = TypeVar("ResponseT", bound=Message)
SERVICE: Final = "rakit.peer.v1.NodeService"


class Peers:
    """This node's stubs for all others."""

    def __init__(self, cluster_id: str, channel: Callable[[int], grpc.aio.Channel]) -> None:
        self._cluster_id = cluster_id
        # Raises KeyError for a node that the host does not know.
        self._channel = channel

    def destination(self, node_id: int) -> Destination:
        """Who is meant, for the head of a request."""
        return Destination(cluster_id=self._cluster_id, node_id=node_id)

    async def call(
        self,
        node_id: int,
        method: str,
        request: Message,
        response_type: type[ResponseT],
        *,
        timeout_s: float,
        mutates: bool = False,
        service: str = SERVICE,
    ) -> ResponseT:
        """One call. Raises RakitError, which is NO_LEADER or OUTCOME_UNKNOWN for a broken one."""
        try:
            channel = self._channel(node_id)
        except KeyError:
            raise unreachable(node_id) from None
        stub = channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        try:
            with on_channel():
                answer: ResponseT = await stub(request, timeout=max(timeout_s, 0.001))
        except (grpc.aio.AioRpcError, ChannelClosedError) as error:
            raise _meaning(error, node_id, mutates=mutates) from error
        return answer

    def link(self, node_id: int) -> ForwardLink:
        """The stream for forwarded batches to a node."""

        def open_stream() -> ForwardCall:
            try:
                channel = self._channel(node_id)
            except KeyError:
                raise LinkLostError(f"node {node_id} is not known here") from None
            return channel.stream_stream(
                METHOD,
                request_serializer=ForwardProduceRequest.SerializeToString,
                response_deserializer=ForwardProduceResponse.FromString,
            )()

        return ForwardLink(self.destination(node_id), open_stream, LinkConfig())


def unreachable(node_id: int) -> RakitError:
    """Nothing was done, because the leader could not be asked."""
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        f"Node {node_id}, which leads the partition, could not be reached.",
        {"leader_node_id": str(node_id), "retry_delay_ms": "100"},
    )


def _meaning(
    error: grpc.aio.AioRpcError | ChannelClosedError, node_id: int, *, mutates: bool
) -> RakitError:
    trailers = error.trailing_metadata() if isinstance(error, grpc.aio.AioRpcError) else None
    for key, value in trailers or ():
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            return from_status(Status.FromString(value))
    if not mutates:
        return unreachable(node_id)
    return RakitError(
        error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        f"The call to node {node_id} broke after it was sent: it may or may not have had its"
        " effect.",
    )
