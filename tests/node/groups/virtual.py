"""A coordinator over the real state machine, in time that passes only while everybody waits."""

from __future__ import annotations

import asyncio
import selectors
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rakit.api.v1.group_service_pb2 import JoinGroup
from rakit.multiraft.barriers import BarrierLostError
from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import OverloadedError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.node.groups.coordinator import Coordinator, Seat
from rakit.node.groups.machine import GroupsMachine
from rakit.node.metadata.registry import Change, PartitionInfo, Registry, TopicInfo
from rakit.node.metadata.topic_config import TopicConfig
from rakit.peer.v1 import coordinator_service_pb2 as wire
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, CommitResult, GroupOffset
from rakit.raft import ConfState, Entry, EntryID, EntryType, Status

ResultT = TypeVar("ResultT")
GROUP_ID = 7
#: How long a confirmation takes, and an entry by default.
ROUND_S = 0.003


class _Jumps(selectors.SelectSelector):
    """Waits no time at all: the clock jumps to where the loop would have waited to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs it in virtual time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


@dataclass
class _Proposal:
    entry: EntryID
    done: asyncio.Future[Completion]


@dataclass
class Replica:
    """What the host shows of the replica."""

    machine: GroupsMachine
    term: int = 1
    ready: bool = True
    meta: GroupMeta = field(
        default_factory=lambda: GroupMeta(GROUP_ID, replica_id(1, 1), GroupKind.CONSUMERS)
    )
    conf_state: ConfState = field(default_factory=ConfState)
    applied: int = 0
    leader_replica: int = replica_id(1, 1)

    def status(self) -> Status:
        raise NotImplementedError


class Host:
    """Applies what is proposed a moment later."""

    def __init__(self, machine: GroupsMachine) -> None:
        self.replica = Replica(machine)
        self.entries: list[bytes] = []
        #: What a proposal leads to.
        self.loses = self.refuses = self.is_cut_off = False
        self.entry_s = ROUND_S

    def group(self, group_id: int) -> Replica | None:
        assert group_id == GROUP_ID
        return self.replica

    def propose(self, group_id: int, data: bytes) -> _Proposal:
        if self.refuses:
            raise OverloadedError("too much waits")
        self.entries.append(data)
        entry: EntryID = (self.replica.term, len(self.entries))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Completion] = loop.create_future()

        def apply() -> None:
            completion = Completion(done, group_id, entry, lost=self.loses)
            if not self.loses:
                raft = Entry(self.replica.term, entry[1], EntryType.NORMAL, data)
                completion.result = self.replica.machine.apply(raft, WriteBatch())
            done.set_result(completion)

        loop.call_later(self.entry_s, apply)
        return _Proposal(entry, done)

    async def read_barrier(self, group_id: int) -> int:
        assert group_id == GROUP_ID
        await asyncio.sleep(ROUND_S)
        if self.is_cut_off:
            raise BarrierLostError("no majority")
        return len(self.entries)

    def clock_is_wrong(self) -> bool:
        return False


class World:
    """One internal partition, its coordinator, and gateways that call it."""

    def __init__(self, **topics: int) -> None:
        self.registry = Registry(cluster_id="c")
        self.host = Host(GroupsMachine())
        for name, count in topics.items():
            self.create(name, count)
        self.loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        #: The joins, in order.
        self.asked: list[wire.JoinMember] = []
        self.coordinator = self.elect()

    def elect(self) -> Coordinator:
        """Begins a new term with a new coordinator over the same state."""
        self.end()
        self.host.replica.term += 1
        seat = Seat(self.host, GROUP_ID, self.registry, self.clock_ms)
        self.coordinator = Coordinator(seat, self.host.replica.term, self.host.replica.machine)
        self._tasks.append(asyncio.create_task(self.coordinator.run()))
        return self.coordinator

    def end(self) -> None:
        """The leadership is over."""
        for task in self._tasks:
            task.cancel()

    def clock_ms(self) -> int:
        return int(self.loop.time() * 1000) + 1_700_000_000_000

    def create(self, name: str, count: int) -> int:
        """A topic; returns its id."""
        counters = self.registry.counters
        topic_id, counters.topic_id = counters.topic_id, counters.topic_id + 1
        replicas = (replica_id(1, 1),)
        first, counters.group_id = counters.group_id, counters.group_id + count
        places = tuple(
            PartitionInfo(topic_id, at, first + at, replicas, replicas, 2) for at in range(count)
        )
        self.registry.put_topic(TopicInfo(topic_id, name, 1, TopicConfig(), 0, places))
        self.registry.changed(Change(0, topic_ids=(topic_id,)))
        return topic_id

    def delete(self, name: str) -> None:
        topic = self.registry.topic(name)
        assert topic is not None
        self.registry.drop_topic(topic)
        self.registry.changed(Change(0, topic_ids=(topic.topic_id,)))

    async def join(self, group: str = "g", **more: Any) -> Member:
        """A new member on a gateway."""
        member = Member(self, group, uuid.uuid4().hex)
        polls = more.pop("polls", False)
        asked = JoinGroup(group=group, topics=more.pop("topics", ["t"]), **more)
        await member.attach(asked, polls=polls)
        return member

    async def commit(
        self,
        group: str,
        *offsets: int,
        topic_id: int = 1,
        member: str = "",
        epoch: int = 0,
        session: str = "",
    ) -> CommitResult:
        return await self.coordinator.commit(
            CommitGroupOffsets(
                group=group,
                member_id=member,
                member_epoch=epoch,
                session_id=session,
                offsets=[
                    GroupOffset(topic_id=topic_id, partition=at, offset=offset)
                    for at, offset in enumerate(offsets)
                ],
            )
        )

    def owned(self, group: str = "g") -> dict[str, int]:
        """How many partitions each member owns, as applied."""
        found = self.host.replica.machine.state.groups[group].members
        return {name: len(member.owned) for name, member in found.items()}


class Member:
    """A member as its gateway holds it."""

    def __init__(self, world: World, group: str, session: str) -> None:
        self.world = world
        self.group = group
        self.session = session
        self.answer = wire.MemberAnswer()
        self.busy_ms = 0
        self._keeping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.answer.member_id

    @property
    def owned(self) -> set[int]:
        return {each.partition.partition for each in self.answer.owned}

    async def attach(self, asked: JoinGroup, *, polls: bool = False) -> None:
        request = wire.JoinMember(
            gateway_node_id=1,
            member_id=self.name,
            join=asked,
            polls=polls,
            session_id=self.session,
        )
        self.world.asked.append(request)
        self.answer = await self.world.coordinator.join(request)

    async def resume(self) -> Member:
        """The same member on another gateway."""
        other = Member(self.world, self.group, uuid.uuid4().hex)
        other.answer.member_id = self.name
        await other.attach(JoinGroup(group=self.group))
        return other

    async def sync(self, wait_ms: int = 0) -> wire.SyncAnswer:
        """One renewal; takes what it tells."""
        asked = wire.SyncMember(
            group=self.group,
            member_id=self.name,
            session_id=self.session,
            version=self.answer.version,
            processing_ms=self.busy_ms,
        )
        answer = await self.world.coordinator.sync(
            wire.SyncMembers(gateway_node_id=1, members=[asked], wait_ms=wait_ms)
        )
        for each in answer.members:
            self.answer = each.member
        return answer

    def keep(self) -> None:
        """Renews the session each second from now on, as a gateway does."""

        async def renew() -> None:
            while not self.answer.HasField("error"):
                await self.sync(wait_ms=1_000)

        self._keeping = asyncio.create_task(renew())

    async def let_go(self) -> None:
        self.answer = await self.world.coordinator.release(
            wire.ReleasePartitions(
                group=self.group,
                member_id=self.name,
                session_id=self.session,
                partitions=self.answer.revoking,
            )
        )

    async def leave(self, *, detach: bool = False) -> None:
        await self.world.coordinator.leave(
            wire.LeaveMember(
                group=self.group,
                member_id=self.name,
                session_id=self.session,
                detach=detach,
            )
        )


async def until(condition: Callable[[], bool], limit_s: float = 60.0) -> float:
    """Waits for something, in virtual time; returns how long it took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not condition():
        assert loop.time() < begun + limit_s, "it does not come about"
        await asyncio.sleep(0.05)
    return loop.time() - begun
