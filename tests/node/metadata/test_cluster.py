"""Whole clusters in one process: founding, joining, moving, losing disks. All of it is real."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, DeleteTopicRequest
from rakit.multiraft.config import HostConfig
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.machine import node_of
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands, leaderships
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import METADATA_GROUP_ID, TopicInfo
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.raft import ConfState
from tests.cluster.harness import free_port
from tests.node.metadata.machines import TestNode, together, trio, until


@asynccontextmanager
async def running(nodes: list[TestNode]) -> AsyncGenerator[list[TestNode], None]:
    """A cluster of these nodes; whoever is in the list at the end is stopped."""
    await together([node.join() for node in nodes])
    try:
        yield nodes
    finally:
        await together([node.stop() for node in nodes])


async def create(node: TestNode, name: str, partitions: int, factor: int = 0) -> TopicInfo:
    request = CreateTopicRequest(name=name, partition_count=partitions, replication_factor=factor)
    await node.metadata.client.submit(commands.create_topic(request))
    topic = node.metadata.registry.topic(name)
    assert topic is not None, "the answer comes when this node has it too"
    return topic


def conf_of(nodes: list[TestNode], group_id: int) -> ConfState:
    """The configuration as the group's leader knows it."""
    for node in nodes:
        group = node.host.group(group_id)
        if group is not None and group.ready:
            return group.conf_state
    return ConfState()


def metadata_voters(nodes: list[TestNode]) -> set[int]:
    return {node_of(one) for one in conf_of(nodes, METADATA_GROUP_ID).voters}


async def test_s26_three_empty_nodes_found_one_cluster_and_outlive_a_restart(
    tmp_path: Path,
) -> None:
    nodes = trio(tmp_path)
    async with running(nodes):
        assert len({node.machine.registry.cluster_id for node in nodes}) == 1
        by_store = sorted(nodes, key=lambda node: node.store.store_uuid)
        assert [node.node_id for node in by_store] == [1, 2, 3]
        assert metadata_voters(nodes) == {1, 2, 3}
        for asked in nodes:
            await create(asked, f"topic-of-{asked.name}", 4)
        groups = set(range(2, 14))
        await until(lambda: all(groups <= set(node.host.groups) for node in nodes))
        await until(lambda: sum(len(node.host.leaders.led_here()) for node in nodes) == 13)
        await nodes[0].metadata.client.submit(
            commands.delete_topic(DeleteTopicRequest(name="topic-of-n1"))
        )
        await until(lambda: all(len(node.host.groups) == 9 for node in nodes))
    async with running(nodes):
        for node in nodes:
            registry = await node.metadata.client.barrier()
            names = [one.name for one in registry.topics_after("", 10)]
            assert names == ["topic-of-n0", "topic-of-n2"]
            assert len(node.host.groups) == 9
        with pytest.raises(RakitError) as error:
            await nodes[0].metadata.client.topic("topic-of-n1")
        assert reason_name(error.value.reason) == "UNKNOWN_TOPIC"


async def test_s22_a_topic_is_known_everywhere_as_soon_as_it_was_acknowledged(
    tmp_path: Path,
) -> None:
    async with running(trio(tmp_path)) as nodes:
        for number in range(10):
            await create(nodes[number % 3], f"t{number}", 1)
            for node in nodes:
                topic = await node.metadata.client.topic(f"t{number}")
                assert topic.name == f"t{number}"


