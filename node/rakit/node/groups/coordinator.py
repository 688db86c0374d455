"""The coordinator of the groups of one internal partition, for one term of its leadership: the rim.

It joins the pure parts to the host and to clocks: requests become wishes and commits (`intake`),
one task makes entries of them, and what is answered is read from the applied state.

Rules (S25):

- What a caller is told has been applied by this leadership, or a majority has confirmed it after
  the look (a ReadIndex round, shared by all who ask at the time). A replaced coordinator tells
  nobody anything.
- A session that is to end is never renewed again, so the change that gives its partitions away
  cannot meet a lease that is younger than the decision.
- When the leadership ends, whoever waits is told: what was not proposed was not applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from rakit.api.v1 import error_pb2
from rakit.multiraft.errors import MultiraftError, ProposalRefusedError
from rakit.node.errors import RakitError, to_status
from rakit.node.groups import limits
from rakit.node.groups.client import fenced, unknown_group
from rakit.node.groups.intake import Batch, Intake, too_many_groups
from rakit.node.groups.machine import GroupsMachine
from rakit.node.groups.members import asks_the_same, record_of
from rakit.node.groups.reconcile import revoking
from rakit.node.groups.sessions import Session, Sessions
from rakit.node.groups.state import Group, key_of, summary_of
from rakit.node.groups.subscriptions import view_of
from rakit.node.metadata.ports import GroupView, ProposalView
from rakit.node.metadata.registry import Change, Registry
from rakit.node.partition.answers import refused
from rakit.peer.v1 import coordinator_service_pb2 as wire
from rakit.peer.v1.group_command_pb2 import (
    CommitGroupOffsets,
    CommitResult,
    GroupResult,
    MemberRecord,
)

#: Between two looks at whose time is up.
TICK_S: Final = 0.25
#: A look that comes so much later than it was due gives everybody that time back.
LATE_S_MAX: Final = 1.0
#: Between two looks for idle groups and deleted topics.
UPKEEP_S: Final = 60.0
#: Groups that are compared with the topics between two turns that other tasks get.
_COMPARED_COUNT: Final = 64


class Replica(GroupView, Protocol):
    """A replica of this node, with what it replicates."""

    @property
    def machine(self) -> object:
        """Its state machine."""
        ...


class CoordinatorHost(Protocol):
    """What a coordinator needs of the host."""

    def group(self, group_id: int) -> Replica | None:
        """A replica of this node."""
        ...

    def propose(self, group_id: int, data: bytes, /) -> ProposalView:
        """Appends an entry; raises `ProposalRefusedError`."""
        ...

    async def read_barrier(self, group_id: int) -> int:
        """A linearizable read; raises `MultiraftError`."""
        ...

    def clock_is_wrong(self) -> bool:
        """Whether this node must not decide about retention by its clock (S3)."""
        ...


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a coordinator sits."""

    host: CoordinatorHost
    group_id: int
    registry: Registry
    clock_ms: Callable[[], int]


