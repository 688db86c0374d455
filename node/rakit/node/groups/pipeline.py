"""What one stream asks of its coordinator, in the order in which its client asked.

Commits gather: while one call is under way those that come meanwhile wait, and go together in the
next one. Letting go of partitions, and leaving, wait for the commits before them.

Rules:

- Who owns what is judged when a request arrives: a commit that came before `revoked` counts as one
  before it, though both may wait.
- An offset outside of the log is refused here (0013): what the feed has seen of the log settles
  most, the leader is asked about the rest.
- Where one call carries several commits of a partition the last one counts, as if each had gone by
  itself.
- What was let go of is told to the coordinator as long as it takes; the lease ends it.
- What waits is bounded in bytes: beyond `WAITING_BYTES_MAX` no more requests are taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import CommitRequest, Committed, OffsetCommit, PartitionError
from rakit.multiraft.bell import Bell
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.client import refusal
from rakit.node.groups.feed import Feed
from rakit.node.groups.gateway import Gateway
from rakit.node.groups.holdings import Held
from rakit.node.groups.membership import Membership
from rakit.node.groups.ranges import COMMITS_COUNT_MAX, check_commits, outside
from rakit.node.metadata.registry import Registry
from rakit.node.metadata.topics import unknown_topic
from rakit.node.reading.fetcher import Fetcher
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, GroupOffset, OwnedPartition
from rakit.peer.v1.opaque_pb2 import OpaqueSubscribeResponse

#: Of one stream, commits that wait. One message more may be taken beyond it.
WAITING_BYTES_MAX: Final = 1 << 20
#: How long one call may take. The lease is shorter; a commit need not be.
CALL_S: Final = 5.0
#: Before the coordinator is told again that something was let go of.
RETRY_S: Final = 0.1


@dataclass(slots=True)
class _Commit:
    tag: int
    size_bytes: int
    #: With the partition, or why it cannot be committed.
    offsets: list[tuple[OffsetCommit, Held | RakitError]]
    errors: list[PartitionError] = field(default_factory=list[PartitionError])

    def refuse(self, commit: OffsetCommit, error: RakitError) -> None:
        """One partition is not committed."""
        self.errors.append(
            PartitionError(topic=commit.topic, partition=commit.partition, error=to_status(error))
        )


@dataclass(slots=True)
class _Release:
    partitions: list[OwnedPartition]


@dataclass(slots=True)
class _Leave:
    pass


_Item: TypeAlias = _Commit | _Release | _Leave
_Place: TypeAlias = tuple[int, int]


class Pipeline:
    """See the module."""

    def __init__(
        self,
        member: Membership,
        gateway: Gateway,
        fetcher: Fetcher,
        registry: Registry,
        feed: Feed,
    ) -> None:
        self._member = member
        self._gateway = gateway
        self._fetcher = fetcher
        self._registry = registry
        self._feed = feed
        self._items: deque[_Item] = deque()
        self._bell = Bell()
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._is_busy = False
        self._loop = asyncio.get_running_loop()
        #: Set when the member has left.
        self.has_left = asyncio.Event()

    def commit(self, request: CommitRequest, size_bytes: int) -> None:
        """Commits offsets; answers by itself."""
        try:
            check_commits(request.offsets)
        except RakitError as error:
            self._answer(request.tag, [], error)
            return
        offsets = [(each, self._held(each)) for each in request.offsets]
        self._waiting_bytes += size_bytes
        self._put(_Commit(request.tag, size_bytes, offsets))

    def _held(self, commit: OffsetCommit) -> Held | RakitError:
        """The partition, if the member may commit it."""
        held = self._member.holdings.get(commit.topic, commit.partition)
        is_held = held is not None and held.is_told and not held.released
        topic = self._registry.topic(commit.topic)
        if topic is None or (
            is_held and held is not None and topic.topic_id != held.owned.topic_id
        ):
            return unknown_topic(commit.topic)
        if held is not None and is_held:
            return held
        session = self._member.session
        return refusal(
            error_pb2.ERROR_REASON_PARTITION_NOT_OWNED,
            session.group,
            session.member_id,
            commit.topic,
            commit.partition,
        )

    def release(self, partitions: Sequence[OwnedPartition]) -> None:
        """Tells the coordinator, behind the commits that wait, that these were let go of."""
        self._put(_Release(list(partitions)))

    def leave(self) -> None:
        """Ends the membership, behind everything else."""
        self._put(_Leave())

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        self._bell.ring()

    async def room(self) -> None:
        """Waits until more requests may be taken."""
        while self._waiting_bytes >= WAITING_BYTES_MAX:
            await self._moved()

    async def emptied(self) -> None:
        """Waits until everything is done."""
        while self._items or self._is_busy:
            await self._moved()

    async def _moved(self) -> None:
        self._room.clear()
        await self._room.wait()

    async def run(self) -> None:
        """Does what was asked until it is cancelled."""
        while True:
            await self._bell.heard()
            while self._items:
                self._is_busy = True
                await self._next()
                self._is_busy = False
                self._room.set()

    async def _next(self) -> None:
        item = self._items.popleft()
        match item:
            case _Commit():
                await self._commit(self._gathered(item))
            case _Release():
                await self._release(item.partitions)
            case _Leave():
                give_up = self._loop.time() + CALL_S
                await self._gateway.leave(self._member.session, give_up)
                self.has_left.set()

    def _gathered(self, first: _Commit) -> list[_Commit]:
        """The commits that go together."""
        together = [first]
        count = len(first.offsets)
        while self._items:
            item = self._items[0]
            if not isinstance(item, _Commit):
                break
            count += len(item.offsets)
            if count > COMMITS_COUNT_MAX:
                break
            self._items.popleft()
            together.append(item)
        return together

    async def _commit(self, commits: list[_Commit]) -> None:
        failure: RakitError | None = None
        try:
            await self._refuse_outside(commits)
            await self._ask(commits)
        except RakitError as error:
            failure = error
        for commit in commits:
            self._waiting_bytes -= commit.size_bytes
            self._answer(commit.tag, commit.errors, failure)
        self._feed.nudge()

    async def _refuse_outside(self, commits: Iterable[_Commit]) -> None:
        """Strikes what cannot be committed out of the commits."""
        asked: list[tuple[_Commit, OffsetCommit]] = []
        for commit in commits:
            for offset, held in commit.offsets:
                if isinstance(held, RakitError):
                    commit.refuse(offset, held)
                elif not held.contains(offset.offset):
                    asked.append((commit, offset))
        refused: set[int] = set()
        if asked:
            give_up = self._loop.time() + CALL_S
            wrong = await outside(self._fetcher, [offset for _, offset in asked], give_up)
            for at, error in wrong.items():
                commit, offset = asked[at]
                commit.refuse(offset, error)
                refused.add(id(offset))
        for commit in commits:
            commit.offsets = [
                (offset, held)
                for offset, held in commit.offsets
                if isinstance(held, Held) and id(offset) not in refused
            ]

    async def _ask(self, commits: Sequence[_Commit]) -> None:
        """One call for all of them."""
        wanted: dict[_Place, tuple[OffsetCommit, Held]] = {}
        for commit in commits:
            for offset, held in commit.offsets:
                assert isinstance(held, Held), "what cannot be committed is struck out"
                wanted[held.owned.topic_id, held.owned.partition] = (offset, held)
        if not wanted:
            return
        session = self._member.session
        request = CommitGroupOffsets(
            group=session.group,
            member_id=session.member_id,
            member_epoch=session.answer.member_epoch,
            session_id=session.session_id,
            offsets=[
                GroupOffset(
                    topic_id=topic_id,
                    partition=number,
                    offset=offset.offset,
                    metadata=offset.metadata,
                )
                for (topic_id, number), (offset, _) in wanted.items()
            ],
        )
        result = await self._gateway.client.commit(request, self._loop.time() + CALL_S)
        places = list(wanted)
        refused = {
            places[at]: reason for at, reason in zip(result.refused, result.reasons, strict=True)
        }
        self._settle(commits, refused)
        for place, (offset, held) in wanted.items():
            if place not in refused:
                held.committed_to = max(held.committed_to, offset.offset)
                self._member.credit.committed(held.key, offset.offset)
        self._member.sign()

    def _settle(
        self, commits: Sequence[_Commit], refused: dict[_Place, error_pb2.ErrorReason.ValueType]
    ) -> None:
        session = self._member.session
        for commit in commits:
            for offset, held in commit.offsets:
                assert isinstance(held, Held), "what cannot be committed is struck out"
                reason = refused.get((held.owned.topic_id, held.owned.partition))
                if reason is not None:
                    error = refusal(
                        reason, session.group, session.member_id, offset.topic, offset.partition
                    )
                    commit.refuse(offset, error)

    def _answer(self, tag: int, errors: list[PartitionError], failure: RakitError | None) -> None:
        committed = Committed(tag=tag)
        if failure is None:
            committed.errors.extend(errors)
        else:
            committed.error.CopyFrom(to_status(failure))
        self._member.outbox.put(OpaqueSubscribeResponse(committed=committed))

    async def _release(self, partitions: list[OwnedPartition]) -> None:
        session = self._member.session
        while True:
            give_up = self._loop.time() + CALL_S
            try:
                await self._gateway.release(session, partitions, give_up)
            except RakitError as error:
                # Doing it twice does no harm, and there is nothing else to do about it.
                if not error.rule.retriable:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                break
        # They are gone by the answer, and what had to wait for them may come now.
        session.bell.ring()
