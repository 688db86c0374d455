"""Elections, replication and answers over three drivers."""

from __future__ import annotations

import pytest

from rakit.multiraft.errors import NotLeadingError, UnknownGroupError
from rakit.raft import Role
from tests.multiraft.driver.cluster import GROUP, Cluster


def test_a_newborn_group_has_a_ready_leader_within_four_ticks() -> None:
    cluster = Cluster()
    cluster.create()
    assert cluster.run_until(cluster.leads) <= 4


def test_leaders_of_newborn_groups_are_spread_over_the_nodes() -> None:
    cluster = Cluster()
    for group_id in range(10, 22):
        cluster.create(group_id)
    cluster.tick(6)
    leaders = [cluster.leader(group_id) for group_id in range(10, 22)]
    counts = {node.node_id: leaders.count(node) for node in cluster.nodes.values()}
    assert counts == {1: 4, 2: 4, 3: 4}


def test_a_proposal_is_applied_everywhere_and_answered_once() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    entry = leader.driver.propose(GROUP, b"one", "token")
    cluster.pump()
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"one"]
    (done,) = leader.completions
    assert (done.token, done.entry, done.result, done.lost) == ("token", entry, 1, False)
    assert done.replicas >= 2


def test_a_follower_refuses_a_proposal_and_names_the_leader() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    with pytest.raises(NotLeadingError) as refused:
        follower.driver.propose(GROUP, b"x", None)
    assert refused.value.leader_replica == leader.group.meta.replica_id
    with pytest.raises(UnknownGroupError):
        follower.driver.propose(99, b"x", None)


def test_s14_ready_comes_with_the_application_of_the_leaders_own_entry() -> None:
    cluster = Cluster()
    cluster.create()
    cluster.run_until(cluster.leads)
    leader = cluster.leader()
    assert leader is not None
    changes = [change for change in leader.roles if change.role is Role.LEADER]
    assert [change.ready for change in changes] == [False, True]


def test_s16_a_sole_voter_leads_at_once_and_after_a_restart() -> None:
    cluster = Cluster(count=1)
    cluster.create()
    cluster.pump()
    node = cluster.nodes[1]
    assert node.group.ready
    cluster.propose(node, b"alone")
    cluster.pump()
    cluster.crash(node)
    cluster.restart(node)
    assert node.group.ready
    assert node.machine().items == [b"alone"]
