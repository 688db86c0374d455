"""A member on a stream without a transport and without a cluster: the test is the client, the
coordinator, and the leaders of the partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import grpc.aio

from rakit.api.v1 import error_pb2, record_pb2
from rakit.api.v1.error_pb2 import ErrorReason
from rakit.api.v1.group_service_pb2 import (
    CommitRequest,
    GrantCredit,
    JoinGroup,
    LeaveRequest,
    OffsetCommit,
    PausePartitions,
    RevokeDone,
    SeekPartition,
    SubscribeRequest,
    SubscribeResponse,
    TopicPartition,
)
from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import Position
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.client import fenced
from rakit.node.groups.gateway import Coordinators, Gateway
from rakit.node.metadata.registry import Registry
from rakit.node.reading.budget import ReadBudget
from rakit.node.reading.local import Finding, Found, ReadLimits, Wanted
from rakit.node.routing import no_leader
from rakit.node.services.handlers import Call, Stream
from rakit.node.services.subscribe import GroupParts, SubscribeSession
from rakit.peer.v1.coordinator_service_pb2 import (
    JoinMember,
    LeaveAnswer,
    LeaveMember,
    MemberAnswer,
    MemberPartition,
    ReleasePartitions,
    SyncAnswer,
    SyncMembers,
)
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, CommitResult, OwnedPartition
from tests.node.reading.test_fetcher import ME, TOPIC
from tests.node.reading.test_fetcher import World as ReadWorld
from tests.node.services.served import refusal_in

GROUP = "g"
#: Ten bytes.
RECORD = record_pb2.Records(values=[b"12345678"]).SerializeToString()


class Logs(ReadWorld):
    """Three partitions of "t" in the groups 10 to 12, with beginnings; records of ten bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = {10: 0, 11: 0, 12: 0}
        self.topics: dict[str, int] = {"t": 1}
        self.failures: dict[int, RakitError] = {}

    async def _read(
        self, node_id: int, wanted: Sequence[Wanted], limits: ReadLimits
    ) -> list[Finding]:
        self.asked.append((node_id, [each.group_id for each in wanted]))
        while True:
            findings = [self._ranged(each, limits) for each in wanted]
            size = sum(each.chunk.size_bytes for each in findings if isinstance(each, Found))
            failed = any(isinstance(each, RakitError) for each in findings)
            left = limits.wait_until - asyncio.get_running_loop().time()
            if failed or size >= limits.min_bytes or left <= 0:
                return findings
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except TimeoutError:
                return findings

    def _ranged(self, wanted: Wanted, limits: ReadLimits) -> Finding:
        if wanted.group_id in self.failures:
            return self.failures[wanted.group_id]
        start, end = self.starts[wanted.group_id], self.ends[wanted.group_id]
        at = wanted.position.WhichOneof("start")
        if at == "offset" and not start <= wanted.position.offset <= end:
            return RakitError(
                error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE,
                "as the test says",
                {"earliest": str(start), "latest": str(end)},
            )
        if at != "offset" and wanted.position.edge != 2:
            wanted.position.offset = start
        found = self._found(wanted, limits)
        batches = tuple(replace(each, content=RECORD) for each in found.chunk.batches)
        return Found(
            found.from_offset, replace(found.chunk, batches=batches, log_start_offset=start)
        )


