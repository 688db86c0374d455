"""PollGroup: consuming in a group call by call, each on any node.

A call joins or goes on with a session, commits, lets go of what is being revoked, and fetches. The
node keeps nothing between two calls: what a client need not repeat the coordinator has.

Rules:

- `assignment_version` is the member's epoch: it changes whenever what the member owns, or is to let
  go of, does. So it says what the client has seen. Commits are made in that epoch: those for a
  partition that the client did not know it owned are refused, as for any fenced owner (P5). And
  what is being revoked is let go of exactly when the client has seen that it is; else it is told
  again.
- What is owned comes in portions, as on a stream (`groups.told`): the client says where the list
  goes on, and that counts while its epoch is the member's. Of what is being revoked a portion is
  told and let go of; that makes another epoch, and the next portion.
- Commits come before anything is let go of.
- Positions of partitions that the member does not own are no error: a client repeats what it was
  told, and its partitions come and go. One that it had before it last got the partition does not
  count. Without a position a partition is read from its committed
  offset, else from where the member begins; a position that is no longer kept counts as none.
- Every partition that is read is in `data`, also without records, with the place to go on from.
  What the member owns goes first: where names fill the answer there are fewer records, or
  partitions that are not read this time.
- While the call waits the session is held as a stream's is: news of the member end the wait, and a
  lease that ran out gives no records (S25).
- A member whose first call fails or is given up by its client leaves: the client has not heard who
  it is, and would come as another one.
- It answers before the caller's deadline (contract 17), and at once when the node drains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import (
    AssignedPartition,
    OffsetCommit,
    PartitionError,
    PollGroupRequest,
    TopicPartition,
)
from rakit.api.v1.log_service_pb2 import EDGE_LATEST, Edge, Position
from rakit.api.v1.record_pb2 import Codec, Layout
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.client import refusal
from rakit.node.groups.gateway import GroupSession
from rakit.node.groups.joining import completed
from rakit.node.groups.names import check_group_name
from rakit.node.groups.ranges import check_commits, outside
from rakit.node.groups.tokens import TOKEN_BYTES_MAX, member_in, resume_token
from rakit.node.groups.told import PORTION_COUNT
from rakit.node.metadata.topics import unknown_topic
from rakit.node.partition.producers import INTEGER_MAX
from rakit.node.reading.local import Finding, Found, ReadLimits
from rakit.node.reading.render import Form, render
from rakit.node.routing import answer_by
from rakit.node.services.handlers import Call
from rakit.node.services.positions import RESPONSE_BYTES_MAX, WAIT_MS_MAX
from rakit.node.services.subscribe import JOIN_S, GroupParts
from rakit.peer.v1.coordinator_service_pb2 import MemberAnswer, MemberPartition
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, GroupOffset
from rakit.peer.v1.opaque_pb2 import OpaquePartitionData, OpaquePollGroupResponse

#: A long poll answers this long before the caller's own deadline (contract 17).
POLL_RESERVE_S: Final = 0.2
POSITIONS_COUNT_MAX: Final = 10_000
#: Of one answer, all told: clients in all languages take 4 MiB by default.
MESSAGE_BYTES_MAX: Final = (4 << 20) - (16 << 10)
#: A partition in an answer beside its topic's name and its records.
_PARTITION_BYTES: Final = 96


@dataclass(slots=True)
class _Reading:
    """One partition that is read in this call."""

    owned: MemberPartition
    position: Position
    # The position is the client's.
    is_given: bool
    # There was a committed offset, or a position, that is no longer kept.
    reset: bool = False
    finding: Finding | None = None


@dataclass(slots=True)
class _Poll:
    """One call under way."""

    request: PollGroupRequest
    session: GroupSession
    #: When the answer leaves, and when another node must have answered.
    until: float
    latest: float
    #: The member has come with this call.
    is_new: bool
    #: Offsets were committed, whatever comes after that.
    has_committed: bool = False
    errors: list[PartitionError] = field(default_factory=list[PartitionError])

    @property
    def answer(self) -> MemberAnswer:
        """The member as it is."""
        return self.session.answer

    @property
    def is_seen(self) -> bool:
        """The client has seen exactly this; otherwise the epoch would be another one."""
        return self.request.assignment_version == self.answer.member_epoch

    @property
    def start(self) -> Edge.ValueType:
        """Where the member begins."""
        return Edge.ValueType(self.answer.start or self.request.join.start)

    @property
    def form(self) -> Form:
        """How the member wants its records."""
        join = self.request.join
        layout = join.layout or Layout.ValueType(self.answer.layout)
        codecs = [Codec.ValueType(each) for each in self.answer.accept_codecs]
        return Form.of(layout, join.accept_codecs or codecs)


class Polls:
    """PollGroup on one node."""

    def __init__(self, parts: GroupParts) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()

    async def poll(self, call: Call, request: PollGroupRequest) -> OpaquePollGroupResponse:
        """Serves one call."""
        _check(request)
        until = answer_by(call.deadline, POLL_RESERVE_S)
        session = await self._attached(request, min(until, self._loop.time() + JOIN_S))
        # Another node that waits so long needs a moment to say so.
        is_new = not session.answer.resumed
        poll = _Poll(request, session, until, (until + call.deadline) / 2, is_new)
        try:
            return await self._work(poll)
        except RakitError as error:
            self._abandon(poll)
            # Something else failed; the offsets are committed all the same.
            raise error.as_unknown() if poll.has_committed else error from None
        except asyncio.CancelledError:
            self._abandon(poll)
            raise
        finally:
            # It goes on without a holder: the next call is due within its session.
            self._parts.gateway.forget(session)

    def _abandon(self, poll: _Poll) -> None:
        if poll.is_new and poll.session.ended is None:
            self._parts.gateway.abandon(poll.session)

    async def _attached(self, request: PollGroupRequest, give_up: float) -> GroupSession:
        group = request.group or request.join.group
        member_id = request.member_id
        if not member_id and request.join.resume_token:
            member_id = member_in(request.join.resume_token, group)
        request.join.group = group
        join = completed(request.join, resumes=bool(member_id))
        return await self._parts.gateway.join(join, member_id, give_up, polls=True)

    async def _work(self, poll: _Poll) -> OpaquePollGroupResponse:
        request, session = poll.request, poll.session
        revoking = poll.answer.revoking[:PORTION_COUNT] if poll.is_seen else []
        if request.commits:
            await self._commit(poll)
        if request.leave:
            await self._parts.gateway.leave(session, poll.until)
            return self._left(poll)
        if revoking:
            await self._parts.gateway.release(session, revoking, poll.until)
        return await self._read(poll)

    # Commits.

    async def _commit(self, poll: _Poll) -> None:
        owned = {(one.topic, one.partition.partition): one for one in poll.answer.owned}
        wanted: list[tuple[OffsetCommit, MemberPartition]] = []
        for commit in poll.request.commits:
            one = owned.get((commit.topic, commit.partition))
            if one is None:
                self._refuse(poll, commit, self._not_owned(poll, commit))
            else:
                wanted.append((commit, one))
        wrong = await outside(self._parts.fetcher, [commit for commit, _ in wanted], poll.until)
        for at, error in wrong.items():
            self._refuse(poll, wanted[at][0], error)
        wanted = [each for at, each in enumerate(wanted) if at not in wrong]
        if not wanted:
            return
        session = poll.session
        asked = CommitGroupOffsets(
            group=session.group,
            member_id=session.member_id,
            member_epoch=poll.request.assignment_version,
            session_id=session.session_id,
            offsets=[
                GroupOffset(
                    topic_id=one.partition.topic_id,
                    partition=commit.partition,
                    offset=commit.offset,
                    metadata=commit.metadata,
                )
                for commit, one in wanted
            ],
        )
        result = await self._parts.gateway.client.commit(asked, poll.until)
        poll.has_committed = len(result.refused) < len(wanted)
        refused = dict(zip(result.refused, result.reasons, strict=True))
        for at, (commit, one) in enumerate(wanted):
            if (reason := refused.get(at)) is None:
                one.committed_offset = commit.offset
                continue
            error = refusal(
                reason, session.group, session.member_id, commit.topic, commit.partition
            )
            self._refuse(poll, commit, error)

    def _not_owned(self, poll: _Poll, commit: OffsetCommit) -> RakitError:
        if self._parts.registry.topic(commit.topic) is None:
            return unknown_topic(commit.topic)
        session = poll.session
        return refusal(
            error_pb2.ERROR_REASON_PARTITION_NOT_OWNED,
            session.group,
            session.member_id,
            commit.topic,
            commit.partition,
        )

    def _refuse(self, poll: _Poll, commit: OffsetCommit, error: RakitError) -> None:
        poll.errors.append(
            PartitionError(topic=commit.topic, partition=commit.partition, error=to_status(error))
        )

    # Records.

    async def _read(self, poll: _Poll) -> OpaquePollGroupResponse:
        """Fetches, and once more without waiting where the member became another one meanwhile."""
        max_bytes = min(poll.request.max_bytes or RESPONSE_BYTES_MAX, RESPONSE_BYTES_MAX)
        wait_until = min(self._loop.time() + poll.request.max_wait_ms / 1000, poll.until)
        readings = await self._fetched(poll, ReadLimits(1, max_bytes, wait_until))
        if readings is None:
            readings = self._readings(poll)
            limits = ReadLimits(1, max_bytes, self._loop.time())
            if readings:
                await self._fetch(poll, readings, limits)
        now = self._loop.time()
        poll.session.check(now)
        response = self._response(poll)
        self._fill(response, poll, readings, max_bytes, serves=poll.session.lease.holds(now))
        return response

    async def _fetched(self, poll: _Poll, limits: ReadLimits) -> list[_Reading] | None:
        """The partitions with what stands there, waited for; None where there is news first."""
        readings = self._readings(poll)
        version = poll.answer.version
        fetching = asyncio.ensure_future(self._fetch(poll, readings, limits))
        news = asyncio.ensure_future(self._news(poll, limits.wait_until))
        try:
            await asyncio.wait({fetching, news}, return_when=asyncio.FIRST_COMPLETED)
            is_over = poll.session.ended is not None or self._parts.closing.is_set()
            if not is_over and poll.answer.version == version:
                await asyncio.wait({fetching})
            if not fetching.done() or poll.answer.version != version:
                return None
            await fetching
            return readings
        finally:
            fetching.cancel()
            news.cancel()
            await asyncio.gather(fetching, news, return_exceptions=True)

    def _readings(self, poll: _Poll) -> list[_Reading]:
        """The partitions to read, and from where."""
        given = {(one.topic, one.partition): one.offset for one in poll.request.positions}
        revoking = {(one.topic_id, one.partition) for one in poll.answer.revoking}
        readings: list[_Reading] = []
        for one in poll.answer.owned:
            number = one.partition.partition
            if (one.partition.topic_id, number) in revoking:
                continue
            position = Position(topic=one.topic, partition=number)
            # A position of an earlier ownership says nothing: others have read on since.
            is_known = one.partition.since_epoch <= poll.request.assignment_version
            offset = given.get((one.topic, number)) if is_known else None
            is_given = offset is not None
            if offset is None and one.HasField("committed_offset"):
                offset = one.committed_offset
            if offset is None:
                position.edge = poll.start
            else:
                position.offset = offset
            readings.append(_Reading(one, position, is_given))
        return readings

    async def _fetch(self, poll: _Poll, readings: Sequence[_Reading], limits: ReadLimits) -> None:
        """Puts what is found into the readings."""
        while readings:
            findings = await self._parts.fetcher.fetch(
                [each.position for each in readings],
                limits,
                limits.wait_until,
                poll.until,
                poll.latest,
            )
            lost: list[_Reading] = []
            for each, finding in zip(readings, findings, strict=True):
                each.finding = finding
                if _is_out_of_range(finding) and not each.reset:
                    each.reset = True
                    each.position.edge = poll.start
                    lost.append(each)
            if not lost:
                return
        await asyncio.sleep(max(0.0, limits.wait_until - self._loop.time()))

    async def _news(self, poll: _Poll, wait_until: float) -> None:
        """Waits until the member is another one, the node drains, or the time is up."""
        session = poll.session
        version = poll.answer.version
        closing = asyncio.ensure_future(self._parts.closing.wait())
        closing.add_done_callback(lambda _: session.bell.ring())
        try:
            async with asyncio.timeout_at(wait_until):
                while session.answer.version == version and session.ended is None:
                    if self._parts.closing.is_set():
                        return
                    await session.bell.heard()
        except TimeoutError:
            return
        finally:
            closing.cancel()

    # Answers.

    def _response(self, poll: _Poll) -> OpaquePollGroupResponse:
        answer = poll.answer
        names = {
            (one.partition.topic_id, one.partition.partition): one.topic for one in answer.owned
        }
        return OpaquePollGroupResponse(
            header=self._parts.header,
            member_id=answer.member_id,
            member_epoch=answer.member_epoch,
            assignment_version=answer.member_epoch,
            revoking=[
                TopicPartition(topic=names[one.topic_id, one.partition], partition=one.partition)
                for one in answer.revoking[:PORTION_COUNT]
            ],
            commit_errors=poll.errors,
            session_ms=max(answer.max_processing_ms, answer.session_grace_ms),
            resume_token=resume_token(poll.session.group, answer.member_id),
        )

    def _left(self, poll: _Poll) -> OpaquePollGroupResponse:
        answer = poll.answer
        return OpaquePollGroupResponse(
            header=self._parts.header,
            member_id=answer.member_id,
            member_epoch=answer.member_epoch,
            commit_errors=poll.errors,
        )

    def _fill(
        self,
        response: OpaquePollGroupResponse,
        poll: _Poll,
        readings: Sequence[_Reading],
        max_bytes: int,
        *,
        serves: bool,
    ) -> None:
        """Puts in what is owned and, where the lease holds, what was read."""
        by_place = {_place(each.owned): each for each in readings}
        first = poll.request.owned_from if poll.is_seen else 0
        for one in poll.answer.owned[first : first + PORTION_COUNT]:
            response.owned.append(_assigned(one, by_place.get(_place(one)), poll.start))
        if first + PORTION_COUNT < len(poll.answer.owned):
            response.owned_next = first + PORTION_COUNT
        # What has been taken meanwhile gets no more records.
        kept = {_place(each.owned) for each in self._readings(poll)}
        left, room = max_bytes, MESSAGE_BYTES_MAX - response.ByteSize()
        for each in readings if serves else ():
            if _place(each.owned) not in kept:
                continue
            room -= len(each.position.topic) + _PARTITION_BYTES
            if room < 0:
                break
            finding = each.finding
            if isinstance(finding, Found):
                first, most = left == max_bytes, min(left, room)
                data, form = response.data.add(), poll.form
                size = render(data, each.position, finding, form, most, at_least_one=first)
                data.next_offset = max(data.next_offset, finding.from_offset)
                left -= size
                room -= size
            elif finding is not None and each.position.WhichOneof("start") == "offset":
                # Without a place to go on from there is nothing that a client could repeat.
                data = OpaquePartitionData(
                    topic=each.position.topic,
                    partition=each.position.partition,
                    next_offset=each.position.offset,
                    error=to_status(finding),
                )
                room -= data.error.ByteSize()
                response.data.append(data)


def _place(one: MemberPartition) -> tuple[int, int, int]:
    """One ownership of one partition."""
    owned = one.partition
    return owned.topic_id, owned.partition, owned.since_epoch


def _is_out_of_range(finding: Finding) -> bool:
    out = error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE
    return isinstance(finding, RakitError) and finding.reason == out


def _assigned(
    one: MemberPartition, reading: _Reading | None, start: Edge.ValueType
) -> AssignedPartition:
    """A partition with where it would be read without a position of the client's."""
    owned = one.partition
    assigned = AssignedPartition(
        topic=one.topic, partition=owned.partition, topic_id=owned.topic_id
    )
    finding = None if reading is None else reading.finding
    committed = one.committed_offset if one.HasField("committed_offset") else None
    if not isinstance(finding, Found) or reading is None:
        # Nobody will read it in this call, so nobody asks where.
        assigned.committed = committed is not None
        assigned.offset = committed or 0
        return assigned
    chunk = finding.chunk
    assigned.reset = reading.reset
    if committed is not None and committed >= chunk.log_start_offset:
        assigned.committed = True
        assigned.offset = committed
    elif not reading.is_given or reading.reset:
        assigned.offset = finding.from_offset
    else:
        at_end = start == EDGE_LATEST
        assigned.offset = chunk.high_watermark if at_end else chunk.log_start_offset
    return assigned


