"""Who takes over: the one rule by which a hung disk and a node that stops choose (S8, S13)."""

from __future__ import annotations

import copy

import pytest

from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.multiraft.stall import successor
from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    MessageType,
)
from tests.multiraft.driver.cluster import GROUP, Cluster, Node


def with_one_in_doubt() -> tuple[Cluster, Node, Node, Node]:
    """A leader, a follower that is behind, and one in doubt that has everything."""
    cluster = Cluster()
    leader = cluster.create_and_elect()
    sound, doubtful = cluster.followers()
    cluster.crash(doubtful)
    # Nothing is committed without the other one, and so nothing ends the doubt.
    cluster.filter = lambda envelope: (
        node_of(envelope.to_replica) != sound.node_id
        or envelope.message.type is not MessageType.APP
    )
    cluster.restart(doubtful, doubtful=True)
    cluster.propose(leader, b"a")
    cluster.settle()
    matches = {peer.id: peer.match for peer in leader.group.status().peers}
    assert doubtful.group.doubtful
    assert matches[doubtful.group.meta.replica_id] > matches[sound.group.meta.replica_id]
    return cluster, leader, sound, doubtful


def test_s8_a_voter_in_doubt_is_no_successor_though_its_log_is_longest() -> None:
    cluster, leader, sound, _ = with_one_in_doubt()
    assert leader.driver.hand_over(GROUP) == sound.group.meta.replica_id
    cluster.heal()
    cluster.run_until(lambda: cluster.leader() is sound, ticks=20)


def test_s13_a_leader_whose_disk_hangs_does_not_turn_to_a_voter_in_doubt() -> None:
    cluster, leader, sound, _ = with_one_in_doubt()
    leader.hung = True
    leader.driver.disk_stalled()
    cluster.heal()
    cluster.run_until(lambda: cluster.leader() is sound, ticks=20)


def test_nobody_is_asked_where_everybody_else_is_in_doubt_or_away() -> None:
    cluster, leader, sound, _ = with_one_in_doubt()
    leader.driver.node_down(sound.node_id)
    assert leader.driver.hand_over(GROUP) == 0
    cluster.pump()
    assert cluster.leader() is leader


def test_s9_a_voter_that_lost_its_log_is_no_successor_though_it_had_acknowledged_most() -> None:
    """Elected by the one that is behind, it would vote away what was committed with it."""
    cluster = Cluster()
    leader = cluster.create_and_elect()
    lost, behind = cluster.followers()
    old = copy.deepcopy(lost.disk)
    cluster.isolate(behind)
    cluster.propose(leader, b"x")
    cluster.settle()
    cluster.crash(lost)
    lost.disk = old
    cluster.restart(lost)
    cluster.run_until(lambda: any(peer.lost_log for peer in leader.group.status().peers))
    assert leader.driver.hand_over(GROUP) == behind.group.meta.replica_id
    leader.hung = True
    leader.driver.disk_stalled()
    cluster.heal()
    cluster.run_until(lambda: cluster.leader() is behind, ticks=20)
    assert cluster.check_replicas_agree() == [b"x"]


@pytest.mark.parametrize("which", [0, 1])
def test_s9_a_voter_that_is_shut_out_is_not_asked_while_another_one_answers(which: int) -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    shut_out, sound = cluster.followers()[which], cluster.followers()[1 - which]
    shut_out.driver.quarantine(GROUP, "a reader found it damaged")
    cluster.tick(2 * cluster.config.election_ticks)
    assert len({peer.match for peer in leader.group.status().peers}) == 1
    assert leader.driver.hand_over(GROUP) == sound.group.meta.replica_id
    cluster.run_until(lambda: cluster.leader() is sound, ticks=20)


def test_who_votes_only_in_the_outgoing_half_is_no_successor() -> None:
    cluster = Cluster(count=4)
    cluster.create(node_ids=(1, 2, 3))
    cluster.run_until(cluster.leads)
    cluster.settle()
    leader = cluster.leader()
    assert leader is not None
    staying, leaving = cluster.followers()[:2]
    joiner = replica_id(4, 1)
    cluster.nodes[4].driver.create_group(GroupMeta(GROUP, joiner, GroupKind.PARTITION), None)
    gone = leaving.group.meta.replica_id
    change = ConfChange(
        (
            ConfChangeSingle(ConfChangeType.ADD_VOTER, joiner),
            ConfChangeSingle(ConfChangeType.REMOVE, gone),
        ),
        ConfChangeTransition.JOINT_EXPLICIT,
    )
    leader.driver.propose_conf_change(GROUP, change, None)
    cluster.settle()
    assert gone in leader.group.conf_state.voters_outgoing
    everyone_but = {staying.node_id, 4}
    assert successor(leader.group, lambda node: node not in everyone_but) == 0
    assert successor(leader.group, lambda node: node == staying.node_id) != 0


def test_only_a_leader_hands_over() -> None:
    cluster = Cluster()
    cluster.create_and_elect()
    assert cluster.followers()[0].driver.hand_over(GROUP) == 0
