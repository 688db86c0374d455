"""WatchCluster (contract 18): a snapshot in parts, then what changes, for the topics asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from rakit.api.v1.cluster_service_pb2 import WatchClusterRequest, WatchClusterResponse
from rakit.api.v1.topic_service_pb2 import (
    DeleteTopicRequest,
    TopicConfig,
    UpdateTopicRequest,
)
from rakit.node.services import watch
from tests.node.services.served import TIMEOUT_S, Served, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

Until = Callable[[Callable[[], bool]], Awaitable[None]]


class Seen:
    """What a client has been told so far, merged as the protocol says."""

    def __init__(self) -> None:
        self.version = 0
        self.snapshots = 0
        self.nodes: dict[int, str] = {}
        # Name to partition to leader.
        self.topics: dict[str, dict[int, int]] = {}
        self.retention: dict[str, int] = {}
        self.partitions_max = 0

    def take(self, answer: WatchClusterResponse) -> None:
        assert answer.version == self.version + 1
        self.version = answer.version
        self.snapshots += answer.is_snapshot
        if answer.nodes:
            self.nodes = {each.node_id: each.name for each in answer.nodes}
        for name in answer.deleted_topics:
            del self.topics[name]
        count = len(answer.partitions)
        for topic in answer.topics:
            count += len(topic.partitions)
            self.retention[topic.name] = topic.config.retention_ms
            known = self.topics.setdefault(topic.name, {})
            known.update({each.partition: each.leader_node_id for each in topic.partitions})
        for change in answer.partitions:
            one = change.partition
            self.topics[change.topic][one.partition] = one.leader_node_id
        self.partitions_max = max(self.partitions_max, count)


@asynccontextmanager
async def watching(served: Served, *topics: str) -> AsyncGenerator[tuple[Seen, Until]]:
    """What is seen, and a way to wait until it is as it should be."""
    seen, came = Seen(), asyncio.Event()
    call = served.cluster.WatchCluster(WatchClusterRequest(topics=topics))

    async def read() -> None:
        async for answer in call:
            seen.take(answer)
            came.set()

    reading = asyncio.create_task(read())

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                came.clear()
                await came.wait()

    try:
        yield seen, until
    finally:
        call.cancel()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_watch_begins_with_what_there_is_and_tells_what_changes(served: Served) -> None:
    first = await served.topic(2)
    async with watching(served) as (seen, until):
        await until(lambda: first.name in seen.topics)
        assert seen.nodes == {1: "one"}
        assert seen.topics[first.name] == {0: 1, 1: 1}
        snapshots = seen.snapshots
        second = await served.topic(3)
        await until(lambda: seen.topics.get(second.name) == {0: 1, 1: 1, 2: 1})
        config = TopicConfig(retention_ms=60_000)
        request = UpdateTopicRequest(name=second.name, config=config)
        await served.topics.UpdateTopic(request, timeout=TIMEOUT_S)
        await until(lambda: seen.retention[second.name] == 60_000)
        await served.topics.DeleteTopic(DeleteTopicRequest(name=second.name), timeout=TIMEOUT_S)
        await until(lambda: second.name not in seen.topics)
        await served.topic(1, second.name)
        await until(lambda: seen.topics.get(second.name) == {0: 1})
        assert seen.snapshots == snapshots, "changes are not snapshots"


async def test_a_watch_of_some_topics_tells_of_no_others(served: Served) -> None:
    wanted = "wanted-later"
    async with watching(served, wanted) as (seen, until):
        await until(lambda: bool(seen.snapshots))
        await served.topic(1)
        await served.topic(2, wanted)
        await until(lambda: wanted in seen.topics)
        assert set(seen.topics) == {wanted}


async def test_a_large_topic_comes_in_parts(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PARTITIONS_COUNT_MAX", 3)
    topic = await served.topic(8)
    async with watching(served, topic.name) as (seen, until):
        await until(lambda: len(seen.topics.get(topic.name, {})) == 8)
        assert seen.snapshots >= 4
        assert seen.partitions_max == 3


async def test_a_quiet_watch_gives_signs_of_life(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.05)
    async with watching(served, "nothing") as (seen, until):
        await until(lambda: seen.version >= 3)
        assert seen.topics == {}


async def test_changes_of_what_is_not_watched_are_no_reason_for_silence(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.3)
    monkeypatch.setattr(watch, "GATHER_S", 0.01)
    leaders = served.node.host.leaders

    async def change() -> None:
        while True:
            for callback in list(leaders._callbacks):
                callback(1, None)
            await asyncio.sleep(0.02)

    async with watching(served, "nothing") as (seen, until):
        changing = asyncio.create_task(change())
        try:
            await until(lambda: seen.version >= 4)
        finally:
            changing.cancel()


async def test_a_watch_of_too_many_topics_is_refused(served: Served) -> None:
    names = [f"t{number}" for number in range(watch.TOPICS_COUNT_MAX + 1)]
    call = served.cluster.WatchCluster(WatchClusterRequest(topics=names))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    refusal = refusal_of(raised.value)
    assert (refusal.reason, refusal.metadata["limit"]) == ("INVALID_REQUEST", "1024")
