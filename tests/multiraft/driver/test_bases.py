"""Bases that are too large for one message: in parts, through everything (S1, S4, S17, S19)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from rakit.multiraft import keys
from rakit.multiraft.driver import DriverConfig, Envelope
from rakit.multiraft.errors import StoreUnreadableError
from rakit.multiraft.kv import Op
from rakit.multiraft.machine import node_of, replica_id
from rakit.raft import ConfState, Message, MessageType, Role, Snapshot
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

PART_BYTES = 16
WINDOW = 3
CONFIG = DriverConfig(
    base_part_bytes_max=PART_BYTES,
    base_inflight_bytes_max=WINDOW * PART_BYTES,
    bases_count_max=1,
)
#: Some parts of a base, behind what was there before.
ITEMS = [b"item %02d" % number for number in range(12)]


def parts_of(envelopes: list[Envelope], kind: MessageType) -> list[int]:
    return [
        one.message.snapshot.part
        for one in envelopes
        if one.message.type is kind and one.message.snapshot is not None
    ]


def stored_parts(node: Node, group_id: int = GROUP) -> set[int]:
    """The checkpoints of which there are parts on a disk."""
    bounds = keys.group_range(keys.BASE_PART, group_id)
    return {int.from_bytes(key[9:17], "big") for key, _ in node.disk.scan(*bounds)}


def checkpoints(node: Node, group_id: int = GROUP) -> set[int]:
    bounds = keys.group_range(keys.CHECKPOINT, group_id)
    return {keys.number_of(key) for key, _ in node.disk.scan(*bounds)}


def write_and_trim(cluster: Cluster, node: Node, items: list[bytes], group: int = GROUP) -> None:
    for item in (*items, b"checkpoint", b"trim"):
        cluster.propose(node, item, group=group)
        cluster.pump()
    cluster.settle()


def with_absentee(config: DriverConfig = CONFIG, count: int = 3) -> tuple[Cluster, Node, Node]:
    """A cluster whose last node was down while the log that it needs was trimmed."""
    cluster = Cluster(count, config=config)
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"first")
    cluster.settle()
    absentee = cluster.followers()[-1]
    cluster.crash(absentee)
    cluster.report_down(absentee)
    write_and_trim(cluster, leader, ITEMS)
    cluster.sent.clear()
    return cluster, leader, absentee


class OnlySome:
    """Lets some parts pass to a node, and no more of them until `limit` is raised."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.passed = 0

    def __call__(self, envelope: Envelope) -> bool:
        if envelope.message.type is not MessageType.BASE_PART:
            return True
        if self.passed >= self.limit:
            return False
        self.passed += 1
        return True


def finish(cluster: Cluster, absentee: Node) -> None:
    """Lets everything pass, and checks what has come of it."""
    cluster.heal()
    cluster.run_until(cluster.leads)
    leader = cluster.leader()
    assert leader is not None
    cluster.await_applied(absentee, leader)
    cluster.settle()
    cluster.check_replicas_agree()
    for node in cluster.nodes.values():
        if not node.down:
            assert not node.driver.quarantined
            assert stored_parts(node) <= checkpoints(node)
    progress = {one.id: one for one in leader.group.status().peers}
    assert progress[absentee.group.meta.replica_id].pending_snapshot == 0


def test_s1_s19_a_large_base_arrives_in_parts() -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.restart(absentee)
    finish(cluster, absentee)
    sizes = [
        len(one.message.snapshot.data) for one in cluster.sent if one.message.snapshot is not None
    ]
    assert max(sizes) == PART_BYTES
    brought = parts_of(cluster.sent, MessageType.BASE_PART)
    assert brought == list(range(len(brought)))
    assert len(brought) > 2 * WINDOW
    assert absentee.machine().restored_at == absentee.group.storage.base.index > 1


def test_a_small_base_is_one_message() -> None:
    cluster, _leader, absentee = with_absentee(DriverConfig())
    cluster.restart(absentee)
    finish(cluster, absentee)
    kinds = {one.message.type for one in cluster.sent}
    assert MessageType.SNAP in kinds
    assert not {MessageType.BASE_PULL, MessageType.BASE_PART} & kinds
    assert not any(stored_parts(node) for node in cluster.nodes.values())


