"""This node's way to the coordinators of groups: here, or on another node, one hop at most (S22).

A group's name says which internal partition it lives in; that partition's leader is its
coordinator. The internal topic is made when a group is first joined or committed to. Before that
there is no group, which is said only after a linearizable look.

Rules:

- A call waits for a coordinator up to its caller's `give_up` (on the loop's clock), and is made
  again when it met a node that does not lead, or none at all.
- Everything but a deletion may be done twice: a join is known by its `session_id` (which therefore
  must be new for each attachment and never empty), a release by the epoch since which a partition
  was owned, and a commit sets what it sets. So an attempt whose fate is not known is repeated while
  there is time; only then the caller learns OUTCOME_UNKNOWN. A caller that commits one partition
  twice at once does not know which commit is the later one: one commit of a member at a time.
- A member's end is an error, MEMBER_FENCED with its `fence_reason`, from every call but `sync`,
  which tells it in the member's answer.

Left out: what the coordinator decides (`coordinator`), leases and streams (the gateway).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import GroupSummary
from rakit.multiraft.leaders import LeaderInfo
from rakit.node.errors import RakitError
from rakit.node.groups.names import group_partition
from rakit.node.metadata.registry import PartitionInfo
from rakit.node.metadata.topics import GROUP_PARTITIONS_COUNT, GROUPS_TOPIC
from rakit.node.peers import Peers
from rakit.node.routing import ANSWER_RESERVE_S, Router, is_reroutable
from rakit.peer.v1.coordinator_service_pb2 import (
    CoordinateRequest,
    CoordinateResponse,
    DescribeGroup,
    DropGroup,
    JoinMember,
    LeaveAnswer,
    LeaveMember,
    ListGroupNames,
    MemberAnswer,
    ReleasePartitions,
    SyncAnswer,
    SyncMembers,
)
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, CommitResult, GroupRecord
from rakit.peer.v1.metadata_command_pb2 import CreateGroupPartitions, MetadataCommand

if TYPE_CHECKING:
    from rakit.node.errors import Reason

SERVICE: Final = "rakit.peer.v1.CoordinatorService"
#: One attempt, beside what it is asked to wait: a node that stopped must not use up all the time.
ATTEMPT_S_MAX: Final = 3.0


class Coordination(Protocol):
    """The coordinators of this node."""

    async def coordinate(self, request: CoordinateRequest) -> CoordinateResponse:
        """Does what is asked of a group; raises `RakitError`, NOT_LEADER among others."""
        ...


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    """A group as its coordinator knows it, linearizable."""

    record: GroupRecord
    #: The node that holds each member's session, in the order of the members; 0: none does.
    gateway_node_ids: tuple[int, ...]
    coordinator_node_id: int


class GroupClient:
    """See the module. Every method raises `RakitError`."""

    def __init__(self, router: Router, peers: Peers, local: Coordination) -> None:
        self._router = router
        self._peers = peers
        self._local = local

    async def join(self, request: JoinMember, give_up: float) -> MemberAnswer:
        """Begins or resumes a session. Also INSTANCE_IN_USE, GROUP_FULL, MEMBER_FENCED."""
        assert request.session_id, "a join is known by its session"
        asked = CoordinateRequest(join=request)
        return (await self._ask_group(request.join.group, asked, give_up, creates=True)).join

    async def sync(self, partition: int, request: SyncMembers, give_up: float) -> SyncAnswer:
        """Renews sessions of groups that live in an internal partition; waits for news there.

        `lease_ms` counts from the call of this method.
        """
        asked = CoordinateRequest(sync=request)
        response, _ = await self._ask(partition, asked, give_up, request.wait_ms / 1000)
        return response.sync

    async def commit(self, request: CommitGroupOffsets, give_up: float) -> CommitResult:
        """Commits offsets; returns those that were refused. `refusal` makes errors of them."""
        asked = CoordinateRequest(commit=request)
        creates = not request.member_id
        return (await self._ask_group(request.group, asked, give_up, creates=creates)).commit

    async def release(self, request: ReleasePartitions, give_up: float) -> MemberAnswer:
        """Lets go of partitions; returns the member as it is then."""
        asked = CoordinateRequest(release=request)
        return (await self._ask_group(request.group, asked, give_up)).release

    async def leave(self, request: LeaveMember, give_up: float) -> LeaveAnswer:
        """Ends a membership, or its attachment to this gateway. A member that is gone is no error.

        A detachment takes no commit and is a matter of the present coordinator only.
        """
        asked = CoordinateRequest(leave=request)
        return (await self._ask_group(request.group, asked, give_up)).leave

    async def describe(self, group: str, give_up: float) -> DescribedGroup:
        """The group as of now. Raises UNKNOWN_GROUP when a majority does not know it."""
        partition = group_partition(group)
        if await self._absent(give_up):
            raise unknown_group(group)
        asked = CoordinateRequest(describe=DescribeGroup(group=group))
        response, node_id = await self._ask(partition, asked, give_up, group=group)
        return DescribedGroup(response.describe, tuple(response.gateway_node_ids), node_id)

    async def list_names(self, after: str, count_max: int, give_up: float) -> list[GroupSummary]:
        """At most so many groups whose names follow `after`, by name, from all coordinators."""
        if await self._absent(give_up):
            return []
        asked = CoordinateRequest(list=ListGroupNames(after=after, count_max=count_max))
        answers = await asyncio.gather(
            *(self._ask(number, asked, give_up) for number in range(GROUP_PARTITIONS_COUNT))
        )
        found: list[GroupSummary] = []
        for response, node_id in answers:
            for summary in response.list.groups:
                summary.coordinator_node_id = node_id
                found.append(summary)
        return sorted(found, key=lambda one: one.name)[:count_max]

    async def drop(self, group: str, give_up: float) -> None:
        """Forgets a group without members. Raises UNKNOWN_GROUP, GROUP_ACTIVE."""
        if await self._absent(give_up):
            raise unknown_group(group)
        asked = CoordinateRequest(drop=DropGroup(group=group))
        await self._ask(group_partition(group), asked, give_up, group=group, repeats=False)

    async def _ask_group(
        self, group: str, request: CoordinateRequest, give_up: float, *, creates: bool = False
    ) -> CoordinateResponse:
        if creates:
            await self._created(give_up)
        elif await self._absent(give_up):
            raise fenced(group, _member_of(request), "UNKNOWN_MEMBER")
        response, _ = await self._ask(group_partition(group), request, give_up, group=group)
        return response

    async def _created(self, give_up: float) -> None:
        """Makes the internal topic if need be."""
        registry = self._router.metadata.registry
        if registry.internal_topic(GROUPS_TOPIC) is None:
            command = MetadataCommand(create_group_partitions=CreateGroupPartitions())
            left = give_up - asyncio.get_running_loop().time()
            try:
                await self._router.metadata.submit(command, max(left, ANSWER_RESERVE_S / 2))
            except RakitError as error:
                if not error.may_be_applied:
                    raise
                # It may be done twice; of what the caller asked for, nothing was done.
                raise _no_coordinator("", "the internal topic of groups is being made") from error

    async def _absent(self, give_up: float) -> bool:
        """Whether there is no internal topic, so no group, as of now (S22)."""
        metadata = self._router.metadata
        if metadata.registry.internal_topic(GROUPS_TOPIC) is not None:
            return False
        left = give_up - asyncio.get_running_loop().time()
        registry = await metadata.barrier(max(left, ANSWER_RESERVE_S / 2))
        return registry.internal_topic(GROUPS_TOPIC) is None

    def _place(self, number: int) -> PartitionInfo:
        topic = self._router.metadata.registry.internal_topic(GROUPS_TOPIC)
        assert topic is not None, "an internal topic is never deleted"
        return topic.partitions[number]

    async def _ask(
        self,
        number: int,
        request: CoordinateRequest,
        give_up: float,
        wait_s: float = 0.0,
        *,
        group: str = "",
        repeats: bool = True,
    ) -> tuple[CoordinateResponse, int]:
        """Asks the coordinator, and again while that makes sense and there is time."""
        doubt = False
        mutates = request.WhichOneof("request") not in {"sync", "describe", "list"}
        place = self._place(number)
        while True:
            try:
                leader = await self._router.leader(GROUPS_TOPIC, place, give_up)
            except RakitError as error:
                raise _settled(_no_coordinator(group, "no leader is known"), doubt=doubt) from error
            try:
                return await self._attempt(leader, place, request, give_up, wait_s), leader.node_id
            except RakitError as error:
                doubt = doubt or (mutates and error.may_be_applied)
                again = is_reroutable(error) or (repeats and _is_open(error))
                if not again or not await self._router.look_again(place.group_id, leader, give_up):
                    raise _settled(_told(error, group), doubt=doubt) from error

    async def _attempt(
        self,
        leader: LeaderInfo,
        place: PartitionInfo,
        request: CoordinateRequest,
        give_up: float,
        wait_s: float,
    ) -> CoordinateResponse:
        asked = CoordinateRequest()
        asked.CopyFrom(request)
        asked.group_id = place.group_id
        asked.destination.CopyFrom(self._peers.destination(leader.node_id))
        mutates = request.WhichOneof("request") not in {"sync", "describe", "list"}
        loop = asyncio.get_running_loop()
        seconds = min(give_up - loop.time(), ATTEMPT_S_MAX + wait_s)
        if leader.node_id != self._router.node_id:
            return await self._peers.call(
                leader.node_id,
                "Coordinate",
                asked,
                CoordinateResponse,
                timeout_s=seconds,
                mutates=mutates,
                service=SERVICE,
            )
        try:
            async with asyncio.timeout(max(seconds, ANSWER_RESERVE_S / 2)):
                return await self._local.coordinate(asked)
        except TimeoutError:
            if mutates:
                raise RakitError(
                    error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
                    "The change was proposed, and no majority confirmed it in time: it may or may"
                    " not have been made.",
                ) from None
            raise _no_coordinator("", "a majority did not confirm it in time") from None


def unknown_group(group: str) -> RakitError:
    """What a caller gets who names a group that does not exist."""
    return RakitError(
        error_pb2.ERROR_REASON_UNKNOWN_GROUP, f"There is no group {group!r}.", {"group": group}
    )


#: Why a member's session is over, for people.
_FENCES: Final = {
    "SESSION_EXPIRED": "nothing was heard of it for longer than its session_grace_ms",
    "PROCESSING_TOO_LONG": "it had records for longer than its max_processing_ms",
    "REVOKE_TOO_LONG": "it did not let go of partitions within its max_processing_ms",
    "INSTANCE_REPLACED": "another process goes on with its session or its instance_id",
    "LEFT": "it has left",
    "GROUP_DELETED": "its group was deleted",
    "UNKNOWN_MEMBER": "the group has no such member, or no more",
}


def fenced(group: str, member_id: str, fence_reason: str) -> RakitError:
    """The end of a member's session."""
    return RakitError(
        error_pb2.ERROR_REASON_MEMBER_FENCED,
        f"The session of member {member_id!r} of group {group!r} is over: {_FENCES[fence_reason]}."
        " Join again, without a resume token.",
        {"group": group, "member_id": member_id, "fence_reason": fence_reason},
    )


