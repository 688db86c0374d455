"""Clusters that the tests of this folder talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rakit.client import Client
from rakit.client.config import ClientConfig

from .fake_cluster import FakeCluster
from .fake_groups import FakeGroups


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    """Three fake nodes; topic `t` has three partitions, led by nodes 1, 2 and 3."""
    cluster = FakeCluster()
    await cluster.start(3)
    cluster.create("t", [1, 2, 3])
    yield cluster
    await cluster.stop()


@pytest.fixture
async def client(fake: FakeCluster) -> AsyncIterator[Client]:
    config = ClientConfig(
        tuple(fake.bootstrap.split(",")), request_timeout_ms=5_000, attempt_timeout_ms=1_000
    )
    async with Client(config) as client:
        yield client


@pytest.fixture
async def groups() -> AsyncIterator[FakeGroups]:
    """A group service that the test plays."""
    server = FakeGroups()
    await server.start()
    yield server
    await server.stop()
