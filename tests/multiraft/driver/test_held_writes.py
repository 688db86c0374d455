"""What need not be durable waits for what must, and for nothing longer than a tick."""

from __future__ import annotations

from rakit.multiraft import keys
from rakit.multiraft.effects import Effects
from rakit.multiraft.held_writes import HELD_BYTES_MAX, HeldWrites
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.records import decode_hard_state
from rakit.raft import Entry
from tests.multiraft.driver.cluster import GROUP, Cluster, ListMachine, Node


class RowlessMachine(ListMachine):
    """Writes nothing when it applies, as most entries of a partition."""

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        del writes
        return super().apply(entry, WriteBatch())


def led_cluster() -> tuple[Cluster, Node]:
    cluster = Cluster()
    cluster.factory = RowlessMachine
    for node in tuple(cluster.nodes.values()):
        cluster.crash(node)
        cluster.restart(node)
    leader = cluster.create_and_elect()
    cluster.tick(2)
    return cluster, leader


def stored_commit(node: Node) -> int:
    value = node.disk.get(keys.hard_state(GROUP))
    assert value is not None
    return decode_hard_state(GROUP, value).state.commit


def effects(key: bytes, *, must_sync: bool = False, size: int = 1) -> Effects:
    result = Effects(1, must_sync=must_sync)
    if key:
        result.batch.put(key, b"x" * size)
    return result


def written(held: HeldWrites, given: Effects) -> list[bytes]:
    held.join(given)
    return [key for _, key, _ in given.batch.ops]


def test_a_leader_writes_once_for_each_entry() -> None:
    cluster, leader = led_cluster()
    before = len(leader.disk.sizes)
    for number in range(10):
        cluster.propose(leader, b"%d" % number, number)
        cluster.pump()
    assert [done.token for done in leader.completions] == list(range(10))
    assert len(leader.disk.sizes) - before == 10, "a commit index was written by itself"


def test_a_commit_index_is_on_the_disk_with_what_is_written_after_it() -> None:
    cluster, leader = led_cluster()
    cluster.propose(leader, b"1")
    cluster.pump()
    committed = leader.group.commit
    assert stored_commit(leader) < committed == leader.group.storage.last_index()
    cluster.isolate(leader)
    cluster.propose(leader, b"2")
    cluster.pump()
    assert leader.group.storage.last_index() > leader.group.commit == committed
    assert stored_commit(leader) == committed
    cluster.crash(leader)
    cluster.restart(leader)
    assert leader.group.commit == committed


def test_a_commit_index_is_on_the_disk_after_a_tick() -> None:
    cluster, leader = led_cluster()
    cluster.propose(leader, b"1")
    cluster.pump()
    before = leader.disk.unsynced_batches
    leader.driver.tick()
    cluster.step_node(leader)
    assert leader.disk.unsynced_batches == before + 1
    assert stored_commit(leader) == leader.group.commit == leader.group.storage.last_index()
    leader.driver.tick()
    assert leader.driver.advance() is None, "nothing waits, and the tick brought nothing"


def test_who_stops_has_it_written_at_once() -> None:
    cluster, leader = led_cluster()
    cluster.propose(leader, b"1")
    cluster.pump()
    leader.driver.write_held()
    cluster.step_node(leader)
    assert not leader.driver.holds_writes
    assert stored_commit(leader) == leader.group.commit == leader.group.storage.last_index()


def test_what_waits_lies_before_what_it_goes_with() -> None:
    held = HeldWrites()
    assert written(held, effects(b"1")) == []
    assert written(held, effects(b"2")) == []
    assert written(held, effects(b"3", must_sync=True)) == [b"1", b"2", b"3"]
    assert written(held, effects(b"4", must_sync=True)) == [b"4"]


def test_what_waits_goes_with_a_sync_that_brings_nothing_itself() -> None:
    held = HeldWrites()
    assert written(held, effects(b"1")) == []
    assert written(held, effects(b"", must_sync=True)) == [b"1"]


def test_what_came_after_a_tick_waits_for_the_next() -> None:
    held = HeldWrites()
    held.end_the_wait()
    assert not held.is_due
    assert written(held, effects(b"1")) == []
    held.end_the_wait()
    assert held.is_due
    assert written(held, effects(b"")) == [b"1"]
    assert not held.is_due
    assert written(held, effects(b"2")) == []


def test_what_a_sync_took_along_is_not_due_any_more() -> None:
    held = HeldWrites()
    assert written(held, effects(b"1")) == []
    held.end_the_wait()
    assert written(held, effects(b"2", must_sync=True)) == [b"1", b"2"]
    assert written(held, effects(b"3")) == []


def test_no_more_waits_than_is_bounded() -> None:
    held = HeldWrites()
    assert written(held, effects(b"1", size=HELD_BYTES_MAX)) == [b"1"]
    assert written(held, effects(b"2", size=HELD_BYTES_MAX // 2)) == []
    assert written(held, effects(b"3", size=HELD_BYTES_MAX // 2)) == [b"2", b"3"]
    assert written(held, effects(b"4")) == []
