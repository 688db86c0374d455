"""What a crash may take, and that nothing more is promised than what survives it."""

from __future__ import annotations

import pytest

from rakit.multiraft import keys
from rakit.multiraft.kv import Op
from rakit.raft import MessageType, Role
from tests.multiraft.driver.cluster import GROUP, Cluster, Node


def crash_at(victim_leads: bool, boundary: int) -> None:
    """Proposes while one node's syncs are withheld, crashes it keeping `boundary` batches."""
    cluster = Cluster(seed=boundary + 1)
    leader = cluster.create_and_elect()
    victim = leader if victim_leads else cluster.followers()[0]
    victim.hung = True
    for number in range(4):
        cluster.propose(leader, b"%d" % number, number)
        cluster.pump()
    answered = [done.token for done in leader.completions if not done.lost]
    boundary = min(boundary, victim.disk.unsynced_batches)
    cluster.crash(victim, boundary)
    victim.hung = False
    cluster.report_down(victim)
    cluster.run_until(cluster.leads)
    cluster.restart(victim)
    cluster.run_until(cluster.leads)
    new_leader = cluster.leader()
    assert new_leader is not None
    cluster.propose(new_leader, b"after")
    cluster.pump()
    cluster.settle()
    items = cluster.check_replicas_agree()
    assert items[-1] == b"after"
    assert [b"%d" % token for token in answered if isinstance(token, int)] == items[: len(answered)]
    assert victim.group.applied == new_leader.group.applied


@pytest.mark.parametrize("boundary", range(6))
def test_a_follower_comes_back_from_every_persist_boundary(boundary: int) -> None:
    crash_at(victim_leads=False, boundary=boundary)


@pytest.mark.parametrize("boundary", range(6))
def test_a_leader_comes_back_from_every_persist_boundary(boundary: int) -> None:
    crash_at(victim_leads=True, boundary=boundary)


def test_s13_a_majority_commits_without_the_leaders_disk_but_it_answers_nobody() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    leader.hung = True
    cluster.propose(leader, b"x", "token")
    cluster.pump()
    assert leader.group.raw.basic_status().commit == leader.group.storage.last_index()
    assert leader.completions == []
    leader.hung = False
    cluster.pump()
    assert [done.lost for done in leader.completions] == [False]


def test_a_follower_acknowledges_nothing_before_its_sync() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    follower.hung = True
    cluster.sent.clear()
    cluster.propose(leader, b"x")
    cluster.pump()
    own = follower.group.meta.replica_id
    acks = [
        one
        for one in cluster.sent
        if one.from_replica == own and one.message.type is MessageType.APP_RESP
    ]
    assert acks == []
    follower.hung = False
    cluster.pump()
    assert any(
        one.from_replica == own and one.message.type is MessageType.APP_RESP for one in cluster.sent
    )


def test_s18_several_readys_are_in_flight_and_complete_together() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    leader.hung = True
    for number in range(5):
        cluster.propose(leader, b"%d" % number, number)
        cluster.step_node(leader)
    assert len(leader.group.flights) >= 5
    leader.hung = False
    cluster.pump()
    assert not leader.group.flights
    assert [done.token for done in leader.completions] == [0, 1, 2, 3, 4]


def test_s18_a_sync_completes_what_was_written_before_it_and_nothing_else() -> None:
    cluster = Cluster(count=1)
    cluster.create()
    cluster.pump()
    node = cluster.nodes[1]
    node.hung = True
    numbers: list[int] = []
    for token in range(3):
        cluster.propose(node, b"%d" % token, token)
        cluster.step_node(node)
        numbers.append(node.effects[-1].number)
    assert len(set(numbers)) == 3
    for token, number in enumerate(numbers):
        node.driver.synced(number)
        cluster.step_node(node)
        assert [done.token for done in node.completions] == list(range(token + 1))


def isolated_leader_with_a_stale_tail(cluster: Cluster, leader: Node) -> None:
    """Leaves three entries on the leader that nobody else has, and elects another leader."""
    cluster.isolate(leader)
    for number in range(3):
        cluster.propose(leader, b"stale %d" % number, number)
    cluster.pump()
    cluster.run_until(lambda: cluster.leader() is not leader)
    new_leader = cluster.leader()
    assert new_leader is not None
    cluster.propose(new_leader, b"fresh")
    cluster.pump()


def test_a_replaced_tail_is_deleted_in_the_batch_that_replaces_it() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    isolated_leader_with_a_stale_tail(cluster, leader)
    old_last = leader.group.storage.last_index()
    leader.effects.clear()
    cluster.heal()
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"fresh"]
    deleting = [
        effects.batch
        for effects in leader.effects
        if any(op == Op.DELETE_RANGE for op, _, _ in effects.batch.ops)
    ]
    (batch,) = deleting
    (lo, hi), *_ = [(lo, hi) for op, lo, hi in batch.ops if op == Op.DELETE_RANGE]
    assert hi == keys.entry(GROUP, old_last + 1)
    first_put = next(key for op, key, _ in batch.ops if op == Op.PUT)
    assert first_put == lo, "the new entries stand behind the deletion of the old ones"
    assert any(key == keys.hard_state(GROUP) for _, key, _ in batch.ops)
    stored = [key for key, _ in leader.disk.scan(*keys.group_range(keys.ENTRY, GROUP))]
    assert len(stored) == leader.group.storage.last_index() - 1


def test_proposers_of_a_replaced_tail_are_told_once_that_the_outcome_is_unknown() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    isolated_leader_with_a_stale_tail(cluster, leader)
    cluster.heal()
    cluster.settle()
    assert [(done.token, done.lost) for done in leader.completions] == [
        (0, True),
        (1, True),
        (2, True),
    ]


def test_a_replaced_tail_stays_replaced_after_a_restart() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    isolated_leader_with_a_stale_tail(cluster, leader)
    cluster.heal()
    cluster.settle()
    cluster.crash(leader)
    cluster.restart(leader)
    cluster.settle()
    assert leader.machine().items == [b"fresh"]
    assert leader.group.role is Role.FOLLOWER


def test_a_vote_is_kept_over_a_crash() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    before = follower.group.storage.hard_state
    assert before.vote == leader.group.meta.replica_id
    cluster.crash(follower)
    cluster.isolate(follower)
    cluster.restart(follower)
    after = follower.group.storage.hard_state
    assert (after.term, after.vote) == (before.term, before.vote)
