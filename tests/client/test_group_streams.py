"""What a member makes of broken streams, failed seeks and ownerships that change meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rakit.client import (
    Client,
    ClientConfig,
    GroupConfig,
    GroupConsumer,
    Hooks,
    MemberFencedError,
    NotOwnerError,
    OffsetOutOfRangeError,
    TopicPartition,
)

from .fake_cluster import RefusalError
from .fake_groups import FakeGroups, Line
from .group_member import BY_HAND, P0, P1, all_heard, member, take

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.fixture
async def client(groups: FakeGroups) -> AsyncIterator[Client]:
    config = ClientConfig((groups.address,), request_timeout_ms=2_000, attempt_timeout_ms=1_000)
    async with Client(config) as client:
        yield client


async def resumed(groups: FakeGroups, line: Line) -> Line:
    """Breaks a stream; the session goes on with the next one."""
    line.fail("NODE_UNAVAILABLE")
    again = await groups.line()
    await again.next("join")
    again.joined(resumed=True)
    return again


async def begun(consumer: GroupConsumer, line: Line, values: list[bytes]) -> None:
    """P0 is owned from 0 on, and the program has the first of these in hand."""
    line.assigned({P0: 0})
    line.records("t", 0, 0, values)
    await take(consumer, 1)


async def values_of(consumer: GroupConsumer, count: int) -> list[bytes | None]:
    return [each.value for each in await take(consumer, count)]


# Seeks.


async def test_a_seek_that_fails_leaves_the_partition_where_it_was(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a", b"b", b"c"])
        seeking = asyncio.create_task(consumer.seek("t", 0, 1_000))
        seek = (await line.next("seek")).seek
        line.not_sought(seek.tag, RefusalError("OFFSET_OUT_OF_RANGE"))
        with pytest.raises(OffsetOutOfRangeError):
            await seeking
        back = (await line.next("seek")).seek
        assert back.position.offset == 1, "what was received and dropped comes again"
        line.records("t", 0, 3, [b"d"])
        line.sought(back.tag, 1)
        line.records("t", 0, 1, [b"b", b"c", b"d"])
        assert await values_of(consumer, 3) == [b"b", b"c", b"d"]


async def test_going_back_is_tried_until_it_works(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        again = await resumed(groups, line)
        again.assigned({P0: 0})
        first = (await again.next("seek")).seek
        again.not_sought(first.tag, RefusalError("NO_LEADER"))
        second = (await again.next("seek")).seek
        assert (second.tag > first.tag, second.position.offset) == (True, 2)
        again.sought(second.tag, 2)
        again.records("t", 0, 2, [b"c"])
        assert await values_of(consumer, 2) == [b"b", b"c"]


async def test_a_program_that_sought_back_goes_on_there_on_the_next_stream(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 200})
        await all_heard(consumer, line)
        seeking = asyncio.create_task(consumer.seek("t", 0, 50))
        line.sought((await line.next("seek")).seek.tag, 50)
        await seeking
        again = await resumed(groups, line)
        again.assigned({P0: 200})
        again.records("t", 0, 200, [b"far"])
        seek = (await again.next("seek")).seek
        assert seek.position.offset == 50
        again.sought(seek.tag, 50)
        again.records("t", 0, 50, [b"near"])
        assert await values_of(consumer, 1) == [b"near"]


async def test_of_two_seeks_the_newer_one_answers_both_callers(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0})
        await all_heard(consumer, line)
        older = asyncio.create_task(consumer.seek("t", 0, 10))
        first = (await line.next("seek")).seek
        newer = asyncio.create_task(consumer.seek("t", 0, 20))
        second = (await line.next("seek")).seek
        line.sought(first.tag, 10)
        line.records("t", 0, 10, [b"old"])
        line.sought(second.tag, 20)
        line.records("t", 0, 20, [b"new"])
        assert (await older, await newer) == (20, 20)
        assert await values_of(consumer, 1) == [b"new"]


async def test_a_partition_without_a_leader_after_a_break_keeps_no_other_from_being_committed(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, GroupConfig(auto_commit_ms=5)) as (consumer, line):
        line.assigned({P0: 0, P1: 0})
        line.records("t", 0, 0, [b"a"])
        line.records("t", 1, 0, [b"x"])
        await take(consumer, 2)
        asking = asyncio.create_task(consumer.one())
        # Both are on their way, in one request or in two, when the stream breaks.
        await line.next("commit")
        again = await resumed(groups, line)
        # The first has no leader: the server cannot say yet where it begins.
        again.assigned({P1: 1}, owned=[P0, P1])
        again.records("t", 1, 1, [b"y"])
        await asking
        following = asyncio.create_task(consumer.one())
        offset = 0
        while offset < 2:
            commit = (await again.next("commit")).commit
            assert [each.partition for each in commit.offsets] == [1]
            offset = commit.offsets[0].offset
            again.committed(commit.tag)
        again.assigned({P0: 0}, owned=[P0, P1])
        commit = (await again.next("commit")).commit
        assert [(each.partition, each.offset) for each in commit.offsets] == [(0, 1)]
        again.committed(commit.tag)
        following.cancel()


# What is owned.


async def test_what_is_owned_may_come_in_several_messages_and_nothing_is_lost_before_the_last(
    groups: FakeGroups, client: Client
) -> None:
    told: list[object] = []

    async def lost(partitions: object) -> None:
        told.append(partitions)

    async with member(groups, client, BY_HAND, Hooks(lost=lost)) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        line.assigned({P1: 0}, owned=[P1], more=True)
        await all_heard(consumer, line)
        assert list(consumer.assignment) == [T0, T1]
        line.assigned({}, owned=[P0])
        line.records("t", 0, 2, [b"c"])
        assert await values_of(consumer, 2) == [b"b", b"c"]
        # One that broke in the middle is told anew on the next stream.
        line.assigned({}, owned=[P0], more=True)
        await all_heard(consumer, line)
        again = await resumed(groups, line)
        again.assigned({P1: 0}, owned=[P1])
        await all_heard(consumer, again)
        assert list(consumer.assignment) == [T1]
        assert told == [[T0]]


# Retention.


async def test_what_is_not_kept_any_more_is_passed_over(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        line.assigned({P0: 500}, reset=True)
        line.records("t", 0, 500, [b"z"])
        await all_heard(consumer, line)
        assert await values_of(consumer, 2) == [b"b", b"z"], "what is here is not dropped"
        assert "seek" not in line.kinds()


async def test_the_server_says_where_to_go_on_when_our_offset_is_not_kept_after_a_break(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        again = await resumed(groups, line)
        again.assigned({P0: 500}, reset=True)
        wanted: list[int | str] = []
        for refusal in ("OFFSET_OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE", ""):
            seek = (await again.next("seek")).seek
            kind = seek.position.WhichOneof("start")
            wanted.append(seek.position.offset if kind == "offset" else str(kind))
            if refusal:
                again.not_sought(seek.tag, RefusalError(refusal))
            else:
                again.sought(seek.tag, 600)
        assert wanted == [2, 500, "edge"]
        again.records("t", 0, 600, [b"z"])
        assert await values_of(consumer, 2) == [b"b", b"z"]


async def test_a_topic_made_anew_while_the_stream_was_down_is_read_from_its_beginning(
    groups: FakeGroups, client: Client
) -> None:
    told: list[tuple[str, object]] = []

    async def assigned(partitions: object) -> None:
        told.append(("assigned", partitions))

    async def lost(partitions: object) -> None:
        told.append(("lost", partitions))

    hooks = Hooks(assigned=assigned, lost=lost)
    async with member(groups, client, BY_HAND, hooks) as (consumer, line):
        await begun(consumer, line, [b"a", b"b", b"c"])
        line.fail("NODE_UNAVAILABLE")
        again = await groups.line()
        # Asked for before it is known that this was another topic.
        committing = asyncio.create_task(consumer.commit())
        again.joined(resumed=True)
        again.assigned({P0: 0}, topic_id=8)
        again.records("t", 0, 0, [b"x", b"y"])
        with pytest.raises(NotOwnerError):
            await committing
        assert await values_of(consumer, 2) == [b"x", b"y"]
        assert told == [("assigned", [T0]), ("lost", [T0]), ("assigned", [T0])]
        assert "commit" not in again.kinds()


async def test_a_server_that_does_not_tell_incarnations_means_the_same_topic(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        again = await resumed(groups, line)
        again.assigned({P0: 2}, topic_id=0)
        await all_heard(consumer, again)
        again.records("t", 0, 2, [b"c"])
        assert await values_of(consumer, 2) == [b"b", b"c"]


async def test_a_partition_that_fails_stops_neither_itself_nor_the_others(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        line.assigned({P0: 0, P1: 0})
        line.unreadable("t", 0, RefusalError("CORRUPT_RECORD"))
        line.records("t", 1, 0, [b"x"])
        line.records("t", 0, 0, [b"a"])
        assert await values_of(consumer, 2) == [b"x", b"a"]


# The end.


async def test_whoever_commits_or_seeks_hears_that_the_session_has_ended(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a"])
        seeking = asyncio.create_task(consumer.seek("t", 0, 10))
        await line.next("seek")
        line.fail("MEMBER_FENCED", fence_reason="INSTANCE_REPLACED")
        async with asyncio.timeout(5):
            with pytest.raises(MemberFencedError):
                await seeking
            with pytest.raises(MemberFencedError):
                await consumer.one()
            with pytest.raises(MemberFencedError):
                await consumer.commit(offsets={T0: 1})
            with pytest.raises(MemberFencedError):
                await consumer.seek("t", 0, 10)


# Letting go.


async def test_letting_go_does_not_touch_a_later_ownership(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        line.revoking(P0)
        await all_heard(consumer, line)
        line.fail("MEMBER_FENCED", fence_reason="SESSION_EXPIRED")
        again = await groups.line()
        await again.next("join")
        again.joined(b"another")
        again.assigned({P0: 0})
        again.records("t", 0, 0, [b"a", b"b"])
        await all_heard(consumer, again)
        assert await values_of(consumer, 2) == [b"a", b"b"]
        assert consumer.assignment == (T0,)
        assert "revoked" not in again.kinds()


async def test_a_partition_that_the_server_leaves_here_stays_when_the_program_has_let_go(
    groups: FakeGroups, client: Client
) -> None:
    told: list[str] = []

    async def assigned(_partitions: object) -> None:
        told.append("assigned")

    async def revoking(_partitions: object) -> None:
        told.append("revoking")

    hooks = Hooks(assigned=assigned, revoking=revoking)
    async with member(groups, client, BY_HAND, hooks) as (consumer, line):
        await begun(consumer, line, [b"a", b"b", b"c"])
        line.revoking(P0)
        await all_heard(consumer, line)
        again = await resumed(groups, line)
        again.assigned({P0: 0})
        again.records("t", 0, 0, [b"a", b"b", b"c"])
        await all_heard(consumer, again)
        asking = asyncio.create_task(values_of(consumer, 2))
        seek = (await again.next("seek")).seek
        assert seek.position.offset == 1, "the program is through with the first"
        again.sought(seek.tag, 1)
        again.records("t", 0, 1, [b"b", b"c"])
        assert await asking == [b"b", b"c"]
        assert told == ["assigned", "revoking", "assigned"]
        assert "revoked" not in again.kinds()


async def test_what_was_let_go_of_while_the_stream_was_down_is_told_when_it_is_asked_for(
    groups: FakeGroups, client: Client
) -> None:
    has_let_go = asyncio.Event()

    async def revoking(_partitions: object) -> None:
        has_let_go.set()

    hooks = Hooks(revoking=revoking)
    async with member(groups, client, BY_HAND, hooks) as (consumer, line):
        await begun(consumer, line, [b"a"])
        line.revoking(P0)
        await all_heard(consumer, line)
        line.fail("NODE_UNAVAILABLE")
        again = await groups.line()
        await again.next("join")
        asking = asyncio.create_task(consumer.one())
        await has_let_go.wait()
        again.joined(resumed=True)
        again.revoking(P0)
        revoked = (await again.next("revoked")).revoked
        assert [(each.topic, each.partition) for each in revoked.partitions] == [P0]
        again.assigned({P1: 0})
        again.records("t", 1, 0, [b"x"])
        assert await asking is not None
        assert again.kinds().count("revoked") == 1


# Commits.


async def test_a_commit_waits_until_the_server_has_spoken_of_its_partition(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a"])
        again = await resumed(groups, line)
        committing = asyncio.create_task(consumer.commit())
        # One of a partition that is not ours goes out, and comes back after whatever was sent.
        await all_heard(consumer, again)
        assert again.kinds().count("commit") == 1
        again.assigned({P0: 1})
        commit = (await again.next("commit")).commit
        assert [(each.partition, each.offset) for each in commit.offsets] == [(0, 1)]
        again.committed(commit.tag)
        await committing


async def test_a_commit_before_letting_go_is_tried_again(
    groups: FakeGroups, client: Client
) -> None:
    config = GroupConfig(auto_commit_ms=60_000)
    async with member(groups, client, config) as (consumer, line):
        await begun(consumer, line, [b"a", b"b"])
        line.revoking(P0)
        await all_heard(consumer, line)
        asking = asyncio.create_task(consumer.one())
        commit = (await line.next("commit")).commit
        line.committed(commit.tag, {P0: RefusalError("NO_QUORUM")})
        commit = (await line.next("commit")).commit
        assert [each.offset for each in commit.offsets] == [1]
        assert "revoked" not in line.kinds()
        line.committed(commit.tag)
        await line.next("revoked")
        consumer.drain()
        assert await asking is None


async def test_the_commit_at_the_end_is_tried_again(groups: FakeGroups, client: Client) -> None:
    async with member(groups, client, GroupConfig(auto_commit_ms=60_000)) as (consumer, line):
        await begun(consumer, line, [b"a"])
        leaving = asyncio.create_task(consumer.__aexit__(None, None, None))
        commit = (await line.next("commit")).commit
        line.committed(commit.tag, {P0: RefusalError("NO_QUORUM")})
        commit = (await line.next("commit")).commit
        assert [each.offset for each in commit.offsets] == [1]
        line.committed(commit.tag)
        await line.next("leave")
        line.end()
        await leaving


# Credit.


async def test_a_program_that_is_through_with_everything_grants_what_it_owes(
    groups: FakeGroups, client: Client
) -> None:
    async with member(groups, client, BY_HAND) as (consumer, line):
        await begun(consumer, line, [b"a"])
        asking = asyncio.create_task(consumer.one())
        # Far less than is worth a message otherwise.
        assert (await line.next("grant")).grant.bytes == 100
        line.records("t", 0, 1, [b"b"])
        assert await asking is not None


async def test_what_is_here_beyond_the_window_is_not_granted_on_the_next_stream(
    groups: FakeGroups, client: Client
) -> None:
    config = GroupConfig(auto_commit_ms=None, buffer_bytes_max=1_000)
    async with member(groups, client, config) as (consumer, line):
        line.assigned({P0: 0})
        line.records("t", 0, 0, [b"a"], charged=1_600)
        await take(consumer, 1)
        line.fail("NODE_UNAVAILABLE")
        again = await groups.line()
        join = (await again.next("join")).join
        again.joined(resumed=True)
        again.assigned({P0: 1})
        asking = asyncio.create_task(consumer.one())
        grant = (await again.next("grant")).grant
        assert join.credit_bytes + grant.bytes == 1_000
        again.records("t", 0, 1, [b"b"])
        assert await asking is not None
