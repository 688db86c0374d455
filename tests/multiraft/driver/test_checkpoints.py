"""Checkpoints, trimming, and replicas that come later (S1, S2, S4)."""

from __future__ import annotations

import pytest

from rakit.multiraft import keys, loading
from rakit.multiraft.errors import ConfChangeRefusedError, GroupRefusedError
from rakit.multiraft.kv import Op
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.records import StoredCheckpoint, decode_checkpoint
from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    MessageType,
)
from tests.multiraft.driver.cluster import GROUP, Cluster, Node


def propose_all(cluster: Cluster, node: Node, *items: bytes) -> None:
    for item in items:
        cluster.propose(node, item)
        cluster.pump()
    cluster.settle()


def change(cluster: Cluster, node: Node, *steps: tuple[ConfChangeType, int]) -> None:
    singles = tuple(ConfChangeSingle(kind, replica) for kind, replica in steps)
    node.driver.propose_conf_change(GROUP, ConfChange(singles), "change")
    cluster.pump()
    cluster.settle()


def stored_indexes(node: Node, prefix: int) -> list[int]:
    return [keys.number_of(key) for key, _ in node.disk.scan(*keys.group_range(prefix, GROUP))]


def test_s1_a_checkpoint_is_as_of_exactly_its_entry() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    # All in one step, so that entries beyond the checkpoint are applied along with it.
    for item in (b"a", b"checkpoint", b"b", b"c"):
        cluster.propose(leader, item)
    cluster.pump()
    cluster.settle()
    for node in cluster.nodes.values():
        mark = node.group.storage.latest
        checkpoint = node.group.storage.checkpoint(mark.index)
        assert checkpoint.data.split(b"\n")[1:] == [b"a", b"checkpoint"]
        assert checkpoint.index == node.group.applied - 2
        assert checkpoint.conf_state == node.group.conf_state


def test_no_checkpoint_is_taken_after_an_entry_that_the_machine_does_not_see() -> None:
    """It would hold the marks of the checkpoint before it, and could not be restored."""
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"checkpoint")
    cluster.settle()
    at = leader.group.storage.latest.index
    leader.driver.step_down(GROUP)
    cluster.run_until(lambda: cluster.leads() and leader.group.applied > at)
    cluster.settle()
    assert {node.group.storage.latest.index for node in cluster.nodes.values()} == {at}


def test_s1_a_restart_begins_at_the_latest_checkpoint_and_replays() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"checkpoint", b"b")
    follower = cluster.followers()[0]
    at = follower.group.storage.latest.index
    cluster.crash(follower)
    cluster.restart(follower)
    cluster.settle()
    assert follower.machine().restored_at == at
    assert follower.machine().items == [b"a", b"checkpoint", b"b"]


def test_s4_the_start_of_the_log_moves_in_one_batch() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"checkpoint", b"b", b"trim", b"c")
    for node in cluster.nodes.values():
        log = node.group.storage
        assert log.base.index == log.latest.index > 1
        assert stored_indexes(node, keys.CHECKPOINT) == [log.base.index]
        assert stored_indexes(node, keys.ENTRY) == list(
            range(log.first_index(), log.last_index() + 1)
        )
        trims = [
            [hi for op, _, hi in effects.batch.ops if op == Op.DELETE_RANGE]
            for effects in node.effects
        ]
        wanted = {keys.entry(GROUP, log.base.index + 1), keys.checkpoint(GROUP, log.base.index)}
        assert [set(ends) for ends in trims if wanted & set(ends)] == [wanted]


def test_s1_the_log_is_not_trimmed_to_a_checkpoint_that_is_not_durable() -> None:
    cluster = Cluster(count=1)
    cluster.create()
    cluster.pump()
    node = cluster.nodes[1]
    node.hung = True
    cluster.propose(node, b"checkpoint")
    cluster.propose(node, b"trim")
    cluster.pump()
    node.disk.sync()
    node.driver.synced(node.effects[-1].number)
    # Now both are applied, and the batch that holds the checkpoint is written but not synced.
    cluster.pump()
    assert node.machine().trim_index() == node.group.storage.latest.index > 1
    assert node.effects[-1].must_sync
    assert node.group.storage.base.index == 1
    node.hung = False
    cluster.pump()
    assert node.group.storage.base.index == node.machine().trim_index()


