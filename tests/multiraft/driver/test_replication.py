"""Elections, replication and answers over three drivers."""

from __future__ import annotations

import pytest

from rakit.multiraft import driver as driver_module
from rakit.multiraft import keys
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.errors import NotLeadingError, OverloadedError, UnknownGroupError
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.stored_entries import VIEWED_BYTES_MIN
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, ConfState, Role
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


def test_the_registrys_choice_of_a_first_leader_goes_before_the_rotation() -> None:
    cluster = Cluster()
    conf = ConfState(voters=tuple(replica_id(node_id, 1) for node_id in (1, 2, 3)))
    for node_id, node in cluster.nodes.items():
        for group_id in (10, 11, 12):
            meta = GroupMeta(group_id, replica_id(node_id, 1), GroupKind.PARTITION)
            node.driver.create_group(meta, conf, first_leader=replica_id(3, 1))
    cluster.tick(6)
    assert {cluster.leader(group_id) for group_id in (10, 11, 12)} == {cluster.nodes[3]}


def test_lost_messages_are_sent_again_when_the_link_says_so() -> None:
    for hint in ("link_lost", "unreachable"):
        cluster = Cluster()
        leader = cluster.create_and_elect()
        follower = cluster.followers()[0]
        cluster.isolate(follower)
        cluster.propose(leader, b"lost on the way")
        cluster.pump()
        cluster.heal()
        assert follower.machine().items == []
        if hint == "link_lost":
            leader.driver.link_lost(follower.node_id)
        else:
            leader.driver.unreachable(GROUP, follower.group.meta.replica_id)
        # No tick, no heartbeat: the hint alone starts the repair.
        cluster.pump()
        assert follower.machine().items == [b"lost on the way"]
        leader.driver.unreachable(99, 1)


def test_a_leader_that_is_voted_out_hands_over() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    removal = ConfChangeSingle(ConfChangeType.REMOVE, leader.group.meta.replica_id)
    leader.driver.propose_conf_change(GROUP, ConfChange((removal,)), "removal")
    cluster.pump()
    assert leader.group.role is Role.FOLLOWER
    assert leader.group.status().basic.removed
    new = cluster.await_other_leader(leader)
    assert len(new.group.conf_state.voters) == 2
    leader.driver.remove_group(GROUP)
    cluster.propose(new, b"after")
    cluster.pump()
    assert new.machine().items == [b"after"]


def test_a_proposal_is_applied_everywhere_and_answered_once() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    entry = leader.driver.propose(GROUP, (b"one",), "token")
    cluster.pump()
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"one"]
    (done,) = leader.completions
    assert (done.token, done.entry, done.result, done.lost) == ("token", entry, 1, False)
    assert done.replicas >= 2


def test_a_large_proposal_is_sent_stored_and_applied_from_one_memory() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    pieces = (b"head", bytes(VIEWED_BYTES_MIN))
    _, index = leader.driver.propose(GROUP, pieces, "token")
    cluster.pump()
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"".join(pieces)]
    entries = [
        entry
        for envelope in cluster.sent
        for entry in envelope.message.entries
        if entry.index == index
    ]
    assert len(entries) >= 2, "one for each follower"
    for entry in entries:
        assert isinstance(entry.data, memoryview)
        for node in cluster.nodes.values():
            assert node.disk.get(keys.entry(GROUP, index)) is entry.data.obj


def test_what_is_refused_is_not_joined_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would cost most when there is too much to do already."""
    cluster = Cluster(config=DriverConfig(uncommitted_bytes_max=1000))
    leader = cluster.create_and_elect()
    leader.driver.propose(GROUP, (b"x" * 900,), 1)
    monkeypatch.setattr(driver_module, "join_payload", None)
    with pytest.raises(OverloadedError):
        leader.driver.propose(GROUP, (b"x" * 100, b"x" * 100), 2)
    with pytest.raises(NotLeadingError):
        cluster.followers()[0].driver.propose(GROUP, (b"x",), 3)


def test_a_follower_refuses_a_proposal_and_names_the_leader() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    with pytest.raises(NotLeadingError) as refused:
        follower.driver.propose(GROUP, (b"x",), None)
    assert refused.value.leader_replica == leader.group.meta.replica_id
    with pytest.raises(UnknownGroupError):
        follower.driver.propose(99, (b"x",), None)


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


@pytest.mark.parametrize("kind", list(GroupKind))
def test_only_the_metadata_group_tells_of_commits_at_once(kind: GroupKind) -> None:
    """All nodes make the replicas of a topic when they apply it, or its first leader calls late."""
    cluster = Cluster()
    cluster.create(kind=kind)
    cluster.run_until(cluster.leads)
    leader = cluster.leader()
    assert leader is not None
    leader.effects.clear()
    cluster.propose(leader, b"x")
    cluster.pump()
    sent = [each for effects in leader.effects for each in effects.sends]
    assert sent
    assert {each.is_prompt for each in sent} == {kind is GroupKind.METADATA}