def test_s17_so_many_parts_are_on_their_way_and_no_more() -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.filter = OnlySome(0)
    cluster.restart(absentee)
    cluster.run_until(lambda: bool(parts_of(cluster.sent, MessageType.BASE_PULL)))
    cluster.tick(CONFIG.election_ticks // 2)
    assert parts_of(cluster.sent, MessageType.BASE_PULL) == list(range(WINDOW))
    finish(cluster, absentee)


def test_s19_nothing_of_a_base_is_seen_before_all_of_it_is_there() -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.filter = OnlySome(2 * WINDOW)
    cluster.restart(absentee)
    cluster.tick(3 * CONFIG.election_ticks)
    (base,) = stored_parts(absentee)
    assert absentee.machine().items == [b"first"]
    assert absentee.group.applied < base
    assert absentee.group.storage.latest.index == 1
    finish(cluster, absentee)


def test_the_last_part_is_written_before_the_core_hears_of_the_base() -> None:
    """Rule B2: the state is read from the disk when it is taken over."""
    cluster, _leader, absentee = with_absentee()
    cluster.restart(absentee)
    finish(cluster, absentee)
    with_parts = [
        effects
        for effects in absentee.effects
        if any(op == Op.PUT and key[0] == keys.BASE_PART for op, key, _ in effects.batch.ops)
    ]
    base = absentee.group.storage.base.index
    installs = [
        effects.number
        for effects in absentee.effects
        if any(key == keys.checkpoint(GROUP, base) for _, key, _ in effects.batch.ops)
    ]
    assert max(effects.number for effects in with_parts) < min(installs)
    assert all(effects.must_sync for effects in with_parts), "not all at once in the end"


@pytest.mark.parametrize("passed", [1, 4, 9])
@pytest.mark.parametrize("survives", [0, 1, 100])
def test_s4_a_receiver_that_crashes_half_way_begins_anew_and_leaves_nothing(
    passed: int, survives: int
) -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.filter = OnlySome(passed)
    cluster.restart(absentee)
    cluster.tick()
    cluster.crash(absentee, survives)
    cluster.restart(absentee)
    assert not stored_parts(absentee) - checkpoints(absentee), "the start did not sweep"
    finish(cluster, absentee)


def test_s4_a_start_that_cannot_list_parts_sweeps_every_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.filter = OnlySome(4)
    cluster.restart(absentee)
    cluster.tick()
    cluster.crash(absentee, 100)
    assert stored_parts(absentee) - checkpoints(absentee), "it crashed half way"
    scan, failing = absentee.disk.scan, [keys.BASE_PART]

    def scan_that_fails_once(lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        if failing and lo[0] == failing[0]:
            failing.clear()
            raise StoreUnreadableError("a read failed: IO error: Input/output error")
        return scan(lo, hi)

    monkeypatch.setattr(absentee.disk, "scan", scan_that_fails_once)
    cluster.restart(absentee)
    assert not failing, "nothing was listed"
    assert not stored_parts(absentee) - checkpoints(absentee), "the start did not sweep"
    finish(cluster, absentee)


@pytest.mark.parametrize("lost", range(5))
def test_s1_a_crash_at_the_end_of_a_base_leaves_all_of_it_or_nothing(lost: int) -> None:
    cluster, _leader, absentee = with_absentee()
    absentee.hung = True
    cluster.restart(absentee)
    cluster.tick(CONFIG.election_ticks)
    unsynced = absentee.disk.unsynced_batches
    assert unsynced == 4, "its parts are three of them, and what puts it in force is the last"
    absentee.hung = False
    cluster.crash(absentee, unsynced - lost)
    cluster.restart(absentee)
    assert not absentee.driver.quarantined
    finish(cluster, absentee)


def test_parts_that_are_lost_are_asked_for_again_and_the_others_are_not() -> None:
    cluster, _leader, absentee = with_absentee()
    lost: set[int] = set()

    def lose_the_first_of_each(envelope: Envelope) -> bool:
        base = envelope.message.snapshot
        if envelope.message.type is not MessageType.BASE_PART or base is None or base.part % 3:
            return True
        again = base.part in lost
        lost.add(base.part)
        return again

    cluster.filter = lose_the_first_of_each
    cluster.restart(absentee)
    leader = cluster.leader()
    assert leader is not None
    cluster.await_applied(absentee, leader)
    asked = parts_of(cluster.sent, MessageType.BASE_PULL)
    assert sorted(asked) == sorted([*set(asked), *lost])
    finish(cluster, absentee)


def test_what_is_damaged_on_its_way_is_refused_and_sent_again() -> None:
    cluster, _leader, absentee = with_absentee()
    damaged: list[int] = []

    def damage(envelope: Envelope) -> bool:
        base = envelope.message.snapshot
        if envelope.message.type is MessageType.BASE_PART and base is not None and not damaged:
            damaged.append(base.part)
            envelope.message = replace(
                envelope.message, snapshot=replace(base, data=b"?" + base.data[1:])
            )
        return True

    cluster.filter = damage
    cluster.restart(absentee)
    cluster.run_until(lambda: absentee.group.applied > ITEMS.__len__())
    assert parts_of(cluster.sent, MessageType.BASE_PULL).count(damaged[0]) == 2
    finish(cluster, absentee)


@pytest.mark.parametrize("what", ["index", "term"])
def test_a_part_of_another_base_is_refused(what: str) -> None:
    cluster, leader, absentee = with_absentee()
    cluster.filter = OnlySome(2)
    cluster.restart(absentee)
    before = stored_parts(absentee)
    base = leader.group.storage.checkpoint(leader.group.storage.base.index)
    data = leader.group.storage.part(base.index, base.parts, 5)
    index = base.index + (what == "index")
    part = Snapshot(index, base.term + (what == "term"), ConfState(), data, part=5)
    own, source = absentee.group.meta.replica_id, leader.group.meta.replica_id
    message = Message(MessageType.BASE_PART, own, source, leader.group.term, snapshot=part)
    absentee.driver.receive(Envelope(GROUP, source, own, message))
    cluster.step_node(absentee)
    assert stored_parts(absentee) == before == {base.index}
    assert absentee.disk.get(keys.base_part(GROUP, base.index, 5)) is None
    finish(cluster, absentee)


def test_another_leader_is_asked_for_the_rest_only() -> None:
    cluster, leader, absentee = with_absentee(count=5)
    cluster.filter = OnlySome(2 * WINDOW)
    cluster.restart(absentee)
    cluster.tick()
    cluster.crash(leader)
    cluster.report_down(leader)
    asked_before = set(parts_of(cluster.sent, MessageType.BASE_PULL))
    cluster.sent.clear()
    finish(cluster, absentee)
    asked = parts_of(cluster.sent, MessageType.BASE_PULL)
    assert asked, "it was to be in the middle"
    assert not set(asked) & set(range(2 * WINDOW)), "what was there was asked for again"
    assert asked_before & set(asked), "what had been asked for in vain was not asked for again"


def test_a_base_that_is_whole_waits_for_the_leader_of_a_later_term_to_name_it() -> None:
    cluster, leader, absentee = with_absentee(count=5)
    brought: list[Envelope] = []

    def hold_the_last(envelope: Envelope) -> bool:
        base = envelope.message.snapshot
        if envelope.message.type is not MessageType.BASE_PART or base is None:
            return True
        if base.part < len(leader.group.storage.checkpoint(base.index).parts) - 1:
            return True
        brought.append(envelope)
        return False

    cluster.filter = hold_the_last
    cluster.restart(absentee)
    cluster.run_until(lambda: bool(brought))
    base = leader.group.storage.base.index
    cluster.filter = lambda one: one.message.type is not MessageType.SNAP
    term = leader.group.term
    leader.driver.step_down(GROUP)
    cluster.run_until(lambda: cluster.leads() and absentee.group.term > term)
    absentee.driver.receive(brought[0])
    cluster.pump()
    assert stored_parts(absentee) == {base}
    assert absentee.group.applied < base
    cluster.sent.clear()
    finish(cluster, absentee)
    assert not parts_of(cluster.sent, MessageType.BASE_PULL), "all of it was there"


def test_a_leader_that_crashes_and_comes_back_goes_on() -> None:
    cluster, leader, absentee = with_absentee()
    cluster.filter = OnlySome(2 * WINDOW)
    cluster.restart(absentee)
    cluster.tick()
    cluster.crash(leader)
    cluster.restart(leader)
    finish(cluster, absentee)


def test_a_log_stays_while_its_base_is_fetched_and_no_longer() -> None:
    """Rule B7: else a log that is trimmed faster than its base travels lets nobody in."""
    cluster, leader, absentee = with_absentee()
    cluster.filter = OnlySome(WINDOW)
    cluster.restart(absentee)
    base = leader.group.storage.base.index
    write_and_trim(cluster, leader, [b"more"])
    assert leader.group.storage.base.index == base < leader.machine().trim_index()
    cluster.filter = OnlySome(10_000)
    cluster.await_applied(absentee, leader)
    assert absentee.machine().restored_at == base
    cluster.run_until(lambda: leader.group.storage.base.index == leader.machine().trim_index())
    finish(cluster, absentee)


def test_a_newer_base_takes_the_place_of_one_that_is_half_there() -> None:
    cluster, leader, absentee = with_absentee()
    cluster.filter = OnlySome(WINDOW)
    cluster.restart(absentee)
    cluster.tick()
    old = leader.group.storage.base.index
    assert stored_parts(absentee) == {old}
    cluster.isolate(absentee)
    write_and_trim(cluster, leader, [b"more"])
    cluster.run_until(lambda: leader.group.storage.base.index > old)
    finish(cluster, absentee)
    assert absentee.machine().restored_at == leader.group.storage.base.index


def test_a_base_that_is_gone_is_told_to_the_core_at_once() -> None:
    """The progress must not stay in SNAPSHOT for a base that nobody can deliver."""
    cluster, leader, absentee = with_absentee()
    cluster.filter = lambda one: one.message.type is not MessageType.BASE_PULL
    cluster.restart(absentee)
    cluster.run_until(lambda: pending(leader, absentee) > 0)
    base = leader.group.storage.base.index
    write_and_trim(cluster, leader, [b"more"])
    assert leader.group.storage.base.index > base == pending(leader, absentee)
    pulls = [one for one in cluster.sent if one.message.type is MessageType.BASE_PULL]
    leader.driver.receive(pulls[0])
    assert pending(leader, absentee) == 0
    finish(cluster, absentee)


def pending(leader: Node, absentee: Node) -> int:
    peers = {one.id: one for one in leader.group.status().peers}
    return peers[absentee.group.meta.replica_id].pending_snapshot


def test_a_base_that_nobody_sends_is_given_up_and_deleted() -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.filter = OnlySome(WINDOW)
    cluster.restart(absentee)
    cluster.tick()
    assert stored_parts(absentee)
    cluster.isolate(absentee)
    cluster.run_until(lambda: not stored_parts(absentee))
    finish(cluster, absentee)


def test_s17_nothing_is_read_for_a_node_without_room() -> None:
    cluster, leader, absentee = with_absentee()
    cluster.filter = OnlySome(1)
    cluster.restart(absentee)
    leader.driver.lane_shut(absentee.node_id)
    cluster.heal()
    cluster.sent.clear()
    cluster.tick(2 * CONFIG.election_ticks)
    assert parts_of(cluster.sent, MessageType.BASE_PULL)
    assert not parts_of(cluster.sent, MessageType.BASE_PART)
    leader.driver.lane_open(absentee.node_id)
    finish(cluster, absentee)


def test_so_many_bases_are_under_way_and_others_wait() -> None:
    cluster = Cluster(config=CONFIG)
    groups = [GROUP, GROUP + 1, GROUP + 2]
    for group in groups:
        cluster.create(group)
    cluster.run_until(lambda: all(cluster.leads(group) for group in groups))
    absentee = cluster.followers()[-1]
    cluster.crash(absentee)
    cluster.report_down(absentee)
    cluster.run_until(lambda: all(cluster.leads(group) for group in groups))
    for group in groups:
        leader = cluster.leader(group)
        assert leader is not None
        write_and_trim(cluster, leader, ITEMS, group)
    cluster.sent.clear()
    cluster.restart(absentee)
    cluster.run_until(
        lambda: all(absentee.driver.groups[group].storage.base.index > 1 for group in groups)
    )
    brought = [
        one.group_id
        for one in cluster.sent
        if one.message.type is MessageType.BASE_PART and node_of(one.to_replica) == absentee.node_id
    ]
    changes = [one for one, before in zip(brought, [0, *brought], strict=False) if one != before]
    assert sorted(changes) == groups, "one was to be done before the next began"


def test_a_large_checkpoint_is_written_in_batches_of_the_usual_size() -> None:
    config = replace(CONFIG, message_bytes_max=60, batch_bytes_max=120)
    cluster = Cluster(config=config)
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"first")
    cluster.settle()
    for item in ITEMS:
        cluster.propose(leader, item)
        cluster.pump()
    leader.disk.sizes.clear()
    cluster.propose(leader, b"checkpoint")
    cluster.pump()
    part = PART_BYTES + len(keys.base_part(GROUP, 1, 1)) + 16
    commit_index = 64  # it was held for the batch
    assert max(leader.disk.sizes) <= config.batch_bytes_max + 2 * part + commit_index
    latest = leader.group.storage.latest.index
    assert latest > 1
    assert leader.group.durable_checkpoint == latest
    parts = leader.group.storage.checkpoint(latest).parts
    assert leader.group.storage.state(latest, parts) == leader.machine().snapshot()


@pytest.mark.parametrize("survives", range(12))
def test_s1_a_crash_within_a_large_checkpoint_leaves_the_one_before(survives: int) -> None:
    config = replace(CONFIG, message_bytes_max=60, batch_bytes_max=90)
    cluster = Cluster(1, config=config)
    cluster.create()
    node = cluster.nodes[1]
    cluster.run_until(cluster.leads)
    for item in (*ITEMS, b"checkpoint", b"more"):
        cluster.propose(node, item)
        cluster.pump()
    first = node.group.storage.latest.index
    node.hung = True
    for item in (b"keep checkpoint", b"end"):
        cluster.propose(node, item)
    cluster.pump()
    node.disk.sync()
    node.driver.synced(node.effects[-1].number)
    cluster.pump()
    unsynced = node.disk.unsynced_batches
    assert unsynced > 2
    node.hung = False
    cluster.crash(node, min(survives, unsynced))
    cluster.restart(node)
    cluster.run_until(cluster.leads)
    assert node.machine().items == [*ITEMS, b"checkpoint", b"more", b"keep checkpoint", b"end"]
    assert node.machine().restored_at >= first
    assert stored_parts(node) <= checkpoints(node)


def test_s9_a_checkpoint_that_lacks_a_part_shuts_the_replica_out() -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.restart(absentee)
    finish(cluster, absentee)
    latest = absentee.group.storage.latest.index
    cluster.crash(absentee)
    absentee.disk.delete(keys.base_part(GROUP, latest, 3))
    cluster.restart(absentee)
    assert "part 3 of checkpoint" in absentee.driver.quarantined[GROUP].reason


def test_a_removed_replica_leaves_no_part() -> None:
    cluster, _leader, absentee = with_absentee()
    cluster.filter = OnlySome(WINDOW)
    cluster.restart(absentee)
    cluster.tick()
    assert stored_parts(absentee)
    absentee.driver.remove_group(GROUP)
    cluster.heal()
    cluster.tick(2 * CONFIG.election_ticks)
    assert not stored_parts(absentee)
    assert absentee.node_id == node_of(replica_id(absentee.node_id, 1))


def test_a_leader_that_stood_still_takes_the_base_of_its_successor() -> None:
    cluster = Cluster(3, config=CONFIG)
    old = cluster.create_and_elect()
    cluster.propose(old, b"first")
    cluster.settle()
    # As a process that is stopped: it hears nothing, and believes that it leads.
    old.down = True
    cluster.report_down(old)
    new = cluster.await_other_leader(old)
    write_and_trim(cluster, new, ITEMS)
    assert old.group.raw.role is Role.LEADER
    old.down = False
    cluster.report_all_up()
    cluster.pump()
    assert not old.driver.quarantined
    finish(cluster, old)


def test_a_small_base_takes_the_place_of_one_that_is_half_gathered() -> None:
    cluster, leader, absentee = with_absentee()
    cluster.filter = OnlySome(5)
    cluster.restart(absentee)
    cluster.run_until(lambda: bool(stored_parts(absentee)))
    head = next(
        one.message
        for one in cluster.sent
        if one.message.type is MessageType.SNAP and node_of(one.to_replica) == absentee.node_id
    )
    large = head.snapshot
    assert large is not None
    small = Snapshot(large.index - 2, large.term, large.conf_state, b"3 0\nfirst\nx")
    cluster.tick(2)
    other = next(one for one in cluster.nodes.values() if one not in (leader, absentee))
    sender, own, term = replica_id(other.node_id, 1), replica_id(absentee.node_id, 1), head.term + 1
    cluster.filter = lambda _: False

    def send(kind: MessageType, base: Snapshot) -> None:
        message = Message(kind, own, sender, term, snapshot=base)
        absentee.driver.receive(Envelope(GROUP, sender, own, message))

    send(MessageType.SNAP, small)
    cluster.pump()
    assert absentee.group.applied == small.index
    assert not stored_parts(absentee)
    send(MessageType.SNAP, large)
    cluster.pump()
    storage = leader.group.storage
    parts = storage.checkpoint(large.index).parts
    for number in range(len(parts)):
        data = storage.part(large.index, parts, number)
        send(
            MessageType.BASE_PART, Snapshot(large.index, large.term, ConfState(), data, part=number)
        )
    cluster.pump()
    assert not absentee.driver.quarantined
    assert absentee.group.applied >= large.index
