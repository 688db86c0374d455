"""What users build their own tests on, used as they use it."""

from __future__ import annotations

import pytest

from rakit.client import Client as AsyncClient
from rakit.client.sync import Client
from rakit.testing import Broker, Cluster

pytest_plugins = ["rakit.testing.plugin"]


def test_a_broker_serves_programs_without_asyncio(rakit_broker: Broker) -> None:
    with Client(rakit_broker.bootstrap) as client:
        client.admin.create_topic("orders")
        with client.producer() as producer:
            assert producer.send("orders", b"one").result().offset == 0
        with client.reader("orders") as reader:
            assert [each.value for each in reader] == [b"one"]


async def test_a_broker_serves_programs_with_asyncio(rakit_broker: Broker) -> None:
    async with AsyncClient(rakit_broker.bootstrap) as client:
        await client.admin.create_topic("invoices")
        async with client.producer() as producer:
            receipt = await (await producer.send("invoices", b"one"))
        assert (receipt.offset, receipt.fsynced) == (0, True)


@pytest.mark.cluster
def test_a_cluster_has_three_nodes(rakit_cluster: Cluster) -> None:
    with Client(rakit_cluster.bootstrap) as client:
        assert [each.is_up for each in client.admin.get_cluster().nodes] == [True] * 3


@pytest.mark.cluster
def test_a_cluster_survives_what_a_test_does_to_it() -> None:
    with Cluster(3) as cluster, Client(cluster.bootstrap) as client:
        client.admin.create_topic("orders", partitions=3)
        with client.producer() as producer:
            producer.send_batch("orders", [b"one", b"two"], partition=0).result()
            cluster.kill(0)
            assert not cluster.pid(0)
            receipt = producer.send_batch("orders", [b"three"], partition=0).result()
            assert receipt.offset == 2
        cluster.start(0)
        assert cluster.pid(0)
        with client.reader("orders", [0]) as reader:
            assert [each.value for each in reader] == [b"one", b"two", b"three"]
