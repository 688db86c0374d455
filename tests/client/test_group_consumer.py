"""A member of a group: what is handed over, committed and let go of, whatever its streams do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rakit.client import (
    AlreadyExistsError,
    Client,
    ClientConfig,
    GroupConfig,
    Hooks,
    MemberFencedError,
    NotOwnerError,
    TopicPartition,
)

from .fake_cluster import RefusalError
from .fake_groups import FakeGroups
from .group_member import BY_HAND, P0, P1, all_heard, member, take


@pytest.fixture
async def client(groups: FakeGroups) -> AsyncIterator[Client]:
    config = ClientConfig((groups.address,), request_timeout_ms=2_000, attempt_timeout_ms=1_000)
    async with Client(config) as client:
        yield client


async def test_a_join_says_what_is_wanted(groups: FakeGroups, client: Client) -> None:
    config = GroupConfig(instance_id="pod-1", rack="r1", max_processing_ms=5_000)
    consumer = client.group_consumer("g", ["t"], patterns=["a.*"], from_="latest", config=config)
    entering = asyncio.create_task(consumer.__aenter__())
    line = await groups.line()
    join = (await line.next("join")).join
    assert (join.group, list(join.topics), list(join.topic_patterns)) == ("g", ["t"], ["a.*"])
    assert (join.instance_id, join.rack, join.max_processing_ms) == ("pod-1", "r1", 5_000)
    assert join.credit_bytes == config.buffer_bytes_max
    line.joined()
    await entering
    await consumer.__aexit__(None, None, None)
    assert "leave" not in line.kinds(), "a member with a name keeps its share for its next process"


async def test_records_are_handed_over_in_the_order_of_their_partition(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client) as (consumer, line):
        line.assigned({P0: 5, P1: 0})
        line.records("t", 0, 5, [b"a", b"b"])
        line.records("t", 1, 0, [b"x"])
        line.records("t", 0, 7, [b"c"])
        records = await take(consumer, 4)
        assert [(each.partition, each.offset, each.value) for each in records] == [
            (0, 5, b"a"),
            (0, 6, b"b"),
            (1, 0, b"x"),
            (0, 7, b"c"),
        ]
        assert consumer.assignment == (TopicPartition("t", 0), TopicPartition("t", 1))


async def test_what_the_program_is_through_with_is_committed(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, GroupConfig(auto_commit_ms=5)) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a", b"b", b"c"])
        await take(consumer, 3)
        commit = (await line.next("commit")).commit
        line.committed(commit.tag)
        # The third was handed over, and nobody knows what became of it.
        offsets = [commit.offsets[0].offset]
        while offsets[-1] != 2:
            commit = (await line.next("commit")).commit
            line.committed(commit.tag)
            offsets.append(commit.offsets[0].offset)
        assert offsets == sorted(offsets)


async def test_by_hand_nothing_is_committed_unasked(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0, P1: 0})
        line.records("t", 0, 0, [b"a", b"b", b"c"])
        first, second = await take(consumer, 2)
        assert "commit" not in line.kinds()
        committing = asyncio.create_task(consumer.commit(first))
        commit = (await line.next("commit")).commit
        assert [(each.partition, each.offset) for each in commit.offsets] == [(0, 1)]
        line.committed(commit.tag)
        await committing
        committing = asyncio.create_task(consumer.commit())
        commit = (await line.next("commit")).commit
        assert [(each.partition, each.offset) for each in commit.offsets] == [
            (0, second.offset + 1)
        ]
        line.committed(commit.tag)
        await committing


async def test_a_refused_commit_says_which_partition_has_gone(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a"])
        await take(consumer, 1)
        committing = asyncio.create_task(consumer.commit())
        commit = (await line.next("commit")).commit
        line.committed(commit.tag, {P0: RefusalError("PARTITION_NOT_OWNED")})
        with pytest.raises(NotOwnerError):
            await committing


async def test_one_commit_is_under_way_and_the_next_ones_go_together(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0, P1: 0})
        waiting = [
            asyncio.create_task(consumer.commit(offsets={TopicPartition("t", at): offset}))
            for at, offset in [(0, 1), (0, 2), (1, 5), (0, 3)]
        ]
        first = (await line.next("commit")).commit
        seen = {(each.partition, each.offset) for each in first.offsets}
        line.committed(first.tag)
        if seen != {(0, 3), (1, 5)}:
            second = (await line.next("commit")).commit
            seen |= {(each.partition, each.offset) for each in second.offsets}
            line.committed(second.tag)
        await asyncio.gather(*waiting)
        assert {(0, 3), (1, 5)} <= seen
        assert line.kinds().count("commit") <= 2


async def test_a_partition_is_let_go_of_when_the_program_is_through_with_it(
    groups: FakeGroups, client: Client
) -> None:
    told: list[object] = []

    async def revoking(partitions: object) -> None:
        told.append(partitions)

    async with member(
        groups, client, GroupConfig(auto_commit_ms=60_000), Hooks(revoking=revoking)
    ) as (consumer, line):
        line.assigned({P0: 0, P1: 0})
        line.records("t", 0, 0, [b"a", b"b", b"c"])
        line.records("t", 1, 0, [b"x"])
        await take(consumer, 2)
        line.revoking(P0)
        await all_heard(consumer, line)
        asking = asyncio.create_task(consumer.one())
        commit = (await line.next("commit")).commit
        assert [(each.partition, each.offset) for each in commit.offsets] == [(0, 2)]
        assert told == [[TopicPartition("t", 0)]]
        assert "revoked" not in line.kinds(), "its commit is not answered yet"
        line.committed(commit.tag)
        await line.next("revoked")
        record = await asking
        assert record is not None
        assert record.partition == 1, "the rest of what was revoked is dropped"
        assert consumer.assignment == (TopicPartition("t", 1),)


async def test_a_partition_in_hand_is_not_let_go_of(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a", b"b"])
        async for record in consumer:
            assert record.offset == 0
            line.revoking(P0)
            line.assigned({P1: 0}, owned=[P0, P1])
            line.records("t", 1, 0, [b"x"])
            await all_heard(consumer, line)
            # What was to be said before this commit went out before it.
            await all_heard(consumer, line)
            assert "revoked" not in line.kinds()
            break
        asking = asyncio.create_task(consumer.one())
        commit = (await line.next("commit")).commit
        line.committed(commit.tag)
        await line.next("revoked")
        following = await asking
        assert following is not None
        assert following.partition == 1


async def test_a_broken_stream_is_resumed_where_it_was(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a", b"b", b"c"])
        await take(consumer, 1)
        committing = asyncio.create_task(consumer.commit())
        await line.next("commit")
        line.fail("NODE_UNAVAILABLE")
        again = await groups.line()
        join = (await again.next("join")).join
        assert join.resume_token == b"token"
        assert join.credit_bytes < GroupConfig().buffer_bytes_max, "what is here takes its part"
        again.joined(resumed=True)
        again.assigned({P0: 0})
        seek = (await again.next("seek")).seek
        assert seek.position.offset == 3
        # From the commit on, until the server has heard of the seek.
        again.records("t", 0, 0, [b"a", b"b", b"c"])
        again.sought(seek.tag, 3)
        # What was on its way comes again, and is cut off.
        again.records("t", 0, 2, [b"c", b"d"])
        assert [each.value for each in await take(consumer, 3)] == [b"b", b"c", b"d"]
        commit = [each.commit for each in again.requests if each.HasField("commit")][-1]
        assert [each.offset for each in commit.offsets] == [1]
        again.committed(commit.tag)
        await committing


async def test_a_session_that_ended_is_lost_and_begun_anew(
    groups: FakeGroups, client: Client
) -> None:
    lost: list[object] = []

    async def losing(partitions: object) -> None:
        lost.append(partitions)

    async with member(groups, client, BY_HAND, Hooks(lost=losing)) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a", b"b"])
        await take(consumer, 1)
        line.fail("MEMBER_FENCED", fence_reason="SESSION_EXPIRED")
        again = await groups.line()
        assert not (await again.next("join")).join.resume_token
        again.joined(b"another")
        again.assigned({P0: 0})
        again.records("t", 0, 0, [b"a", b"b"])
        assert [each.value for each in await take(consumer, 2)] == [b"a", b"b"]
        assert lost == [[TopicPartition("t", 0)]]


async def test_a_member_whose_place_was_taken_stops(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client) as (consumer, line):
        line.fail("MEMBER_FENCED", fence_reason="INSTANCE_REPLACED")
        with pytest.raises(MemberFencedError) as raised:
            await consumer.one()
        assert raised.value.fence_reason == "INSTANCE_REPLACED"


async def test_who_cannot_join_hears_why(groups: FakeGroups, client: Client) -> None:
    config = GroupConfig(instance_id="a", retry_timeout_ms=0)
    entering = asyncio.create_task(client.group_consumer("g", ["t"], config=config).__aenter__())
    (await groups.line()).fail("INSTANCE_IN_USE")
    with pytest.raises(AlreadyExistsError):
        await entering


async def test_after_a_seek_only_records_from_there_are_handed_over(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a", b"b"])
        await take(consumer, 1)
        seeking = asyncio.create_task(consumer.seek("t", 0, 10))
        seek = (await line.next("seek")).seek
        line.records("t", 0, 2, [b"old"])
        line.sought(seek.tag, 10)
        line.records("t", 0, 10, [b"new"])
        assert await seeking == 10
        assert [each.value for each in await take(consumer, 1)] == [b"new"]
        with pytest.raises(NotOwnerError):
            await consumer.seek("t", 7, "earliest")


async def test_a_seek_inside_the_loop_ends_the_batch(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a", b"b", b"c"])
        values: list[bytes | None] = []
        async for record in consumer:
            values.append(record.value)
            if record.value == b"a":
                seeking = asyncio.create_task(consumer.seek("t", 0, "latest"))
                line.sought((await line.next("seek")).seek.tag, 9)
                line.records("t", 0, 9, [b"z"])
                await seeking
            else:
                break
        assert values == [b"a", b"z"]


async def test_a_seek_outlives_its_stream(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a"])
        await take(consumer, 1)
        seeking = asyncio.create_task(consumer.seek("t", 0, 10))
        await line.next("seek")
        line.fail("NODE_UNAVAILABLE")
        again = await groups.line()
        again.joined(resumed=True)
        again.assigned({P0: 0})
        again.sought((await again.next("seek")).seek.tag, 10)
        assert await seeking == 10


async def test_credit_comes_back_for_what_is_done_with(groups: FakeGroups, client: Client) -> None:
    config = GroupConfig(auto_commit_ms=None, buffer_bytes_max=1_000)
    async with member(groups, client, config) as (consumer, line):
        line.assigned({P0: 0})
        for at in range(4):
            line.records("t", 0, at, [b"%d" % at], charged=200)
        await all_heard(consumer, line)
        await take(consumer, 3)
        assert (await line.next("grant")).grant.bytes == 400
        assert line.kinds().count("grant") == 1


async def test_a_pause_is_told_again_on_the_next_stream(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a"])
        await take(consumer, 1)
        consumer.pause(TopicPartition("t", 0))
        assert (await line.next("pause")).pause.paused
        line.fail("NODE_UNAVAILABLE")
        again = await groups.line()
        again.joined(resumed=True)
        again.assigned({P0: 0})
        assert (await again.next("pause")).pause.paused
        consumer.resume(TopicPartition("t", 0))
        assert not (await again.next("pause")).pause.paused


async def test_records_come_after_the_program_was_told_of_their_partition(
    groups: FakeGroups, client: Client
) -> None:
    may_go_on = asyncio.Event()

    async def assigned(_partitions: object) -> None:
        await may_go_on.wait()

    async with member(groups, client, BY_HAND, Hooks(assigned=assigned)) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a"])
        asking = asyncio.create_task(consumer.one())
        await all_heard(consumer, line)
        assert not asking.done()
        may_go_on.set()
        assert await asking is not None


async def test_a_drained_consumer_commits_and_leaves(groups: FakeGroups, client: Client) -> None:
    consumer = client.group_consumer("g", ["t"])
    entering = asyncio.create_task(consumer.__aenter__())
    line = await groups.line()
    line.joined()
    await entering
    line.assigned({P0: 0})
    line.records("t", 0, 0, [b"a", b"b"])
    seen = 0
    async for _ in consumer:
        seen += 1
        consumer.drain()
    assert seen == 1
    leaving = asyncio.create_task(consumer.__aexit__(None, None, None))
    commit = (await line.next("commit")).commit
    assert [each.offset for each in commit.offsets] == [1]
    line.committed(commit.tag)
    await line.next("leave")
    line.end()
    await leaving
