"""Whether the cluster can spare a store that its node cannot trust as a whole (S9).

The node that asks is down: it serves nothing and holds its store closed (`rakit.node.giving_up`).
What is spared is deleted, and comes back from the others as after a lost disk. So nothing may rest
on it:

- The leader of the metadata group decides, confirmed by a majority as it does so. Every other node
  of the registry must be up and well: it holds every replica that it should, has shut out none, and
  none of its tables is known to be damaged. So stores go one at a time: who was spared is not well
  before it is filled again.
- Each node answers for the groups that it leads. Their voters are those that the registry names, so
  that no replica of an earlier store counts, outside of a joint phase. A majority of them, without
  any on that node, holds everything that is committed and vouches for it. And a majority has just
  answered the leader: who is down was no part of it.
- The leader of the metadata group looks whether each group that the registry gives to that node was
  answered for by somebody. A group that nobody leads, as one is whose only replica or only other
  replica lies on that node, is missing, and nothing is spared.

Nothing is remembered: a node that is not spared asks again when it ends the next time. What was
true when it was said may be true no more when it is heard, so an answer is good for a moment only.

Left out: damage that nobody has met yet, in rows that nobody has read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import grpc
import grpc.aio

from rakit.multiraft.errors import MultiraftError
from rakit.multiraft.machine import node_of
from rakit.multiraft.transport import UnknownPeerError
from rakit.node.calls import ChannelClosedError, on_channel
from rakit.node.errors import RakitError
from rakit.node.filling import Filling
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.refusals import not_meant
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.soundness import whole_members
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_service_pb2_grpc import FormationServiceStub, MetadataPeerServiceStub
from rakit.peer.v1.node_service_pb2 import Destination
from rakit.raft import ConfState

_log = logging.getLogger(__name__)

#: A node that leads thousands of groups asks the members of each.
_NODE_SECONDS: Final = 30.0
#: All nodes are asked at once, and the leader's own majority comes before.
_DECISION_SECONDS: Final = _NODE_SECONDS + 10.0
_ANSWER_SECONDS: Final = 5.0
#: Of one node, asked at once.
_GROUPS_COUNT_MAX: Final = 64


def is_well_without(
    conf: ConfState, desired: AbstractSet[int], node_id: int, whole: AbstractSet[int]
) -> bool:
    """Whether a majority of all voters is whole, not counting those on a node.

    `desired`: who may vote.
    """
    if conf.voters_outgoing or conf.learners_next or not set(conf.voters) <= desired:
        return False
    sound = [one for one in conf.voters if one in whole and node_of(one) != node_id]
    return 2 * len(sound) > len(conf.voters)


class Sparing:
    """Answers for this node, and for the cluster where this node leads the metadata group."""

    def __init__(self, host: HostPort, client: MetadataClient) -> None:
        self._host = host
        self._client = client

    # ------------------------------------------------------------------ for the cluster

    async def asked(self, request: wire.GiveUpRequest) -> wire.GiveUpResponse:
        """Says whether a store can be spared, or has the leader say it."""
        if request.cluster_id != self._host.identity.cluster_id:
            return _no(f"this node is of cluster {self._host.identity.cluster_id}")
        leader = self._client.leader_node()
        if leader == self._host.node_id:
            answer = await self._decide(request.node_id, request.store_uuid)
            _log.warning(
                "store %s of node %d %s",
                request.store_uuid,
                request.node_id,
                "can be spared" if answer.spared else f"cannot be spared: {answer.objection}",
            )
            answer.decided = True
            return answer
        if not leader or request.forwarded:
            return _no("no leader of the metadata group is known")
        forwarded = wire.GiveUpRequest()
        forwarded.CopyFrom(request)
        forwarded.forwarded = True
        try:
            stub = FormationServiceStub(self._host.channel(leader))
            with on_channel():
                return await stub.GiveUp(forwarded, timeout=_DECISION_SECONDS)
        except (grpc.aio.AioRpcError, ChannelClosedError, UnknownPeerError) as error:
            return _no(f"the leader, node {leader}, cannot be asked: {error}")

    async def _decide(self, node_id: int, store_uuid: str) -> wire.GiveUpResponse:
        try:
            registry = await self._client.barrier(_ANSWER_SECONDS)
        except RakitError as error:
            return _no(str(error))
        node = registry.nodes.get(node_id)
        if node is None or node.store_uuid != store_uuid:
            return _no("the registry does not know that store, or knows a newer one")
        if node_id == self._host.node_id or self._host.node_is_up(node_id):
            return _no(f"node {node_id} still answers")
        others = [each for each in registry.nodes if each != node_id]
        if down := [each for each in others if not self._host.node_is_up(each)]:
            return _no(f"node {down[0]} is down")
        answers = await asyncio.gather(*(self._ask(each, node_id) for each in others))
        for other, answer in zip(others, answers, strict=True):
            if answer.objection:
                return _no(f"node {other}: {answer.objection}")
        answered_for = {group_id for answer in answers for group_id in answer.group_ids}
        if missing := set(self._on(node_id)) - answered_for:
            return _no(f"{len(missing)} of its groups have no leader elsewhere")
        return wire.GiveUpResponse(spared=True)

    async def _ask(self, other: int, node_id: int) -> wire.SpareResponse:
        if other == self._host.node_id:
            return await self._spare(node_id)
        destination = Destination(cluster_id=self._host.identity.cluster_id, node_id=other)
        request = wire.SpareRequest(destination=destination, node_id=node_id)
        try:
            stub = MetadataPeerServiceStub(self._host.channel(other))
            with on_channel():
                return await stub.Spare(request, timeout=_NODE_SECONDS)
        except (grpc.aio.AioRpcError, ChannelClosedError, UnknownPeerError) as error:
            return wire.SpareResponse(objection=f"it cannot be asked: {error}")

    # ------------------------------------------------------------------ for this node

    async def answer(self, request: wire.SpareRequest) -> wire.SpareResponse:
        """Says whether this node and every group that it leads can do without another node."""
        cluster_id, meant = self._host.identity.cluster_id, request.destination
        if (meant.cluster_id, meant.node_id) != (cluster_id, self._host.node_id):
            return wire.SpareResponse(objection=not_meant(cluster_id, self._host.node_id, meant))
        return await self._spare(request.node_id)

    async def _spare(self, node_id: int) -> wire.SpareResponse:
        try:
            await self._client.barrier(_ANSWER_SECONDS)
        except RakitError as error:
            return wire.SpareResponse(objection=f"its registry may be behind: {error}")
        if self._host.quarantined:
            return wire.SpareResponse(objection="a replica is shut out there")
        if self._host.damaged_store:
            return wire.SpareResponse(objection="a table of its own cannot be read")
        # Looked at anew: what is there says nothing of what was there once.
        if missing := Filling(self._host, self._client.registry).missing_count():
            return wire.SpareResponse(objection=f"{missing} of its own replicas are being filled")
        led = self._host.leaders.led_here()
        groups = [group_id for group_id in self._on(node_id) if group_id in led]
        for start in range(0, len(groups), _GROUPS_COUNT_MAX):
            some = groups[start : start + _GROUPS_COUNT_MAX]
            objections = await asyncio.gather(*(self._object(each, node_id) for each in some))
            for objection in filter(None, objections):
                return wire.SpareResponse(objection=objection)
        return wire.SpareResponse(group_ids=groups)

    def _on(self, node_id: int) -> Iterator[int]:
        """The groups that have a replica on a node, by the registry."""
        yield METADATA_GROUP_ID
        for partition in self._client.registry.partitions():
            if partition.on_node(node_id) is not None:
                yield partition.group_id

    async def _object(self, group_id: int, node_id: int) -> str:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._host.read_barrier(group_id)
        except (MultiraftError, TimeoutError) as error:
            return f"no majority answers for group {group_id} ({error})"
        # Looked at now, since it was to be asked first: who has just answered is known to be there.
        group = self._host.group(group_id)
        if group is None or not group.ready:
            return f"group {group_id} has another leader by now"
        desired, whole = self._desired(group_id), whole_members(self._host, group)
        if not is_well_without(group.conf_state, desired, node_id, whole):
            return f"group {group_id} needs it: its other replicas are no majority that is whole"
        return ""

    def _desired(self, group_id: int) -> set[int]:
        registry = self._client.registry
        if group_id == METADATA_GROUP_ID:
            return {node.metadata_replica_id for node in registry.nodes.values()}
        partition = registry.partition(group_id)
        return set() if partition is None else set(partition.replica_ids)


def _no(objection: str) -> wire.GiveUpResponse:
    return wire.GiveUpResponse(objection=objection)
