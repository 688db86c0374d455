"""A voter that a joint change makes a learner, with crashes in the joint phase (rule C2)."""

from __future__ import annotations

import pytest

from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
)
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

FIRST = replica_id(1, 1)
SECOND = replica_id(2, 1)
LEAVER = replica_id(3, 1)
NEWCOMER = replica_id(4, 1)
JOINT = ConfState(
    voters=(FIRST, SECOND, NEWCOMER),
    voters_outgoing=(FIRST, SECOND, LEAVER),
    learners_next=(LEAVER,),
)
AFTER = ConfState(voters=(FIRST, SECOND, NEWCOMER), learners=(LEAVER,))


def change(cluster: Cluster, node: Node, change: ConfChange) -> None:
    node.driver.propose_conf_change(GROUP, change, "change")
    cluster.pump()
    cluster.settle()


def joint_cluster() -> tuple[Cluster, Node]:
    """Node 4 takes the vote of node 3, which goes on as a learner; the joint phase stays open."""
    cluster = Cluster()
    leader = cluster.create_and_elect()
    if leader is cluster.nodes[3]:
        leader.driver.transfer_leader(GROUP, FIRST)
        leader = cluster.await_other_leader(leader)
        cluster.settle()
    node = cluster.add_node(4)
    cluster.report_all_up()
    node.driver.create_group(GroupMeta(GROUP, NEWCOMER, GroupKind.PARTITION), None)
    change(cluster, leader, ConfChange((ConfChangeSingle(ConfChangeType.ADD_LEARNER, NEWCOMER),)))
    steps = (
        ConfChangeSingle(ConfChangeType.ADD_VOTER, NEWCOMER),
        ConfChangeSingle(ConfChangeType.ADD_LEARNER, LEAVER),
    )
    change(cluster, leader, ConfChange(steps, ConfChangeTransition.JOINT_EXPLICIT))
    assert configurations(cluster) == {JOINT}
    return cluster, leader


def configurations(cluster: Cluster) -> set[ConfState]:
    return {node.group.conf_state for node in cluster.nodes.values()}


@pytest.mark.parametrize("stored", [False, True], ids=["from its log", "from a checkpoint"])
@pytest.mark.parametrize("crashed", [1, 2, 3, 4])
def test_a_demoted_voter_is_one_in_the_joint_phase_and_a_learner_after_it_over_crashes(
    crashed: int, *, stored: bool
) -> None:
    cluster, leader = joint_cluster()
    if stored:
        cluster.propose(leader, b"checkpoint")
        cluster.pump()
        cluster.settle()
    node = cluster.nodes[crashed]
    cluster.crash(node)
    cluster.restart(node)
    assert (node.machine().restored_at == node.group.storage.latest.index > 1) is stored
    cluster.run_until(cluster.leads)
    assert configurations(cluster) == {JOINT}
    leader = cluster.leader() or leader
    change(cluster, leader, ConfChange())
    assert configurations(cluster) == {AFTER}
    cluster.crash(cluster.nodes[3])
    cluster.restart(cluster.nodes[3])
    cluster.settle()
    assert configurations(cluster) == {AFTER}
    cluster.propose(cluster.leader() or leader, b"a")
    cluster.pump()
    cluster.settle()
    assert cluster.check_replicas_agree()[-1] == b"a"


def test_in_the_joint_phase_a_demoted_voter_still_decides_and_afterwards_it_does_not() -> None:
    cluster, leader = joint_cluster()
    other = cluster.nodes[2] if leader is cluster.nodes[1] else cluster.nodes[1]
    # The outgoing half is the leader, the other one and the leaver: one of the two is needed.
    cluster.isolate(other, cluster.nodes[3])
    cluster.propose(leader, b"a")
    cluster.pump()
    assert leader.machine().items == []
    cluster.isolate(other)
    cluster.run_until(lambda: leader.machine().items == [b"a"], ticks=10)
    cluster.heal()
    cluster.settle()
    change(cluster, leader, ConfChange())
    cluster.isolate(other, cluster.nodes[4])
    cluster.propose(leader, b"b")
    cluster.pump()
    assert leader.machine().items == [b"a"], "the leaver is a learner by now, and no majority"


def test_a_voter_that_the_joint_phase_ends_stands_where_only_it_can_win() -> None:
    """It has the longest log, so nobody else is elected: without it the group waits for ever."""
    cluster, leader = joint_cluster()
    behind = [one for one in cluster.nodes.values() if one not in (leader, cluster.nodes[3])]
    cluster.isolate(*behind)
    cluster.propose(leader, b"x")
    cluster.pump()
    cluster.crash(leader)
    cluster.report_down(leader)
    cluster.heal()
    cluster.run_until(cluster.leads)
    assert cluster.leader() is cluster.nodes[3]
