"""Consuming in a group on one real node, with nothing but generated stubs."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from rakit.api.v1 import record_pb2
from rakit.api.v1.group_service_pb2 import (
    CommitRequest,
    LeaveRequest,
    OffsetCommit,
    PausePartitions,
    RevokeDone,
    SeekPartition,
    TopicPartition,
)
from rakit.api.v1.log_service_pb2 import EDGE_EARLIEST, EDGE_LATEST, Position
from rakit.api.v1.topic_service_pb2 import DeleteTopicRequest
from tests.node.groups.consumer import Consumer, Stream
from tests.node.groups.history import History
from tests.node.metadata.machines import until
from tests.node.services.served import TIMEOUT_S, Served, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")
_names = itertools.count()


class Group:
    """A group that no other test uses; its streams end with the test."""

    def __init__(self, served: Served, topic: str) -> None:
        self.name = f"group-{next(_names)}"
        self.topic = topic
        self._served = served
        self.streams: list[Stream] = []

    def open(self, **join: Any) -> Stream:
        usual = {"group": self.name, "topics": [self.topic]}
        stream = Stream(self._served.groups, **(usual | join))
        self.streams.append(stream)
        return stream

    def commit(self, stream: Stream, tag: int, partition: int, offset: int) -> None:
        one = OffsetCommit(topic=self.topic, partition=partition, offset=offset)
        stream.send(commit=CommitRequest(tag=tag, offsets=[one]))

    def named(self, *partitions: int) -> list[TopicPartition]:
        return [TopicPartition(topic=self.topic, partition=each) for each in partitions]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self.streams:
            await each.close()


async def test_a_member_alone_gets_everything_in_rows(served: Served) -> None:
    topic = await served.topic(2)
    await served.produce(topic.name, b"a", b"b")
    await served.produce(topic.name, b"c", partition=1)
    async with Group(served, topic.name) as group:
        stream = group.open()
        await stream.hears("joined", "assigned 0@0 1@0", "0: 0-2", "1: 0-1")
        await served.produce(topic.name, b"d", partition=1)
        await stream.hears("1: 1-2")
        values = [one.value for each in stream.events for one in each.records.data.records]
        assert sorted(values) == [b"a", b"b", b"c", b"d"]
        assert all(
            each.records.charged_bytes > 0 for each in stream.events if each.HasField("records")
        )


async def test_columns_come_as_they_are_stored(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a", b"b")
    async with Group(served, topic.name) as group:
        stream = group.open(layout=record_pb2.LAYOUT_COLUMNS)
        await stream.hears("0: 0-2")
        (batch,) = stream.events[-1].records.data.batches
        assert list(batch.records.values) == [b"a", b"b"]


async def test_two_members_share_and_the_first_hears_only_of_what_it_loses(served: Served) -> None:
    topic = await served.topic(4)
    async with Group(served, topic.name) as group:
        first = group.open()
        await first.hears("assigned 0@0 1@0 2@0 3@0")
        second = group.open()
        await second.hears("joined")
        told = await first.until(lambda told: told[-1].startswith("revoking"))
        lost = [each.partition for each in first.events[-1].revoking.partitions]
        assert len(lost) == 2
        assert told.count("heartbeat") == 0
        await asyncio.sleep(0.2)
        assert len(second.told) == 1, "nobody is given what another still has"
        first.send(revoked=RevokeDone(partitions=group.named(*lost)))
        await second.until(lambda told: told[-1].startswith("assigned"))
        assert sorted(each.partition for each in second.events[-1].assigned.added) == sorted(lost)


async def test_commits_are_kept_for_who_comes_next(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, *(b"%d" % each for each in range(10)))
    async with Group(served, topic.name) as group:
        first = group.open()
        await first.hears("0: 0-10")
        group.commit(first, 1, 0, 4)
        await first.hears("committed 1")
        first.send(leave=LeaveRequest())
        await asyncio.wait_for(first.ended.wait(), 10)
        assert first.refusal is None
        second = group.open()
        await second.hears("assigned 0@4c", "0: 4-10")


async def test_a_start_at_the_end_gets_only_what_comes(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a")
    async with Group(served, topic.name) as group:
        stream = group.open(start=EDGE_LATEST)
        await stream.hears("assigned 0@1")
        await served.produce(topic.name, b"b")
        await stream.hears("0: 1-2")


async def test_a_topic_that_comes_later_is_joined_by_name_and_by_pattern(served: Served) -> None:
    name = f"later-{next(_names)}"
    async with Group(served, name) as group:
        by_name = group.open()
        await by_name.hears("joined")
        other = Group(served, name)
        by_pattern = other.open(topics=[], topic_patterns=["later-*"])
        group.streams.append(by_pattern)
        await by_pattern.hears("joined")
        await served.topic(1, name)
        await served.produce(name, b"v")
        await by_name.hears("assigned 0@0", "0: 0-1")
        await by_pattern.until(lambda told: "0: 0-1" in told)


async def test_a_deleted_topic_is_revoked_and_its_commits_fail(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"v")
    async with Group(served, topic.name) as group:
        stream = group.open()
        await stream.hears("0: 0-1")
        await served.topics.DeleteTopic(DeleteTopicRequest(name=topic.name), timeout=TIMEOUT_S)
        await stream.hears("revoking 0 2")
        group.commit(stream, 1, 0, 1)
        await stream.hears("committed 1 0=UNKNOWN_TOPIC")
        stream.send(revoked=RevokeDone(partitions=group.named(0)))
        again = await served.topic(1, topic.name)
        await served.produce(again.name, b"w")
        await stream.until(lambda told: told.count("assigned 0@0") == 2 and told[-1] == "0: 0-1")


async def test_a_seek_and_a_pause(served: Served) -> None:
    topic = await served.topic(2)
    await served.produce(topic.name, b"a", b"b", b"c")
    async with Group(served, topic.name) as group:
        stream = group.open()
        await stream.hears("0: 0-3")
        where = Position(topic=topic.name, partition=0, offset=1)
        stream.send(seek=SeekPartition(tag=9, position=where))
        await stream.hears("sought 9 at 1", "0: 1-3")
        stream.send(pause=PausePartitions(partitions=group.named(0), paused=True))
        back = Position(topic=topic.name, partition=1, edge=EDGE_EARLIEST)
        stream.send(seek=SeekPartition(tag=10, position=back))
        # Requests are taken in order: what follows was said after the pause.
        await stream.hears("sought 10 at 0")
        await served.produce(topic.name, b"d")
        await served.produce(topic.name, b"e", partition=1)
        await stream.hears("1: 0-1")
        assert "0: 3-4" not in stream.told
        stream.send(pause=PausePartitions(partitions=group.named(0), paused=False))
        await stream.hears("0: 3-4")


async def test_a_window_of_4_mib_fills_and_commits_empty_it(served: Served) -> None:
    topic = await served.topic()
    for _ in range(7):
        await served.produce(topic.name, b"x" * (1 << 20))
    async with Group(served, topic.name) as group:
        stream = group.open(layout=record_pb2.LAYOUT_COLUMNS)

        def taken() -> int:
            return max([each.records.data.next_offset for each in stream.events], default=0)

        await stream.until(lambda _: taken() >= 4)
        await asyncio.sleep(0.3)
        assert 4 <= taken() <= 6, "a little more than the window, for the last batch is whole"
        group.commit(stream, 1, 0, taken())
        await stream.until(lambda _: taken() == 7)


async def test_a_stream_that_broke_is_resumed_without_a_rebalance(served: Served) -> None:
    topic = await served.topic(2)
    async with Group(served, topic.name) as group:
        first, second = group.open(), group.open()
        await first.hears("joined")
        await second.hears("joined")
        member, token = first.member_id, first.token
        await first.close()
        again = group.open(resume_token=token)
        await again.hears("resumed")
        assert again.member_id == member
        await again.until(lambda told: any(each.startswith("assigned") for each in told))


async def test_an_instance_takes_over_what_it_had(served: Served) -> None:
    topic = await served.topic(2)
    async with Group(served, topic.name) as group:
        first = group.open(instance_id="pod-0")
        await first.hears("assigned 0@0 1@0")
        second = group.open(instance_id="pod-0")
        refused = await second.refused()
        assert (refused.reason, refused.outcome) == ("INSTANCE_IN_USE", "NOT_APPLIED")
        await first.close()

        async def taken_over() -> Stream:
            while True:
                third = group.open(instance_id="pod-0")
                await third.changed.wait()
                if third.events:
                    return third

        third = await asyncio.wait_for(taken_over(), 10)
        await third.hears("assigned 0@0 1@0")


async def test_a_member_that_does_nothing_with_its_records_is_fenced(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"v")
    async with Group(served, topic.name) as group:
        busy = group.open(max_processing_ms=1000)
        refused = await busy.refused()
        assert refused.reason == "MEMBER_FENCED"
        assert refused.metadata["fence_reason"] == "PROCESSING_TOO_LONG"
        idle = group.open(max_processing_ms=1000)
        await idle.hears("0: 0-1")
        group.commit(idle, 1, 0, 1)
        await idle.until(lambda told: "heartbeat" in told)


async def test_a_member_that_does_not_let_go_is_fenced(served: Served) -> None:
    topic = await served.topic(2)
    async with Group(served, topic.name) as group:
        first = group.open(max_processing_ms=1000)
        await first.hears("assigned 0@0 1@0")
        second = group.open()
        refused = await first.refused()
        assert refused.metadata["fence_reason"] == "REVOKE_TOO_LONG"
        await second.until(lambda _: sum(len(e.assigned.added) for e in second.events) == 2)


async def test_a_draining_node_ends_the_streams(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serve(tmp_path))
        topic = await one.topic()
        stream = Stream(one.groups, group="g", topics=[topic.name])
        stack.push_async_callback(stream.close)
        await stream.hears("assigned 0@0")
        one.node.stop()
        refused = await stream.refused()
        assert (refused.reason, refused.outcome) == ("NODE_UNAVAILABLE", "NOT_APPLIED")


async def test_p5_members_that_come_and_go_never_share(served: Served) -> None:
    topic = await served.topic(6)
    history = History()
    join = {"group": f"group-{next(_names)}", "topics": [topic.name]}
    consumers = [Consumer([served.groups], history, join) for _ in range(4)]
    sent: set[tuple[int, bytes]] = set()

    async def produce() -> None:
        for at in range(120):
            value = b"%d" % at
            await served.produce(topic.name, value, partition=at % 6)
            sent.add((at % 6, value))

    producing = asyncio.create_task(produce())
    try:
        for each in consumers:
            each.start()
            await asyncio.sleep(0.15)
        await consumers[0].stop()
        consumers[1].stream.send(leave=LeaveRequest())  # type: ignore[union-attr]
        await producing

        def seen() -> set[tuple[int, bytes]]:
            return {(part, value) for each in consumers for part, _, value in each.seen}

        await until(lambda: seen() == sent)
        assert history.violations == []
    finally:
        producing.cancel()
        for each in consumers:
            await each.stop()
