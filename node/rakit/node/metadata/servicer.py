"""The wire around what members of a cluster ask each other about the metadata group.

It is on the peer listener before this node has joined. What it passes questions on to is put in
when the metadata service has started, and taken out before that ends.
"""

from __future__ import annotations

import grpc

from rakit.node.metadata.client import MetadataClient, unapplied
from rakit.node.metadata.sparing import Sparing
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_service_pb2_grpc import MetadataPeerServiceServicer

_STARTING = "the node is starting"


class PeerServicer(MetadataPeerServiceServicer):
    """Takes commands and questions of other nodes."""

    def __init__(self) -> None:
        self.client: MetadataClient | None = None
        self.sparing: Sparing | None = None

    async def Submit(  # noqa: N802 - the name is given by the proto
        self, request: wire.SubmitRequest, context: grpc.ServicerContext
    ) -> wire.SubmitResponse:
        """See `MetadataClient.answer`."""
        del context
        if self.client is None:
            return unapplied(_STARTING)
        return await self.client.answer(request)

    async def Spare(  # noqa: N802 - the name is given by the proto
        self, request: wire.SpareRequest, context: grpc.ServicerContext
    ) -> wire.SpareResponse:
        """See `Sparing.answer`."""
        del context
        if self.sparing is None:
            return wire.SpareResponse(objection=_STARTING)
        return await self.sparing.answer(request)
