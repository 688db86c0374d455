"""One batch for many groups, within its cap; nothing grows without a bound."""

from __future__ import annotations

from typing import NoReturn

import pytest

from rakit.multiraft import keys, log_storage
from rakit.multiraft.driver import DriverConfig, Envelope
from rakit.multiraft.kv import Op
from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, EntryType
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

KIB = 1024


def small_batches() -> DriverConfig:
    return DriverConfig(batch_bytes_max=64 * KIB, message_bytes_max=16 * KIB)


def test_many_groups_share_one_batch_and_one_sync() -> None:
    cluster = Cluster()
    group_ids = range(100, 150)
    for group_id in group_ids:
        cluster.create(group_id)
    cluster.tick(10)
    node = cluster.nodes[1]
    led = [group_id for group_id in group_ids if cluster.leader(group_id) is node]
    assert len(led) > 10
    node.effects.clear()
    for group_id in led:
        cluster.propose(node, b"x", group=group_id)
    cluster.step_node(node)
    (effects,) = node.effects
    written = {keys.group_of(key) for op, key, _ in effects.batch.ops if op == Op.PUT}
    assert written == set(led)
    assert effects.must_sync


def test_batches_stay_below_the_cap_unless_one_entry_is_larger() -> None:
    cluster = Cluster(config=small_batches())
    leader = cluster.create_and_elect()
    for node in cluster.nodes.values():
        node.disk.sizes.clear()
    for number in range(60):
        cluster.propose(leader, bytes([number]) * 10 * KIB, number)
    cluster.propose(leader, b"L" * 100 * KIB, 60)
    cluster.propose(leader, b"after", 61)
    cluster.pump()
    cluster.settle()
    assert len(cluster.check_replicas_agree()) == 62
    for node in cluster.nodes.values():
        assert node.group.commit == leader.group.storage.last_index()
        large = [size for size in node.disk.sizes if size > 64 * KIB]
        assert len(large) == 1
        assert large[0] < 101 * KIB
    assert [done.token for done in leader.completions] == list(range(62))


@pytest.mark.parametrize("survivors", range(9))
def test_a_crash_within_a_ready_that_took_several_batches_leaves_a_legal_log(
    survivors: int,
) -> None:
    cluster = Cluster(seed=survivors, config=small_batches())
    leader = cluster.create_and_elect()
    follower = cluster.followers()[0]
    cluster.isolate(follower)
    leader.driver.step_down(GROUP)
    leader = cluster.await_other_leader(leader)
    for number in range(30):
        cluster.propose(leader, bytes([number]) * 10 * KIB)
    cluster.pump()
    arrived: list[Envelope] = []

    def hang(envelope: Envelope) -> bool:
        """One finds the place; those that follow come together, and are one Ready."""
        if node_of(envelope.to_replica) == follower.node_id and envelope.message.entries:
            arrived.append(envelope)
            follower.hung = len(arrived) > 1
        return True

    cluster.filter = hang
    cluster.tick(2 * cluster.config.heartbeat_ticks)
    assert follower.disk.unsynced_batches >= 4
    cluster.crash(follower, survivors)
    cluster.heal()
    follower.hung = False
    cluster.restart(follower)
    assert follower.quarantined == []
    cluster.await_applied(follower, leader)
    assert len(cluster.check_replicas_agree()) == 30


def change(node: Node, step: ConfChangeType, node_id: int) -> None:
    single = ConfChangeSingle(step, replica_id(node_id, 1))
    node.driver.propose_conf_change(GROUP, ConfChange((single,)), None)