class Coordinator:
    """What the gateway asks, and what the test has it answer."""

    def __init__(self) -> None:
        self.members: dict[str, MemberAnswer] = {}
        self.joins: list[JoinMember] = []
        self.syncs: list[SyncMembers] = []
        self.left: list[LeaveMember] = []
        self.released: list[list[int]] = []
        #: How often it was asked to take partitions back, answered or not.
        self.release_calls = 0
        self.commits: list[CommitGroupOffsets] = []
        self.offsets: dict[int, int] = {}
        self.refusals: dict[int, ErrorReason.ValueType] = {}
        self.is_reachable = True
        #: Set: commits are answered.
        self.commits_go = asyncio.Event()
        self.commits_go.set()
        self.syncs_now = 0
        self.syncs_now_max = 0
        self.lease_ms = 4_000
        self._changed = asyncio.Event()

    def check(self) -> None:
        if not self.is_reachable:
            raise no_leader("__groups", 0)

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def give(self, member_id: str, *partitions: int, since: int | None = None) -> None:
        """The member owns these as well, from a new epoch on."""
        answer = self.members[member_id]
        answer.version += 1
        answer.member_epoch = answer.version
        for each in partitions:
            owned = OwnedPartition(topic_id=1, partition=each, since_epoch=since or answer.version)
            part = MemberPartition(partition=owned, topic="t")
            if each in self.offsets:
                part.committed_offset = self.offsets[each]
            answer.owned.append(part)
        self.changed()

    def revoke(self, member_id: str, *partitions: int) -> None:
        answer = self.members[member_id]
        answer.version += 1
        answer.member_epoch = answer.version
        answer.revoke_deadline_ms = 300_000
        answer.revoking.extend(
            each.partition for each in answer.owned if each.partition.partition in partitions
        )
        self.changed()

    def fence(self, member_id: str, reason: str) -> None:
        error = fenced(GROUP, member_id, reason)
        self.members[member_id] = MemberAnswer(member_id=member_id, error=to_status(error))
        self.changed()

    # What a gateway asks.

    async def join(self, request: JoinMember, give_up: float) -> MemberAnswer:
        del give_up
        self.check()
        self.joins.append(request)
        member_id = request.member_id or f"m{len(self.members)}"
        if request.member_id and request.member_id not in self.members:
            raise fenced(GROUP, member_id, "UNKNOWN_MEMBER")
        new = MemberAnswer(member_id=member_id, version=1, member_epoch=1, session_grace_ms=10_000)
        answer = self.members.setdefault(member_id, new)
        copy = self._copy(member_id)
        copy.resumed = bool(request.member_id)
        del answer
        return copy

    def _copy(self, member_id: str) -> MemberAnswer:
        copy = MemberAnswer()
        copy.CopyFrom(self.members[member_id])
        return copy

    async def sync(self, partition: int, request: SyncMembers, give_up: float) -> SyncAnswer:
        del partition, give_up
        self.check()
        self.syncs.append(request)
        self.syncs_now += 1
        self.syncs_now_max = max(self.syncs_now_max, self.syncs_now)
        try:
            return await self._synced(request)
        finally:
            self.syncs_now -= 1

    async def _synced(self, request: SyncMembers) -> SyncAnswer:
        deadline = asyncio.get_running_loop().time() + request.wait_ms / 1000
        while True:
            answer = SyncAnswer(lease_ms=self.lease_ms)
            for each in request.members:
                member = self.members[each.member_id]
                if member.HasField("error") or member.version != each.version:
                    answer.members.add(group=each.group, member=member)
            if answer.members or asyncio.get_running_loop().time() >= deadline:
                self.check()
                return answer
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def commit(self, request: CommitGroupOffsets, give_up: float) -> CommitResult:
        del give_up
        self.commits.append(request)
        await self.commits_go.wait()
        self.check()
        result = CommitResult()
        for at, each in enumerate(request.offsets):
            if each.partition in self.refusals:
                result.refused.append(at)
                result.reasons.append(self.refusals[each.partition])
            else:
                self.offsets[each.partition] = each.offset
        return result

    async def release(self, request: ReleasePartitions, give_up: float) -> MemberAnswer:
        del give_up
        self.release_calls += 1
        self.check()
        gone = [each.partition for each in request.partitions]
        self.released.append(gone)
        answer = self.members[request.member_id]
        if answer.HasField("error"):
            raise fenced(GROUP, request.member_id, "SESSION_EXPIRED")
        kept = [each for each in answer.owned if each.partition.partition not in gone]
        left = [each for each in answer.revoking if each.partition not in gone]
        del answer.owned[:], answer.revoking[:]
        answer.owned.extend(kept)
        answer.revoking.extend(left)
        answer.version += 1
        answer.member_epoch = answer.version
        self.changed()
        return self._copy(request.member_id)

    async def leave(self, request: LeaveMember, give_up: float) -> LeaveAnswer:
        del give_up
        self.check()
        self.left.append(request)
        return LeaveAnswer()


