"""Stores that cannot be trusted as a whole: given up where they can be spared, by nobody's hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rakit.api.v1.cluster_service_pb2 import DAMAGE_KIND_STORE_UNCOMPACTED, GetClusterRequest
from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig, uncompacted
from rakit.multiraft.store.errors import Fault
from rakit.node.metadata.registry import METADATA_GROUP_ID
from tests.cluster.harness import Cluster, NodeProcess, cluster_of, read_all, until
from tests.cluster.test_evictions import replicas
from tests.cluster.test_three_nodes import put, same_on_all

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
NAMES = ("a", "b", "c")
VALUES = [random.Random(number).randbytes(20_000) for number in range(12)]
BAD_BLOCK = "Corruption: block checksum mismatch"


def does_not_open(node: NodeProcess) -> None:
    """Its list of tables is garbage."""
    for path in (node.data_dir / "db").glob("MANIFEST-*"):
        path.write_bytes(bytes(len(path.read_bytes())))


def has_no_metadata(node: NodeProcess) -> None:
    """Its replica of the metadata group has an entry that is not what was written."""
    config = StoreConfig(directory=node.data_dir, reserve_bytes=1 << 20)
    store = RocksStore.open(config, node.name)
    rows = list(store.scan(*keys.group_range(keys.ENTRY, METADATA_GROUP_ID)))
    writes = WriteBatch()
    for key, row in rows:
        writes.put(key, row[:-1] + bytes([row[-1] ^ 4]))
    store.write(writes)
    store.flush_wal()
    store.close()


def has_a_bad_block(node: NodeProcess) -> None:
    """RocksDB has met it, and the node ended with 11."""
    uncompacted.note(node.data_dir, Fault.CORRUPTION, BAD_BLOCK)


async def filled(cluster: Cluster) -> None:
    cluster.start()
    await cluster.ready()
    await cluster.create("t")
    for value in VALUES:
        await put(cluster.nodes["a"], "t", value)
    await same_on_all(cluster, "t")


async def store_uuid(node: NodeProcess, name: str) -> str:
    answer = await node.cluster.GetCluster(GetClusterRequest(), timeout=5)
    return next(each.store_uuid for each in answer.nodes if each.name == name)


@pytest.mark.parametrize("damage", [does_not_open, has_no_metadata])
async def test_s9_p7_a_store_that_can_be_spared_is_given_up_and_filled_anew(
    tmp_path: Path, damage: Callable[[NodeProcess], None]
) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        await filled(cluster)
        leader = await cluster.leader("t")
        victim, third = cluster.others(leader)
        old, old_uuid = await replicas(leader), await store_uuid(leader, victim.name)
        await victim.stop()
        damage(victim)
        cluster.start(victim.name)
        assert await victim.ended() == 11
        # As whoever supervises it does.
        cluster.start(victim.name)
        await cluster.ready()
        assert await store_uuid(leader, victim.name) != old_uuid

        async def exchanged() -> bool:
            now = await replicas(leader)
            return len(now - old) == 1 and len(now) == 3

        await until("a new replica votes in the place of the old one", exchanged)
        await same_on_all(cluster, "t")
        # It votes: without it the other one would be no majority.
        third.kill()
        await put(leader, "t", b"after")
        assert await read_all(victim, "t") == [*VALUES, b"after"]


async def test_s9_bad_blocks_on_two_nodes_stop_nobody_and_neither_store_is_given_up(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        await filled(cluster)
        leader = await cluster.leader("t")
        others = cluster.others(leader)
        uuids = [await store_uuid(leader, each.name) for each in others]
        for each in others:
            await each.stop()
            has_a_bad_block(each)
        cluster.start(*(each.name for each in others))
        serving = (until(f"{each.name} serves", partial(shown, each)) for each in others)
        await asyncio.gather(*serving)
        assert [await store_uuid(leader, each.name) for each in others] == uuids
        await put(leader, "t", b"after")
        for each in others:
            assert await read_all(each, "t") == [*VALUES, b"after"]


async def shown(node: NodeProcess) -> bool:
    """Whether a node works, and says what is wrong with its store."""
    answer = await node.cluster.GetCluster(GetClusterRequest(), timeout=5)
    kinds = {each.kind: each.message for each in answer.damages}
    return BAD_BLOCK in kinds.get(DAMAGE_KIND_STORE_UNCOMPACTED, "")
