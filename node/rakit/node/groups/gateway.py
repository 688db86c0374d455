"""The gateway: all members whose sessions this node holds, and what keeps them.

For each coordinator (the leader of an internal partition) that has members here one task runs. It
asks `SyncMembers` over and over, one call at a time: that renews the sessions of all of them, and
comes back when one has news, or after a second.

Rules (S25):

- A renewal counts from when its request was sent, and only for the members that it named and that
  the answer does not call over. When a lease runs out, whoever serves the member ends it with
  NODE_UNAVAILABLE; the coordinator gives nothing away before that.
- A call that waits does not know of a member that came meanwhile: it is broken off and made anew.
  What comes in one moment goes together, so a thousand joins are not a thousand calls.
- A call that was broken off renewed nobody. The next one does not wait and is not broken off, so
  members that come and go, as with every poll, never keep the others from being renewed.
- A member's state is always whole, and its version only grows: an answer that is not newer than
  what is known says nothing.
- A member whose first join was given up, by its client or for want of an answer, leaves: nobody
  knows of it, and it would keep partitions from the others.
- A member has one session here. The stream of an earlier one, which its client has given up, ends.
- A coordinator that moved is found by the client of coordinators; here a call failed, and the next
  one succeeds.

Left out: records, commits and streams. A session tells its news by a bell and an end.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import JoinGroup
from rakit.multiraft.bell import Bell
from rakit.node.errors import RakitError, from_status
from rakit.node.groups.client import fenced
from rakit.node.groups.lease import LEASE_S, Lease
from rakit.node.groups.names import group_partition
from rakit.peer.v1.coordinator_service_pb2 import (
    JoinMember,
    LeaveAnswer,
    LeaveMember,
    MemberAnswer,
    ReleasePartitions,
    SyncAnswer,
    SyncMember,
    SyncMembers,
)
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, CommitResult, OwnedPartition

logger = logging.getLogger(__name__)

#: How long a call waits at the coordinator for news.
SYNC_WAIT_S: Final = 1.0
#: Beyond that, for the way there and for a majority; so a lease sees two calls fail.
SYNC_SLACK_S: Final = 1.0
#: Between two calls at least: what happens meanwhile goes together.
GATHER_S: Final = 0.02
#: After a call that failed.
RETRY_S: Final = 0.1
#: For telling a coordinator that a member is not held here any more.
DETACH_S: Final = 2.0


class Coordinators(Protocol):
    """This node's way to the coordinators: `GroupClient`."""

    async def join(self, request: JoinMember, give_up: float) -> MemberAnswer:
        """Begins or resumes a session."""
        ...

    async def sync(self, partition: int, request: SyncMembers, give_up: float) -> SyncAnswer:
        """Renews sessions and waits for news."""
        ...

    async def commit(self, request: CommitGroupOffsets, give_up: float) -> CommitResult:
        """Commits offsets."""
        ...

    async def release(self, request: ReleasePartitions, give_up: float) -> MemberAnswer:
        """Lets go of partitions."""
        ...

    async def leave(self, request: LeaveMember, give_up: float) -> LeaveAnswer:
        """Ends a membership, or its attachment."""
        ...


