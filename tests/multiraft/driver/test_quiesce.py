"""Idle groups go quiet, cost nothing, and wake for everything that matters (S15, S16)."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import gc
import random
import tracemalloc
from dataclasses import replace

import pytest

from rakit.multiraft.driver import DriverConfig, Envelope
from rakit.multiraft.elections import Agenda
from rakit.multiraft.quiesce import QuiesceMark, disturbs, may_rest
from rakit.raft import Message, MessageType, Role
from tests.multiraft.driver.cluster import GROUP, Cluster, Node


def quiet_cluster(seed: int = 1) -> tuple[Cluster, Node]:
    cluster = Cluster(seed=seed)
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"a")
    cluster.tick(60)
    assert all(node.group.quiet for node in cluster.nodes.values())
    return cluster, leader


def test_s15_an_idle_group_goes_quiet_and_sends_nothing() -> None:
    cluster, _ = quiet_cluster()
    cluster.sent.clear()
    cluster.tick(200)
    assert cluster.sent == []
    assert all(node.driver.awake_count == 0 for node in cluster.nodes.values())


def test_a_quiet_group_wakes_on_a_proposal_and_rests_again() -> None:
    cluster, leader = quiet_cluster()
    cluster.propose(leader, b"b", "token")
    cluster.pump()
    assert [done.lost for done in leader.completions if done.token == "token"] == [False]
    assert not any(node.group.quiet for node in cluster.nodes.values())
    cluster.tick(60)
    assert cluster.check_replicas_agree() == [b"a", b"b"]
    assert all(node.group.quiet for node in cluster.nodes.values())
    assert cluster.leader() is leader


def test_a_read_wakes_a_quiet_group_also_through_a_follower() -> None:
    cluster, _ = quiet_cluster()
    follower = cluster.followers()[0]
    follower.driver.read_index(GROUP, "read")
    cluster.pump()
    (answer,) = follower.reads
    assert not answer.lost
    assert answer.index == follower.group.applied


@pytest.mark.parametrize("seed", range(8))
def test_s15_s16_the_loss_of_the_leaders_node_wakes_and_elects(seed: int) -> None:
    cluster, leader = quiet_cluster(seed)
    cluster.crash(leader)
    cluster.report_down(leader)
    assert cluster.run_until(cluster.leads) <= 6


def test_s15_one_dead_node_keeps_no_group_awake() -> None:
    cluster, leader = quiet_cluster()
    dead = cluster.followers()[0]
    cluster.crash(dead)
    cluster.sent.clear()
    cluster.report_down(dead)
    cluster.tick(60)
    living = [node for node in cluster.nodes.values() if node is not dead]
    assert all(node.group.quiet for node in living)
    assert cluster.sent == [], "the death of a follower is nobody's concern"
    cluster.propose(leader, b"b")
    cluster.tick(60)
    assert all(node.group.quiet for node in living)
    cluster.restart(dead)
    cluster.run_until(lambda: dead.group.applied == leader.group.applied)
    assert dead.machine().items == [b"a", b"b"]


def test_s15_a_restarted_follower_rejoins_a_quiet_group() -> None:
    cluster, leader = quiet_cluster()
    follower = cluster.followers()[0]
    term = leader.group.term
    cluster.crash(follower)
    cluster.restart(follower)
    cluster.tick(80)
    assert all(node.group.quiet for node in cluster.nodes.values())
    assert leader.group.term == term, "a restart disturbed the leader"


def test_s15_a_restarted_leader_is_replaced_though_its_node_never_seemed_down_for_long() -> None:
    cluster, leader = quiet_cluster()
    cluster.crash(leader)
    cluster.restart(leader)
    cluster.run_until(cluster.leads, ticks=20)


def test_without_a_living_majority_nothing_goes_quiet() -> None:
    cluster, leader = quiet_cluster()
    for follower in cluster.followers():
        cluster.crash(follower)
        cluster.report_down(follower)
    cluster.tick(100)
    assert not leader.group.quiet
    assert leader.group.role is not Role.LEADER, "check-quorum ends a leadership without followers"


def test_a_follower_does_not_rest_on_an_old_mark() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"a")
    cluster.tick(29)
    held: list[Envelope] = []

    def hold_marks(envelope: Envelope) -> bool:
        if QuiesceMark.decode(envelope.message.context) is None:
            return True
        held.append(envelope)
        return False

    cluster.filter = hold_marks
    cluster.run_until(lambda: bool(held))
    cluster.heal()
    # While the marks are on their way the leader takes another entry.
    cluster.propose(leader, b"b")
    cluster.pump()
    cluster.network += held
    cluster.pump()
    assert not any(node.group.quiet for node in cluster.followers())
    cluster.tick(60)
    assert cluster.check_replicas_agree() == [b"a", b"b"]


def test_a_follower_rests_on_the_mark_of_its_own_term_and_leader_only() -> None:
    cluster, leader = quiet_cluster()
    other, follower = cluster.followers()
    group, own, own_leader = (
        follower.group,
        follower.group.meta.replica_id,
        leader.group.meta.replica_id,
    )

    def rests(term: int, sender: int, applied: int) -> bool:
        mark = QuiesceMark(term, applied, ()).encode()
        word = Message(MessageType.HEARTBEAT, own, sender, term, commit=applied, context=mark)
        return may_rest(group, word, lambda _: True)

    assert rests(group.term, own_leader, group.applied)
    assert not rests(group.term + 1, own_leader, group.applied)
    assert not rests(group.term, other.group.meta.replica_id, group.applied)
    assert not rests(group.term, own_leader, group.applied + 1)


def test_a_leader_does_not_rest_while_a_living_member_lags() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    behind = cluster.followers()[0].group.meta.replica_id
    cluster.filter = lambda envelope: (
        envelope.to_replica != behind or envelope.message.type is not MessageType.APP
    )
    cluster.propose(leader, b"a")
    cluster.sent.clear()
    cluster.tick(100)
    marks = [one for one in cluster.sent if QuiesceMark.decode(one.message.context) is not None]
    assert marks == []
    cluster.heal()
    cluster.tick(100)
    assert all(node.group.quiet for node in cluster.nodes.values())


def test_a_leader_does_not_rest_where_it_takes_a_majority_for_dead() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    for node in cluster.followers():
        leader.driver.node_down(node.node_id)
    cluster.tick(100)
    assert cluster.leader() is leader, "messages go on both ways"
    assert not leader.group.quiet


def test_a_proposal_wakes_a_quiet_group_though_it_is_lost_on_the_way() -> None:
    cluster, leader = quiet_cluster()
    cluster.isolate(leader)
    cluster.propose(leader, b"b")
    cluster.pump()
    assert not leader.group.quiet
    cluster.heal()
    cluster.run_until(lambda: leader.machine().items == [b"a", b"b"], ticks=20)


def test_a_follower_that_takes_a_dead_member_for_alive_keeps_the_leader_awake() -> None:
    cluster, leader = quiet_cluster()
    cut = cluster.followers()[0]
    # The leader's node does not see the other one; the third node does.
    leader.driver.node_down(cut.node_id)
    cluster.filter = lambda envelope: (
        {envelope.from_replica >> 24, envelope.to_replica >> 24} != {leader.node_id, cut.node_id}
    )
    cluster.propose(leader, b"b")
    cluster.tick(100)
    third = next(node for node in cluster.followers() if node is not cut)
    assert not third.group.quiet
    assert not leader.group.quiet


def test_a_quiet_leader_wakes_for_everything_but_late_answers_to_its_heartbeats() -> None:
    cluster, leader = quiet_cluster()
    group, member = leader.group, cluster.followers()[0].group.meta.replica_id
    group.dead_at_rest = frozenset({99})

    def wakes(kind: MessageType, sender: int, term: int, context: bytes = b"") -> bool:
        message = Message(kind, group.meta.replica_id, sender, term, context=context)
        return disturbs(group, message)

    term, mark = group.term, QuiesceMark(group.term, group.applied, ()).encode()
    assert not wakes(MessageType.HEARTBEAT_RESP, member, term)
    assert wakes(MessageType.HEARTBEAT_RESP, 99, term), "a dead member is back"
    assert wakes(MessageType.HEARTBEAT_RESP, member, term, mark), "a member does not rest"
    assert wakes(MessageType.HEARTBEAT_RESP, member, term + 1)
    assert wakes(MessageType.APP_RESP, member, term)
    assert wakes(MessageType.PRE_VOTE, member, term + 1)


def test_s15_a_node_that_returns_is_asked_at_once_where_it_is() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    cluster.crash(follower)
    cluster.report_down(follower)
    cluster.propose(leader, b"a")
    cluster.pump()
    cluster.restart(follower)
    # Without a tick, and so without a heartbeat.
    assert follower.group.applied == leader.group.applied


def test_the_metadata_group_never_goes_quiet() -> None:
    cluster = Cluster()
    cluster.create(kind=1)
    cluster.tick(200)
    assert not any(node.group.quiet for node in cluster.nodes.values())


def test_many_idle_groups_cost_no_tick() -> None:
    cluster = Cluster()
    for group_id in range(100, 160):
        cluster.create(group_id)
    cluster.tick(80)
    assert all(node.driver.awake_count == 0 for node in cluster.nodes.values())


def test_s16_the_loss_of_a_node_that_led_many_groups_is_no_storm() -> None:
    config = DriverConfig(campaigns_count_max=8)
    cluster = Cluster(config=config)
    for group_id in range(100, 160):
        cluster.create(group_id)
    cluster.tick(120)
    victim = cluster.nodes[1]
    led = [gid for gid in victim.driver.groups if cluster.leader(gid) is victim]
    assert len(led) >= 15
    cluster.crash(victim)
    cluster.report_down(victim)
    cluster.sent.clear()
    cluster.tick()
    for node_id in (2, 3):
        asking = {
            one.group_id
            for one in cluster.sent
            if one.message.type is MessageType.PRE_VOTE and one.from_replica >> 24 == node_id
        }
        assert len(asking) <= config.campaigns_count_max
    cluster.run_until(lambda: all(cluster.leader(gid) is not None for gid in led), ticks=30)


def test_s16_many_groups_whose_leader_went_silent_do_not_all_stand_at_once() -> None:
    config = DriverConfig(campaigns_count_max=4)
    cluster = Cluster(config=config)
    for group_id in range(100, 160):
        cluster.create(group_id)
    victim = cluster.nodes[1]
    cluster.run_until(lambda: all(cluster.leads(group_id) for group_id in range(100, 160)))
    led = [gid for gid in victim.driver.groups if cluster.leader(gid) is victim]
    assert len(led) >= 15
    for gid in led:
        cluster.propose(victim, b"a", group=gid)
    cluster.pump()
    cluster.crash(victim)
    # Nobody is told, and nobody hears the others: each campaign fails.
    cluster.isolate(cluster.nodes[2])
    standing: dict[int, list[set[int]]] = {2: [], 3: []}
    for _ in range(300):
        cluster.sent.clear()
        cluster.tick()
        for node_id, asked in standing.items():
            asked.append(
                {
                    one.group_id
                    for one in cluster.sent
                    if one.message.type is MessageType.PRE_VOTE
                    and one.from_replica >> 24 == node_id
                }
            )
    for asked in standing.values():
        assert set[int]().union(*asked) >= set(led), "everybody has its turn"
        for first in range(len(asked) - 12):
            assert sum(map(len, asked[first : first + 12])) <= config.campaigns_count_max
    cluster.heal()
    cluster.run_until(lambda: all(cluster.leader(gid) is not None for gid in led), ticks=400)


def test_s16_who_waits_for_its_turn_keeps_its_place_while_other_nodes_come_and_go() -> None:
    cluster = Cluster(config=DriverConfig(campaigns_count_max=4))
    for group_id in range(100, 140):
        cluster.create(group_id)
    cluster.filter = lambda _: False
    cluster.tick(6)
    driver = cluster.nodes[1].driver
    agenda = driver._succession._agenda
    in_line = [*agenda._waiting, *agenda._waiting_later]
    assert len(in_line) > 4
    driver.node_down(2)
    driver.node_up(2)
    assert [*agenda._waiting, *agenda._waiting_later] == in_line
    assert driver.advance() is None, "nothing happened to them"


def test_s15_a_group_that_nobody_wanted_anything_of_rests_again_after_a_heartbeat() -> None:
    cluster, leader = quiet_cluster()
    follower = cluster.followers()[0]
    cluster.crash(follower)
    cluster.restart(follower)
    assert not leader.group.quiet
    cluster.run_until(
        lambda: all(node.group.quiet for node in cluster.nodes.values()),
        ticks=4 * cluster.config.heartbeat_ticks,
    )
    cluster.propose(leader, b"b")
    cluster.tick(cluster.config.quiesce_ticks - 1)
    assert not leader.group.quiet, "who was written to may be written to again"


def test_a_voter_gives_way_to_one_that_asks_for_its_vote() -> None:
    agenda = Agenda(4, 20, 2, random.Random(0))
    agenda.plan(1, 0, 0)
    agenda.give_way(1, 0)
    assert next(now for now in range(1, 10) if agenda.due(now)) in {4, 5}
    assert agenda.has(1)


def test_later_voters_wait_while_a_node_is_busy_with_first_turns() -> None:
    agenda = Agenda(4, 20, 1, random.Random(0))
    agenda.plan(1, 0, 0)
    agenda.plan(5, 0, 1)
    taken: list[int] = []
    for now in range(1, 60):
        if now == 8:
            agenda.plan(6, now, 0)
        taken += agenda.due(now)
    assert taken == [1, 6, 5]


def test_the_agenda_takes_turns_and_gives_up_in_the_end() -> None:
    agenda = Agenda(4, 20, 2, random.Random(0))
    for group_id in (1, 2, 3):
        agenda.plan(group_id, 0, 0)
    first = agenda.due(1) + agenda.due(2) + agenda.due(3)
    assert len(first) == 2, "there is room for two"
    for group_id in first:
        agenda.cancel(group_id)
    assert {*first, *agenda.due(4)} == {1, 2, 3}
    for group_id in (1, 2, 3):
        agenda.cancel(group_id)
    agenda.plan(1, 4, 0)
    now = 4
    while not agenda.due(now):
        now += 1
    tries = 1
    while agenda.again(1, now, 3):
        found: list[int] = []
        while not found:
            now += 1
            found = agenda.due(now)
        tries += 1
        assert found == [1]
    assert tries == 6
    assert now < 150


def test_s15_a_quiet_group_whose_farewell_was_lost_is_woken_by_the_announcement() -> None:
    cluster, leader = quiet_cluster()
    cluster.filter = lambda envelope: envelope.message.context != b"farewell"
    leader.driver.quarantine(GROUP, "a reader found damage")
    cluster.tick(200)
    others = [node for node in cluster.nodes.values() if node is not leader]
    assert all(node.group.quiet for node in others), "nobody told them, and nobody ticks them"
    for node in others:
        node.driver.leader_ended(GROUP)
    cluster.run_until(cluster.leads)


def test_s15_who_holds_the_leader_for_dead_does_not_rest_on_its_word() -> None:
    cluster = Cluster()
    first = cluster.create_and_elect()
    leader = cluster.followers()[0]
    others = [node for node in cluster.nodes.values() if node is not leader]
    # Their pings to it do not get through, though everybody's messages do.
    for node in others:
        node.driver.node_down(leader.node_id)
    first.driver.transfer_leader(GROUP, leader.group.meta.replica_id)
    cluster.run_until(lambda: cluster.leader() is leader, ticks=20)
    cluster.tick(120)
    assert cluster.leader() is leader
    assert not any(node.group.quiet for node in others)
    # And so they notice its end, of which nobody can tell them: it was down already.
    cluster.crash(leader)
    cluster.run_until(cluster.leads, ticks=4 * cluster.config.election_ticks)
    cluster.tick(120)
    assert all(node.group.quiet for node in others)


def test_s8_a_replica_in_doubt_does_not_rest() -> None:
    cluster, leader = quiet_cluster()
    follower = cluster.followers()[0]
    at_rest = follower.group.applied
    cluster.crash(follower, surviving_batches=follower.disk.unsynced_batches)
    cluster.isolate(follower)
    cluster.restart(follower, doubtful=True)
    group, own = follower.group, leader.group.meta.replica_id
    assert group.applied == at_rest
    mark = QuiesceMark(group.term, at_rest, ()).encode()
    me = group.meta.replica_id
    word = Message(MessageType.HEARTBEAT, me, own, group.term, commit=at_rest, context=mark)
    follower.driver.receive(Envelope(GROUP, own, me, replace(word, context=b"")))
    cluster.pump()
    assert group.doubtful
    assert not may_rest(group, word, lambda _: True)
    group.raw._raft.doubtful = False
    assert may_rest(group, word, lambda _: True), "nothing else keeps it awake"


def test_a_replica_at_rest_takes_less_than_seven_kilobytes() -> None:
    """What waits for nothing holds no deque of its own and no empty set (600 and 200 bytes each).

    The goal is 10 kB for all of a node; the partition on top of a replica takes one or two.
    """
    cluster = Cluster()
    cluster.create_and_elect()
    count = 100
    ours = [tracemalloc.Filter(inclusive=True, filename_pattern="*/raft/rakit/*")]
    gc.collect()
    tracemalloc.start()
    try:
        for group_id in range(1000, 1000 + count):
            cluster.create(group_id)
        cluster.tick(10)
        for group_id in range(1000, 1000 + count):
            leader = cluster.leader(group_id)
            assert leader is not None
            cluster.propose(leader, b"a", group=group_id)
        cluster.tick(100)
        assert all(node.driver.awake_count == 0 for node in cluster.nodes.values())
        for node in cluster.nodes.values():
            node.effects.clear()
        cluster.sent.clear()
        gc.collect()
        held = tracemalloc.take_snapshot().filter_traces(ours)
    finally:
        tracemalloc.stop()
    held_bytes = sum(one.size for one in held.statistics("filename"))
    assert held_bytes / (count * len(cluster.nodes)) < 7000
