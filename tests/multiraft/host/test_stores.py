"""Stores that went back in time, or were cut at their tail, seen by whole hosts (S7, S8)."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from rakit.multiraft.effects import Effects
from rakit.multiraft.hello import StoreMemory
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, ConfState
from tests.multiraft.host.nodes import FAST, GROUP, Cluster, Node
from tests.multiraft.host.support import until

SOLO = 99


def remembered(by: Node, of: Node) -> int:
    """What is on the disk of a node about the store of another."""
    return StoreMemory(by.store).highest(of.store.store_uuid)


def found_out(nodes: list[Node], node: Node) -> bool:
    stores = [[each.store_uuid for each in one.host.rolled_back_stores] for one in nodes]
    return all(found == [node.store.store_uuid] for found in stores)


def told(caplog: pytest.LogCaptureFixture, node: Node) -> int:
    """How often somebody said of a store, to people, that it went back."""
    text = f"the store {node.store.store_uuid} of node {node.node_id} went back in time"
    return sum(one.name.endswith(".peers") and text in one.message for one in caplog.records)


async def make_solo_group(node: Node) -> None:
    replica = replica_id(node.node_id, 1)
    meta = GroupMeta(SOLO, replica, GroupKind.PARTITION)
    node.host.create_group(meta, ConfState(voters=(replica,)))
    await until(lambda: node.host.groups[SOLO].ready)


async def write_alone(node: Node, count: int) -> None:
    # A sole voter leads when its own vote is durable.
    await until(lambda: node.host.groups[SOLO].ready)
    for number in range(count):
        await node.host.propose(SOLO, b"%d" % number).done


async def two_idle_nodes(directory: Path) -> tuple[Node, Node]:
    """Two nodes that know each other, each with a group of its own, and write nothing."""
    cluster = Cluster(directory, 2, FAST)
    for node in cluster.nodes:
        await node.start()
        await make_solo_group(node)
    for node in cluster.nodes:
        cluster.introduce(node)
    await until(cluster.all_up)
    first, second = cluster.nodes
    # Each lane greets, and what a hello tells is noted at once: all three are over.
    await until(lambda: goes_past_grpc(first, second) and goes_past_grpc(second, first))
    await until(lambda: remembered(first, second) and remembered(second, first))
    await until(lambda: not any(node.host._memory.is_urgent for node in cluster.nodes))
    # What waits for the next write, or the next tick, is written: a fast start is sooner than that.
    await until(lambda: not any(node.host.driver.holds_writes for node in cluster.nodes))
    return first, second


def goes_past_grpc(node: Node, other: Node) -> bool:
    data = node.host._peers.transport._peers[other.node_id].data
    return data.connected and data.is_framed


async def test_s7_a_store_that_was_restored_from_a_copy_is_never_let_in_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start()
    node = cluster.followers()[0]
    others = [each for each in cluster.nodes if each is not node]
    await make_solo_group(node)
    await cluster.propose(b"before the copy")
    await cluster.agreed(1)
    await node.stop()
    directory, copy = tmp_path / f"node-{node.node_id}", tmp_path / "copy"
    shutil.copytree(directory, copy)
    await cluster.restart(node)
    await cluster.propose(*[b"%d" % each for each in range(20)])
    await cluster.agreed(21)
    # The others hear how far it is by their pings, and have it written with the next entry.
    reached = node.store.synced_counter
    await until(
        lambda: all(each.host._memory.highest(node.store.store_uuid) >= reached for each in others)
    )
    await cluster.propose(b"the last one")
    await until(lambda: all(remembered(each, node) >= reached for each in others))
    await node.stop()
    shutil.rmtree(directory)
    copy.rename(directory)

    caplog.set_level(logging.ERROR)
    await cluster.restart(node)
    await until(lambda: found_out(others, node))
    # What it writes alone takes its counter far beyond what the others remember.
    await write_alone(node, 60)
    assert node.store.synced_counter > reached
    for _ in range(2):
        await node.stop()
        for each in others:
            await each.kill()
            await cluster.restart(each)
            assert found_out([each], node), "it is known before the store calls again"
        caplog.clear()
        await cluster.restart(node)
        assert node.store.opened_counter > reached
        await until(lambda: told(caplog, node) == len(others))
        assert not any(each.host.node_is_up(node.node_id) for each in others)
    await cluster.propose(b"without it")
    assert len(node.journal.payloads) <= 1
    await cluster.stop()


async def test_s7_a_new_start_of_a_peer_is_noted_though_nobody_writes(tmp_path: Path) -> None:
    first, second = await two_idle_nodes(tmp_path)
    await second.stop()
    await second.start()
    second.host.set_peer(first.node_id, f"127.0.0.1:{first.port}")
    opened = second.store.opened_counter
    await until(lambda: remembered(first, second) > opened)
    for node in (first, second):
        await node.stop()


async def test_s7_what_pings_tell_is_noted_with_the_next_batch_and_never_alone(
    tmp_path: Path,
) -> None:
    first, second = await two_idle_nodes(tmp_path)
    await write_alone(second, 10)
    reached = second.store.synced_counter
    memory = first.host._memory
    written = first.store.last_number
    await until(lambda: memory.highest(second.store.store_uuid) >= reached)
    assert remembered(first, second) < reached
    assert first.store.last_number == written, "an idle node writes nothing"
    await write_alone(first, 1)
    assert remembered(first, second) >= reached
    for node in (first, second):
        await node.stop()


async def test_s8_the_replicas_of_a_cut_store_doubt_until_their_leader_has_caught_them_up(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start()
    await cluster.propose(b"before the cut")
    await cluster.agreed(1)
    node = cluster.followers()[0]
    await cluster.stop()
    directory = tmp_path / f"node-{node.node_id}"
    # Of a file that was begun there is what no write has left.
    (directory / "db" / "wal" / f"{1 << 20:020}.wal").write_bytes(b"\x5a" * 500)

    await node.start()
    group = node.host.group(GROUP)
    assert group is not None
    assert group.doubtful, "nobody is there who could end it"
    # Its own marks are synced: the store need not report the cut to later starts.
    pending = (directory / "cut").glob
    await until(lambda: not list(pending("*.pending")))
    assert list(pending("*.kept"))
    for other in cluster.nodes:
        if other is not node:
            await other.start()
    for each in cluster.nodes:
        cluster.introduce(each)
    await cluster.propose(b"after the cut")
    await cluster.agreed(2)
    await until(lambda: not group.doubtful)
    assert not any(each.host.rolled_back_stores for each in cluster.nodes)
    await cluster.stop()


async def test_s9_a_replica_that_is_shut_out_is_told_of_once_and_counted_by_every_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start()
    node = cluster.followers()[0]
    caplog.set_level(logging.ERROR)
    node.host.quarantine(GROUP, "a reader found damage")
    await until(lambda: all(one.host.quarantined_count(node.node_id) for one in cluster.nodes))
    leader = await cluster.leader()
    damaged = {replica_id(node.node_id, 1)}
    await until(lambda: leader.host.shut_out_elsewhere(GROUP) == damaged)
    assert leader.host.damaged_groups == [GROUP]
    assert not any(one.host.damaged_groups for one in cluster.nodes if one is not leader)
    await cluster.propose(b"without it")
    await node.kill()
    await until(lambda: not leader.host.node_is_up(node.node_id))
    assert not leader.host.shut_out_elsewhere(GROUP), "nobody knows what its node will say next"
    await cluster.restart(node)
    await until(lambda: leader.host.shut_out_elsewhere(GROUP) == damaged)
    assert node.host.quarantined[GROUP].reason == "a reader found damage"
    assert node.host.group(GROUP) is None

    def lines() -> list[str]:
        return [one.message for one in caplog.records if "is shut out on this" in one.message]

    await until(lambda: len(lines()) == 2)  # once in each life of the process
    assert all("on this node for good" in line for line in lines())
    assert "Start that node with an empty data directory" in lines()[0]
    other = next(one for one in cluster.nodes if one.host.group(GROUP) is not None)
    other.host.quarantine(GROUP, "too many open files", for_good=False)
    await until(lambda: len(lines()) == 3)
    assert "on this node until it starts again: too many open files" in lines()[-1]
    assert "restart that node with its data" in lines()[-1]
    await cluster.stop()


async def test_a_member_that_lost_what_it_had_acknowledged_is_told_of_as_long_as_it_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start()
    leader, node = await cluster.leader(), cluster.followers()[0]
    replica = replica_id(node.node_id, 1)
    caplog.set_level(logging.ERROR)
    for _ in range(2):  # each new leadership may find it out again
        leader.host._deliver(Effects(0, lost_logs=[(GROUP, replica)]))
    assert leader.host.lost_logs == [(GROUP, replica)]
    assert leader.host.damaged_groups == [GROUP]
    # A machine that is busy may have more to say, of greetings that came late.
    said = [f"replica {replica} of group {GROUP}" in one.message for one in caplog.records]
    assert said.count(True) == 1
    removal = ConfChange((ConfChangeSingle(ConfChangeType.REMOVE, replica),))
    await leader.host.change_membership(GROUP, removal)
    assert not leader.host.lost_logs
    await cluster.stop()