def test_s1_the_base_is_the_earliest_checkpoint() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"checkpoint", b"b", b"checkpoint", b"c")
    log = leader.group.storage
    assert log.snapshot(0).index == 1
    propose_all(cluster, leader, b"trim")
    assert log.snapshot(0).index == log.base.index == log.latest.index


def test_s1_only_checkpoints_that_the_log_may_be_cut_at_are_kept() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    for item in (b"keep checkpoint", b"checkpoint") * 2 + (b"checkpoint",):
        propose_all(cluster, leader, b"a", item)
    first, third, latest = 4, 8, 12
    assert leader.group.storage.latest.index == latest
    for node in cluster.nodes.values():
        assert stored_indexes(node, keys.CHECKPOINT) == [1, first, third, latest]
    # The word of a machine that was restored is the same.
    follower = cluster.followers()[0]
    cluster.crash(follower)
    cluster.restart(follower)
    for start in (first, third):
        propose_all(cluster, leader, b"keep trim")
        for node in cluster.nodes.values():
            log = node.group.storage
            assert log.base.index == log.snapshot(0).index == start
            assert log.term(start) == log.base.term
            assert stored_indexes(node, keys.CHECKPOINT)[0] == start
    assert cluster.check_replicas_agree()[-1] == b"keep trim"


def test_s1_a_crash_before_the_log_was_cut_leaves_the_checkpoint_that_it_is_cut_at() -> None:
    cluster = Cluster(count=1)
    cluster.create()
    cluster.pump()
    node = cluster.nodes[1]
    node.hung = True
    for item in (b"keep checkpoint", b"keep trim", b"checkpoint", b"b"):
        cluster.propose(node, item)
    cluster.pump()
    node.disk.sync()
    node.driver.synced(node.effects[-1].number)
    # All are applied now, the checkpoints reach the disk, and the power goes.
    cluster.pump()
    target = node.machine().trim_index()
    assert node.group.storage.base.index == 1
    assert node.group.storage.latest.index > target > 1
    node.disk.sync()
    cluster.crash(node)
    node.hung = False
    cluster.restart(node)
    assert node.group.storage.base.index == target
    assert stored_indexes(node, keys.CHECKPOINT)[0] == target


def test_a_start_reads_two_checkpoints_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, *[b"keep checkpoint"] * 10)
    follower = cluster.followers()[0]
    stored = stored_indexes(follower, keys.CHECKPOINT)
    assert len(stored) == 11
    read: list[int] = []

    def counted(group_id: int, index: int, value: bytes) -> StoredCheckpoint:
        read.append(index)
        return decode_checkpoint(group_id, index, value)

    monkeypatch.setattr(loading, "decode_checkpoint", counted)
    cluster.crash(follower)
    cluster.restart(follower)
    assert read == [stored[0], stored[-1]]
    assert follower.machine().restored_at == stored[-1]


def newcomer(cluster: Cluster, leader: Node) -> Node:
    """Adds node 4 as a learner of the group."""
    node = cluster.add_node(4)
    cluster.report_all_up()
    replica = replica_id(4, 1)
    node.driver.create_group(GroupMeta(GROUP, replica, GroupKind.PARTITION), None)
    change(cluster, leader, (ConfChangeType.ADD_LEARNER, replica))
    return node


def test_s2_a_later_replica_gets_the_base_and_then_ordinary_appends() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"checkpoint", b"b", b"trim", b"c")
    cluster.sent.clear()
    node = newcomer(cluster, leader)
    kinds = [
        one.message.type
        for one in cluster.sent
        if one.to_replica == replica_id(4, 1) and one.message.snapshot is not None
    ]
    assert kinds == [MessageType.SNAP]
    assert node.machine().restored_at == leader.group.storage.base.index
    assert node.group.storage.first_index() == leader.group.storage.first_index()
    assert cluster.check_replicas_agree()[-1] == b"c"
    assert replica_id(4, 1) in node.group.conf_state.learners


