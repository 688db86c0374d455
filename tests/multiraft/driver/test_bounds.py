"""One step is bounded by what it sends and applies; the others keep their place (S17)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from rakit.multiraft import loading
from rakit.multiraft.driver import Driver, DriverConfig, Effects
from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.machine import node_of
from rakit.multiraft.stepping import TURN_COST_BYTES
from rakit.multiraft.stored_entries import decode_entry
from rakit.raft import Entry, MessageType, message_bytes
from tests.multiraft.driver.cluster import Cluster, Node

KIB = 1024
GROUPS = range(100, 112)
#: Nothing in the cache: what is sent late is read from the disk.
CONFIG = DriverConfig(
    message_bytes_max=8 * KIB,
    send_bytes_max=16 * KIB,
    step_bytes_max=64 * KIB,
    tail_cache_bytes_max=1,
    tail_cache_needed_bytes_max=1,
)


def sent_bytes(effects: Effects) -> int:
    return sum(message_bytes(one.message.entries) for one in effects.sends)


def steps(node: Node) -> Iterator[Effects]:
    """What a node wants now, step by step, carried out but for the network."""
    while (effects := node.driver.advance()) is not None:
        node.disk.write(effects.batch)
        node.driver.written(effects.number)
        if effects.must_sync:
            node.disk.sync()
            node.driver.synced(effects.number)
        yield effects


def with_one_away(config: DriverConfig = CONFIG) -> tuple[Cluster, Node, Node]:
    """Node 1 leads twelve groups; node 3 is away, and misses 80 KiB of each."""
    cluster = Cluster(config=config)
    for group_id in GROUPS:
        cluster.create(group_id)
    cluster.run_until(lambda: all(cluster.leads(group_id) for group_id in GROUPS))
    leader, away = cluster.nodes[1], cluster.nodes[3]
    for group_id in GROUPS:
        now = cluster.leader(group_id)
        assert now is not None
        if now is not leader:
            now.driver.transfer_leader(group_id, leader.driver.groups[group_id].meta.replica_id)
    cluster.run_until(lambda: all(cluster.leader(group_id) is leader for group_id in GROUPS))
    cluster.settle()
    cluster.crash(away)
    cluster.report_down(away)
    for number in range(20):
        for group_id in GROUPS:
            cluster.propose(leader, bytes([number]) * 4 * KIB, group=group_id)
        cluster.pump()
    cluster.settle()
    return cluster, leader, away


def caught_up(leader: Node, follower: Node) -> bool:
    return all(
        follower.driver.groups[each].applied == leader.driver.groups[each].applied
        for each in GROUPS
    )


def test_s17_one_step_sends_no_more_than_its_budget_whatever_the_windows_allow() -> None:
    config = replace(CONFIG, step_bytes_max=256 * KIB)
    cluster, leader, away = with_one_away(config)
    leader.effects.clear()
    cluster.restart(away)
    cluster.run_until(lambda: caught_up(leader, away))
    largest = max(sent_bytes(effects) for effects in leader.effects)
    # So many groups have a turn, each at its own cost; twice as many would have something to send.
    turns = config.step_bytes_max // (TURN_COST_BYTES + config.send_bytes_max) + 1
    assert turns <= len(GROUPS) // 2
    assert 48 * KIB < largest <= turns * (config.send_bytes_max + 8 * KIB)


def test_s17_who_had_no_turn_comes_first_so_that_all_groups_catch_up_together() -> None:
    cluster, leader, away = with_one_away()
    leader.effects.clear()
    cluster.restart(away)
    cluster.run_until(lambda: caught_up(leader, away))
    sent = dict.fromkeys(GROUPS, 0)
    steps_with_entries = 0
    for effects in leader.effects:
        steps_with_entries += sent_bytes(effects) > 0
        for one in effects.sends:
            if node_of(one.to_replica) == away.node_id:
                sent[one.group_id] += message_bytes(one.message.entries)
        ahead = max(sent.values()) - min(sent.values())
        assert ahead <= 2 * (CONFIG.send_bytes_max + 8 * KIB), "one group waits for another"
    assert min(sent.values()) > 80 * KIB
    assert steps_with_entries > 10


def test_s17_nothing_is_read_for_a_node_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, leader, away = with_one_away()
    reads: list[int] = []
    entries = GroupLog.entries

    def counted(self: GroupLog, lo: int, hi: int, max_bytes: int) -> list[Entry]:
        if self is leader.driver.groups[self.group_id].storage:
            reads.append(self.group_id)
        return entries(self, lo, hi, max_bytes)

    monkeypatch.setattr(GroupLog, "entries", counted)
    leader.driver.lane_shut(away.node_id)
    leader.effects.clear()
    cluster.restart(away)
    term = leader.driver.groups[GROUPS[0]].term
    cluster.tick(3 * cluster.config.election_ticks)

    def appended_to_it() -> list[int]:
        return [
            one.group_id
            for effects in leader.effects
            for one in effects.sends
            if node_of(one.to_replica) == away.node_id and one.message.type is MessageType.APP
        ]

    assert appended_to_it() == []
    assert reads == [], "what is read for it could only be thrown away"
    # The other follower is served meanwhile, and so is everybody who waits for a commit.
    cluster.propose(leader, b"meanwhile", "token", group=GROUPS[0])
    cluster.pump()
    assert leader.completions[-1].token == "token"
    assert appended_to_it() == []
    leader.driver.lane_open(away.node_id)
    cluster.run_until(lambda: caught_up(leader, away), ticks=20)
    assert leader.driver.groups[GROUPS[0]].term == term
    assert set(appended_to_it()) == set(GROUPS)


def test_s17_a_new_leader_holds_what_the_lane_has_no_room_for() -> None:
    cluster, leader, away = with_one_away()
    group_id = GROUPS[0]
    other = cluster.nodes[2]
    for node in (leader, other):
        node.driver.lane_shut(away.node_id)
    cluster.restart(away)
    leader.driver.hand_over(group_id)
    cluster.run_until(lambda: cluster.leader(group_id) is other, ticks=20)
    cluster.tick(10)
    assert away.driver.groups[group_id].applied < other.driver.groups[group_id].applied
    other.driver.lane_open(away.node_id)
    cluster.run_until(
        lambda: away.driver.groups[group_id].applied == other.driver.groups[group_id].applied
    )


def test_a_lane_that_opens_for_groups_that_are_gone_is_no_matter() -> None:
    cluster, leader, away = with_one_away()
    leader.driver.lane_shut(away.node_id)
    cluster.propose(leader, b"x", group=GROUPS[0])
    cluster.pump()
    leader.driver.remove_group(GROUPS[0])
    leader.driver.lane_open(away.node_id)
    leader.driver.lane_open(away.node_id)
    cluster.pump()


def replaying(config: DriverConfig, count: int, size: int) -> Node:
    """A node that was started again with entries of two groups to be applied."""
    cluster = Cluster(count=1, config=config)
    for group_id in (7, 8):
        cluster.create(group_id)
    cluster.pump()
    node = cluster.nodes[1]
    for number in range(count):
        for group_id in (7, 8):
            cluster.propose(node, b"%04d" % number + bytes(size), group=group_id)
        cluster.pump()
    cluster.crash(node)
    node.down = False
    node.driver = cluster._driver(1, node.disk)
    return node


@pytest.mark.parametrize(
    ("count", "size", "per_step_max"), [(2000, 0, 1000 + 256), (60, 256 * KIB, 32 + 4)]
)
def test_what_one_step_applies_is_bounded_by_bytes_and_by_number(
    count: int, size: int, per_step_max: int
) -> None:
    node = replaying(DriverConfig(), count, size)
    applied = [0]
    for _ in steps(node):
        applied.append(sum(len(node.machine(each).items) for each in (7, 8)))
        assert applied[-1] - applied[-2] <= per_step_max
        ahead = len(node.machine(7).items) - len(node.machine(8).items)
        assert abs(ahead) <= per_step_max // 2, "one group replays while the other waits"
    assert applied[-1] == 2 * count
    assert len(applied) > 2 * count // per_step_max


def test_a_step_has_turns_for_a_bounded_number_of_groups() -> None:
    cluster = Cluster(count=2, config=DriverConfig(step_bytes_max=80 * KIB))
    groups = range(100, 150)
    for group_id in groups:
        cluster.create(group_id)
    cluster.run_until(lambda: all(cluster.leads(group_id) for group_id in groups))
    cluster.settle()
    cluster.sent.clear()
    node = cluster.nodes[1]
    # All at once: what a node that returns means for the groups that it is a member of.
    node.driver.node_down(2)
    node.driver.node_up(2)
    waiting = {one.group_id for effects in steps(node) for one in effects.sends}
    led = {group_id for group_id in groups if cluster.leader(group_id) is node}
    assert waiting >= led
    node.driver.node_down(2)
    node.driver.node_up(2)
    for effects in steps(node):
        assert len({one.group_id for one in effects.sends}) <= 10


def test_laps_tell_when_everyone_has_had_a_turn() -> None:
    node = replaying(DriverConfig(step_bytes_max=64 * KIB), 40, 0)
    before = node.driver.laps
    stepped: set[int] = set()
    taken = 0
    for effects in steps(node):
        taken += 1
        stepped.update(effects.applied)
        if node.driver.laps >= before + 2:
            break
    assert stepped == {7, 8}
    assert taken > 1, "a lap takes several steps"
    assert node.driver.laps == before + 2


def test_loading_goes_in_steps_that_read_a_bounded_part_of_one_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = replaying(DriverConfig(), 700, 0)
    decoded = 0

    def counted(group_id: int, index: int, value: bytes) -> Entry:
        nonlocal decoded
        decoded += 1
        return decode_entry(group_id, index, value)

    monkeypatch.setattr(loading, "decode_entry", counted)
    cluster = Cluster(count=1)
    driver = Driver(cluster.config, 1, node.disk, type(node.machine(7)), cluster.rng)
    seen = 0
    for _ in driver.loading():
        assert decoded - seen <= 256
        seen = decoded
    assert decoded > 2 * 700, "every entry was read once"
    assert sorted(driver.groups) == [7, 8]
