"""Fixtures for pytest: name this module in `pytest_plugins`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# gRPC reads it when it is loaded; see `rakit.client.demo.processes`.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from rakit.testing import Broker, Cluster


@pytest.fixture(scope="session")
def rakit_broker() -> Iterator[Broker]:
    """One node in this process, for all tests of a session; take a topic of your own in each."""
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def rakit_cluster() -> Iterator[Cluster]:
    """Three nodes as processes, for the tests of a module. Start again what you kill."""
    with Cluster(3) as cluster:
        yield cluster
