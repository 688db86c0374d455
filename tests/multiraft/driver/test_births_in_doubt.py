"""A tail that was cut off may have held a replica's birth, with all that it promised (S8, S10)."""

from __future__ import annotations

import copy

from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.raft import ConfState
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

CONF = ConfState(voters=tuple(replica_id(node_id, 1) for node_id in (1, 2, 3)))


def be_born(node: Node) -> None:
    meta = GroupMeta(GROUP, replica_id(node.node_id, 1), GroupKind.PARTITION)
    node.driver.create_group(meta, CONF)


def test_s8_a_replica_whose_birth_was_cut_off_elects_nobody_without_the_others() -> None:
    cluster = Cluster()
    unborn = {node_id: copy.deepcopy(node.disk) for node_id, node in cluster.nodes.items()}
    leader = cluster.create_and_elect()
    second, third = cluster.followers()
    cluster.isolate(third)
    cluster.propose(leader, b"acknowledged by two")
    cluster.settle()
    assert len(leader.machine().items) == 1
    assert not third.machine().items
    cluster.heal()
    cluster.crash(leader)
    cluster.crash(second)
    second.disk = unborn[second.node_id]
    cluster.restart(second, doubtful=True)
    be_born(second)
    cluster.tick(200)
    assert cluster.leader() is None, "an empty log has no right to outvote what it may have held"
    cluster.restart(leader)
    cluster.run_until(cluster.leads)
    cluster.run_until(lambda: not second.group.doubtful)
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"acknowledged by two"]


def test_s8_births_stay_in_doubt_after_a_start_that_found_nothing_new() -> None:
    cluster = Cluster()
    node = cluster.nodes[1]
    for doubtful in (True, False):
        cluster.crash(node)
        cluster.restart(node, doubtful=doubtful)
    be_born(node)
    assert node.group.doubtful
    cluster.pump()
    cluster.crash(node)
    cluster.restart(node)
    assert node.group.doubtful, "the mark was stored with the birth"


def test_s8_newborn_replicas_in_doubt_elect_a_leader_together_and_trust_it() -> None:
    cluster = Cluster()
    for node in cluster.nodes.values():
        cluster.crash(node)
    for node in cluster.nodes.values():
        cluster.restart(node, doubtful=True)
    cluster.create_and_elect()
    cluster.run_until(lambda: not any(node.group.doubtful for node in cluster.nodes.values()))


def test_s8_p7_births_of_later_groups_on_a_cut_store_are_sound() -> None:
    """One cut store and one dead node must not leave every new group without a leader."""
    cluster = Cluster()
    first, second, third = cluster.nodes.values()
    cluster.crash(first)
    cluster.restart(first, doubtful=True)
    first.driver.trust_births_from(GROUP)
    cluster.create(GROUP + 1)  # what it writes is synced, and what was before it
    cluster.pump()
    cluster.crash(first)
    cluster.restart(first)
    cluster.crash(third)
    cluster.report_down(third)
    for node in (first, second):
        be_born(node)
    assert not first.group.doubtful
    cluster.run_until(cluster.leads)
    cluster.crash(first)
    cluster.restart(first)
    assert not first.group.doubtful


def test_s8_births_of_groups_that_may_have_been_cut_off_stay_in_doubt() -> None:
    cluster = Cluster()
    node = cluster.nodes[1]
    cluster.crash(node)
    cluster.restart(node, doubtful=True)
    node.driver.trust_births_from(GROUP + 1)
    cluster.create(GROUP + 2)
    cluster.pump()
    # What the registry says in a later start is too late to know what was before the cut.
    cluster.crash(node)
    cluster.restart(node)
    node.driver.trust_births_from(GROUP)
    be_born(node)
    assert node.group.doubtful


def test_s8_another_cut_doubts_every_birth_again() -> None:
    cluster = Cluster()
    node = cluster.nodes[1]
    for _ in range(2):
        cluster.crash(node)
        cluster.restart(node, doubtful=True)
    node.driver.trust_births_from(GROUP)
    cluster.create(GROUP + 1)
    cluster.pump()
    cluster.crash(node)
    cluster.restart(node, doubtful=True)
    be_born(node)
    assert node.group.doubtful


def test_s8_a_store_that_was_never_cut_has_nothing_to_trust() -> None:
    cluster = Cluster()
    node = cluster.nodes[1]
    node.driver.trust_births_from(GROUP)
    assert node.driver.advance() is None
    be_born(node)
    assert not node.group.doubtful


def test_s8_the_doubt_of_a_removed_replica_is_not_that_of_its_successor() -> None:
    cluster = Cluster()
    node = cluster.nodes[1]
    cluster.crash(node)
    cluster.restart(node, doubtful=True)
    be_born(node)
    node.driver.trust_births_from(GROUP)
    node.driver.remove_group(GROUP)
    meta = GroupMeta(GROUP, replica_id(node.node_id, 2), GroupKind.PARTITION)
    node.driver.create_group(meta, None)
    cluster.pump()
    assert not node.group.doubtful
    cluster.crash(node)
    cluster.restart(node)
    assert node.group.meta == meta
    assert not node.group.doubtful
