"""Leaders that move are followed without a failure; without a watch all works as well."""

from __future__ import annotations

import asyncio

from rakit.api.v1.cluster_service_pb2 import WatchClusterResponse
from rakit.client import Client, ClientConfig
from rakit.client.connections import Connections
from rakit.client.metadata import Metadata

from .fake_cluster import FakeCluster


async def test_a_producer_follows_a_leader_that_moved(fake: FakeCluster, client: Client) -> None:
    async with client.producer() as producer:
        await (await producer.send("t", b"a", partition=0))
        await fake.is_watched.wait()
        fake.move("t", 0, 3)
        while True:
            # The news is on its way; until it comes, the old leader refuses and names the new one.
            await (await producer.send("t", b"b", partition=0))
            node, _ = fake.seen[-1]
            if node == 3:
                break
    assert fake.watched[-1] == ["t"]


async def test_what_a_watch_says_is_known_without_a_request(fake: FakeCluster) -> None:
    config = ClientConfig(tuple(fake.bootstrap.split(",")))
    connections = Connections(config)
    metadata = Metadata(connections, config.bootstrap)
    told = asyncio.Event()
    take = metadata._told

    def noting(news: WatchClusterResponse) -> None:
        take(news)
        told.set()

    metadata._watch._take = noting
    await metadata.topic("t")
    metadata.follow("t")
    await fake.is_watched.wait()
    asked = sum(node.topic_questions for node in fake.nodes.values())
    fake.move("t", 0, 2)
    async with asyncio.timeout(5):
        await told.wait()
    assert metadata.leader_address("t", 0) == fake.nodes[2].address
    assert sum(node.topic_questions for node in fake.nodes.values()) == asked
    await metadata.close()
    await connections.close()


async def test_one_more_topic_widens_the_watch(fake: FakeCluster, client: Client) -> None:
    fake.create("u", [1])
    async with client.producer() as producer:
        await (await producer.send("t", b"a", partition=0))
        await fake.is_watched.wait()
        fake.is_watched.clear()
        await (await producer.send("u", b"a", partition=0))
        await fake.is_watched.wait()
    assert fake.watched[-1] == ["t", "u"]