class Coordinator:
    """See the module. `run` is its task."""

    def __init__(self, seat: Seat, term: int, machine: GroupsMachine) -> None:
        self.term = term
        self.sessions = Sessions()
        self._seat = seat
        self._state = machine.state
        self._intake = Intake(machine.state)
        self._loop = asyncio.get_running_loop()
        self._view = view_of(seat.registry)
        self._compare = False
        #: What each group's members subscribe to, when it was looked at last.
        self._subscribed: dict[str, frozenset[tuple[int, int]]] = {}
        #: Groups whose change was refused: tried again at the next tick.
        self._again: set[str] = set()
        self._joining: set[tuple[str, str]] = set()
        self._topic_names: dict[int, str] = {}
        self._turn: asyncio.Future[None] = self._loop.create_future()
        self._next_upkeep = self._loop.time() + UPKEEP_S
        # At once: a request may come before the task has begun.
        for name, group in self._state.groups.items():
            self.sessions.expect(name, group.members.values(), self._loop.time())
            if group.members:
                # Topics may have changed while nobody looked.
                self._intake.wishes(name).topics_changed = True

    # The task.

    async def run(self) -> None:
        """Works until it is cancelled, which the end of the leadership does."""
        end = self._seat.registry.subscribe(self._registry_changed)
        try:
            next_tick = self._loop.time()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_tick):
                        await self._intake.some.wait()
                if (late_s := self._loop.time() - next_tick) >= 0:
                    next_tick += late_s + TICK_S
                    if late_s > LATE_S_MAX:
                        # This process stood still, and heard of nobody: nobody else is to blame.
                        self.sessions.forgive(late_s)
                    await self._tick()
                while self._intake.some.is_set() and self._loop.time() < next_tick:
                    await self._step()
        finally:
            end()
            self._intake.fail(_leadership_over())
            self._tell()

    async def _step(self) -> None:
        """Makes one entry of what waits."""
        batch = await self._intake.take(self._view)
        if batch is None:
            await asyncio.sleep(0)
            return
        batch.command.time_ms = self._seat.clock_ms()
        data = batch.command.SerializeToString(deterministic=True)
        try:
            proposal = self._seat.host.propose(self._seat.group_id, data)
        except ProposalRefusedError as error:
            self._again.update(each.group for each in batch.command.changes)
            batch.fail(refused(error))
            return
        try:
            # Shielded: whoever stops waiting must not take the answer from the host's hands.
            completion = await asyncio.shield(proposal.done)
        except asyncio.CancelledError:
            batch.fail(_outcome_unknown())
            raise
        if completion.lost:
            batch.fail(_outcome_unknown())
            return
        assert isinstance(completion.result, GroupResult), "a command leads to a result"
        self._applied(batch)
        batch.settle(completion.result)
        self._tell()

    def _applied(self, batch: Batch) -> None:
        now = self._loop.time()
        for change in batch.command.changes:
            for member_id in change.removed_member_ids:
                session = self.sessions.get(change.group, member_id)
                ending = "" if session is None else session.ending
                self.sessions.end(change.group, member_id, ending or "UNKNOWN_MEMBER")
            # Whoever asked for it may have gone meanwhile, and then its grace runs.
            self.sessions.expect(change.group, change.members, now)
        for name in batch.command.dropped_groups:
            self._subscribed.pop(name, None)

    async def _tick(self) -> None:
        """Ends what is over, and looks at what changed around the groups."""
        for session, reason in self.sessions.overdue(self._loop.time()):
            self._end(session, reason)
        for session in self.sessions:
            if session.ending:
                # Asked for again until it is done: an entry may have been refused.
                self._intake.wishes(session.group).leaves.add(session.member_id)
        for name in self._again:
            self._intake.wishes(name).topics_changed = True
        self._again.clear()
        if self._compare:
            self._compare = False
            await self._compare_topics()
        if self._loop.time() >= self._next_upkeep:
            self._next_upkeep = self._loop.time() + UPKEEP_S
            self._upkeep()

    def _end(self, session: Session, reason: str) -> None:
        session.ending = reason
        self._intake.wishes(session.group).leaves.add(session.member_id)
        self._tell()

    async def _compare_topics(self) -> None:
        """Has the groups assigned anew whose topics are others than before."""
        self._view = view_of(self._seat.registry)
        for at, (name, group) in enumerate([*self._state.groups.items()]):
            if not at % _COMPARED_COUNT:
                await asyncio.sleep(0)
            ids = {each for one in group.members.values() for each in self._view.resolve(one)}
            topics = frozenset((each, self._view.topics[each].partition_count) for each in ids)
            if group.members and self._subscribed.get(name) != topics:
                self._subscribed[name] = topics
                self._intake.wishes(name).topics_changed = True

    def _upkeep(self) -> None:
        """Has idle groups forgotten, and the offsets of topics that were deleted."""
        if self._seat.host.clock_is_wrong():
            return
        oldest_ms = self._seat.clock_ms() - limits.RETENTION_MS
        registry = self._seat.registry
        dead: set[int] = set()
        for name, group in self._state.groups.items():
            if not group.members and group.used_time_ms < oldest_ms:
                self._intake.drop(name)
            # An id that was given out and is not there any more; a later one may be news to us.
            dead |= {
                topic_id
                for topic_id in {key[0] for key in group.offsets}
                if topic_id < registry.counters.topic_id and not registry.topic_by_id(topic_id)
            }
        if dead:
            self._intake.forget_topics(sorted(dead))

    def _registry_changed(self, change: Change) -> None:
        # Only a note: this is called while an entry is being applied.
        if change.topic_ids or change.everything:
            self._compare = True

    def _tell(self) -> None:
        """Wakes whoever waits for news."""
        turn, self._turn = self._turn, self._loop.create_future()
        turn.set_result(None)

    # Requests.

    async def join(self, request: wire.JoinMember) -> wire.MemberAnswer:
        """Begins a session, resumes one, or takes over a static member's."""
        arrived = self._loop.time()
        self._intake.check_room()
        name, resumes = request.join.group, bool(request.member_id)
        member_id = request.member_id or request.session_id
        group = self._state.groups.get(name)
        known = None if group is None else group.members.get(member_id)
        session = self.sessions.get(name, member_id)
        if resumes and (known is None or (session is not None and session.ending)):
            await self._confirmed()
            ending = "" if session is None else session.ending
            raise fenced(name, member_id, ending or self.sessions.reason(name, member_id))
        record = record_of(request.join, member_id, known, polls=request.polls)
        if known is None or not asks_the_same(known, record):
            await self._enter(name, group, record)
        else:
            await self._confirmed()
        member = self._member(name, member_id)
        session = self.sessions.begin(
            name, member, request.session_id, request.gateway_node_id, arrived
        )
        # An earlier attachment hears that it is none any more.
        self._tell()
        answer = self._answer(name, member, session)
        answer.resumed = resumes
        return answer

    async def _enter(self, name: str, group: Group | None, record: MemberRecord) -> None:
        """Has the member come, or its wishes changed."""
        wishes = self._intake.asked(name)
        members = {} if group is None else group.members
        if record.member_id not in members:
            if len(members) + len(wishes.joins) >= limits.MEMBERS_A_GROUP_COUNT_MAX:
                raise RakitError(
                    error_pb2.ERROR_REASON_GROUP_FULL,
                    f"Group {name!r} has {len(members):,} members, which is its limit.",
                    {"group": name, "limit": str(limits.MEMBERS_A_GROUP_COUNT_MAX)},
                )
            if group is None and len(self._state.groups) >= limits.GROUPS_A_PARTITION_COUNT_MAX:
                raise too_many_groups()
        instance = name, record.instance_id
        if record.instance_id:
            if instance in self._joining:
                raise _in_use(name, record.instance_id)
            former = self._former(name, members.values(), record)
            self._joining.add(instance)
            if former is not None:
                former.ending = "INSTANCE_REPLACED"
                self._intake.wishes(name).replaces[record.member_id] = former.member_id
                self._tell()
        try:
            self._intake.wishes(name).joins[record.member_id] = record
            await self._done(name)
        finally:
            self._joining.discard(instance)

    def _former(
        self, name: str, members: Iterable[MemberRecord], record: MemberRecord
    ) -> Session | None:
        """The session of the process that had the instance's name before. Raises INSTANCE_IN_USE.

        While a gateway may serve it, by what it was promised, its partitions are not given away.
        """
        for each in members:
            if each.instance_id == record.instance_id and each.member_id != record.member_id:
                session = self.sessions.get(name, each.member_id)
                assert session is not None, "every member has a session"
                if self._loop.time() < session.served_until:
                    raise _in_use(name, record.instance_id)
                return session
        return None

    async def sync(self, request: wire.SyncMembers) -> wire.SyncAnswer:
        """Renews sessions; answers when one of them has news, or after a while."""
        arrived = self._loop.time()
        until = arrived + min(max(request.wait_ms, 0), limits.SYNC_WAIT_MS_MAX) / 1000
        for each in request.members:
            session = self.sessions.get(each.group, each.member_id)
            if session is not None and session.session_id == each.session_id:
                session.busy_s = each.processing_ms / 1000
                if not session.ending and session.busy_s > session.processing_s:
                    self._end(session, "PROCESSING_TOO_LONG")
        while (left := until - self._loop.time()) > 0 and not self._has_news(request):
            await asyncio.wait({self._turn}, timeout=left)
        await self._confirmed()
        answer = wire.SyncAnswer(lease_ms=limits.LEASE_MS)
        for each in request.members:
            if reason := self._over(each, request.gateway_node_id):
                error = to_status(fenced(each.group, each.member_id, reason))
                gone = wire.MemberAnswer(member_id=each.member_id, error=error)
                answer.members.add(group=each.group, member=gone)
                continue
            session = self.sessions.get(each.group, each.member_id)
            assert session is not None, "the session is not over"
            session.renewed_at = max(session.renewed_at, arrived)
            member = self._member(each.group, each.member_id)
            if member.epoch != each.version:
                told = self._answer(each.group, member, session)
                answer.members.add(group=each.group, member=told)
        return answer

    def _has_news(self, request: wire.SyncMembers) -> bool:
        """Whether a member has another version than its gateway, or its session is over."""
        for each in request.members:
            if self._over(each, request.gateway_node_id):
                return True
            if self._member(each.group, each.member_id).epoch != each.version:
                return True
        return False

    def _over(self, each: wire.SyncMember, gateway_node_id: int) -> str:
        """Why a session is over for the gateway that asks; "" while it is not."""
        session = self.sessions.get(each.group, each.member_id)
        if session is None:
            return self.sessions.reason(each.group, each.member_id)
        group = self._state.groups.get(each.group)
        if session.ending or group is None or each.member_id not in group.members:
            return session.ending or "UNKNOWN_MEMBER"
        mine = self.sessions.claim(session, each.session_id, gateway_node_id)
        return "" if mine else "INSTANCE_REPLACED"

    async def commit(self, request: CommitGroupOffsets) -> CommitResult:
        """Commits offsets; whether they count is decided when they are applied.

        Not those of an attachment that another one has replaced: its client has gone on from there,
        and what it says late would take the offsets back.
        """
        session = self.sessions.get(request.group, request.member_id)
        known = "" if session is None else session.session_id
        if known and request.session_id and known != request.session_id:
            await self._confirmed()
            raise fenced(request.group, request.member_id, "INSTANCE_REPLACED")
        stored = CommitGroupOffsets()
        stored.CopyFrom(request)
        stored.ClearField("session_id")
        return await self._intake.commit(stored)

    async def release(self, request: wire.ReleasePartitions) -> wire.MemberAnswer:
        """Takes partitions back that a member lets go of."""
        self._intake.check_room()
        name, member_id = request.group, request.member_id
        await self._check_session(name, member_id, request.session_id)
        released = self._intake.wishes(name).releases.setdefault(member_id, set())
        released.update((key_of(each), each.since_epoch) for each in request.partitions)
        await self._done(name)
        session = await self._check_session(name, member_id, request.session_id)
        return self._answer(name, self._member(name, member_id), session)

    async def leave(self, request: wire.LeaveMember) -> wire.LeaveAnswer:
        """Ends a membership, or its attachment."""
        session = self.sessions.get(request.group, request.member_id)
        if session is None and not request.detach:
            # Its join may be on its way: whoever gave that up does not want to stay behind.
            await self._done(request.group)
            session = self.sessions.get(request.group, request.member_id)
        if request.detach:
            # It claims nothing: another gateway may go on with the member already.
            if session is not None and session.session_id == request.session_id:
                self.sessions.detach(session, self._loop.time())
            else:
                await self._confirmed()
        elif session is None or not self.sessions.claim(session, request.session_id, 0):
            # It is gone, or somebody else goes on with it.
            await self._confirmed()
        else:
            self._end(session, session.ending or "LEFT")
            await self._done(request.group)
        return wire.LeaveAnswer()

    async def describe(self, request: wire.DescribeGroup) -> wire.CoordinateResponse:
        """The group, and who holds its members' sessions. Raises UNKNOWN_GROUP."""
        await self._confirmed()
        group = self._state.groups.get(request.group)
        if group is None:
            raise unknown_group(request.group)
        record = group.record()
        gateways: list[int] = []
        for member in record.members:
            session = self.sessions.get(group.name, member.member_id)
            held = session is not None and session.attached
            gateways.append(session.gateway_node_id if session is not None and held else 0)
        return wire.CoordinateResponse(describe=record, gateway_node_ids=gateways)

    async def list_names(self, request: wire.ListGroupNames) -> wire.GroupNames:
        """Groups by name."""
        await self._confirmed()
        names = sorted(name for name in self._state.groups if name > request.after)
        names = names[: max(request.count_max, 0)]
        return wire.GroupNames(groups=[summary_of(self._state.groups[name]) for name in names])

    async def drop(self, request: wire.DropGroup) -> wire.DropAnswer:
        """Forgets a group. Raises UNKNOWN_GROUP, GROUP_ACTIVE."""
        self._intake.check_room()
        name = request.group
        if name in self._state.groups and await self._intake.drop(name):
            return wire.DropAnswer()
        await self._confirmed()
        if name not in self._state.groups:
            raise unknown_group(name)
        raise RakitError(
            error_pb2.ERROR_REASON_GROUP_ACTIVE,
            f"Group {name!r} has members: it can be deleted when they have left.",
            {"group": name},
        )

    # Answers.

    async def _done(self, name: str) -> None:
        """Waits until what is asked of a group is applied, or known not to be needed."""
        if not await self._intake.changed(name):
            await self._confirmed()

    async def _confirmed(self) -> None:
        """Waits until a majority has confirmed that this is the coordinator."""
        try:
            await self._seat.host.read_barrier(self._seat.group_id)
        except ProposalRefusedError as error:
            raise refused(error) from error
        except MultiraftError as error:
            raise RakitError(
                error_pb2.ERROR_REASON_NO_QUORUM,
                "A majority did not confirm the group's coordinator in time.",
            ) from error
        replica = self._seat.host.group(self._seat.group_id)
        if replica is None or not replica.ready or replica.term != self.term:
            raise _leadership_over()

    async def _check_session(self, name: str, member_id: str, session_id: str) -> Session:
        """The session, if it is the member's. Raises MEMBER_FENCED."""
        session = self.sessions.get(name, member_id)
        over = self._over(
            wire.SyncMember(group=name, member_id=member_id, session_id=session_id), 0
        )
        if session is None or over:
            await self._confirmed()
            raise fenced(name, member_id, over)
        return session

    def _member(self, name: str, member_id: str) -> MemberRecord:
        group = self._state.groups.get(name)
        member = None if group is None else group.members.get(member_id)
        if member is None:
            raise fenced(name, member_id, self.sessions.reason(name, member_id))
        return member

    def _answer(self, name: str, member: MemberRecord, session: Session) -> wire.MemberAnswer:
        """A member as its gateway is to know it."""
        session.tells(member, self._loop.time())
        offsets = self._state.groups[name].offsets
        answer = wire.MemberAnswer(
            member_id=member.member_id,
            member_epoch=member.epoch,
            version=member.epoch,
            revoking=revoking(member),
            revoke_deadline_ms=member.max_processing_ms,
            session_grace_ms=member.session_grace_ms,
            max_processing_ms=member.max_processing_ms,
            start=member.start,
            layout=member.layout,
            accept_codecs=member.accept_codecs,
        )
        for one in member.owned:
            part = answer.owned.add(partition=one, topic=self._topic_name(one.topic_id))
            if (committed := offsets.get(key_of(one))) is not None:
                part.committed_offset = committed.offset
        return answer

    def _topic_name(self, topic_id: int) -> str:
        """The name, also of a topic that was deleted while a member has it."""
        topic = self._seat.registry.topic_by_id(topic_id)
        if topic is not None:
            self._topic_names[topic_id] = topic.name
        return self._topic_names.get(topic_id, "")


def _in_use(name: str, instance_id: str) -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_INSTANCE_IN_USE,
        f"Another process is instance {instance_id!r} of group {name!r}, and its session is alive:"
        " end it, or give this process another instance_id.",
        {"group": name, "retry_delay_ms": "1000"},
    )


def _leadership_over() -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        "The group's coordinator has changed; nothing of this request was done.",
        {"retry_delay_ms": "100"},
    )


def _outcome_unknown() -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        "The group's coordinator changed while the request was being replicated: it may or may not"
        " have had its effect.",
    )
