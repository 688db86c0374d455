"""Every proposal and every read is answered exactly once; stalls hand leadership away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rakit.multiraft.driver import DriverConfig
from rakit.multiraft.errors import NotLeadingError, OverloadedError
from rakit.multiraft.farewell import is_farewell
from rakit.multiraft.machine import node_of
from rakit.multiraft.waiters import Proposals
from rakit.raft import Entry, MessageType, Role
from tests.multiraft.driver.cluster import GROUP, Cluster


def test_completions_come_exactly_once_over_changes_of_leader() -> None:
    cluster = Cluster(seed=3)
    cluster.create_and_elect()
    asked: dict[int, list[int]] = {node_id: [] for node_id in cluster.nodes}
    number = 0
    for turn in range(12):
        leader = cluster.leader()
        assert leader is not None
        if turn % 3 == 1:
            cluster.isolate(leader)
        for _ in range(3):
            number += 1
            leader.driver.propose(GROUP, (b"%d" % number,), number)
            asked[leader.node_id].append(number)
        cluster.pump()
        if turn % 3 == 1:
            cluster.await_other_leader(leader)
            cluster.heal()
        elif turn % 3 == 2:
            leader.driver.step_down(GROUP)
        cluster.run_until(cluster.leads)
    cluster.tick(60)
    applied = [int(item) for item in cluster.check_replicas_agree()]
    assert len(set(applied)) == len(applied)
    for node in cluster.nodes.values():
        answered = [done.token for done in node.completions if isinstance(done.token, int)]
        assert len(answered) == len(node.completions)
        assert sorted(answered) == asked[node.node_id]
        kept = [done.token for done in node.completions if not done.lost]
        assert set(kept) <= set(applied), "an acknowledged proposal is gone"
    assert any(done.lost for node in cluster.nodes.values() for done in node.completions)


def test_reads_of_one_step_share_one_question() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"a")
    cluster.pump()
    cluster.sent.clear()
    for number in range(50):
        leader.driver.read_index(GROUP, number)
    cluster.pump()
    assert [read.token for read in leader.reads] == list(range(50))
    assert all(read.index == leader.group.applied and not read.lost for read in leader.reads)
    heartbeats = [one for one in cluster.sent if one.message.type is MessageType.HEARTBEAT]
    assert len(heartbeats) == 2


def test_a_read_is_answered_only_when_its_index_is_applied() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    follower.hung = True
    cluster.propose(leader, b"a")
    cluster.pump()
    follower.driver.read_index(GROUP, "read")
    cluster.pump()
    assert follower.reads == []
    assert follower.machine().items == []
    follower.hung = False
    cluster.pump()
    (answer,) = follower.reads
    assert answer.index == leader.group.applied
    assert follower.machine().items == [b"a"]


def test_a_leader_without_a_quorum_loses_its_reads() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.isolate(leader)
    leader.driver.read_index(GROUP, "read")
    cluster.run_until(lambda: bool(leader.reads), ticks=60)
    assert [(read.token, read.lost) for read in leader.reads] == [("read", True)]
    cluster.heal()
    cluster.tick(60)
    assert len(leader.reads) == 1


def test_a_followers_read_survives_a_lost_message_and_a_change_of_leader() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    cluster.filter = lambda envelope: envelope.message.type is not MessageType.READ_INDEX
    follower.driver.read_index(GROUP, "lost once")
    cluster.pump()
    cluster.heal()
    cluster.run_until(lambda: bool(follower.reads), ticks=20)
    assert not follower.reads[0].lost
    cluster.filter = lambda envelope: envelope.message.type is not MessageType.READ_INDEX
    follower.driver.read_index(GROUP, "over a change")
    cluster.pump()
    leader.driver.step_down(GROUP)
    cluster.heal()
    cluster.run_until(lambda: len(follower.reads) == 2, ticks=40)
    assert not follower.reads[1].lost


def test_a_read_that_nobody_answers_is_lost_at_its_deadline() -> None:
    cluster = Cluster()
    cluster.create_and_elect()
    follower = cluster.followers()[0]
    cluster.isolate(follower)
    follower.driver.read_index(GROUP, "read")
    ticks = cluster.run_until(lambda: bool(follower.reads), ticks=60)
    assert follower.reads[0].lost
    assert ticks <= cluster.config.read_timeout_ticks + 1


def test_reads_beyond_the_limit_are_refused() -> None:
    cluster = Cluster(config=DriverConfig(reads_count_max=3))
    leader = cluster.create_and_elect()
    for number in range(3):
        leader.driver.read_index(GROUP, number)
    with pytest.raises(OverloadedError):
        leader.driver.read_index(GROUP, 3)
    cluster.pump()
    leader.driver.read_index(GROUP, 4)


def test_proposals_beyond_the_uncommitted_limit_are_refused() -> None:
    cluster = Cluster(config=DriverConfig(uncommitted_bytes_max=1000))
    leader = cluster.create_and_elect()
    leader.driver.propose(GROUP, (b"x" * 900,), 1)
    with pytest.raises(OverloadedError):
        leader.driver.propose(GROUP, (b"x" * 200,), 2)
    cluster.pump()
    leader.driver.propose(GROUP, (b"x" * 200,), 3)
    cluster.pump()
    assert [done.token for done in leader.completions] == [1, 3]


def test_s13_a_hung_disk_hands_its_leaderships_to_the_others() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"a")
    cluster.pump()
    leader.hung = True
    cluster.propose(leader, b"b", "token")
    cluster.pump()
    leader.driver.disk_stalled()
    cluster.pump()
    with pytest.raises(NotLeadingError):
        leader.driver.propose(GROUP, (b"c",), None)
    ticks = cluster.run_until(lambda: cluster.leader() not in (None, leader), ticks=20)
    assert ticks <= 3
    leader.hung = False
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"a", b"b"]
    assert [done.token for done in leader.completions if done.token] == ["token"]


def test_s13_a_leader_with_a_hung_disk_steps_down_if_nobody_takes_over() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    leader.hung = True
    cluster.filter = lambda envelope: envelope.message.type is not MessageType.TIMEOUT_NOW
    leader.driver.disk_stalled()
    cluster.run_until(lambda: leader.group.role is Role.FOLLOWER, ticks=15)
    cluster.run_until(lambda: cluster.leader() not in (None, leader), ticks=10)


def test_a_transfer_moves_leadership_and_refuses_a_stranger() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    target = cluster.followers()[0]
    leader.driver.transfer_leader(GROUP, target.group.meta.replica_id)
    cluster.run_until(lambda: cluster.leader() is target, ticks=5)
    with pytest.raises(NotLeadingError):
        leader.driver.transfer_leader(GROUP, target.group.meta.replica_id)


def test_a_leader_that_steps_down_is_replaced_without_a_timeout() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    leader.driver.step_down(GROUP)
    ticks = cluster.run_until(cluster.leads, ticks=20)
    assert ticks <= 10


def test_messages_for_another_replica_are_dropped() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    cluster.propose(leader, b"a")
    cluster.step_node(leader)
    (envelope,) = [one for one in cluster.network if node_of(one.to_replica) == follower.node_id]
    for wrong in (
        replace(envelope, to_replica=envelope.to_replica + 1),
        replace(envelope, from_replica=envelope.from_replica + 1),
        replace(envelope, group_id=GROUP + 1),
    ):
        follower.driver.receive(wrong)
        assert follower.driver.advance() is None
    follower.driver.receive(envelope)
    assert follower.driver.advance() is not None


def test_a_replaced_proposal_is_not_taken_for_what_took_its_place() -> None:
    proposals = Proposals()
    for index in (5, 6, 7):
        proposals.add((2, index), index)
    assert [one.lost for one in proposals.applied(Entry(2, 5))] == [False]
    # Of 6 nothing was applied here: a base jumped over it.
    assert [(one.token, one.lost) for one in proposals.applied(Entry(3, 7))] == [
        (6, True),
        (7, True),
    ]
    assert not len(proposals)


def test_a_farewell_from_an_earlier_term_changes_nothing() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    leader.driver.step_down(GROUP)
    cluster.step_node(leader)
    (farewell,) = [
        one
        for one in cluster.network
        if is_farewell(one.message) and node_of(one.to_replica) == follower.node_id
    ]
    cluster.run_until(cluster.leads)
    cluster.tick(5)
    new = cluster.leader()
    assert new is not None
    # The same replica leads again, in a later term.
    if new is not leader:
        new.driver.transfer_leader(GROUP, leader.group.meta.replica_id)
        cluster.run_until(lambda: cluster.leader() is leader)
        cluster.tick(5)
    follower.driver.receive(farewell)
    cluster.pump()
    assert follower.group.leader_replica == leader.group.meta.replica_id


def test_a_replica_that_is_shut_out_answers_the_reads_that_wait() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.filter = lambda envelope: envelope.message.type is not MessageType.HEARTBEAT_RESP
    leader.driver.read_index(GROUP, "asked")
    cluster.pump()
    leader.driver.read_index(GROUP, "queued")
    leader.driver.quarantine(GROUP, "a reader found damage")
    cluster.pump()
    assert {(read.token, read.lost) for read in leader.reads} == {("asked", True), ("queued", True)}
    assert len(leader.reads) == 2


def test_a_base_that_jumps_over_proposals_answers_them_as_unknown() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    # The others commit it; the leader, whose disk hangs, cannot apply it, and hands over.
    leader.hung = True
    cluster.propose(leader, b"a", "token")
    cluster.pump()
    # What follows does not reach it, until all of that is in a base.
    cluster.filter = lambda envelope: (
        node_of(envelope.to_replica) != leader.node_id
        or envelope.message.type is not MessageType.APP
    )
    leader.driver.disk_stalled()
    new = cluster.await_other_leader(leader)
    assert leader.completions == [], "it may be applied here yet"
    for item in (b"checkpoint", b"b", b"trim"):
        cluster.propose(new, item)
        cluster.pump()
    base = new.group.storage.base.index
    assert base > leader.group.storage.last_index()
    new.driver.node_down(leader.node_id)
    new.driver.node_up(leader.node_id)
    cluster.pump()
    assert leader.group.applied == base
    assert [(done.token, done.lost) for done in leader.completions] == [("token", True)]
    cluster.heal()
    leader.hung = False
    cluster.await_applied(leader, new)
    assert len(leader.completions) == 1
    assert cluster.check_replicas_agree() == [b"a", b"checkpoint", b"b", b"trim"]
