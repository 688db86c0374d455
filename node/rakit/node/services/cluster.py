"""ClusterService: the cluster as one of its nodes sees it, and what an operator does to it.

GetCluster answers without a majority, because that is when people ask. It says what this node
knows; only topics and offsets are promised to be linearizable.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from rakit.api.v1 import cluster_service_pb2 as api
from rakit.api.v1 import error_pb2, topic_service_pb2
from rakit.multiraft.leaders import LeaderInfo
from rakit.multiraft.machine import node_of
from rakit.node.errors import RakitError
from rakit.node.metadata.registry import METADATA_GROUP_ID, NodeInfo, PartitionInfo
from rakit.node.partitions import Partitions
from rakit.node.peers import Peers
from rakit.node.routing import RETRY_PAUSE_S, Router, give_up_at, is_reroutable, not_misled
from rakit.node.services.damage import DamageHost, damages
from rakit.node.services.describe import Describe
from rakit.node.services.handlers import Call, Methods
from rakit.node.services.leadership import TransferHost, transfer
from rakit.node.services.limits import published
from rakit.node.services.watch import WatchedHost, Watching
from rakit.peer.v1.node_service_pb2 import (
    DigestReplicaRequest,
    DigestReplicaResponse,
    ForwardTransferRequest,
    ForwardTransferResponse,
)

#: How long a transfer may take before it is called unknown.
TRANSFER_S: Final = 5.0
#: A digest reads the whole range at each replica, all but its newest part from the disk.
DIGEST_S: Final = 60.0
#: A range may be cut by retention while it is asked about.
DIGEST_ATTEMPTS: Final = 3


class ClusterHost(TransferHost, DamageHost, WatchedHost, Protocol):
    """The part of the host that the service asks."""


class ClusterService:
    """rakit.api.v1.ClusterService on one node."""

    NAME: Final = "rakit.api.v1.ClusterService"

    def __init__(
        self,
        router: Router,
        host: ClusterHost,
        partitions: Partitions,
        peers: Peers,
        describe: Describe,
    ) -> None:
        self._router = router
        self._registry = router.metadata.registry
        self._host = host
        self._partitions = partitions
        self._peers = peers
        self._header = describe.header
        self._watching = Watching(self._registry, host, describe, self._nodes)

    def register(self, methods: Methods) -> None:
        """Adds the methods."""
        methods.unary("GetCluster", api.GetClusterRequest, self.get_cluster)
        methods.server_stream("WatchCluster", api.WatchClusterRequest, self._watching.watch_cluster)
        methods.unary("TransferLeadership", api.TransferLeadershipRequest, self.transfer_leadership)
        methods.unary("GetDigest", api.GetDigestRequest, self.get_digest)

    async def get_cluster(
        self, _call: Call, _request: api.GetClusterRequest
    ) -> api.GetClusterResponse:
        """The cluster as this node knows it."""
        led: dict[int, int] = {}
        leaderless = 0
        for place in self._registry.partitions():
            leader = self._router.known_leader(place.group_id)
            if leader is None:
                leaderless += not self._registry.is_internal(place)
            else:
                led[leader.node_id] = led.get(leader.node_id, 0) + 1
        metadata_leader = self._router.known_leader(METADATA_GROUP_ID)
        return api.GetClusterResponse(
            header=self._header,
            cluster_id=self._registry.cluster_id,
            nodes=[
                self._node(node, led.get(node_id, 0))
                for node_id, node in sorted(self._registry.nodes.items())
            ],
            metadata_leader_node_id=0 if metadata_leader is None else metadata_leader.node_id,
            limits=published(),
            topic_count=self._registry.topic_count,
            partition_count=self._registry.partition_count,
            leaderless_partition_count=leaderless,
            damages=damages(self._host, self._registry),
        )

    def _nodes(self) -> list[api.Node]:
        """The nodes without their counts, which change with every partition."""
        nodes = [self._node(node, 0) for _, node in sorted(self._registry.nodes.items())]
        for node in nodes:
            node.replica_count = 0
        return nodes

    def _node(self, node: NodeInfo, leader_count: int) -> api.Node:
        is_up = node.node_id == self._router.node_id or self._host.node_is_up(node.node_id)
        metadata = self._host.group(METADATA_GROUP_ID)
        votes = metadata is not None and node.metadata_replica_id in metadata.conf_state.voters
        return api.Node(
            node_id=node.node_id,
            name=node.name,
            rack=node.rack,
            state=api.NODE_STATE_UP if is_up else api.NODE_STATE_DOWN,
            addresses=[
                api.ListenerAddress(listener=listener, address=address)
                for listener, address in node.addresses.items()
            ],
            peer_address=node.peer_address,
            store_uuid=node.store_uuid,
            metadata_role=(
                topic_service_pb2.REPLICA_ROLE_VOTER
                if votes
                else topic_service_pb2.REPLICA_ROLE_LEARNER
            ),
            leader_count=leader_count,
            replica_count=self._registry.replica_count(node.node_id),
            shut_out_replica_count=self._host.quarantined_count(node.node_id),
        )

    async def transfer_leadership(
        self, call: Call, request: api.TransferLeadershipRequest
    ) -> api.TransferLeadershipResponse:
        """Moves a partition's leadership and waits until it has moved."""
        give_up = give_up_at(call.deadline)
        _, place = await self._router.partition(request.topic, request.partition, give_up)
        if request.to_node_id and request.to_node_id not in self._registry.nodes:
            raise RakitError(
                error_pb2.ERROR_REASON_UNKNOWN_NODE,
                f"There is no node {request.to_node_id} in this cluster.",
            )
        leader = await self._router.leader(request.topic, place, give_up)
        if request.to_node_id != leader.node_id:
            try:
                await self._begin_transfer(leader.node_id, place, request.to_node_id)
            except RakitError as error:
                raise not_misled(error, request.topic, request.partition) from None
            leader = await self._moved(request, place, leader, call)
        return api.TransferLeadershipResponse(header=self._header, leader_node_id=leader.node_id)

    async def _begin_transfer(self, leader_id: int, place: PartitionInfo, to_node_id: int) -> None:
        if leader_id == self._router.node_id:
            transfer(self._host, place.group_id, to_node_id)
            return
        forwarded = ForwardTransferRequest(
            destination=self._peers.destination(leader_id),
            group_id=place.group_id,
            to_node_id=to_node_id,
        )
        await self._peers.call(
            leader_id,
            "ForwardTransfer",
            forwarded,
            ForwardTransferResponse,
            timeout_s=TRANSFER_S,
            mutates=True,
        )

    async def _moved(
        self,
        request: api.TransferLeadershipRequest,
        place: PartitionInfo,
        before: LeaderInfo,
        call: Call,
    ) -> LeaderInfo:
        loop = asyncio.get_running_loop()
        give_up = min(loop.time() + TRANSFER_S, call.deadline)
        while True:
            now = self._router.known_leader(place.group_id)
            if now is not None and now.term > before.term:
                if request.to_node_id in {0, now.node_id}:
                    return now
                break
            if loop.time() >= give_up:
                break
            await asyncio.sleep(RETRY_PAUSE_S)
        raise RakitError(
            error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
            "The leadership was to be moved, and it is not known to have arrived there: the other"
            " replica may be behind or unreachable.",
        )

    async def get_digest(self, call: Call, request: api.GetDigestRequest) -> api.GetDigestResponse:
        """Hashes the range that all reachable replicas hold, on each of them."""
        give_up = give_up_at(call.deadline)
        _, place = await self._router.partition(request.topic, request.partition, give_up)
        node_ids = sorted(node_of(each) for each in place.replica_ids)
        timeout_s = min(DIGEST_S, call.remaining_s())
        for _attempt in range(DIGEST_ATTEMPTS):
            ranges = await self._ask_digests(node_ids, place.group_id, 0, 0, timeout_s)
            held = [each for each in ranges if not isinstance(each, RakitError)]
            if not held:
                break
            first = max(each.first_index for each in held)
            last = min(each.last_index for each in held)
            if first > last:
                continue
            answers = await self._ask_digests(node_ids, place.group_id, first, last, timeout_s)
            if all(
                isinstance(answer, RakitError) <= isinstance(before, RakitError)
                for answer, before in zip(answers, ranges, strict=True)
            ):
                return self._digests(node_ids, answers, first, last)
        raise RakitError(
            error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
            "The replicas that answer hold no range in common at the moment; try again.",
            {"topic": request.topic, "partition": str(request.partition)},
        )

    def _digests(
        self,
        node_ids: list[int],
        answers: list[DigestReplicaResponse | RakitError],
        first: int,
        last: int,
    ) -> api.GetDigestResponse:
        response = api.GetDigestResponse(header=self._header, first_index=first, last_index=last)
        for node_id, answer in zip(node_ids, answers, strict=True):
            one = response.replicas.add(node_id=node_id)
            if isinstance(answer, RakitError):
                one.error = str(answer)
            else:
                one.digest = answer.digest
                response.end_offset = max(response.end_offset, answer.end_offset)
        return response

    async def _ask_digests(
        self, node_ids: list[int], group_id: int, first: int, last: int, timeout_s: float
    ) -> list[DigestReplicaResponse | RakitError]:
        async def ask(node_id: int) -> DigestReplicaResponse | RakitError:
            request = DigestReplicaRequest(
                destination=self._peers.destination(node_id),
                group_id=group_id,
                first_index=first,
                last_index=last,
            )
            try:
                if node_id == self._router.node_id:
                    return await digest_replica(self._partitions, request)
                return await self._peers.call(
                    node_id, "DigestReplica", request, DigestReplicaResponse, timeout_s=timeout_s
                )
            except RakitError as error:
                if is_reroutable(error) and node_id != self._router.node_id:
                    return RakitError(error.reason, f"Node {node_id} could not be asked.")
                return error

        return list(await asyncio.gather(*(ask(each) for each in node_ids)))


async def digest_replica(
    partitions: Partitions, request: DigestReplicaRequest
) -> DigestReplicaResponse:
    """What this node's own replica holds, and its hash where a range is given."""
    partition = partitions.get(request.group_id)
    if not request.last_index:
        first, last = partition.index_range()
        return DigestReplicaResponse(first_index=first, last_index=last)
    digest = await partition.digest(request.first_index, request.last_index)
    return DigestReplicaResponse(
        first_index=digest.first_index,
        last_index=digest.last_index,
        digest=digest.hexadecimal,
        end_offset=digest.end_offset,
    )
