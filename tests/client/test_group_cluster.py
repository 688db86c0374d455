"""Members of the SDK on three node processes that are killed under them (P5)."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from rakit.client import Client, GroupConfig, Hooks, TopicPartition
from rakit.client.demo.processes import SMALL_RESERVE, LocalCluster

pytestmark = pytest.mark.cluster

RECORDS_COUNT = 3_000
PARTITIONS_COUNT = 6


class Member:
    """Reads and commits until it is cancelled."""

    def __init__(self, client: Client, read: Counter[bytes], came: asyncio.Event) -> None:
        self._client = client
        self._read = read
        self._came = came
        self.owned: set[TopicPartition] = set()
        self.lost = 0

    async def run(self) -> None:
        async def assigned(partitions: object) -> None:
            self.owned |= set(partitions)  # type: ignore[call-overload]
            self._came.set()

        async def let_go(partitions: object) -> None:
            self.owned -= set(partitions)  # type: ignore[call-overload]

        hooks = Hooks(assigned=assigned, revoking=let_go, lost=let_go)
        config = GroupConfig(auto_commit_ms=50, session_grace_ms=6_000)
        consumer = self._client.group_consumer("g", ["t"], hooks=hooks, config=config)
        async with consumer:
            async for record in consumer:
                assert record.value is not None
                self._read[record.value] += 1
                self._came.set()


async def test_p5_members_read_everything_while_a_node_dies(tmp_path: Path) -> None:
    async with (
        LocalCluster(tmp_path, 3, SMALL_RESERVE) as cluster,
        Client(cluster.bootstrap) as client,
    ):
        await client.admin.create_topic("t", partitions=PARTITIONS_COUNT)
        read: Counter[bytes] = Counter()
        came = asyncio.Event()

        async def until_read(count: int) -> None:
            while len(read) < count:
                came.clear()
                await came.wait()

        members = [Member(client, read, came) for _ in range(3)]
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(90):
            running = [tasks.create_task(each.run()) for each in members]
            while sum(len(each.owned) for each in members) < PARTITIONS_COUNT:
                came.clear()
                await came.wait()
            async with client.producer() as producer:
                for number in range(RECORDS_COUNT):
                    await producer.send("t", b"%d" % number, key=b"%d" % number)
                await producer.flush()
                await until_read(RECORDS_COUNT)
                cluster.nodes[0].kill()
                await cluster.nodes[0].wait()
                for number in range(RECORDS_COUNT, 2 * RECORDS_COUNT):
                    await producer.send("t", b"%d" % number, key=b"%d" % number)
                await producer.flush()
                await until_read(2 * RECORDS_COUNT)
            running[2].cancel()
            await asyncio.wait({running[2]})
            while sum(len(each.owned) for each in members[:2]) < PARTITIONS_COUNT:
                came.clear()
                await came.wait()
            assert sorted(len(each.owned) for each in members[:2]) == [3, 3]
            for task in running[:2]:
                task.cancel()
        assert set(read) == {b"%d" % number for number in range(2 * RECORDS_COUNT)}
        # What was read and not committed when the node died may come again, and no more.
        assert sum(read.values()) - len(read) < RECORDS_COUNT
