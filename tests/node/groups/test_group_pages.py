"""GetGroup page by page: no page is larger than clients take, and together they are the group."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from rakit.api.v1 import error_pb2
from rakit.api.v1 import group_service_pb2 as api
from rakit.node.errors import RakitError
from rakit.node.groups.client import DescribedGroup
from rakit.node.groups.names import NAME_CHARS_MAX
from rakit.node.metadata.registry import PartitionInfo, Registry, TopicInfo
from rakit.node.services.group_pages import PAGE_SIZE_MAX, GroupPages
from rakit.node.services.positions import RESPONSE_BYTES_MAX
from rakit.node.services.standings import Standing, Standings
from rakit.peer.v1.group_command_pb2 import (
    GroupOffset,
    GroupRecord,
    MemberRecord,
    OwnedPartition,
)

LONG = "t" * NAME_CHARS_MAX
COUNT = 3_000
MEMBERS = 40


class _Topics:
    """A topic with very many partitions."""

    def __init__(self) -> None:
        place = cast("PartitionInfo", None)
        self.topic = cast("TopicInfo", _Topic(LONG, (place,) * COUNT))

    def topic_by_id(self, topic_id: int) -> TopicInfo | None:
        return self.topic if topic_id == 1 else None


class _Topic:
    def __init__(self, name: str, partitions: tuple[PartitionInfo, ...]) -> None:
        self.name, self.partitions = name, partitions


class _Leaders:
    """Those of even partitions answer; what was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    async def of(
        self, topic: TopicInfo, places: Mapping[int, int], deadline: float
    ) -> dict[int, Standing | RakitError]:
        del deadline
        self.asked.append(list(places))
        lost = RakitError(
            error_pb2.ERROR_REASON_NO_LEADER,
            f"Partition {2**31 - 1} of topic {topic.name!r} has no leader at the moment.",
            {"topic": topic.name, "partition": str(2**31 - 1), "retry_delay_ms": "200"},
        )
        return {each: lost if each % 2 else Standing(0, 2**53 - 1, 2**50) for each in places}


def large() -> DescribedGroup:
    """Each member owns partitions that another one is to have; every offset has metadata."""

    def owned(at: int) -> list[OwnedPartition]:
        numbers = range(at % MEMBERS, COUNT, MEMBERS)
        return [OwnedPartition(topic_id=1, partition=each) for each in numbers]

    members = [
        MemberRecord(
            member_id=f"{MEMBERS - at:032}",
            client_id="c" * NAME_CHARS_MAX,
            topics=[LONG, *(f"{each}" for each in range(255))],
            owned=owned(at),
            target=owned(at + 1),
        )
        for at in range(MEMBERS)
    ]
    offsets = [
        GroupOffset(topic_id=1, partition=at, offset=2**53 - 1, metadata="m" * (at % 4096))
        for at in range(COUNT)
    ]
    offsets.append(GroupOffset(topic_id=2, partition=0, offset=1))
    record = GroupRecord(name="g", epoch=7, members=members, offsets=offsets)
    return DescribedGroup(record, tuple(range(1, MEMBERS + 1)), 3)


async def pages_of(group: DescribedGroup, size: int) -> list[api.GetGroupResponse]:
    pages = GroupPages(
        cast("Registry", _Topics()), cast("Standings", leaders := _Leaders()), lambda: 2**50
    )
    answers: list[api.GetGroupResponse] = []
    token = ""
    while token or not answers:
        answers.append(await pages.page(group, size, token, 0.0))
        token = answers[-1].next_page_token
        rows = [each.partition for each in answers[-1].group.partitions]
        assert (leaders.asked.pop() if rows else []) == rows, "only those of the page are asked for"
    return answers


@pytest.mark.parametrize("size", [0, 333, PAGE_SIZE_MAX + 1])
def test_contract_5_the_pages_of_a_large_group_stay_below_3_mib_and_are_the_whole(
    size: int,
) -> None:
    group = large()
    # In a loop that nobody guards: so many objects make the collector run, which waits for threads
    # of whatever earlier tests left to it.
    answers = asyncio.run(pages_of(group, size))
    sizes = [each.ByteSize() for each in answers]
    assert max(sizes) < RESPONSE_BYTES_MAX < sum(sizes)
    rows = [each for answer in answers for each in answer.group.partitions]
    # The topic that is gone is left out.
    assert [each.partition for each in rows] == list(range(COUNT))
    assert {each.topic for each in rows} == {LONG}
    assert [each.HasField("error") for each in rows] == [at % 2 == 1 for at in range(COUNT)]
    members: dict[str, api.GroupMember] = {}
    for answer in answers:
        assert (answer.group.name, answer.group.epoch) == ("g", 7)
        for one in answer.group.members:
            members.setdefault(one.member_id, api.GroupMember()).MergeFrom(one)
    assert len(members) == MEMBERS
    for record, gateway in zip(group.record.members, group.gateway_node_ids, strict=True):
        told = members[record.member_id]
        assert (told.client_id, told.gateway_node_id) == (record.client_id, gateway)
        assert list(told.topics) == list(record.topics)
        for mine, theirs in ((told.owned, record.owned), (told.target, record.target)):
            assert [each.partition for each in mine] == [each.partition for each in theirs]
        assert {each.member_id for each in rows if each.partition % MEMBERS == 0} == {
            group.record.members[0].member_id
        }


async def test_a_page_goes_on_behind_the_last_thing_whatever_comes_and_goes_between() -> None:
    group = large()
    pages = GroupPages(cast("Registry", _Topics()), cast("Standings", _Leaders()), lambda: 2**50)
    first = await pages.page(group, MEMBERS + 10, "", 0.0)
    del group.record.offsets[3:5]
    for one in group.record.members:
        kept = [each for each in one.owned if each.partition not in {3, 4}]
        wanted = [each for each in one.target if each.partition not in {3, 4}]
        del one.owned[:], one.target[:]
        one.owned.extend(kept)
        one.target.extend(wanted)
    second = await pages.page(group, 5, first.next_page_token, 0.0)
    assert [each.partition for each in second.group.partitions] == [10, 11, 12, 13, 14]
    assert {each.client_id for each in second.group.members} == {""}, "described before"


@pytest.mark.parametrize("token", ["after:", "after:2:0:x", "after:1:x:t", "x", "after:1:0:"])
async def test_a_token_that_no_page_gave_is_refused(token: str) -> None:
    pages = GroupPages(cast("Registry", _Topics()), cast("Standings", _Leaders()), lambda: 2**50)
    with pytest.raises(RakitError) as refused:
        await asyncio.wait_for(pages.page(large(), 0, token, 0.0), 5)
    assert refused.value.reason == error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN
    assert "not one that GetGroup gave" in str(refused.value)
