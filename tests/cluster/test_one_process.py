"""One store, one process: copies of a directory, and nodes that were away while replaced (S11)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from rakit.api.v1.cluster_service_pb2 import GetClusterRequest, Node
from tests.cluster.harness import Cluster, NodeProcess, cluster_of, read_all, until
from tests.cluster.test_three_nodes import put, same_on_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def seen(cluster: Cluster, name: str) -> Node:
    """A node as another one sees it."""
    answer = await cluster.nodes["a"].cluster.GetCluster(GetClusterRequest(), timeout=5)
    return next(each for each in answer.nodes if each.name == name)


def reason(node: NodeProcess) -> str:
    lines = [line for line in node.output.splitlines() if line.startswith("rakit: ")]
    return lines[-1] if lines else ""


async def ends_with_12(node: NodeProcess) -> None:
    try:
        assert await node.ended() == 12, node.tail
    finally:
        if node.process is not None:
            node.kill()


@pytest.mark.parametrize("behind", [True, False])
async def test_s11_a_copy_of_a_living_nodes_directory_ends_and_costs_the_node_nothing(
    tmp_path: Path, behind: bool
) -> None:
    async with cluster_of(tmp_path / "c", "a", "b", "c") as cluster:
        cluster.start()
        await cluster.ready()
        await cluster.create("t")
        original = cluster.nodes["b"]
        assert await original.stop() == 0
        copy = NodeProcess("b", tmp_path / "copy")
        copy.directory.mkdir()
        shutil.copytree(original.data_dir, copy.data_dir)
        cluster.start("b")
        await cluster.ready()
        written = 0
        if behind:
            for number in range(50):
                written = 1 + await put(original, "t", b"%d" % number)
            await same_on_all(cluster, "t")
        copy.start(cluster.seeds, 3)
        await ends_with_12(copy)
        assert "two living nodes with one name" in reason(copy) or "went back" in reason(copy)
        node = await seen(cluster, "b")
        assert (node.state, node.peer_address) == (1, original.peer_address)
        # The original still counts: with it and without another one there is a majority.
        cluster.nodes["c"].kill()

        async def wrote() -> bool:
            assert await put(cluster.nodes["a"], "t", b"more", 0) >= written
            return True

        await until("a write by the node and its original", wrote)
        assert len(await read_all(original, "t")) > written


async def test_s11_a_node_that_was_replaced_while_it_stood_still_ends_when_it_wakes(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "c", "a", "b", "c") as cluster:
        cluster.start()
        await cluster.ready()
        await cluster.create("t", partitions=3)
        old = cluster.nodes["b"]
        old.pause()
        fresh = NodeProcess("b", tmp_path / "fresh")
        fresh.directory.mkdir()

        async def taken() -> bool:
            """Until the leader is sure that the old one is gone, the new one is refused."""
            if fresh.process is None or fresh.process.poll() is not None:
                fresh.process = None
                fresh.start(cluster.seeds, 3)
            node = await seen(cluster, "b")
            return node.state == 1 and node.peer_address == fresh.peer_address

        try:
            await until("the new store takes the old one's place", taken)
            old.resume()
            await ends_with_12(old)
            assert "this data directory (store " in reason(old)
            assert "was given up when node" in reason(old)
            node = await seen(cluster, "b")
            assert (node.state, node.peer_address) == (1, fresh.peer_address)
            # Whoever was elected meanwhile was not disturbed for long.
            writes = (put(cluster.nodes["a"], "t", b"v", number) for number in range(3))
            assert await asyncio.wait_for(asyncio.gather(*writes), 10) == [0, 0, 0]
        finally:
            if fresh.process is not None:
                fresh.kill()
            await fresh.close()
