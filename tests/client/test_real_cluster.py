"""The SDK against three node processes that are killed, paused and stopped under it (P1 to P3)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from rakit.client import Client, Producer, Topic
from rakit.client.demo.processes import SMALL_RESERVE, LocalCluster, NodeProcess
from rakit.client.producing.batch import Delivery

pytestmark = pytest.mark.cluster

KEYS_COUNT = 20


class Sender:
    """Sends numbered records for as long as it is wanted."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.deliveries: list[Delivery] = []
        self._stopping = asyncio.Event()
        self._sent = asyncio.Event()

    async def run(self) -> None:
        while not self._stopping.is_set():
            for _ in range(20):
                number = len(self.deliveries)
                key = b"%d" % (number % KEYS_COUNT)
                self.deliveries.append(await self._producer.send("t", b"%d" % number, key))
            self._sent.set()
            await asyncio.sleep(0.002)

    def stop(self) -> None:
        self._stopping.set()

    async def progress(self, client: Client) -> None:
        """Waits until every partition has taken records that are sent from now on."""
        topic = await client.admin.get_topic("t")
        fresh = len(self.deliveries)
        waiting = {each.partition for each in topic.partitions}
        while waiting:
            while len(self.deliveries) <= fresh:
                self._sent.clear()
                await self._sent.wait()
            waiting.discard((await self.deliveries[fresh]).partition)
            fresh += 1


def leader_of_most(cluster: LocalCluster, topic: Topic) -> NodeProcess:
    count = Counter(each.leader_address for each in topic.partitions)
    ((address, _),) = count.most_common(1)
    return next(node for node in cluster.nodes if node.address == address)


async def check(client: Client, sent: list[Delivery]) -> None:
    receipts = await asyncio.gather(*sent)
    read: dict[tuple[int, int], int] = {}
    async with client.reader("t") as reader:
        async for record in reader:
            assert record.value is not None
            read[record.partition, record.offset] = int(record.value)
    places = [(receipt.partition, receipt.offset) for receipt in receipts]
    assert [read[place] for place in places] == list(range(len(sent)))
    assert len(read) == len(sent)
    newest: dict[int, int] = {}
    for _, number in sorted(read.items()):
        assert newest.get(number % KEYS_COUNT, -1) < number
        newest[number % KEYS_COUNT] = number


async def test_p1_p3_nothing_is_lost_doubled_or_swapped_while_nodes_fail(tmp_path: Path) -> None:
    async with (
        LocalCluster(tmp_path, extra=SMALL_RESERVE) as cluster,
        Client(cluster.bootstrap) as client,
    ):
        await client.admin.create_topic("t", 3, 3)
        async with client.producer() as producer:
            sender = Sender(producer)
            sending = asyncio.create_task(sender.run())
            await sender.progress(client)

            killed = leader_of_most(cluster, await client.admin.get_topic("t"))
            killed.kill()
            await killed.wait()
            await sender.progress(client)
            await killed.start()

            paused = leader_of_most(cluster, await client.admin.get_topic("t"))
            os.kill(paused.pid, signal.SIGSTOP)
            await sender.progress(client)
            os.kill(paused.pid, signal.SIGCONT)

            stopped = leader_of_most(cluster, await client.admin.get_topic("t"))
            await stopped.stop()
            await sender.progress(client)
            sender.stop()
            await sending
        await check(client, sender.deliveries)