@pytest.mark.parametrize("survivors", range(6))
def test_a_crash_within_a_large_ready_leaves_one_change_of_members_to_apply_at_most(
    survivors: int,
) -> None:
    """Else it would count by members of two changes ago, and two majorities might not meet."""
    cluster = Cluster(count=5, seed=survivors, config=small_batches())
    cluster.create(node_ids=(1, 2, 3))
    cluster.run_until(cluster.leads)
    for node_id in (4, 5):
        meta = GroupMeta(GROUP, replica_id(node_id, 1), GroupKind.PARTITION)
        cluster.nodes[node_id].driver.create_group(meta, None)
    leader = cluster.leader()
    assert leader is not None
    late = next(node for node in cluster.nodes.values() if node.node_id < 4 and node is not leader)
    cluster.isolate(late)
    # The probe that finds the place brings these alone; all that follows is one Ready.
    for number in range(2):
        cluster.propose(leader, bytes([number]) * 10 * KIB)
    for step in (ConfChangeType.ADD_LEARNER, ConfChangeType.ADD_VOTER):
        for node_id in (4, 5):
            change(leader, step, node_id)
            cluster.settle()
    for number in range(20):
        cluster.propose(leader, bytes([number]) * 10 * KIB)
    cluster.settle()

    def hang(envelope: Envelope) -> bool:
        if node_of(envelope.to_replica) == late.node_id:
            kinds = [entry.type for entry in envelope.message.entries]
            late.hung = late.hung or EntryType.CONF_CHANGE in kinds
        return True

    cluster.filter = hang
    cluster.tick(2 * cluster.config.heartbeat_ticks)
    assert late.disk.unsynced_batches >= 4
    cluster.crash(late, survivors)
    late.hung = False
    cluster.isolate(late)
    cluster.restart(late)
    log = late.group.storage
    above = range(late.group.commit + 1, log.last_index() + 1)
    kinds = [log.entries(index, index + 1, 1)[0].type for index in above]
    assert kinds.count(EntryType.CONF_CHANGE) <= 1
    cluster.heal()
    cluster.await_applied(late, leader)
    assert len(late.group.conf_state.voters) == 5


@pytest.mark.parametrize("survivors", range(6))
def test_a_large_ready_over_a_stale_tail_never_commits_what_it_replaces(survivors: int) -> None:
    cluster = Cluster(seed=survivors, config=small_batches())
    old = cluster.create_and_elect()
    cluster.isolate(old)
    # More of them than the first batch replaces: their end must not look committed.
    for number in range(12):
        cluster.propose(old, b"stale %d" % number)
    cluster.pump()
    new = cluster.await_other_leader(old)
    for number in range(20):
        cluster.propose(new, bytes([number]) * 10 * KIB)
    cluster.pump()
    # Who is in doubt of its end is sent everything at once.
    cluster.crash(old)
    cluster.restart(old, doubtful=True)
    assert old.group.storage.last_index() > 12

    def hang(envelope: Envelope) -> bool:
        if node_of(envelope.to_replica) == old.node_id:
            old.hung = old.hung or bool(envelope.message.entries)
        return True

    cluster.filter = hang
    cluster.tick(2 * cluster.config.heartbeat_ticks)
    assert old.disk.unsynced_batches >= 3
    cluster.crash(old, survivors)
    old.hung = False
    cluster.isolate(old)
    cluster.restart(old)
    assert old.quarantined == []
    assert not [item for item in old.machine().items if item.startswith(b"stale")]
    cluster.heal()
    cluster.await_applied(old, new)
    cluster.check_replicas_agree()


@pytest.mark.parametrize("survivors", range(5))
def test_a_replacement_that_finds_no_room_leaves_the_old_tail_uncommitted(survivors: int) -> None:
    solo = GROUP + 1
    cluster = Cluster(seed=survivors, config=small_batches())
    old = cluster.create_and_elect()
    cluster.create(solo, (old.node_id,))
    cluster.isolate(old)
    for number in range(12):
        cluster.propose(old, b"stale %d" % number)
    cluster.pump()
    new = cluster.await_other_leader(old)
    for number in range(6):
        cluster.propose(new, b"fresh %d" % number + b"." * 5 * KIB)
    cluster.pump()

    def crowd(envelope: Envelope) -> bool:
        """Fills the batch into which the replacement would go, and has the disk hang from it on."""
        if node_of(envelope.to_replica) == old.node_id:
            cluster.propose(old, b"f" * 63 * KIB, group=solo)
            old.hung = old.hung or bool(envelope.message.entries)
        return True

    cluster.filter = crowd
    cluster.tick(2 * cluster.config.heartbeat_ticks)
    assert old.group.storage.hard_state.commit > 2, "the replacement has arrived"
    assert old.disk.unsynced_batches >= 3
    cluster.crash(old, survivors)
    old.hung = False
    cluster.isolate(old)
    cluster.restart(old)
    assert old.quarantined == []
    assert not [item for item in old.machine().items if item.startswith(b"stale")]
    cluster.heal()
    cluster.await_applied(old, new)
    cluster.check_replicas_agree()