def refusal(reason: Reason, group: str, member_id: str, topic: str, partition: int) -> RakitError:
    """Why one offset of a commit was refused, as its caller is to read it."""
    where = {"group": group, "topic": topic, "partition": str(partition)}
    place = f"partition {partition} of topic {topic!r}"
    match reason:
        case error_pb2.ERROR_REASON_MEMBER_FENCED:
            error = fenced(group, member_id, "UNKNOWN_MEMBER")
            error.metadata |= where
            return error
        case error_pb2.ERROR_REASON_PARTITION_NOT_OWNED:
            text = f"Member {member_id!r} does not own {place}: nothing was committed for it."
        case error_pb2.ERROR_REASON_STALE_MEMBER_EPOCH:
            text = (
                f"Member {member_id!r} did not own {place} in the epoch that the commit names, or"
                " has not been in that epoch yet: nothing was committed for it."
            )
        case error_pb2.ERROR_REASON_GROUP_ACTIVE:
            text = (
                f"Group {group!r} has members: only they may commit. Give a member_id, or wait"
                " until the group is empty."
            )
        case error_pb2.ERROR_REASON_GROUP_FULL:
            text = (
                f"Group {group!r} has as many committed offsets, or as much metadata with them, as"
                " a group may have."
            )
        case _:
            text = f"The offset of {place} was not committed."
    if member_id:
        where["member_id"] = member_id
    return RakitError(reason, text, where)