def test_a_base_replaces_the_log_and_the_rows_that_were_derived_from_it() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"b")
    follower = cluster.followers()[0]
    cluster.crash(follower)
    cluster.report_down(follower)
    propose_all(cluster, leader, b"c", b"checkpoint", b"trim", b"d")
    rows = stored_indexes(follower, keys.POSITION)
    assert rows
    cluster.restart(follower)
    cluster.settle()
    base = leader.group.storage.base.index
    assert follower.machine().restored_at == base
    assert min(stored_indexes(follower, keys.POSITION)) == base + 1
    assert min(stored_indexes(follower, keys.ENTRY)) == base + 1
    assert stored_indexes(follower, keys.CHECKPOINT) == [base]
    assert cluster.check_replicas_agree()[-1] == b"d"


def test_a_learner_is_promoted_through_a_joint_phase_that_ends_on_its_own() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a")
    node = newcomer(cluster, leader)
    leaver = cluster.followers()[0]
    gone = leaver.group.meta.replica_id
    change(
        cluster,
        leader,
        (ConfChangeType.ADD_VOTER, replica_id(4, 1)),
        (ConfChangeType.REMOVE, gone),
    )
    for member in (leader, node):
        conf = member.group.conf_state
        assert conf.voters_outgoing == ()
        assert replica_id(4, 1) in conf.voters
        assert gone not in conf.voters
    done = [one for one in leader.completions if one.token == "change"][-1]
    assert isinstance(done.result, ConfState)
    leaver.driver.remove_group(GROUP)
    cluster.pump()
    propose_all(cluster, leader, b"b")
    assert node.machine().items == [b"a", b"b"]
    # The configuration is as of the applied index: a restart replays into the same one.
    cluster.crash(node)
    cluster.restart(node)
    cluster.settle()
    assert node.group.conf_state == leader.group.conf_state


def test_a_second_change_waits_for_the_first() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    add = ConfChange((ConfChangeSingle(ConfChangeType.ADD_LEARNER, replica_id(4, 1)),))
    leader.driver.propose_conf_change(GROUP, add, 1)
    with pytest.raises(ConfChangeRefusedError):
        leader.driver.propose_conf_change(GROUP, add, 2)


@pytest.mark.parametrize("boundary", range(4))
def test_a_later_replica_survives_crashes_while_it_installs_its_base(boundary: int) -> None:
    cluster = Cluster(seed=boundary)
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"checkpoint", b"trim", b"b")
    node = cluster.add_node(4)
    cluster.report_all_up()
    node.driver.create_group(GroupMeta(GROUP, replica_id(4, 1), GroupKind.PARTITION), None)
    cluster.pump()
    node.hung = True
    change(cluster, leader, (ConfChangeType.ADD_LEARNER, replica_id(4, 1)))
    cluster.crash(node, boundary)
    node.hung = False
    cluster.restart(node)
    assert node.quarantined == []
    cluster.await_applied(node, leader)
    cluster.check_replicas_agree()


def test_a_removed_replica_leaves_nothing_but_its_tombstone() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a", b"checkpoint")
    follower = cluster.followers()[0]
    meta, conf = follower.group.meta, follower.group.conf_state
    follower.driver.remove_group(GROUP)
    cluster.pump()
    left = [key for key, _ in follower.disk.scan(b"\x01", b"\x08")]
    assert left == [keys.tombstone(GROUP)]
    with pytest.raises(GroupRefusedError):
        follower.driver.create_group(meta, conf)
    cluster.crash(follower)
    cluster.restart(follower)
    with pytest.raises(GroupRefusedError):
        follower.driver.create_group(meta, conf)
    follower.driver.create_group(
        GroupMeta(GROUP, replica_id(follower.node_id, 2), GroupKind.PARTITION), None
    )
    assert GROUP in follower.driver.groups


def test_creating_a_group_twice_changes_nothing() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    propose_all(cluster, leader, b"a")
    leader.driver.create_group(leader.group.meta, leader.group.conf_state)
    assert leader.driver.advance() is None
    assert leader.machine().items == [b"a"]
    other = GroupMeta(GROUP, replica_id(leader.node_id, 2), GroupKind.PARTITION)
    with pytest.raises(GroupRefusedError):
        leader.driver.create_group(other, None)
