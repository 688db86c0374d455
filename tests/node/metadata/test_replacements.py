"""Damaged replicas in whole clusters: replaced while everything runs, by nobody's hand (S8, S9)."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from rakit.multiraft.effects import Effects
from rakit.multiraft.machine import node_of
from tests.node.metadata.machines import TestNode, trio, until
from tests.node.metadata.test_cluster import conf_of, create, running


def leader_of(nodes: list[TestNode], group_id: int) -> TestNode | None:
    for node in nodes:
        group = node.host.group(group_id)
        if group is not None and group.ready:
            return node
    return None


async def partition(nodes: list[TestNode]) -> int:
    """A group of three that is led; its id."""
    topic = await create(nodes[0], "t", 1)
    group_id = topic.partitions[0].group_id
    await until(lambda: all(group_id in node.host.groups for node in nodes))
    await until(lambda: leader_of(nodes, group_id))
    return group_id


def all_hold_everything(leader: TestNode, group_id: int) -> bool:
    """One follower's answer makes a leader ready: the other may not hold its entry yet."""
    group = leader.host.group(group_id)
    assert group is not None
    status = group.status()
    return all(peer.match >= status.basic.commit for peer in status.peers)


def came_in_the_place_of(nodes: list[TestNode], group_id: int, old: int) -> bool:
    """Whether a newer replica on the same node votes instead, and works, and nothing is left."""
    conf = conf_of(nodes, group_id)
    voters = conf.voters
    new = next((one for one in voters if node_of(one) == node_of(old)), 0)
    node = next(each for each in nodes if each.node_id == node_of(old))
    here = node.host.group(group_id)
    return (
        len(voters) == 3
        and old < new
        # Until the joint phase is over the old one's failure counts, and no other can be borne.
        and not (conf.learners or conf.voters_outgoing)
        and here is not None
        and here.meta.replica_id == new
        and not any(each.host.quarantined or each.host.lost_logs for each in nodes)
    )


async def test_s8_a_replica_that_a_reader_finds_damaged_is_replaced_while_its_node_runs(
    tmp_path: Path,
) -> None:
    async with running(trio(tmp_path)) as nodes:
        group_id = await partition(nodes)
        # A follower first; then its successor, which leads or follows; then whoever leads.
        for of_leader in (False, False, True):
            leader = leader_of(nodes, group_id)
            assert leader is not None
            follower = next(node for node in nodes if node is not leader)
            victim = leader if of_leader else follower
            old = victim.host.groups[group_id].meta.replica_id
            victim.host.quarantine(group_id, "a reader found damage")
            await until(partial(came_in_the_place_of, nodes, group_id, old))


async def test_s8_a_replica_that_does_not_know_what_it_lost_is_replaced_while_it_works(
    tmp_path: Path,
) -> None:
    async with running(trio(tmp_path)) as nodes:
        group_id = await partition(nodes)
        leader = leader_of(nodes, group_id)
        assert leader is not None
        victim = next(node for node in nodes if node is not leader)
        old = victim.host.groups[group_id].meta.replica_id
        # As when it has rejected what it had acknowledged (D5): it counts no more.
        progress = leader.host.groups[group_id].raw._raft.tracker.progress[old]
        progress.lost_log, progress.counts = True, False
        leader.host._deliver(Effects(0, lost_logs=[(group_id, old)]))
        await until(partial(came_in_the_place_of, nodes, group_id, old))


async def test_s8_with_two_of_three_damaged_both_stay_as_they_are(tmp_path: Path) -> None:
    async with running(trio(tmp_path)) as nodes:
        group_id = await partition(nodes)
        leader = leader_of(nodes, group_id)
        assert leader is not None
        damaged = [node for node in nodes if node is not leader]
        before = nodes[0].metadata.registry.partition(group_id)
        for node in damaged:
            node.host.quarantine(group_id, "a reader found damage")
        # Its leader is quiet, and has noticed nothing but what their nodes say.
        await until(lambda: len(leader.host.shut_out_elsewhere(group_id)) == len(damaged))
        await leader.metadata._evictions.look()
        for node in damaged:
            assert group_id in node.host.quarantined
            assert (await node.metadata.client.barrier()).partition(group_id) == before


async def test_s8_a_quiet_leader_asks_a_majority_before_it_has_anything_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been told of one of two that are damaged."""
    async with running(trio(tmp_path)) as nodes:
        group_id = await partition(nodes)
        leader = leader_of(nodes, group_id)
        assert leader is not None
        first, second = (node for node in nodes if node is not leader)
        before = nodes[0].metadata.registry.partition(group_id)
        named = first.host.groups[group_id].meta.replica_id
        await until(lambda: all_hold_everything(leader, group_id))
        monkeypatch.setattr(type(leader.host), "damaged_groups", [])
        for node in (first, second):
            node.host.quarantine(group_id, "a reader found damage")
        monkeypatch.setattr(type(leader.host), "damaged_groups", [group_id])

        def one_of_two(_group_id: int) -> set[int]:
            return {named}

        monkeypatch.setattr(leader.host, "shut_out_elsewhere", one_of_two)
        chosen = leader.metadata._evictions._choose(group_id)
        assert chosen is not None
        assert chosen.replica_id == named, "the other looks well"
        await leader.metadata._evictions.look()
        assert (await first.metadata.client.barrier()).partition(group_id) == before