def _member_of(request: CoordinateRequest) -> str:
    match request.WhichOneof("request"):
        case "commit":
            return request.commit.member_id
        case "release":
            return request.release.member_id
        case _:
            return request.leave.member_id


def _is_open(error: RakitError) -> bool:
    """Nobody knows what became of the attempt, or a majority was not there for it."""
    return error.reason in {
        error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        error_pb2.ERROR_REASON_NO_QUORUM,
    }


def _no_coordinator(group: str, why: str) -> RakitError:
    metadata = {"retry_delay_ms": "100"}
    if group:
        metadata["group"] = group
    named = f"group {group!r}" if group else "groups"
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        f"The coordinator of {named} cannot be reached at the moment: {why}.",
        metadata,
    )


def _told(error: RakitError, group: str) -> RakitError:
    """The error in terms of groups: whom the coordinator's node calls leader is nobody's concern.

    NOT_LEADER means to a client that it asked the wrong node, which it did not.
    """
    if is_reroutable(error):
        return _no_coordinator(group, "it has moved, or its node is away")
    if group:
        error.metadata.setdefault("group", group)
    return error


def _settled(error: RakitError, *, doubt: bool) -> RakitError:
    """What becomes of an error when an earlier attempt may have had its effect."""
    return error.as_unknown() if doubt and not error.may_be_applied else error