def _check(request: PollGroupRequest) -> None:
    """Raises INVALID_REQUEST for a call that nobody need be asked about."""
    if not request.HasField("join") and not request.member_id:
        raise _invalid("The call has neither a join nor a member_id.")
    group = request.group or request.join.group
    check_group_name(group)
    if request.group and request.join.group and request.group != request.join.group:
        raise _invalid(f"The call is for group {group!r}, its join for {request.join.group!r}.")
    if len(request.member_id) > TOKEN_BYTES_MAX:
        raise _invalid("member_id is not one that an answer gave.")
    if not request.member_id and not request.join.resume_token:
        first = {
            "commits": request.commits,
            "positions": request.positions,
            "assignment_version": request.assignment_version,
            "leave": request.leave,
            "owned_from": request.owned_from,
        }
        for name, value in first.items():
            if value:
                raise _invalid(f"{name} is for a member, and the call has no member_id.")
    if not 0 <= request.max_wait_ms <= WAIT_MS_MAX:
        raise _invalid(f"max_wait_ms is {request.max_wait_ms}; it may be 0 to {WAIT_MS_MAX}.")
    if request.max_bytes < 0:
        raise _invalid("max_bytes must not be negative.")
    if request.owned_from < 0:
        raise _invalid("owned_from is not one that an answer gave.")
    if len(request.positions) > POSITIONS_COUNT_MAX:
        raise _invalid(
            f"The call names {len(request.positions)} positions; the limit is"
            f" {POSITIONS_COUNT_MAX}."
        )
    for each in request.positions:
        if not 0 <= each.offset <= INTEGER_MAX:
            raise _invalid(f"{each.offset} is no offset.")
    check_commits(request.commits)


def _invalid(message: str) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, message)
