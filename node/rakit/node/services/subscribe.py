"""Subscribe: consuming in a group over one stream, on any node.

A session joins, holds the membership by the node's gateway, and runs side by side: what the client
asks (here), what goes to the coordinator (`groups.pipeline`), where partitions begin (`_open`),
records (`groups.feed`), and what goes out (`groups.outbox`).

Rules:

- The first request is `join`, the first answer `joined`.
- A stream that ends in any other way than by `leave` leaves the member attached to nothing: its
  grace begins, and a resume token takes it on elsewhere.
- A member that is fenced hears why. One whose lease ran out hears NODE_UNAVAILABLE (S25). A node
  that drains answers what it has taken, and then says so.
- No more requests are taken while too many answers, or commits, wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import (
    REVOKE_REASON_REBALANCE,
    REVOKE_REASON_TOPIC_GONE,
    AssignedPartition,
    Joined,
    JoinGroup,
    PausePartitions,
    RevokeDone,
    RevokeReason,
    SeekPartition,
    Sought,
    SubscribeRequest,
)
from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import Edge, Position
from rakit.multiraft.bell import Bell
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.client import refusal
from rakit.node.groups.credit import credit_of
from rakit.node.groups.feed import Feed
from rakit.node.groups.gateway import Gateway, GroupSession
from rakit.node.groups.holdings import Held, Holdings
from rakit.node.groups.joining import completed, is_subscribed
from rakit.node.groups.membership import Membership
from rakit.node.groups.outbox import Outbox
from rakit.node.groups.pipeline import Pipeline
from rakit.node.groups.ranges import look_at
from rakit.node.groups.tokens import member_in, resume_token
from rakit.node.groups.told import assigned_events, revoking_events
from rakit.node.metadata.registry import Registry
from rakit.node.reading.budget import ReadBudget
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.render import Form
from rakit.node.routing import LEADER_WAIT_S
from rakit.node.services.handlers import Call, Stream, draining_error, parsed
from rakit.node.services.positions import check_positions
from rakit.peer.v1.opaque_pb2 import OpaqueSubscribeResponse

#: A stream that was opened and says nothing is not kept for ever.
FIRST_REQUEST_S: Final = 30.0
#: How long a join may take: an election of the coordinator, or the making of the internal topic.
JOIN_S: Final = 15.0
#: How long one look at where partitions begin may take; the end of a log needs a majority.
OPEN_S: Final = 2.0
#: Before partitions that could not be looked at are looked at again.
OPEN_RETRY_S: Final = 0.1
#: What a draining node gives the coordinator to answer commits that were taken.
DRAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class GroupParts:
    """What consuming in a group needs of the node."""

    gateway: Gateway
    fetcher: Fetcher
    budget: ReadBudget
    registry: Registry
    header: ResponseHeader
    #: Set when the node drains.
    closing: asyncio.Event


class SubscribeSession:
    """One stream."""

    def __init__(self, call: Call, stream: Stream, parts: GroupParts) -> None:
        self._call = call
        self._stream = stream
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._to_open = Bell()
        self._join: JoinGroup
        self._start: Edge.ValueType
        self._session: GroupSession
        self._member: Membership
        self._feed: Feed
        self._pipeline: Pipeline
        #: The client is to be told what its resumed session has.
        self._must_tell = False

    async def run(self) -> None:
        """Serves the stream to its end."""
        join = await self._first()
        session = await self._joined(join)
        try:
            await self._serve()
        except BaseException:
            self._parts.gateway.detach(session)
            raise
        if self._pipeline.has_left.is_set():
            self._parts.gateway.forget(session)
        else:
            self._parts.gateway.detach(session)

    async def _first(self) -> JoinGroup:
        try:
            async with asyncio.timeout(FIRST_REQUEST_S):
                data = await self._stream.read()
        except TimeoutError:
            raise _invalid(f"No join came within {FIRST_REQUEST_S:.0f} s.") from None
        if data is None:
            raise _invalid("The stream ended before a join came.")
        request = parsed(SubscribeRequest, data)
        kind = request.WhichOneof("request")
        if kind != "join":
            raise _invalid(f"The first request must be `join`, not {kind or 'empty'}.")
        return request.join

    async def _joined(self, asked: JoinGroup) -> GroupSession:
        """Joins the group, and says so."""
        join = completed(asked, resumes=bool(asked.resume_token))
        member_id = member_in(join.resume_token, join.group) if join.resume_token else ""
        credit = credit_of(join.credit_bytes)
        give_up = min(self._loop.time() + JOIN_S, self._call.deadline)
        session = await self._parts.gateway.join(join, member_id, give_up)
        parts = self._parts
        start = Edge.ValueType(session.answer.start or join.start)
        self._join = join
        self._start = start
        self._session = session
        self._must_tell = session.answer.resumed
        holdings = Holdings(start, resumed=session.answer.resumed)
        self._member = member = Membership(session, holdings, credit, Outbox(self._stream))
        session.processing_ms = lambda: member.processing.elapsed_ms(self._loop.time())
        form = Form.of(join.layout, join.accept_codecs)
        self._feed = Feed(
            member,
            parts.fetcher,
            parts.budget,
            form=form,
            start=start,
            reopened=self._to_open.ring,
        )
        self._pipeline = Pipeline(member, parts.gateway, parts.fetcher, parts.registry, self._feed)
        joined = Joined(
            header=parts.header,
            member_id=session.member_id,
            member_epoch=session.answer.member_epoch,
            resume_token=resume_token(join.group, session.member_id),
            session_grace_ms=session.answer.session_grace_ms,
            resumed=session.answer.resumed,
        )
        member.outbox.put(OpaqueSubscribeResponse(joined=joined))
        return session

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work)
                for work in (
                    self._member.outbox.run(),
                    self._watch(),
                    self._open(),
                    self._feed.run(),
                    self._pipeline.run(),
                    self._end_when_draining(),
                )
            ]
            await self._read()
            await self._pipeline.emptied()
            await self._member.outbox.flushed()
            for task in running:
                task.cancel()

    async def _watch(self) -> None:
        """Hears how the member is, and ends the stream when it may not be served any more."""
        while True:
            try:
                self._session.check(self._loop.time())
            except RakitError:
                await self._member.outbox.flushed()
                raise
            self._apply()
            self._feed.nudge()
            await self._session.news()

    async def _end_when_draining(self) -> None:
        await self._stream.closing.wait()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._pipeline.emptied()
        except TimeoutError:
            # The commits that were taken may yet be made.
            raise draining_error().as_unknown() from None
        await self._member.outbox.flushed()
        raise draining_error()

    # What the coordinator says.

    def _apply(self) -> None:
        answer = self._session.answer
        change = self._member.holdings.apply(answer)
        if self._must_tell and not change.added:
            # Nothing follows that would tell a client what is left of what it had.
            self._assigned([])
        self._must_tell = False
        if change.unseen:
            self._pipeline.release(change.unseen)
        if change.added:
            self._to_open.ring()
        for reason in (REVOKE_REASON_REBALANCE, REVOKE_REASON_TOPIC_GONE):
            named = [each.named for each in change.revoked if self._reason(each) == reason]
            for revoking in revoking_events(named, reason, answer.revoke_deadline_ms):
                self._member.outbox.put(OpaqueSubscribeResponse(revoking=revoking))

    def _reason(self, held: Held) -> RevokeReason.ValueType:
        is_there = self._parts.registry.topic_by_id(held.owned.topic_id) is not None
        is_wanted = is_subscribed(held.position.topic, self._join)
        return REVOKE_REASON_REBALANCE if is_there and is_wanted else REVOKE_REASON_TOPIC_GONE

    # Where partitions begin.

    async def _open(self) -> None:
        """Finds out where new partitions begin, and tells the client."""
        while True:
            held = [each for each in self._member.holdings.all() if not each.is_open]
            held = [each for each in held if not each.revoking]
            if not held:
                await self._to_open.heard()
                continue
            turns = [each.turn for each in held]
            positions = [each.position for each in held]
            now = self._loop.time()
            findings = await look_at(self._parts.fetcher, positions, now, now + OPEN_S)
            opened: list[Held] = []
            is_again = False
            for each, turn, finding in zip(held, turns, findings, strict=True):
                if each.turn != turn or self._member.holdings.get(*each.key) is not each:
                    continue
                if not isinstance(finding, RakitError):
                    each.position.offset = finding.from_offset
                    each.earliest = finding.chunk.log_start_offset
                    each.latest = finding.chunk.high_watermark
                    each.sent_to = each.committed_to = finding.from_offset
                    opened.append(each)
                elif finding.reason == error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE:
                    each.reopen(self._start)
                    is_again = True
            self._opened(opened)
            if not is_again and len(opened) < len(held):
                await asyncio.sleep(OPEN_RETRY_S)

    def _opened(self, held: Iterable[Held]) -> None:
        added: list[AssignedPartition] = []
        for each in held:
            each.is_open = each.is_told = each.is_behind = True
            one = AssignedPartition(
                topic=each.position.topic,
                partition=each.position.partition,
                offset=each.position.offset,
                committed=each.from_commit,
                reset=each.reset,
                topic_id=each.owned.topic_id,
            )
            each.reset = False
            added.append(one)
        if added:
            self._assigned(added)
            self._feed.changed()

    def _assigned(self, added: Sequence[AssignedPartition]) -> None:
        epoch = self._session.answer.member_epoch
        for assigned in assigned_events(epoch, added, self._member.holdings.owned()):
            self._member.outbox.put(OpaqueSubscribeResponse(assigned=assigned))

    # What the client asks.

    async def _read(self) -> None:
        """Takes requests until the client has left, or has finished."""
        while True:
            await self._pipeline.room()
            await self._member.outbox.room()
            data = await self._stream.read()
            if data is None:
                return
            request = parsed(SubscribeRequest, data)
            match request.WhichOneof("request"):
                case "commit":
                    self._pipeline.commit(request.commit, len(data))
                case "grant":
                    self._member.credit.grant(request.grant.bytes)
                    self._member.sign()
                    self._feed.nudge()
                case "revoked":
                    self._revoked(request.revoked)
                case "seek":
                    await self._seek(request.seek)
                case "pause":
                    self._pause(request.pause)
                case "leave":
                    self._pipeline.leave()
                    return
                case "join":
                    raise _invalid("A stream has one join; open another stream for another group.")
                case None:
                    raise _invalid("The request holds nothing that this version knows.")

    def _revoked(self, done: RevokeDone) -> None:
        released: list[Held] = []
        for each in done.partitions:
            held = self._member.holdings.get(each.topic, each.partition)
            if held is None or held.released or not held.is_told:
                # It is gone already, or the client means one that it had before.
                continue
            # Also where it is not being revoked any more, or was when the client had it before: the
            # client has let go of it by its own word, and it comes anew.
            self._member.holdings.let_go(held)
            self._member.forget(held)
            released.append(held)
        if released:
            self._pipeline.release([each.owned for each in released])
            self._feed.nudge()

    async def _seek(self, seek: SeekPartition) -> None:
        """Reads a partition from another place. The next request waits for it."""
        try:
            offset = await self._sought(seek.position)
        except RakitError as error:
            sought = Sought(tag=seek.tag, error=to_status(error))
        else:
            sought = Sought(tag=seek.tag, offset=offset)
        self._member.outbox.put(OpaqueSubscribeResponse(sought=sought))
        self._feed.changed()

    async def _sought(self, asked: Position) -> int:
        check_positions([asked])
        held = self._member.holdings.get(asked.topic, asked.partition)
        if held is None or held.revoking or not held.is_told:
            raise refusal(
                error_pb2.ERROR_REASON_PARTITION_NOT_OWNED,
                self._session.group,
                self._session.member_id,
                asked.topic,
                asked.partition,
            )
        asked.ClearField("end_offset")
        held.turn += 1
        held.seeking = True
        try:
            give_up = self._loop.time() + LEADER_WAIT_S
            (finding,) = await look_at(self._parts.fetcher, [asked], give_up)
        finally:
            held.seeking = False
        if isinstance(finding, RakitError):
            raise finding
        held.position.offset = finding.from_offset
        held.is_open = held.is_behind = True
        held.rest_until = 0.0
        held.sent_to = finding.from_offset
        self._member.forget(held)
        return finding.from_offset

    def _pause(self, pause: PausePartitions) -> None:
        for each in pause.partitions:
            # Whoever pauses what was just taken away has what it wanted.
            if (held := self._member.holdings.get(each.topic, each.partition)) is not None:
                held.paused = pause.paused
        if not pause.paused:
            self._feed.changed()


def _invalid(message: str, metadata: dict[str, str] | None = None) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, message, metadata)