async def test_refusals_reach_the_caller_on_any_node(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        await create(nodes[0], "t", 1)
        for node in nodes:
            with pytest.raises(RakitError) as error:
                await create(node, "t", 1)
            assert reason_name(error.value.reason) == "TOPIC_EXISTS"
            assert not error.value.may_be_applied


async def test_a_later_node_joins_learns_votes_and_gets_replicas(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        await create(nodes[0], "old", 2)
        # It knows one member only, and expects to found nothing.
        late = TestNode(tmp_path / "late", "late", (nodes[1].address,), 0)
        await late.join()
        nodes.append(late)
        assert late.node_id == 4
        assert late.machine.registry.topic("old") is not None
        await until(lambda: metadata_voters(nodes) == {1, 2, 3, 4})
        topic = await create(late, "new", 4)
        assert all(one.on_node(4) is not None for one in topic.partitions)
        await until(lambda: all(one.group_id in late.host.groups for one in topic.partitions))


async def test_metadata_voters_are_five_at_most_and_the_rest_learn(tmp_path: Path) -> None:
    async with running(trio(tmp_path, 1)) as nodes:
        for number in range(1, 7):
            late = TestNode(tmp_path / f"n{number}", f"n{number}", (nodes[0].address,), 0)
            await late.join()
            nodes.append(late)

        def settled() -> bool:
            conf = conf_of(nodes, METADATA_GROUP_ID)
            return len(conf.voters) == 5 and len(conf.learners) == 2 and not conf.voters_outgoing

        await until(settled)
        # A learner routes and proposes like everybody.
        learner = next(
            node
            for node in nodes
            if node.node_id in {node_of(r) for r in conf_of(nodes, METADATA_GROUP_ID).learners}
        )
        assert await create(learner, "t", 1) == await nodes[0].metadata.client.topic("t")


async def test_a_node_that_returns_at_another_address_is_found(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        moved = nodes[2]
        await moved.stop()
        moved.port = free_port()
        await moved.join()

        def known() -> bool:
            return all(
                node.machine.registry.nodes[moved.node_id].peer_address == moved.address
                and node.host.node_is_up(moved.node_id)
                for node in nodes
            )

        await until(known)


async def test_a_cluster_that_returns_at_new_addresses_finds_itself_by_its_seeds(
    tmp_path: Path,
) -> None:
    nodes = trio(tmp_path)
    async with running(nodes):
        await create(nodes[0], "t", 1)
    for node in nodes:
        node.port = free_port()
    for node in nodes:
        node.seeds = tuple(one.address for one in nodes)
    async with running(nodes):
        for node in nodes:
            registry = await node.metadata.client.barrier()
            assert registry.topic("t") is not None
            addresses = {one.peer_address for one in registry.nodes.values()}
            assert addresses == set(node.seeds)


async def test_s11_a_node_that_lost_its_disk_is_admitted_and_its_old_replicas_are_dead(
    tmp_path: Path,
) -> None:
    async with running(trio(tmp_path)) as nodes:
        topic = await create(nodes[0], "t", 3)
        await until(lambda: all(len(node.host.groups) == 4 for node in nodes))
        lost = nodes[2]
        node_id = lost.node_id
        before = {one.group_id: one.replica_ids for one in topic.partitions}
        await lost.stop()
        kept = lost.directory.with_name("kept")
        shutil.move(lost.directory, kept)
        await lost.join(30)
        assert lost.node_id == node_id

        def exchanged() -> bool:
            for group_id, old in before.items():
                conf = conf_of(nodes, group_id)
                nodes_of_voters = sorted(node_of(one) for one in conf.voters)
                dead = [one for one in old if node_of(one) == node_id]
                if nodes_of_voters != [1, 2, 3] or set(dead) & set(conf.voters):
                    return False
            return metadata_voters(nodes) == {1, 2, 3}

        await until(exchanged)
        # The old disk comes back, as another machine: it is not let in again.
        await lost.stop()
        nodes.remove(lost)
        returned = TestNode(kept, lost.name, lost.seeds, 3)
        await returned.start()
        try:
            with pytest.raises(NodeRefusedError) as error:
                await returned.metadata.ready(20)
        finally:
            await returned.stop()
        assert error.value.refusal == pb.NODE_REFUSAL_STORE_REPLACED


async def test_s11_two_living_nodes_with_one_name_are_refused(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        twin = TestNode(tmp_path / "twin", nodes[1].name, nodes[0].seeds, 3)
        with pytest.raises(NodeRefusedError, match="two living nodes with one name") as error:
            await twin.join()
        assert error.value.refusal == pb.NODE_REFUSAL_NAME_TAKEN
        assert "--name" in error.value.message


async def test_a_node_that_was_away_makes_up_for_births_and_removals(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        gone = await create(nodes[0], "gone", 2)
        old = await create(nodes[0], "again", 2)
        await until(lambda: all(len(node.host.groups) == 5 for node in nodes))
        away = nodes[2]
        await away.stop()
        for name in ("gone", "again"):
            request = DeleteTopicRequest(name=name)
            await nodes[0].metadata.client.submit(commands.delete_topic(request))
        # One of them begins anew under its name, and under another number of partitions.
        new = await create(nodes[0], "again", 3, 3)
        await away.join()
        wanted = {METADATA_GROUP_ID, *(one.group_id for one in new.partitions)}
        await until(lambda: set(away.host.groups) == wanted)
        assert not wanted & {one.group_id for one in (*old.partitions, *gone.partitions)}
        known = await away.metadata.client.topic("again")
        assert (known.topic_id, len(known.partitions)) == (new.topic_id, 3)


async def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        stray = TestNode(tmp_path / "stray", "stray", (), 1)
        await stray.join()
        await stray.stop()
        stray.seeds = nodes[0].seeds
        await stray.start()
        try:
            async with asyncio.timeout(10):
                error = await stray.metadata.failed
        finally:
            await stray.stop()
        assert isinstance(error, NodeRefusedError)
        assert error.refusal == pb.NODE_REFUSAL_IDENTITY_MISMATCH
        assert "the data directory belongs to cluster" in error.message


async def test_leaderships_return_to_a_node_that_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderships, "STEADY_MS", 300)

    def as_placed(nodes: list[TestNode], topic: TopicInfo) -> bool:
        led = {node.node_id: set(node.host.leaders.led_here()) for node in nodes}
        return all(one.group_id in led[node_of(one.replica_ids[0])] for one in topic.partitions)

    async with running(trio(tmp_path)) as nodes:
        topic = await create(nodes[0], "t", 6)
        await until(lambda: as_placed(nodes, topic))
        await nodes[1].stop()
        others = [nodes[0], nodes[2]]
        await until(lambda: sum(len(one.host.leaders.led_here()) for one in others) == 7)
        await nodes[1].join()
        await until(lambda: as_placed(nodes, topic))


async def test_without_a_majority_the_registry_is_not_read_and_nothing_is_created(
    tmp_path: Path,
) -> None:
    nodes = trio(tmp_path)
    async with running(nodes):
        await create(nodes[0], "t", 1)
        await together([nodes[1].stop(), nodes[2].stop()])
        alone = nodes[0].metadata.client
        with pytest.raises(RakitError) as read:
            await alone.barrier(0.5)
        assert reason_name(read.value.reason) == "NO_QUORUM"
        # What is known is still told; what is not known is not denied (S22).
        assert (await alone.topic("t")).name == "t"
        with pytest.raises(RakitError) as denied:
            await alone.topic("unknown", 0.5)
        assert reason_name(denied.value.reason) == "NO_QUORUM"
        await together([nodes[1].join(), nodes[2].join()])


async def test_s1_an_emptied_disk_gets_a_registry_that_is_too_large_for_one_message(
    tmp_path: Path,
) -> None:
    nodes = trio(tmp_path)
    for node in nodes:
        node.checkpoint_entries_count = 10
        node.host_config = HostConfig(
            driver=DriverConfig(base_part_bytes_max=100, base_inflight_bytes_max=300)
        )
    async with running(nodes):
        first, lost = nodes[0], nodes[2]
        for number in range(40):
            await first.metadata.client.submit(commands.init_producer(f"producer {number:03}"))
        await until(lambda: base_index(first) > 1)
        await lost.stop()
        shutil.rmtree(lost.directory)
        await lost.join(30)
        registry = await lost.metadata.client.barrier()
        assert len(registry.producers) == 40
        group = lost.host.group(METADATA_GROUP_ID)
        assert group is not None
        base = group.storage.checkpoint(base_index(lost))
        assert base.index > 1
        assert len(base.parts) > 5
        assert group.storage.state(base.index, base.parts)


def base_index(node: TestNode) -> int:
    group = node.host.group(METADATA_GROUP_ID)
    return 0 if group is None else group.storage.base.index
