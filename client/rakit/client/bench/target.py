"""The cluster that is measured: three node processes of our own, or one that runs already.

Rules:

- Our own nodes live in a temporary directory (TMPDIR says where), know nothing of other clusters,
  and are ended and forgotten however the run ends.
- On a cluster of others only topics of ours are touched, and they are deleted again.
- A cluster of others is never taken by accident: RAKIT_BOOTSTRAP does not count here, because a
  bench is a load that nobody wants on a cluster in use.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rakit.client.bench.usage import Usage
from rakit.client.client import Client
from rakit.client.demo.processes import LocalCluster, NodeProcess
from rakit.client.model import TopicConfig

NODES_COUNT: Final = 3
#: What nodes say below this would be work that is not the measured one.
LOGGING: Final = ("--log-level", "warning")


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster that serves."""

    bootstrap: str
    # Empty for a cluster of others.
    nodes: tuple[NodeProcess, ...] = ()
    # Where our own nodes keep their data.
    directory: Path | None = None

    def usage(self) -> Usage | None:
        """Watches the nodes; None when they are not ours."""
        return Usage(node.pid for node in self.nodes) if self.nodes else None

    @property
    def description(self) -> str:
        """What it is, for the head of a report."""
        return f"{len(self.nodes)} own nodes" if self.nodes else self.bootstrap


@asynccontextmanager
async def own_cluster(count: int = NODES_COUNT) -> AsyncGenerator[Target]:
    """Starts nodes, and ends them afterwards."""
    with tempfile.TemporaryDirectory(prefix="rakit-bench-") as name:
        directory = Path(name)
        async with LocalCluster(directory, count, LOGGING) as cluster:
            yield Target(cluster.bootstrap, tuple(cluster.nodes), directory)


@asynccontextmanager
async def cluster_at(bootstrap: str | None) -> AsyncGenerator[Target]:
    """The cluster at an address, or one of our own."""
    if bootstrap is not None:
        yield Target(bootstrap)
        return
    async with own_cluster() as target:
        yield target


@asynccontextmanager
async def bench_topic(
    client: Client, partitions: int, config: TopicConfig | None = None
) -> AsyncGenerator[str]:
    """Creates a topic with up to three replicas, and deletes it afterwards."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    await client.admin.create_topic(name, partitions, config=config)
    try:
        yield name
    finally:
        await client.admin.delete_topic(name)
