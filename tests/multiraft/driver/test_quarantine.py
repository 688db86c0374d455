"""Damage shuts out one replica, never another group, and never in silence (S5, S8 to S10)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from rakit.multiraft import keys
from rakit.multiraft.driver import Envelope
from rakit.multiraft.errors import GroupRefusedError, UnknownGroupError
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.records import (
    StoredHardState,
    decode_hard_state,
    encode_hard_state,
)
from rakit.multiraft.stored_entries import encode_entry
from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    Entry,
    HardState,
    Message,
    MessageType,
    Role,
)
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

OTHER = 8


def written(cluster: Cluster) -> tuple[Node, Node]:
    """Returns leader and follower of a group that has a few entries; a second group lives too."""
    leader = cluster.create_and_elect()
    cluster.create(OTHER)
    for item in (b"a", b"checkpoint", b"b", b"c"):
        cluster.propose(leader, item)
    cluster.pump()
    cluster.settle()
    return leader, cluster.followers()[0]


def hard_state(node: Node) -> HardState:
    value = node.disk.get(keys.hard_state(GROUP))
    assert value is not None
    return decode_hard_state(GROUP, value).state


def lose_hard_state(node: Node) -> None:
    node.disk.delete(keys.hard_state(GROUP))


def roll_back_term(node: Node) -> None:
    old = StoredHardState(HardState(1, 0, 1), replica_id(node.node_id, 1))
    node.disk.put(keys.hard_state(GROUP), encode_hard_state(GROUP, old))


def keep_anothers_hard_state(node: Node) -> None:
    other = StoredHardState(hard_state(node), replica_id(node.node_id, 7))
    node.disk.put(keys.hard_state(GROUP), encode_hard_state(GROUP, other))


def garble_hard_state(node: Node) -> None:
    node.disk.put(keys.hard_state(GROUP), b"\0" * 12)


def lose_middle_entry(node: Node) -> None:
    node.disk.delete(keys.entry(GROUP, 5))


def lose_committed_tail(node: Node) -> None:
    last = node.group.storage.last_index()
    assert hard_state(node).commit == last
    node.disk.delete(keys.entry(GROUP, last))


def flip_a_bit(node: Node) -> None:
    value = node.disk.get(keys.entry(GROUP, 6))
    assert value is not None
    node.disk.put(keys.entry(GROUP, 6), value[:-1] + bytes((value[-1] ^ 1,)))


def misplace_an_entry(node: Node) -> None:
    value = node.disk.get(keys.entry(GROUP, 5))
    assert value is not None
    node.disk.put(keys.entry(GROUP, 6), value)


def let_a_term_fall(node: Node) -> None:
    last = node.group.storage.last_index()
    node.disk.put(
        keys.entry(GROUP, last), bytes(encode_entry(GROUP, Entry(1, last, data=b"an old term's")))
    )


def lose_birth_record(node: Node) -> None:
    node.disk.delete(keys.birth(GROUP))


def lose_first_checkpoint(node: Node) -> None:
    for index in (1, node.group.storage.latest.index):
        node.disk.delete(keys.checkpoint(GROUP, index))


def lose_the_entry_of_a_checkpoint(node: Node) -> None:
    node.disk.delete(keys.entry(GROUP, node.group.storage.latest.index))


def lose_the_first_entry(node: Node) -> None:
    node.disk.delete(keys.entry(GROUP, node.group.storage.first_index()))


DAMAGE: list[tuple[Callable[[Node], None], str]] = [
    (lose_hard_state, "S5"),
    (roll_back_term, "S5"),
    (keep_anothers_hard_state, "is that of replica"),
    (garble_hard_state, "checksum"),
    (lose_middle_entry, "entry 5 of group 7 is missing"),
    (lose_committed_tail, "had committed"),
    (flip_a_bit, "checksum"),
    (misplace_an_entry, "checksum"),
    (let_a_term_fall, "has term 1"),
    (lose_birth_record, "S10"),
    (lose_first_checkpoint, "lost the checkpoint"),
    (lose_the_entry_of_a_checkpoint, "entry 4 of group 7 is missing"),
    (lose_the_first_entry, "entry 2 of group 7 is missing"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE, ids=[one.__name__ for one, _ in DAMAGE])
def test_s5_s9_s10_a_damaged_replica_takes_no_part(
    damage: Callable[[Node], None], reason: str
) -> None:
    cluster = Cluster()
    leader, victim = written(cluster)
    other_items = len(victim.machine(OTHER).items)
    damage(victim)
    cluster.crash(victim)
    cluster.sent.clear()
    cluster.restart(victim)
    ((group_id, why),) = victim.quarantined
    assert group_id == GROUP
    assert reason in why.reason
    assert why.may_be_replaced, "the loss is its own"
    cluster.settle()
    cluster.tick(100)
    own = replica_id(victim.node_id, 1)
    assert not [one for one in cluster.sent if (one.group_id, one.from_replica) == (GROUP, own)]
    with pytest.raises(UnknownGroupError):
        victim.driver.propose(GROUP, (b"x",), None)
    # The others go on without it, and so does its other group.
    cluster.propose(leader, b"d")
    cluster.pump()
    assert leader.machine().items[-1] == b"d"
    assert victim.driver.groups[OTHER].conf_state.voters
    assert len(victim.machine(OTHER).items) == other_items


def test_a_replica_that_cannot_apply_stops_and_its_waiters_are_told() -> None:
    cluster = Cluster(count=1)
    cluster.create()
    cluster.create(OTHER)
    cluster.pump()
    node = cluster.nodes[1]
    cluster.propose(node, b"boom", "token")
    cluster.propose(node, b"next", "behind")
    cluster.pump()
    assert [(done.token, done.lost) for done in node.completions] == [
        ("token", True),
        ("behind", True),
    ]
    ((group_id, shut_out),) = node.quarantined
    assert group_id == GROUP
    assert "applying entry" in shut_out.reason
    assert node.roles[-1].role is Role.FOLLOWER
    cluster.propose(node, b"fine", "token", OTHER)
    cluster.pump()
    assert node.machine(OTHER).items == [b"fine"]


def test_a_leader_that_reads_damage_hands_over_at_once() -> None:
    cluster = Cluster()
    leader, follower = written(cluster)
    cluster.tick(40)
    assert follower.group.quiet
    leader.driver.quarantine(GROUP, "a reader met a bad checksum")
    cluster.pump()
    assert cluster.run_until(cluster.leads) <= 10
    assert cluster.leader() is not leader
    assert leader.driver.quarantined[GROUP].reason == "a reader met a bad checksum"


def test_a_leader_never_sends_an_entry_that_fails_its_checksum() -> None:
    cluster = Cluster()
    leader, follower = written(cluster)
    cluster.crash(follower)
    cluster.report_down(follower)
    for item in (b"d", b"e"):
        cluster.propose(leader, item)
    cluster.pump()
    last = leader.group.storage.last_index()
    value = leader.disk.get(keys.entry(GROUP, last - 1))
    assert value is not None
    leader.disk.put(keys.entry(GROUP, last - 1), value[:-1] + b"?")
    # The entry is not in the cache any more.
    leader.group.storage.close()
    cluster.restart(follower)
    cluster.run_until(lambda: bool(leader.quarantined))
    assert "checksum" in leader.quarantined[0][1].reason
    cluster.run_until(cluster.leads)
    cluster.settle()
    assert b"?" not in follower.machine().items
    assert follower.machine().items[-2:] == [b"d", b"e"]


def restart(cluster: Cluster, node: Node) -> None:
    cluster.crash(node)
    cluster.report_down(node)
    cluster.restart(node)


def replacement(node: Node, sequence: int) -> GroupMeta:
    return GroupMeta(GROUP, replica_id(node.node_id, sequence), GroupKind.PARTITION)


def test_s9_a_replica_that_lost_its_log_does_not_vote_away_a_record_after_a_restart() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    second, third = cluster.followers()
    cluster.propose(leader, b"old")
    cluster.settle()
    copied = copy.deepcopy(second.disk)
    cluster.isolate(third)
    cluster.propose(leader, b"x", "acknowledged")
    cluster.settle()
    assert [(one.token, one.lost) for one in leader.completions if one.token] == [
        ("acknowledged", False)
    ]
    # The second disk goes back; its leader's commit index gives that away.
    cluster.crash(second)
    second.disk = copied
    cluster.restart(second)
    cluster.run_until(lambda: GROUP in second.driver.quarantined)
    told = [lost for effects in leader.effects for lost in effects.lost_logs]
    assert told == [(GROUP, replica_id(second.node_id, 1))], "its leader says so, once"
    cluster.crash(leader)
    cluster.report_down(leader)
    restart(cluster, second)
    assert GROUP not in second.driver.groups
    cluster.heal()
    cluster.tick(200)
    assert cluster.leader() is None, "the third one alone cannot know of x"
    cluster.restart(leader)
    cluster.run_until(cluster.leads)
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"old", b"x"]


def test_s9_damage_that_a_reader_met_shuts_out_after_restarts_too() -> None:
    cluster = Cluster()
    leader, victim = written(cluster)
    victim.driver.quarantine(GROUP, "a reader found damage")
    cluster.pump()
    assert victim.effects[-1].must_sync
    for node in (leader, victim):
        before = dict(node.driver.quarantined)
        restart(cluster, node)
        assert dict(node.driver.quarantined) == before
    assert victim.driver.quarantined[GROUP] == Quarantined(
        replica_id(victim.node_id, 1), "a reader found damage", for_good=True, at_fault=True
    )
    assert OTHER in victim.driver.groups


def test_s9_a_note_of_a_quarantine_that_cannot_be_read_shuts_out_as_well() -> None:
    cluster = Cluster()
    _, victim = written(cluster)
    victim.disk.put(keys.local(b"shut-out:") + GROUP.to_bytes(8, "big"), b"?")
    restart(cluster, victim)
    shut_out = victim.driver.quarantined[GROUP]
    assert shut_out.for_good
    assert not shut_out.may_be_replaced, "it may have been the one that was right"
    assert OTHER in victim.driver.groups


def test_s7_two_leaders_in_one_term_cost_the_nodes_that_group_only() -> None:
    cluster = Cluster()
    cluster.create_and_elect(OTHER)
    first, second, third = cluster.nodes.values()
    cluster.create()
    cluster.pump()
    copied = copy.deepcopy(second.disk)
    cluster.isolate(third)
    first.driver.campaign(GROUP)
    cluster.run_until(lambda: cluster.leader() is first)
    # The second disk goes back to before its vote, which it then gives to the third node.
    cluster.crash(second)
    second.disk = copied
    cluster.isolate(first)
    cluster.restart(second)
    third.driver.campaign(GROUP)
    cluster.run_until(lambda: third.group.role is Role.LEADER)
    assert first.group.term == third.group.term
    cluster.heal()
    cluster.run_until(lambda: any(GROUP in node.driver.quarantined for node in (first, third)))
    cluster.settle()
    shut_out = [node for node in cluster.nodes.values() if GROUP in node.driver.quarantined]
    for node in shut_out:
        assert "two leaders" in node.driver.quarantined[GROUP].reason
        restart(cluster, node)
        # Another's disk went back, and this one may be the last that holds what was promised.
        assert not node.driver.quarantined[GROUP].may_be_replaced
        assert "nothing replaces it" in node.driver.quarantined[GROUP].remedy
    cluster.run_until(lambda: cluster.leads(OTHER))


def test_a_replaced_replica_clears_the_quarantined_one_away() -> None:
    cluster = Cluster()
    _, victim = written(cluster)
    victim.driver.quarantine(GROUP, "a reader found damage")
    cluster.pump()
    restart(cluster, victim)
    with pytest.raises(GroupRefusedError, match="is shut out on this node: a reader found damage"):
        victim.driver.create_group(replacement(victim, 1), None)
    assert GROUP not in victim.driver.groups, "the damaged replica was revived"
    new = replacement(victim, 2)
    victim.driver.create_group(new, None)
    cluster.pump()
    assert GROUP not in victim.driver.quarantined
    restart(cluster, victim)
    assert victim.group.meta == new
    assert victim.group.storage.last_index() == 0
    with pytest.raises(GroupRefusedError):
        victim.driver.create_group(replacement(victim, 1), None)


def test_s9_a_node_goes_on_routing_to_the_leader_of_a_replica_that_it_shut_out() -> None:
    cluster = Cluster()
    leader, victim = written(cluster)
    victim.driver.quarantine(GROUP, "a reader found damage")
    cluster.pump()
    change = victim.roles[-1]
    assert (change.group_id, change.role) == (GROUP, Role.FOLLOWER)
    assert change.leader_replica == replica_id(leader.node_id, 1)
    leader.driver.quarantine(GROUP, "a reader found damage")
    cluster.pump()
    assert leader.roles[-1].leader_replica == 0, "it leads no more"


def test_s8_a_working_replica_is_replaced_in_one_turn_while_appends_are_under_way() -> None:
    """What is on its way to the old one, or is not synced yet, is nothing to the new one."""
    cluster = Cluster()
    leader, victim = written(cluster)
    victim.hung = True
    cluster.propose(leader, b"unsynced")
    cluster.pump()
    assert victim.unsynced
    cluster.propose(leader, b"on its way")
    cluster.step_node(leader)
    old, new = victim.group.meta.replica_id, replacement(victim, 2)
    victim.driver.remove_group(GROUP)
    victim.driver.create_group(new, None)
    victim.hung = False
    cluster.sent.clear()
    cluster.pump()
    assert victim.group.meta == new
    assert victim.group.storage.last_index() == 0
    for change in (
        (ConfChangeSingle(ConfChangeType.ADD_LEARNER, new.replica_id),),
        (
            ConfChangeSingle(ConfChangeType.ADD_VOTER, new.replica_id),
            ConfChangeSingle(ConfChangeType.REMOVE, old),
        ),
    ):
        leader.driver.propose_conf_change(GROUP, ConfChange(change), None)
        cluster.settle()
        cluster.await_applied(victim, leader)
    assert victim.group.conf_state.voters == leader.group.conf_state.voters
    assert new.replica_id in victim.group.conf_state.voters
    assert not [one for one in cluster.sent if (one.group_id, one.from_replica) == (GROUP, old)]
    items = cluster.check_replicas_agree()
    assert items[-2:] == [b"unsynced", b"on its way"]
    restart(cluster, victim)
    cluster.settle()
    assert cluster.check_replicas_agree() == items
    assert not victim.driver.quarantined


@pytest.mark.parametrize("rows", ["both", "hard state", "checkpoint", "none"])
def test_s10_a_replica_without_a_birth_record_gives_way_to_one_with_a_higher_id(rows: str) -> None:
    cluster = Cluster()
    _, victim = written(cluster)
    lose_birth_record(victim)
    if rows in {"checkpoint", "none"}:
        lose_hard_state(victim)
    if rows in {"hard state", "none"}:
        lose_first_checkpoint(victim)
    restart(cluster, victim)
    known = 0 if rows == "none" else replica_id(victim.node_id, 1)
    assert victim.driver.quarantined[GROUP].replica_id == known
    with pytest.raises(GroupRefusedError):
        victim.driver.create_group(replacement(victim, 1), None)
    if known:
        victim.driver.create_group(replacement(victim, 2), None)
        assert victim.group.meta.replica_id == replica_id(victim.node_id, 2)
    else:
        with pytest.raises(GroupRefusedError, match="replica unknown"):
            victim.driver.create_group(replacement(victim, 2), None)


def test_a_removed_replica_in_quarantine_leaves_nothing_but_its_tombstone() -> None:
    cluster = Cluster()
    _, victim = written(cluster)
    victim.driver.quarantine(GROUP, "a reader found damage")
    cluster.pump()
    victim.driver.remove_group(GROUP)
    cluster.pump()
    restart(cluster, victim)
    assert not victim.driver.quarantined
    with pytest.raises(GroupRefusedError, match="was removed from this node"):
        victim.driver.create_group(replacement(victim, 1), None)
    assert not [key for key, _ in victim.disk.scan(b"", b"\xff") if key[0] == keys.LOCAL]


def test_s8_doubt_is_marked_on_disk_and_ends_with_an_own_term_commit() -> None:
    cluster = Cluster()
    leader, victim = written(cluster)
    cluster.crash(victim)
    cluster.isolate(victim)
    cluster.restart(victim, doubtful=True)
    assert victim.effects[0].must_sync
    cluster.crash(victim)
    # A second start without new damage: the mark of the first one still holds.
    cluster.restart(victim)
    assert victim.group.doubtful
    cluster.heal()
    cluster.propose(leader, b"d")
    cluster.run_until(lambda: not victim.group.doubtful)
    cluster.settle()
    cluster.crash(victim)
    cluster.isolate(victim)
    cluster.restart(victim)
    assert not victim.group.doubtful


def test_s8_two_doubtful_replicas_do_not_elect_without_the_third() -> None:
    cluster = Cluster()
    leader, follower = written(cluster)
    third = next(node for node in cluster.nodes.values() if node not in (leader, follower))
    for node in (leader, follower, third):
        cluster.crash(node)
    for node in (follower, third):
        cluster.restart(node, doubtful=True)
    cluster.tick(200)
    assert cluster.leader() is None
    cluster.restart(leader)
    cluster.run_until(cluster.leads)


@pytest.mark.parametrize("doubtful", [True, False])
def test_s8_a_replica_in_doubt_does_not_rest_on_an_old_mark(doubtful: bool) -> None:
    """Its leader may not know of its start yet; at rest nobody would ever end the doubt."""
    cluster = Cluster()
    leader, follower = written(cluster)
    cluster.sent.clear()
    cluster.tick(60)
    own = follower.group.meta.replica_id
    (mark,) = [
        one
        for one in cluster.sent
        if (one.group_id, one.to_replica) == (GROUP, own) and one.message.context[:1] == b"q"
    ]
    cluster.crash(follower)
    cluster.isolate(follower)
    cluster.restart(follower, doubtful=doubtful)
    term, sender = leader.group.term, leader.group.meta.replica_id
    beat = Message(MessageType.HEARTBEAT, own, sender, term, commit=leader.group.commit)
    follower.driver.receive(Envelope(GROUP, sender, own, beat))
    cluster.pump()
    assert follower.group.applied == leader.group.applied
    follower.driver.receive(mark)
    assert follower.group.quiet != doubtful