class GroupSession:
    """One member that this node holds."""

    def __init__(self, group: str, session_id: str, answer: MemberAnswer) -> None:
        self.group = group
        self.member_id = answer.member_id
        self.session_id = session_id
        self.lease = Lease()
        #: The member as it is, by the newest answer.
        self.answer = answer
        #: Why the session is over.
        self.ended: RakitError | None = None
        self.is_leaving = False
        #: Rung with every change of the above, and with every renewal.
        self.bell = Bell()
        #: For how long the member has had records that it did nothing about.
        self.processing_ms: Callable[[], int] = lambda: 0
        #: Never served before the first renewal where its join took longer than a lease.
        self.serve_until_least = asyncio.get_running_loop().time() + LEASE_S

    def is_of(self, other: GroupSession) -> bool:
        """Whether both are of one member."""
        return (self.group, self.member_id) == (other.group, other.member_id)

    def take(self, answer: MemberAnswer) -> None:
        """Hears how the member is."""
        if answer.HasField("error"):
            self.end(from_status(answer.error))
        elif answer.version > self.answer.version:
            self.answer = answer
            self.bell.ring()

    def end(self, error: RakitError) -> None:
        """The session is over, for this reason."""
        # A renewal may hear that a member has left before the member does.
        has_left = self.is_leaving and error.metadata.get("fence_reason") == "LEFT"
        if self.ended is None and not has_left:
            self.ended = error
            self.bell.ring()

    def check(self, now: float) -> None:
        """Raises what the member's stream ends with, where it may not be served any more."""
        if self.ended is not None:
            raise self.ended
        if now >= self.ends_at:
            raise RakitError(
                error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                f"This node has not reached the coordinator of group {self.group!r} for a while and"
                " may not serve its members any more. Resume on another node.",
                {"group": self.group, "member_id": self.member_id, "retry_delay_ms": "200"},
            )

    @property
    def ends_at(self) -> float:
        """When the member may not be held any more unless it is renewed, on the loop's clock."""
        return max(self.lease.until, self.serve_until_least)

    async def news(self) -> None:
        """Waits until something changed, or the lease is over."""
        try:
            async with asyncio.timeout_at(self.ends_at):
                await self.bell.heard()
        except TimeoutError:
            return


class _Link:
    """The sessions at one coordinator."""

    def __init__(self, client: Coordinators, node_id: int, number: int) -> None:
        self._client = client
        self._node_id = node_id
        self._number = number
        self.sessions: dict[str, GroupSession] = {}
        self.changed = Bell()
        self.task: asyncio.Task[None] | None = None

    def replace(self, session: GroupSession) -> None:
        """Holds a session, instead of an earlier one of the same member."""
        for each in [one for one in self.sessions.values() if one.is_of(session)]:
            each.end(fenced(each.group, each.member_id, "INSTANCE_REPLACED"))
            del self.sessions[each.session_id]
        self.sessions[session.session_id] = session

    async def run(self) -> None:
        """Renews while there is anybody."""
        waits = True
        while self.sessions:
            await asyncio.sleep(GATHER_S)
            # A failure is no reason to give up: the leases say when it is too late.
            try:
                waits = await self._renew(SYNC_WAIT_S if waits else 0.0)
            except RakitError as error:
                logger.info(
                    "a coordinator did not renew its members",
                    extra={"partition": self._number, "why": str(error)},
                )
                await asyncio.sleep(RETRY_S)

    async def _renew(self, wait_s: float) -> bool:
        """Asks once; False where the call was broken off."""
        sessions = list(self.sessions.values())
        request = SyncMembers(
            gateway_node_id=self._node_id,
            members=[
                SyncMember(
                    group=each.group,
                    member_id=each.member_id,
                    session_id=each.session_id,
                    version=each.answer.version,
                    processing_ms=each.processing_ms(),
                )
                for each in sessions
            ],
            wait_ms=int(wait_s * 1000),
        )
        sent_at = asyncio.get_running_loop().time()
        give_up = sent_at + wait_s + SYNC_SLACK_S
        if wait_s:
            answer = await self._ask(request, give_up)
        else:
            answer = await self._client.sync(self._number, request, give_up)
        if answer is None:
            return False
        by_name = {(each.group, each.member_id): each for each in sessions}
        for each in answer.members:
            session = by_name.get((each.group, each.member.member_id))
            if session is not None:
                session.take(each.member)
        for session in sessions:
            if session.ended is None:
                session.lease.confirmed(sent_at, answer.lease_ms)
                session.bell.ring()
        return True

    async def _ask(self, request: SyncMembers, give_up: float) -> SyncAnswer | None:
        """The answer; None where the members changed meanwhile."""
        asking = asyncio.ensure_future(self._client.sync(self._number, request, give_up))
        changing = asyncio.ensure_future(self.changed.heard())
        try:
            await asyncio.wait({asking, changing}, return_when=asyncio.FIRST_COMPLETED)
            return await asking if asking.done() else None
        finally:
            if not changing.done():
                changing.cancel()
            asking.cancel()
            await asyncio.gather(asking, changing, return_exceptions=True)