class Client:
    """The client's end of a stream. It takes answers while `reads` is set."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: list[SubscribeResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.changed = asyncio.Event()

    async def read(self) -> Any:
        return await self.requests.get()

    async def write(self, message: bytes) -> None:
        await self.reads.wait()
        self.answers.append(SubscribeResponse.FromString(message))
        self.changed.set()

    def send(self, **fields: Any) -> None:
        self.requests.put_nowait(SubscribeRequest(**fields).SerializeToString())

    def finish(self) -> None:
        self.requests.put_nowait(grpc.aio.EOF)

    def commit(self, tag: int, *offsets: tuple[int, int]) -> None:
        """Partitions and offsets."""
        made = [OffsetCommit(topic="t", partition=each, offset=at) for each, at in offsets]
        self.send(commit=CommitRequest(tag=tag, offsets=made))

    def revoked(self, *partitions: int) -> None:
        self.send(revoked=RevokeDone(partitions=named(partitions)))

    def seek(self, tag: int, partition: int, **where: Any) -> None:
        position = Position(topic="t", partition=partition, **where)
        self.send(seek=SeekPartition(tag=tag, position=position))

    def pause(self, *partitions: int, paused: bool = True) -> None:
        self.send(pause=PausePartitions(partitions=named(partitions), paused=paused))

    def grant(self, size: int) -> None:
        self.send(grant=GrantCredit(bytes=size))

    def leave(self) -> None:
        self.send(leave=LeaveRequest())

    @property
    def told(self) -> list[str]:
        """The answers, in short."""
        return [short(each) for each in self.answers]

    async def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """What was told, once it is what the test waits for."""
        try:
            async with asyncio.timeout(8):
                while not holds(self.told):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(self.told) from None
        return self.told

    async def hears(self, *events: str) -> None:
        """Waits until all of these were told."""
        await self.until(lambda told: set(events) <= set(told))

    def delivered(self, partition: int) -> list[int]:
        """The offsets that came of a partition, in order."""
        found: list[int] = []
        for each in self.answers:
            data = each.records.data
            if each.HasField("records") and data.partition == partition:
                found += [batch.base_offset for batch in data.batches]
                found += [record.offset for record in data.records]
        return found


def named(partitions: Iterable[int]) -> list[TopicPartition]:
    return [TopicPartition(topic="t", partition=each) for each in partitions]


def short(event: SubscribeResponse) -> str:
    """An event in a few words."""
    kind = str(event.WhichOneof("event"))
    match kind:
        case "joined":
            return "resumed" if event.joined.resumed else "joined"
        case "assigned":
            parts = [
                f"{each.partition}@{each.offset}"
                + ("c" if each.committed else "")
                + ("r" if each.reset else "")
                for each in event.assigned.added
            ]
            return f"assigned {' '.join(parts)}"
        case "records":
            data = event.records.data
            if data.HasField("error"):
                return f"{data.partition}: {refusal_in(data.error).reason}"
            first = data.batches[0].base_offset if data.batches else data.records[0].offset
            return f"{data.partition}: {first}-{data.next_offset}"
        case "revoking":
            numbers = " ".join(str(each.partition) for each in event.revoking.partitions)
            return f"revoking {numbers} {event.revoking.reason}"
        case "committed":
            done = event.committed
            if done.HasField("error"):
                return f"committed {done.tag} {refusal_in(done.error).reason}"
            refused = [f"{each.partition}={refusal_in(each.error).reason}" for each in done.errors]
            return " ".join([f"committed {done.tag}", *refused])
        case "sought":
            sought = event.sought
            if sought.HasField("error"):
                return f"sought {sought.tag} {refusal_in(sought.error).reason}"
            return f"sought {sought.tag} at {sought.offset}"
        case _:
            return kind


class Node:
    """One node with its gateway."""

    def __init__(self, coordinator: Coordinator | None = None, logs: Logs | None = None) -> None:
        self.coordinator = coordinator or Coordinator()
        self.logs = logs or Logs()
        self.logs.lead(ME, 10, 11, 12)
        self.gateway = Gateway(ME, cast("Coordinators", self.coordinator))
        self.closing = asyncio.Event()
        self.budget = ReadBudget()
        self.parts = GroupParts(
            self.gateway,
            self.logs.fetcher,
            self.budget,
            cast("Registry", Topics(self.logs)),
            ResponseHeader(),
            self.closing,
        )
        self.running: list[asyncio.Task[None]] = []

    def open(self) -> Member:
        """A stream on which nothing was said yet."""
        member = Member(self)
        self.running.append(member.running)
        return member

    async def join(self, *partitions: int, **fields: Any) -> Member:
        """A stream that has joined and was given these partitions."""
        member = self.open()
        member.client.send(join=join_of(**fields))
        await member.client.until(bool)
        if partitions:
            self.coordinator.give(member.id, *partitions)
        return member

    async def close(self) -> None:
        for each in self.running:
            each.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.gateway.close()
        assert self.gateway.session_count == 0
        assert self.budget.held_bytes == self.budget.stalled_bytes == 0


def join_of(**fields: Any) -> JoinGroup:
    usual: dict[str, Any] = {
        "group": GROUP,
        "topics": ["t"],
        "layout": record_pb2.LAYOUT_COLUMNS,
    }
    return JoinGroup(**(usual | fields))


class Topics:
    """The registry, as far as it is looked at."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def topic(self, name: str) -> object:
        return TOPIC if name in self._logs.topics else None

    def topic_by_id(self, topic_id: int) -> object:
        return TOPIC if topic_id in self._logs.topics.values() else None


class Member:
    """One stream."""

    def __init__(self, node: Node) -> None:
        self.client = Client()
        self.stream = Stream(cast("Any", self.client), node.closing)
        call = Call("default", float("inf"))
        self.session = SubscribeSession(call, self.stream, node.parts)
        self.running = asyncio.create_task(self.session.run())
        self.running.add_done_callback(lambda _: self.stream.ended())

    @property
    def id(self) -> str:
        return self.client.answers[0].joined.member_id

    @property
    def token(self) -> bytes:
        return self.client.answers[0].joined.resume_token

    async def end(self) -> RakitError | None:
        """How the stream ended."""
        await asyncio.wait({self.running}, timeout=8)
        error = self.running.exception()
        while isinstance(error, BaseExceptionGroup):
            (error,) = cast("BaseExceptionGroup[BaseException]", error).exceptions
        assert error is None or isinstance(error, RakitError), error
        return error


@asynccontextmanager
async def node() -> AsyncGenerator[Node]:
    made = Node()
    try:
        yield made
    finally:
        await made.close()
