"""What users of groups meet most, by code, reason, outcome and text, in each way to meet it.

Malformed joins and requests have a test of their own (`test_errors`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest

from rakit.api.v1 import group_service_pb2 as api
from rakit.api.v1.group_service_pb2 import CommitRequest, JoinGroup, OffsetCommit, PollGroupRequest
from rakit.api.v1.log_service_pb2 import EDGE_LATEST, Position
from rakit.api.v1.topic_service_pb2 import DeleteTopicRequest
from tests.node.groups.consumer import Stream
from tests.node.groups.test_errors import Expected
from tests.node.services.served import TIMEOUT_S, Refusal, Served, refusal_in, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def refused(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


def one(topic: str, offset: int, partition: int = 0) -> OffsetCommit:
    return OffsetCommit(topic=topic, partition=partition, offset=offset)


class Member:
    """A member on a stream, which the test commits for in all ways that there are."""

    def __init__(self, served: Served, group: str, topic: str, **join: Any) -> None:
        self.served, self.group, self.topic = served, group, topic
        self.stream = Stream(served.groups, **({"group": group, "topics": [topic]} | join))
        self._tag = 0

    async def by_stream(self, commit: OffsetCommit) -> Refusal:
        self._tag += 1
        tag = f"committed {self._tag}"
        self.stream.send(commit=CommitRequest(tag=self._tag, offsets=[commit]))
        told = await self.stream.until(lambda told: any(each.startswith(tag) for each in told))
        at = next(at for at, each in enumerate(told) if each.startswith(tag))
        (error,) = self.stream.events[at].committed.errors
        return refusal_in(error.error)

    async def by_call(self, commit: OffsetCommit, epoch: int | None = None) -> Refusal:
        known = self.stream.events[-1].assigned.member_epoch or self.epoch
        request = api.CommitOffsetsRequest(
            group=self.group,
            member_id=self.stream.member_id,
            member_epoch=known if epoch is None else epoch,
            offsets=[commit],
        )
        return await refused(self.served.groups.CommitOffsets(request, timeout=TIMEOUT_S))

    @property
    def epoch(self) -> int:
        """The newest that it was told."""
        told = [each.assigned.member_epoch for each in self.stream.events]
        return max([self.stream.events[0].joined.member_epoch, *told])


async def polled(served: Served, group: str, topic: str) -> api.PollGroupResponse:
    """A member by calls, alone in its group."""
    request = PollGroupRequest(join=JoinGroup(group=group, topics=[topic]))
    return await served.groups.PollGroup(request, timeout=TIMEOUT_S)


async def by_poll(
    served: Served, group: str, last: api.PollGroupResponse, commit: OffsetCommit, version: int
) -> Refusal:
    request = PollGroupRequest(
        group=group, member_id=last.member_id, assignment_version=version, commits=[commit]
    )
    answer = await served.groups.PollGroup(request, timeout=TIMEOUT_S)
    (error,) = answer.commit_errors
    assert (error.topic, error.partition) == (commit.topic, commit.partition)
    return refusal_in(error.error)


async def test_an_unknown_group(served: Served) -> None:
    topic = (await served.topic()).name
    target = api.ResetTarget(topic=topic, edge=EDGE_LATEST)
    for call in (
        served.groups.GetGroup(api.GetGroupRequest(group="gone"), timeout=TIMEOUT_S),
        served.groups.DeleteGroup(api.DeleteGroupRequest(group="gone"), timeout=TIMEOUT_S),
        served.groups.ResetOffsets(
            api.ResetOffsetsRequest(group="gone", targets=[target]), timeout=TIMEOUT_S
        ),
        served.groups.ResetOffsets(
            api.ResetOffsetsRequest(group="gone", targets=[target], dry_run=True),
            timeout=TIMEOUT_S,
        ),
    ):
        refusal = await refused(call)
        Expected(grpc.StatusCode.NOT_FOUND, "UNKNOWN_GROUP", "There is no group 'gone'.").check(
            refusal
        )
        assert refusal.metadata == {"group": "gone"}


async def test_s25_a_stale_epoch(served: Served) -> None:
    topic = (await served.topic()).name
    await served.produce(topic, b"a")
    expected = Expected(
        PRECONDITION,
        "STALE_MEMBER_EPOCH",
        f"did not own partition 0 of topic {topic!r} in the epoch that the commit names",
    )
    member = Member(served, "stale", topic)
    try:
        await member.stream.hears("0: 0-1")
        for epoch in (member.epoch - 1, member.epoch + 1):
            refusal = await member.by_call(one(topic, 1), epoch)
            expected.check(refusal)
            assert refusal.metadata["member_id"] == member.stream.member_id
    finally:
        await member.stream.close()
    last = await polled(served, "stale-polls", topic)
    expected.check(await by_poll(served, "stale-polls", last, one(topic, 1), 0))


async def test_p5_a_commit_of_a_partition_that_is_not_owned(served: Served) -> None:
    mine, other = (await served.topic()).name, (await served.topic()).name
    expected = Expected(
        PRECONDITION,
        "PARTITION_NOT_OWNED",
        f"does not own partition 0 of topic {other!r}: nothing was committed for it.",
    )
    member = Member(served, "not-owned", mine)
    try:
        await member.stream.hears("assigned 0@0")
        expected.check(await member.by_stream(one(other, 0)))
        expected.check(await member.by_call(one(other, 0)))
        position = Position(topic=other, partition=0)
        member.stream.send(seek=api.SeekPartition(tag=9, position=position))
        await member.stream.hears("sought 9 PARTITION_NOT_OWNED")
        Expected(
            PRECONDITION, "PARTITION_NOT_OWNED", f"does not own partition 0 of topic {other!r}"
        ).check(refusal_in(member.stream.events[-1].sought.error))
    finally:
        await member.stream.close()
    last = await polled(served, "not-owned-polls", mine)
    version = last.assignment_version
    expected.check(await by_poll(served, "not-owned-polls", last, one(other, 0), version))


async def test_an_offset_outside_of_the_log(served: Served) -> None:
    topic = (await served.topic()).name
    await served.produce(topic, b"a", b"b")
    expected = Expected(
        grpc.StatusCode.OUT_OF_RANGE,
        "COMMIT_OUT_OF_RANGE",
        f"Offset 3 lies outside of partition 0 of topic {topic!r}, which holds 0 up to, not"
        " including, 2.",
    )
    administered = api.CommitOffsetsRequest(group="outside-admin", offsets=[one(topic, 3)])
    expected.check(await refused(served.groups.CommitOffsets(administered, timeout=TIMEOUT_S)))
    within = api.CommitOffsetsRequest(group="outside-admin", offsets=[one(topic, 2)])
    await served.groups.CommitOffsets(within, timeout=TIMEOUT_S)
    reset = api.ResetOffsetsRequest(
        group="outside-admin", targets=[api.ResetTarget(topic=topic, offset=3)]
    )
    expected.check(await refused(served.groups.ResetOffsets(reset, timeout=TIMEOUT_S)))
    member = Member(served, "outside", topic)
    try:
        await member.stream.hears("0: 0-2")
        expected.check(await member.by_stream(one(topic, 3)))
        expected.check(await member.by_call(one(topic, 3)))
    finally:
        await member.stream.close()
    last = await polled(served, "outside-polls", topic)
    version = last.assignment_version
    refusal = await by_poll(served, "outside-polls", last, one(topic, 3), version)
    expected.check(refusal)
    assert (refusal.metadata["earliest"], refusal.metadata["latest"]) == ("0", "2")


async def test_two_static_members_with_one_name(served: Served) -> None:
    topic = (await served.topic()).name
    expected = Expected(
        grpc.StatusCode.ALREADY_EXISTS,
        "INSTANCE_IN_USE",
        "Another process is instance 'pod-0' of group 'named'",
    )
    first = Member(served, "named", topic, instance_id="pod-0")
    second = Member(served, "named", topic, instance_id="pod-0")
    try:
        await first.stream.hears("assigned 0@0")
        expected.check(await second.stream.refused())
        join = JoinGroup(group="named", topics=[topic], instance_id="pod-0")
        call = served.groups.PollGroup(PollGroupRequest(join=join), timeout=TIMEOUT_S)
        expected.check(await refused(call))
        assert not first.stream.ended.is_set(), "the one that was there goes on"
    finally:
        await first.stream.close()
        await second.stream.close()


async def test_a_topic_that_is_deleted_while_it_is_subscribed_to(served: Served) -> None:
    topic = (await served.topic(2)).name
    await served.produce(topic, b"a")
    expected = Expected(grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC", topic)
    member = Member(served, "deleted", topic)
    try:
        await member.stream.hears("0: 0-1")
        last = await polled(served, "deleted-polls", topic)
        request = DeleteTopicRequest(name=topic)
        await served.topics.DeleteTopic(request, timeout=TIMEOUT_S)
        gone = api.REVOKE_REASON_TOPIC_GONE
        await member.stream.hears(f"revoking 0 1 {gone}")
        expected.check(await member.by_stream(one(topic, 1)))
        expected.check(await member.by_call(one(topic, 1)))
        version = last.assignment_version
        refusal = await by_poll(served, "deleted-polls", last, one(topic, 1), version)
        expected.check(refusal)
        assert not member.stream.ended.is_set(), "the membership lasts: the topic may be made anew"
    finally:
        await member.stream.close()