class Gateway:
    """One for each node."""

    def __init__(self, node_id: int, client: Coordinators) -> None:
        self._node_id = node_id
        self.client = client
        self._links: dict[int, _Link] = {}
        self._detaching: set[asyncio.Task[None]] = set()

    @property
    def session_count(self) -> int:
        """How many members are held here."""
        return sum(len(link.sessions) for link in self._links.values())

    async def join(
        self, join: JoinGroup, member_id: str, give_up: float, *, polls: bool = False
    ) -> GroupSession:
        """Begins a session, or resumes one, and holds it. Raises what the coordinator says."""
        sent_at = asyncio.get_running_loop().time()
        session_id = uuid.uuid4().hex
        request = JoinMember(
            gateway_node_id=self._node_id,
            member_id=member_id,
            join=join,
            polls=polls,
            session_id=session_id,
        )
        try:
            answer = await self.client.join(request, give_up)
        except BaseException as error:
            if not member_id and not (isinstance(error, RakitError) and not error.may_be_applied):
                # It has the id of its session, if it came about.
                gone = LeaveMember(group=join.group, member_id=session_id, session_id=session_id)
                self._tell(gone)
            raise
        if answer.HasField("error"):
            raise from_status(answer.error)
        session = GroupSession(join.group, session_id, answer)
        session.lease.confirmed(sent_at)
        link = self._link(session.group)
        link.replace(session)
        link.changed.ring()
        if link.task is None or link.task.done():
            link.task = asyncio.create_task(link.run(), name="members of groups")
        return session

    def _link(self, group: str) -> _Link:
        number = group_partition(group)
        return self._links.setdefault(number, _Link(self.client, self._node_id, number))

    async def release(
        self, session: GroupSession, partitions: list[OwnedPartition], give_up: float
    ) -> MemberAnswer:
        """Lets go of partitions of a member; it is as the answer says then."""
        request = ReleasePartitions(
            group=session.group,
            member_id=session.member_id,
            session_id=session.session_id,
            partitions=partitions,
        )
        answer = await self.client.release(request, give_up)
        session.take(answer)
        return answer

    async def leave(self, session: GroupSession, give_up: float) -> None:
        """Ends a membership. It is not renewed any more, whatever comes of that."""
        session.is_leaving = True
        self.forget(session)
        await self.client.leave(self._leave(session, detach=False), give_up)

    def forget(self, session: GroupSession) -> None:
        """The session is not held here any more; nobody is told."""
        self._link(session.group).sessions.pop(session.session_id, None)

    def detach(self, session: GroupSession) -> None:
        """The session is not held here any more: its grace begins. Told in the background."""
        self.forget(session)
        if session.ended is None:
            self._tell(self._leave(session, detach=True))

    def abandon(self, session: GroupSession) -> None:
        """The membership ends: its client does not know of it. Told in the background."""
        session.is_leaving = True
        self.forget(session)
        self._tell(self._leave(session, detach=False))

    def _tell(self, leave: LeaveMember) -> None:
        task = asyncio.create_task(self._told(leave), name="detach")
        self._detaching.add(task)
        task.add_done_callback(self._detaching.discard)

    async def _told(self, leave: LeaveMember) -> None:
        give_up = asyncio.get_running_loop().time() + DETACH_S
        try:
            await self.client.leave(leave, give_up)
        except RakitError as error:
            # Then its grace counts from the last renewal.
            logger.info("a session's end was not told", extra={"why": str(error)})

    def _leave(self, session: GroupSession, *, detach: bool) -> LeaveMember:
        return LeaveMember(
            group=session.group,
            member_id=session.member_id,
            session_id=session.session_id,
            detach=detach,
        )

    async def close(self) -> None:
        """Tells what is to be told, and ends."""
        if self._detaching:
            await asyncio.wait(self._detaching, timeout=DETACH_S)
        tasks = [each.task for each in self._links.values() if each.task is not None]
        tasks += self._detaching
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
