"""Damage shuts out one replica, never another group, and never in silence (S5, S8 to S10)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rakit.multiraft import keys
from rakit.multiraft.errors import UnknownGroupError
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.records import (
    decode_hard_state,
    encode_entry,
    encode_hard_state,
)
from rakit.raft import Entry, HardState, Role
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
    return decode_hard_state(GROUP, value)


def lose_hard_state(node: Node) -> None:
    node.disk.delete(keys.hard_state(GROUP))


def roll_back_term(node: Node) -> None:
    old = HardState(1, 0, 1)
    node.disk.put(keys.hard_state(GROUP), encode_hard_state(GROUP, old))


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
        keys.entry(GROUP, last), encode_entry(GROUP, Entry(1, last, data=b"from an old term"))
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
    assert reason in why
    cluster.settle()
    cluster.tick(100)
    own = replica_id(victim.node_id, 1)
    assert not [one for one in cluster.sent if (one.group_id, one.from_replica) == (GROUP, own)]
    with pytest.raises(UnknownGroupError):
        victim.driver.propose(GROUP, b"x", None)
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
    ((group_id, reason),) = node.quarantined
    assert group_id == GROUP
    assert "applying entry" in reason
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
    assert leader.driver.quarantined == {GROUP: "a reader met a bad checksum"}


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
    assert "checksum" in leader.quarantined[0][1]
    cluster.run_until(cluster.leads)
    cluster.settle()
    assert b"?" not in follower.machine().items
    assert follower.machine().items[-2:] == [b"d", b"e"]


def test_a_replaced_replica_clears_the_quarantined_one_away() -> None:
    cluster = Cluster()
    _, victim = written(cluster)
    flip_a_bit(victim)
    cluster.crash(victim)
    cluster.restart(victim)
    old = GroupMeta(GROUP, replica_id(victim.node_id, 1), GroupKind.PARTITION)
    victim.driver.create_group(old, None)
    assert GROUP not in victim.driver.groups, "the damaged replica was revived"
    new = GroupMeta(GROUP, replica_id(victim.node_id, 2), GroupKind.PARTITION)
    victim.driver.create_group(new, None)
    cluster.pump()
    assert victim.driver.quarantined == {}
    assert victim.group.meta == new
    assert victim.group.storage.last_index() == 0


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
