"""Replicas whose data was damaged on the disk: replaced without anybody's help, or left alone."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from rakit.api.v1.cluster_service_pb2 import DAMAGE_KIND_REPLICA_SHUT_OUT, GetClusterRequest
from rakit.api.v1.topic_service_pb2 import REPLICA_ROLE_VOTER, GetTopicRequest
from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig
from tests.cluster.harness import Cluster, NodeProcess, cluster_of, read_all, until
from tests.cluster.test_three_nodes import Writer, batch, put, same_on_all
from tests.node.services.served import refusal_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
NAMES = ("a", "b", "c")
VALUES = [random.Random(number).randbytes(20_000) for number in range(12)]
OTHER_PARTITIONS = 3


def flip(node: NodeProcess, group_id: int, value: bytes) -> None:
    """Flips a bit of a record in the store of a stopped node; a second time mends it."""
    config = StoreConfig(directory=node.data_dir, reserve_bytes=1 << 20)
    store = RocksStore.open(config, node.name)
    rows = store.scan(*keys.group_range(keys.ENTRY, group_id))
    key, row = next((key, row) for key, row in rows if value[:50] in row)
    at = row.index(value[:50]) + 100
    writes = WriteBatch()
    writes.put(key, row[:at] + bytes([row[at] ^ 4]) + row[at + 1 :])
    store.write(writes)
    store.flush_wal()
    store.close()


async def filled(cluster: Cluster) -> int:
    """Two topics with records on every disk; returns the group of the first one."""
    cluster.start()
    await cluster.ready()
    group_id = (await cluster.create("t")).partitions[0].group_id
    await cluster.create("other", OTHER_PARTITIONS)
    for value in VALUES:
        await put(cluster.nodes["a"], "t", value)
    for partition in range(OTHER_PARTITIONS):
        await put(cluster.nodes["a"], "other", b"before", partition)
    await same_on_all(cluster, "t")
    return group_id


async def damage_count(node: NodeProcess) -> int:
    answer = await node.cluster.GetCluster(GetClusterRequest(), timeout=5)
    kinds = {each.kind for each in answer.damages}
    assert kinds <= {DAMAGE_KIND_REPLICA_SHUT_OUT}, answer.damages
    return len(answer.damages)


async def replicas(node: NodeProcess) -> set[int]:
    """The ids of those that vote."""
    answer = await node.topics.GetTopic(GetTopicRequest(name="t"), timeout=5)
    found = answer.topic.partitions[0].replicas
    return {each.replica_id for each in found if each.role == REPLICA_ROLE_VOTER}


async def is_sound(node: NodeProcess) -> bool:
    return await damage_count(node) == 0


async def is_damaged(node: NodeProcess) -> bool:
    return await damage_count(node) > 0


async def can_write(node: NodeProcess, topic: str, value: bytes) -> bool:
    await node.log.Produce(batch(topic, value), timeout=2)
    return True


async def test_s8_p7_a_damaged_replica_comes_back_under_a_new_id_without_anybodys_help(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        group_id = await filled(cluster)
        leader = await cluster.leader("t")
        victim, third = cluster.others(leader)
        old = await replicas(leader)
        await victim.stop()
        flip(victim, group_id, VALUES[5])
        writer = Writer([leader, third], "other")
        writing = asyncio.create_task(writer.run())
        cluster.start(victim.name)
        await cluster.ready()
        await until("its replica has been replaced", partial(is_sound, victim))
        await same_on_all(cluster, "t")
        assert f"group {group_id} is shut out on this node for good" in victim.output

        async def exchanged() -> bool:
            now = await replicas(leader)
            return len(now - old) == 1 and len(old - now) == 1 and len(now) == 3

        await until("a new replica votes in the place of the old one", exchanged)
        writer.stop()
        await writing
        assert writer.longest_gap_s < 10, "a partition that was not damaged had to wait"
        assert victim.process is not None
        assert victim.process.poll() is None
        values = await read_all(victim, "other", OTHER_PARTITIONS)
        assert sorted(values) == sorted([b"before"] * OTHER_PARTITIONS + writer.acknowledged)
        # It votes: without it the other one would be no majority.
        third.kill()
        await put(leader, "t", b"after")
        assert await read_all(victim, "t") == [*VALUES, b"after"]
        leader.kill()


async def test_s8_where_no_majority_is_well_nothing_is_replaced_and_all_of_it_is_kept(
    tmp_path: Path,
) -> None:
    async with cluster_of(tmp_path / "c", *NAMES) as cluster:
        group_id = await filled(cluster)
        leader = await cluster.leader("t")
        first, second = cluster.others(leader)
        for node in (first, second):
            await node.stop()
            flip(node, group_id, VALUES[5])
        cluster.start(first.name, second.name)
        await cluster.ready()
        for node in (first, second):
            await until(f"{node.name} shows its damage", partial(is_damaged, node))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await put(leader, "t", b"refused")
        assert refusal_of(caught.value).reason in {"NO_LEADER", "OUTCOME_UNKNOWN"}
        for node in (first, second):
            assert await is_damaged(node)
            assert "is replaced" not in node.output
        # One of them is well again: what it held is there, and the other one is replaced.
        await first.stop()
        flip(first, group_id, VALUES[5])
        cluster.start(first.name)
        await cluster.ready()
        await until("there is a leader again", partial(can_write, leader, "t", b"again"))
        await until("the other one is replaced", partial(is_sound, second))
        await same_on_all(cluster, "t")
        assert [value for value in await read_all(second, "t") if value in VALUES] == VALUES
