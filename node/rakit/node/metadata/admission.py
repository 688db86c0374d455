"""Admission of nodes: any member is asked, the leader of the metadata group decides (S11).

A name and a store are admitted once; asking again gives the same answer, so a node that crashed
between the answer and its own note of it becomes no second node.

An empty disk under a known name takes the place of the old one only when the old store is not
alive. That is found out, not assumed: the leader calls the old address, looks at its own links, and
does neither too early, when it has just become leader and knows nobody, or when the known node was
admitted a moment ago and may not listen yet. In doubt the newcomer waits. The decision itself is a
compare-and-set in the log (`nodes.register_node`), so two leaders cannot admit two newcomers.

The same store under its own name is the same node, wherever it is now, unless it is a copy: the
node that it was copied from still runs. Then two processes would act as one replica, and the
newcomer is refused: if the registered address answers for another start of the store, or if some
member remembers more writes of the store than it has (S7). A copy whose original is gone for good
is as good as the original, as far as it is as new.

Nobody is admitted who does not read what the cluster writes: his replicas would stop at the first
such entry. A node that was admitted before and goes back to an earlier version asks only when it
cannot read the registry without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import grpc
import grpc.aio

from rakit.multiraft.hello import Rollback, StoreStart
from rakit.multiraft.transport import UnknownPeerError
from rakit.node.calls import ChannelClosedError, on_channel
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.greeter import Greeter
from rakit.node.metadata.nodes import name_taken_text
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.refusals import NodeRefusedError, to_refusal
from rakit.node.metadata.registry import METADATA_GROUP_ID, NodeInfo, Registry
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_service_pb2_grpc import FormationServiceStub


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    """How sure the leader must be that a store is not alive."""

    #: A new leader hears from everybody who is alive within this time.
    leader_settles_ms: int = 3_000
    #: An admitted node has opened its listener within this time.
    newcomer_settles_ms: int = 10_000
    #: Of the hop to the leader, and of the commit there.
    timeout_ms: int = 8_000


class _Old(Enum):
    """What is known of the store that a newcomer would replace."""

    ALIVE = 0
    UNSURE = 1
    GONE = 2


class Admission:
    """Answers requests to join."""

    def __init__(
        self,
        config: AdmissionConfig,
        host: HostPort,
        client: MetadataClient,
        greeter: Greeter,
        clock_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._host = host
        self._client = client
        self._greeter = greeter
        self._clock_ms = clock_ms
        self._led_term = 0
        self._led_since = 0.0

    async def admit(
        self, request: wire.JoinRequest, me: wire.Standing, peers: list[wire.PeerHint]
    ) -> wire.JoinResponse:
        """Admits the node, refuses it, or tells it to ask again."""
        # Every member that is asked says what it remembers; the leader may have heard less.
        if (rollback := self._rollback(request)) is not None:
            return _refused(pb.NODE_REFUSAL_STORE_ROLLED_BACK, str(rollback))
        leader = self._client.leader_node()
        if leader == self._host.node_id:
            return await self._admit_here(request, me, peers)
        if leader == 0:
            return wire.JoinResponse(wait="no leader of the metadata group is known")
        if request.forwarded:
            return wire.JoinResponse(wait="the leader of the metadata group has just changed")
        forwarded = wire.JoinRequest()
        forwarded.CopyFrom(request)
        forwarded.forwarded = True
        forwarded.destination.cluster_id = self._host.identity.cluster_id
        forwarded.destination.node_id = leader
        try:
            stub = FormationServiceStub(self._host.channel(leader))
            with on_channel():
                return await stub.Join(forwarded, timeout=self._config.timeout_ms / 1000)
        except (grpc.aio.AioRpcError, ChannelClosedError, UnknownPeerError) as error:
            return wire.JoinResponse(wait=f"the leader, node {leader}, cannot be asked: {error}")

    def _rollback(self, request: wire.JoinRequest) -> Rollback | None:
        if not request.boot_epoch:
            return None  # a store whose groups have not been started yet claims nothing
        return self._host.rollback_of(
            StoreStart(
                request.node_id,
                request.node.store_uuid,
                request.boot_epoch,
                request.opened_counter,
            )
        )

    async def _admit_here(
        self, request: wire.JoinRequest, me: wire.Standing, peers: list[wire.PeerHint]
    ) -> wire.JoinResponse:
        group = self._host.group(METADATA_GROUP_ID)
        registry = self._client.registry
        if group is None or not group.ready or not registry.cluster_id:
            return wire.JoinResponse(wait="the leader of the metadata group is getting ready")
        self._note_term(group.term)
        node = request.node
        command = pb.RegisterNode(node=node, node_id=request.node_id)
        known = registry.node_by_name(node.name)
        if known is not None and known.store_uuid == node.store_uuid:
            if (objection := await self._second_process(request, known, me)) is not None:
                return objection
        # A store that was replaced is refused by the state itself, whoever is alive.
        elif known is not None and node.store_uuid not in known.former_store_uuids:
            match await self._look_for(known, me):
                case _Old.ALIVE:
                    return _refused(pb.NODE_REFUSAL_NAME_TAKEN, name_taken_text(known))
                case _Old.UNSURE:
                    text = f"the old store of {node.name!r} may still be alive; asking again"
                    return wire.JoinResponse(wait=text)
                case _Old.GONE:
                    command.replaces_store_uuid = known.store_uuid
        if max(1, request.feature_level) < registry.feature_level:
            return _refused(pb.NODE_REFUSAL_VERSION_TOO_OLD, _too_old_text(request, registry))
        try:
            result = await self._client.submit(
                pb.MetadataCommand(register_node=command), self._config.timeout_ms / 1000
            )
        except NodeRefusedError as error:
            return wire.JoinResponse(refused=to_refusal(error))
        except RakitError as error:
            return wire.JoinResponse(wait=str(error))
        accepted = wire.JoinAccepted(
            cluster_id=registry.cluster_id,
            node_id=result.node_registered.node_id,
            metadata_replica_id=result.node_registered.metadata_replica_id,
            peers=[one for one in peers if one.node_id != result.node_registered.node_id],
        )
        return wire.JoinResponse(accepted=accepted)

    async def _second_process(
        self, request: wire.JoinRequest, known: NodeInfo, me: wire.Standing
    ) -> wire.JoinResponse | None:
        """Objects to a process on a store on which another one runs, or on a copy of which."""
        answer = await self._greeter.greet(known.peer_address, me)
        there = None if answer is None else answer.standing
        if (
            there is not None
            and there.node.store_uuid == known.store_uuid
            and there.boot_epoch != request.boot_epoch
        ):
            if there.boot_epoch:
                return _refused(pb.NODE_REFUSAL_STORE_IN_USE, _in_use_text(known))
            return wire.JoinResponse(wait=f"another process is starting at {known.peer_address}")
        if self._host.answering(known.node_id) not in {0, request.boot_epoch}:
            # It may be one that has just ended, but nobody who answers is cut off.
            return wire.JoinResponse(wait=f"another process still answers as node {known.node_id}")
        return None

    def _note_term(self, term: int) -> None:
        if term != self._led_term:
            self._led_term = term
            self._led_since = asyncio.get_running_loop().time()

    async def _look_for(self, known: NodeInfo, me: wire.Standing) -> _Old:
        """Finds out whether a node's store is alive."""
        if known.node_id == self._host.node_id:
            return _Old.ALIVE
        answer = await self._greeter.greet(known.peer_address, me)
        here = "" if answer is None else answer.standing.node.store_uuid
        if here == known.store_uuid:
            return _Old.ALIVE
        led_ms = (asyncio.get_running_loop().time() - self._led_since) * 1000
        if self._host.node_is_up(known.node_id) or led_ms < self._config.leader_settles_ms:
            return _Old.UNSURE
        admitted_ms = self._clock_ms() - known.admit_time_ms
        # Somebody else at its address is proof that it is not there; silence is none so soon.
        if not here and 0 <= admitted_ms < self._config.newcomer_settles_ms:
            return _Old.UNSURE
        return _Old.GONE


def _refused(refusal: pb.NodeRefusal.ValueType, message: str) -> wire.JoinResponse:
    return wire.JoinResponse(refused=to_refusal(NodeRefusedError(refusal, message)))


def _in_use_text(known: NodeInfo) -> str:
    return (
        f"two living nodes with one name: node {known.node_id}, {known.name!r}, runs at"
        f" {known.peer_address} on store {known.store_uuid}, and this data directory is a copy of"
        " its own; move the copy away, and start with an empty directory and another --name"
    )


def _too_old_text(request: wire.JoinRequest, registry: Registry) -> str:
    return (
        f"this version reads feature level {max(1, request.feature_level)} and the cluster's is"
        f" {registry.feature_level}, so it does not read what this cluster writes: run the version"
        " that the other nodes run"
    )
