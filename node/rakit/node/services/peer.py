"""NodeService: what other nodes ask of this one on behalf of their clients.

Nothing here passes a request on (S22): a node that does not lead a group says so, and the asking
node looks again. Requests name whom they mean, because an address may have been given to another
node, or to another cluster, since it was learnt.
"""

from __future__ import annotations

import asyncio
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError, to_status
from rakit.node.forwarding.receiver import ForwardReceiver
from rakit.node.partitions import Partitions
from rakit.node.reading.local import Finding, LocalReads, ReadLimits, Wanted
from rakit.node.services.cluster import digest_replica
from rakit.node.services.handlers import Call, Methods, Stream, parsed
from rakit.node.services.leadership import TransferHost, transfer
from rakit.node.services.offsets import forwarded_offsets, producer_state
from rakit.peer.v1 import node_service_pb2 as wire
from rakit.peer.v1.node_service_pb2 import ForwardProduceRequest, ForwardProduceResponse


class PeerService:
    """rakit.peer.v1.NodeService on one node."""

    NAME: Final = "rakit.peer.v1.NodeService"

    def __init__(
        self, cluster_id: str, host: TransferHost, partitions: Partitions, local: LocalReads
    ) -> None:
        self._cluster_id = cluster_id
        self._host = host
        self._partitions = partitions
        self._local = local

    def register(self, methods: Methods) -> None:
        """Adds the methods."""
        methods.bidirectional("ForwardProduce", self.forward_produce)
        methods.unary("ForwardFetch", wire.ForwardFetchRequest, self.forward_fetch)
        methods.unary("ForwardOffsets", wire.ForwardOffsetsRequest, self.forward_offsets)
        methods.unary(
            "ForwardProducerState", wire.ForwardProducerStateRequest, self.forward_producer_state
        )
        methods.unary("ForwardTransfer", wire.ForwardTransferRequest, self.forward_transfer)
        methods.unary("DigestReplica", wire.DigestReplicaRequest, self.digest_replica)

    def _check(self, destination: wire.Destination) -> None:
        meant = (destination.cluster_id, destination.node_id)
        if meant != (self._cluster_id, self._host.node_id):
            raise RakitError(
                error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                f"This is node {self._host.node_id} of cluster {self._cluster_id}, not node"
                f" {destination.node_id} of cluster {destination.cluster_id}.",
            )

    async def forward_produce(self, _call: Call, stream: Stream) -> None:
        """Appends what a peer sends and answers with what became of it."""
        data = await stream.read()
        if data is None:
            return
        self._check(parsed(ForwardProduceRequest, data).destination)
        await stream.write(ForwardProduceResponse())
        receiver = ForwardReceiver(self._partitions)

        async def answer() -> None:
            while True:
                await stream.write(await receiver.answer())

        async with asyncio.TaskGroup() as both:
            answering = both.create_task(answer())
            while (data := await stream.read()) is not None:
                receiver.take(parsed(ForwardProduceRequest, data))
                await receiver.room()
            answering.cancel()

    async def forward_fetch(
        self, call: Call, request: wire.ForwardFetchRequest
    ) -> wire.ForwardFetchResponse:
        """Reads positions in groups that this node leads."""
        self._check(request.destination)
        now = asyncio.get_running_loop().time()
        limits = ReadLimits(
            request.min_bytes,
            request.max_bytes,
            min(now + request.wait_ms / 1000, call.deadline),
            at_least_one=not request.strict,
        )
        wanted = [Wanted(each.group_id, each.position) for each in request.positions]
        findings = await self._local.fetch(wanted, limits)
        return wire.ForwardFetchResponse(positions=[_forwarded(each) for each in findings])

    async def forward_offsets(
        self, _call: Call, request: wire.ForwardOffsetsRequest
    ) -> wire.ForwardOffsetsResponse:
        """The readable ranges of groups that this node leads."""
        self._check(request.destination)
        return wire.ForwardOffsetsResponse(
            groups=await forwarded_offsets(self._partitions, request)
        )

    async def forward_producer_state(
        self, _call: Call, request: wire.ForwardProducerStateRequest
    ) -> wire.ForwardProducerStateResponse:
        """What a group that this node leads knows of a producer."""
        self._check(request.destination)
        response = await producer_state(self._partitions, request.group_id, request.request)
        return wire.ForwardProducerStateResponse(response=response)

    async def forward_transfer(
        self, _call: Call, request: wire.ForwardTransferRequest
    ) -> wire.ForwardTransferResponse:
        """Begins to move a leadership that this node has."""
        self._check(request.destination)
        transfer(self._host, request.group_id, request.to_node_id)
        return wire.ForwardTransferResponse()

    async def digest_replica(
        self, _call: Call, request: wire.DigestReplicaRequest
    ) -> wire.DigestReplicaResponse:
        """Hashes what this node's replica holds."""
        self._check(request.destination)
        return await digest_replica(self._partitions, request)


def _forwarded(finding: Finding) -> wire.ForwardedData:
    forwarded = wire.ForwardedData()
    if isinstance(finding, RakitError):
        forwarded.data.error.CopyFrom(to_status(finding))
        return forwarded
    forwarded.from_offset = finding.from_offset
    data, chunk = forwarded.data, finding.chunk
    data.next_offset = chunk.next_offset
    data.high_watermark = chunk.high_watermark
    data.log_start_offset = chunk.log_start_offset
    for stored in chunk.batches:
        stored.fill(data.batches.add())
    return forwarded
