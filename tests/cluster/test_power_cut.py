"""All nodes lose their power at the same instant, under load, each with a disk of its own (P1).

The processes are stopped before the disks are cut, so no node can notice anything: what it had
acknowledged by then is all that counts, and what its kernel had not synced is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rakit.client.client import Client
from rakit.client.config import ProducerConfig
from rakit.client.demo.flights import Flight
from rakit.client.demo.readback import read_back
from rakit.client.demo.verify import judge
from rakit.client.producing.batch import Delivery
from rakit.client.producing.producer import Producer
from tests.cluster.harness import Cluster, cluster_of, until
from tests.multiraft.store.loop import LoopDisk, require_disks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMES = ("a", "b", "c")
DISK_MEBIBYTES = 256
PARTITIONS = 3
#: Acknowledged before each cut.
RECORDS = 3_000
CUTS = 2
#: Small batches, so that many are at every stage when the power goes.
PRODUCER = ProducerConfig(batch_bytes_max=2 << 10, unacknowledged_bytes_max=64 << 10)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[dict[str, LoopDisk]]:
    require_disks()
    with ExitStack() as stack:
        made: dict[str, LoopDisk] = {}
        for name in NAMES:
            base = tmp_path / f"disk-{name}"
            base.mkdir()
            made[name] = stack.enter_context(LoopDisk(base, DISK_MEBIBYTES))
        yield made


def cut_the_power(cluster: Cluster, disks: dict[str, LoopDisk]) -> None:
    """Everything stands still, then what was not synced is gone, and so are the processes."""
    for node in cluster.nodes.values():
        node.pause()
    for disk in disks.values():
        disk.shut_down()
    for node in cluster.nodes.values():
        node.kill()
    for disk in disks.values():
        disk.power_cycle()


class Sender:
    """Sends records as fast as they are acknowledged, until it is told to stop."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.sent: list[Flight] = []
        self.deliveries: list[Delivery] = []
        self.acknowledged = 0
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            number = len(self.sent)
            record = Flight(b"key-%d" % (number % 31), b"value-%d" % number)
            self.sent.append(record)
            delivery = await self._producer.send("t", record.value, record.key)
            delivery.add_done_callback(self._acknowledged)
            self.deliveries.append(delivery)
        await self._producer.flush()

    def _acknowledged(self, _delivery: Delivery) -> None:
        self.acknowledged += 1

    async def reach(self, count: int) -> None:
        async def reached() -> bool:
            return self.acknowledged >= count

        await until(f"{count} acknowledgements", reached)


async def test_p1_nothing_acknowledged_is_lost_when_every_node_loses_power_at_once(
    tmp_path: Path, disks: dict[str, LoopDisk]
) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        for name, disk in disks.items():
            cluster.nodes[name].data_dir.symlink_to(disk.mount_point, target_is_directory=True)
        cluster.start()
        await cluster.ready()
        await cluster.create("t", partitions=PARTITIONS)
        bootstrap = ",".join(node.address for node in cluster.nodes.values())
        async with Client(bootstrap) as client, client.producer(PRODUCER) as producer:
            sender = Sender(producer)
            sending = asyncio.create_task(sender.run())
            for _ in range(CUTS):
                await sender.reach(sender.acknowledged + RECORDS)
                cut_the_power(cluster, disks)
                cluster.start()
            await sender.reach(sender.acknowledged + RECORDS)
            sender.stopping = True
            await sending
        receipts = [delivery.result() for delivery in sender.deliveries]
        assert all(receipt.fsynced for receipt in receipts)
        places = [(receipt.partition, receipt.offset) for receipt in receipts]
        verdict = judge(
            sender.sent, places, await read_back(bootstrap.split(",")[1], "t", PARTITIONS)
        )
        assert verdict.kept, verdict
        assert verdict.read == len(sender.sent) > CUTS * RECORDS