def read_back(*_where: object, by_key: bool) -> NoReturn:
    del by_key
    pytest.fail("an entry was read from the disk")


def test_what_is_still_to_be_sent_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DriverConfig(tail_cache_bytes_max=50 * KIB, tail_cache_needed_bytes_max=500 * KIB)
    cluster = Cluster(config=config)
    leader = cluster.create_and_elect()
    ahead, behind = cluster.followers()
    leader.driver.lane_shut(behind.node_id)
    for number in range(40):
        cluster.propose(leader, bytes([number]) * 4 * KIB)
        cluster.pump()
    cluster.await_applied(ahead, leader)
    assert 160 * KIB < leader.driver.tail_cache_bytes < 200 * KIB
    assert ahead.driver.tail_cache_bytes <= 50 * KIB, "it has sent and applied everything"
    monkeypatch.setattr(log_storage, "stored_rows", read_back)
    leader.driver.lane_open(behind.node_id)
    cluster.pump()
    cluster.await_applied(behind, leader)
    for number in range(10):
        cluster.propose(leader, bytes([number]) * 4 * KIB)
        cluster.pump()
    assert leader.driver.tail_cache_bytes <= 50 * KIB


def test_the_tail_cache_stays_within_its_bound_and_readers_fall_back_to_the_disk() -> None:
    config = DriverConfig(tail_cache_bytes_max=50 * KIB)
    cluster = Cluster(config=config)
    leader = cluster.create_and_elect()
    for number in range(40):
        cluster.propose(leader, bytes([number]) * 4 * KIB)
        cluster.pump()
    assert 0 < leader.driver.tail_cache_bytes <= 50 * KIB
    log = leader.group.storage
    everything = log.entries(log.first_index(), log.last_index() + 1, 10**9)
    assert [entry.index for entry in everything] == list(
        range(log.first_index(), log.last_index() + 1)
    )
    assert [entry.data[:1] for entry in everything if entry.data] == [
        bytes([number]) for number in range(40)
    ]


def test_a_group_that_fills_every_batch_starves_no_other() -> None:
    cluster = Cluster(count=1, config=small_batches())
    cluster.create(GROUP)
    cluster.create(GROUP + 1)
    cluster.pump()
    node = cluster.nodes[1]
    for number in range(40):
        cluster.propose(node, bytes([number]) * 20 * KIB)
    cluster.propose(node, b"x" * 20 * KIB, group=GROUP + 1)
    steps = 0
    while (effects := node.driver.advance()) is not None:
        steps += 1
        node.disk.write(effects.batch)
        node.driver.written(effects.number)
        if any(keys.group_of(key) == GROUP + 1 for _, key, _ in effects.batch.ops):
            break
    assert steps <= 2


def test_an_idle_driver_has_nothing_to_do() -> None:
    cluster = Cluster()
    cluster.create_and_elect()
    cluster.tick(60)
    assert all(node.driver.advance() is None for node in cluster.nodes.values())


def test_effects_are_numbered_without_a_gap() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    cluster.propose(leader, b"x")
    cluster.tick(20)
    for node in cluster.nodes.values():
        numbers = [effects.number for effects in node.effects]
        assert numbers == list(range(1, len(numbers) + 1))
