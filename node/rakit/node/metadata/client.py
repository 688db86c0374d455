"""Commands and linearizable reads of the metadata group, from any node.

`submit` proposes a command where the leader is: here, or over the peer channel, one hop at most
(S22). Every command may be proposed twice without harm: changes of topics carry a request mark, a
node is admitted once, a replica is replaced only while it is named, and a producer epoch that
nobody was told of fences nobody wrongly. So an
attempt whose outcome is not known is made again, until the time is up; only then the caller learns
that the outcome is unknown, or that nothing was ever appended.

What the state cannot know is added by the leader's node when it proposes: the time, and which nodes
are down.

`barrier` is a ReadIndex on this node's replica: the registry is then at least as new as everything
that anybody was told before. A name that is not found is unknown only after that (S22).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import grpc
import grpc.aio

from rakit.api.v1 import error_pb2
from rakit.multiraft.errors import MultiraftError, NotLeadingError
from rakit.multiraft.leaders import LeaderInfo
from rakit.multiraft.machine import node_of
from rakit.multiraft.transport import UnknownPeerError
from rakit.node.calls import ChannelClosedError, on_channel
from rakit.node.errors import RakitError
from rakit.node.metadata import topics
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.refusals import not_meant, to_error, to_refusal
from rakit.node.metadata.registry import METADATA_GROUP_ID, Registry, TopicInfo
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_command_pb2 import MetadataCommand, MetadataResult, RequestMark
from rakit.peer.v1.metadata_service_pb2_grpc import MetadataPeerServiceStub
from rakit.peer.v1.node_service_pb2 import Destination

TIMEOUT_SECONDS: Final = 10.0
#: Between two attempts, unless the leader changes before.
_RETRY_SECONDS: Final = 0.1


class MetadataClient:
    """This node's way to the metadata group."""

    def __init__(self, host: HostPort, registry: Registry, clock_ms: Callable[[], int]) -> None:
        self.registry = registry
        self._host = host
        self._clock_ms = clock_ms
        self._something_changed = asyncio.Event()
        self._unsubscribe = [
            host.on_applied(METADATA_GROUP_ID, self._something_changed.set),
            host.leaders.on_change(self._leader_changed),
        ]

    def close(self) -> None:
        """Ends the subscriptions."""
        while self._unsubscribe:
            self._unsubscribe.pop()()

    def leader_node(self) -> int:
        """The node that leads the metadata group; 0 if none is known."""
        info = self._host.leaders.get(METADATA_GROUP_ID)
        return 0 if info is None else info.node_id

    async def submit(
        self, command: MetadataCommand, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> MetadataResult:
        """Has the command applied and returns what it led to, once this node has it too.

        Raises `RakitError`: what the state refused (NOT_APPLIED), NO_LEADER when no leader took the
        command in time, OUTCOME_UNKNOWN when one may have.
        """
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        applied: wire.SubmitApplied | None = None
        doubt = False
        why = "no leader of the metadata group is known"
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while applied is None:
                    # Whoever is cut off in the middle of an attempt cannot know what it led to.
                    earlier_doubt, doubt = doubt, True
                    response = await self._attempt(command, deadline)
                    if response.WhichOneof("answer") == "applied":
                        applied = response.applied
                        break
                    if response.refused.HasField("refusal") and not earlier_doubt:
                        raise to_error(response.refused.refusal)
                    doubt = earlier_doubt or response.refused.unknown
                    why = response.refused.message
                    await self._wait_a_little()
                await self._wait_applied(applied.index)
        if applied is not None:
            # Also when the time ran out before this node had it too: it is certain.
            return _result(applied.result)
        raise _timed_out(why, doubt=doubt)

    async def barrier(self, timeout_seconds: float = TIMEOUT_SECONDS) -> Registry:
        """Returns the registry when it holds everything that was acknowledged before this call.

        Raises `RakitError` NO_QUORUM.
        """
        why = "no majority of the metadata group answers"
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while True:
                    try:
                        await self._host.read_barrier(METADATA_GROUP_ID)
                    except MultiraftError as error:
                        why = str(error)
                    else:
                        if self.registry.cluster_id:
                            return self.registry
                        why = "the cluster is being founded"
                    await self._wait_a_little()
        raise RakitError(
            error_pb2.ERROR_REASON_NO_QUORUM, f"the registry cannot be read for certain: {why}"
        )

    async def topic(self, name: str, timeout_seconds: float = TIMEOUT_SECONDS) -> TopicInfo:
        """The topic of this name; raises `RakitError` UNKNOWN_TOPIC or NO_QUORUM (S22)."""
        found = self.registry.topic(name)
        if found is None:
            topics.check_topic_name(name)
            found = (await self.barrier(timeout_seconds)).topic(name)
        if found is None:
            raise topics.unknown_topic(name)
        return found

    async def propose_here(self, command: MetadataCommand) -> wire.SubmitResponse:
        """Proposes on this node and waits for the outcome; never forwards."""
        if (wrong := self._wrong(command)) is not None:
            refused = wire.SubmitRefused(message=wrong.message, refusal=to_refusal(wrong))
            return wire.SubmitResponse(refused=refused)
        completed = MetadataCommand()
        completed.CopyFrom(command)
        completed.time_ms = self._clock_ms()
        down = sorted(one for one in self.registry.nodes if not self._host.node_is_up(one))
        match completed.WhichOneof("command"):
            case "create_topic":
                completed.create_topic.avoid_node_ids[:] = down
            case "create_group_partitions":
                completed.create_group_partitions.avoid_node_ids[:] = down
            case _:
                pass
        try:
            proposal = self._host.propose(METADATA_GROUP_ID, completed.SerializeToString())
        except NotLeadingError as error:
            return unapplied(str(error), leader=node_of(error.leader_replica))
        except MultiraftError as error:
            return unapplied(str(error))
        # Shielded: whoever stops waiting must not take the answer from the host's hands.
        completion = await asyncio.shield(proposal.done)
        if completion.lost:
            return unapplied("the leader lost its leadership before the commit", unknown=True)
        assert isinstance(completion.result, MetadataResult), "a command leads to a result"
        applied = wire.SubmitApplied(result=completion.result, index=completion.entry[1])
        return wire.SubmitResponse(applied=applied)

    def _wrong(self, command: MetadataCommand) -> RakitError | None:
        """Why this may not be proposed: the log is for ever, on every replica."""
        match command.WhichOneof("command"):
            case None:
                text = "the command is empty, or of a kind that this node does not know"
            case "found_cluster":
                founded = command.found_cluster.founding.cluster_id
                mine = self._host.identity.cluster_id
                text = f"this is cluster {mine}, not {founded}" if founded != mine else ""
            case "create_topic":
                text = _unmarked(command.create_topic.mark)
            case "update_topic":
                text = _unmarked(command.update_topic.mark)
            case "delete_topic":
                text = _unmarked(command.delete_topic.mark)
            case _:
                text = ""
        return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, text) if text else None

    async def answer(self, request: wire.SubmitRequest) -> wire.SubmitResponse:
        """Proposes what another node asks for, if it asks the node that it means."""
        me, meant = self._host.identity, request.destination
        if (meant.cluster_id, meant.node_id) != (me.cluster_id, me.node_id):
            return unapplied(not_meant(me.cluster_id, me.node_id, meant))
        return await self.propose_here(request.command)

    async def _attempt(self, command: MetadataCommand, deadline: float) -> wire.SubmitResponse:
        """Proposes here or on the leader's node, whichever is known to lead."""
        leader = self.leader_node()
        if leader in {0, self._host.node_id}:
            return await self.propose_here(command)
        try:
            stub = MetadataPeerServiceStub(self._host.channel(leader))
        except UnknownPeerError as error:
            return unapplied(str(error))
        seconds = max(deadline - asyncio.get_running_loop().time(), 0.0)
        try:
            destination = Destination(cluster_id=self._host.identity.cluster_id, node_id=leader)
            request = wire.SubmitRequest(command=command, destination=destination)
            with on_channel():
                return await stub.Submit(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            why = error.details()
        except ChannelClosedError as error:
            why = str(error)
        # It was sent, so nobody knows what became of it.
        return unapplied(f"node {leader} did not answer: {why}", unknown=True)

    def _leader_changed(self, group_id: int, info: LeaderInfo | None) -> None:
        if group_id == METADATA_GROUP_ID and info is not None:
            self._something_changed.set()

    async def _wait_a_little(self) -> None:
        """Waits until something changed that may make the next attempt succeed, but not long."""
        self._something_changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_SECONDS):
                await self._something_changed.wait()

    async def _wait_applied(self, index: int) -> None:
        """Waits until this node's replica has the entry, so that its next answer agrees."""
        while (group := self._host.group(METADATA_GROUP_ID)) and group.applied < index:
            await self._wait_a_little()


def _unmarked(mark: RequestMark) -> str:
    return "" if mark.request_id else "a change of a topic is not marked with a request id"


def unapplied(message: str, *, leader: int = 0, unknown: bool = False) -> wire.SubmitResponse:
    """The answer to a command that was not applied, or may not have been."""
    refused = wire.SubmitRefused(message=message, leader_node_id=leader, unknown=unknown)
    return wire.SubmitResponse(refused=refused)


def _result(result: MetadataResult) -> MetadataResult:
    if result.HasField("refusal"):
        raise to_error(result.refusal)
    return result


def _timed_out(why: str, *, doubt: bool) -> RakitError:
    if doubt:
        return RakitError(
            error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
            f"the change may have been made or not; look before you try again ({why})",
        )
    return RakitError(error_pb2.ERROR_REASON_NO_LEADER, f"the change was not made: {why}")
