"""What shuts a replica out for one start only: it breaks no promise (S9; `quarantine`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rakit.multiraft import keys
from rakit.multiraft.errors import GroupRefusedError, StoreUnreadableError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.raft import Entry
from tests.multiraft.driver.cluster import GROUP, Cluster, ListMachine, Node
from tests.multiraft.driver.memory_disk import MemoryDisk

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


def restart(cluster: Cluster, node: Node) -> None:
    cluster.crash(node)
    cluster.report_down(node)
    cluster.restart(node)


class LaterRelease(ListMachine):
    """Can do what the release before it could not."""

    def apply(self, entry: Entry, writes: WriteBatch) -> object:
        if entry.data == b"boom":
            return len(self.items)
        return super().apply(entry, writes)


def test_s9_an_entry_that_cannot_be_applied_costs_the_group_only_until_a_release_can() -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    for item in (b"a", b"checkpoint", b"b", b"boom"):
        cluster.propose(leader, item)
    nodes = list(cluster.nodes.values())

    def all_are_shut_out() -> bool:
        return all(GROUP in node.driver.quarantined for node in nodes)

    cluster.run_until(all_are_shut_out)
    for release in (ListMachine, LaterRelease):
        for node in nodes:
            assert "applying entry" in node.driver.quarantined[GROUP].reason
            assert not node.driver.quarantined[GROUP].for_good
            same = GroupMeta(GROUP, replica_id(node.node_id, 1), GroupKind.PARTITION)
            with pytest.raises(GroupRefusedError):
                node.driver.create_group(same, None)
            cluster.crash(node)
        cluster.factory = release
        for node in nodes:
            cluster.restart(node)
        if release is ListMachine:
            cluster.run_until(all_are_shut_out)
    cluster.run_until(cluster.leads)
    cluster.propose(cluster.leader() or leader, b"c")
    cluster.settle()
    assert cluster.check_replicas_agree() == [b"a", b"checkpoint", b"b", b"c"]
    assert not any(node.driver.quarantined for node in nodes)


class CannotTakeOver(ListMachine):
    """Does not know the form of its leader's checkpoints."""

    def restore(self, data: bytes, index: int) -> None:
        assert b"new form" not in data, "the machine cannot read this"
        super().restore(data, index)


def test_s9_a_base_that_cannot_be_taken_over_leaves_the_replica_as_it_was() -> None:
    cluster = Cluster()
    leader, victim = written(cluster)
    cluster.crash(victim)
    cluster.report_down(victim)
    for item in (b"new form", b"checkpoint", b"trim"):
        cluster.propose(leader, item)
    cluster.settle()
    cluster.factory = CannotTakeOver
    cluster.restart(victim)
    cluster.run_until(lambda: GROUP in victim.driver.quarantined)
    assert "taking over the base" in victim.driver.quarantined[GROUP].reason
    cluster.pump()
    cluster.crash(victim, victim.disk.unsynced_batches)
    cluster.factory = ListMachine
    cluster.restart(victim)
    cluster.settle()
    assert cluster.check_replicas_agree()[-3:] == [b"new form", b"checkpoint", b"trim"]
    assert GROUP in victim.driver.groups


class DeafDisk(MemoryDisk):
    """No entry can be read for a while, without any damage."""

    deaf = False

    @classmethod
    def of(cls, other: MemoryDisk) -> DeafDisk:
        disk = cls()
        batch = WriteBatch()
        for key, value in other.scan(b"", b"\xff"):
            batch.put(key, value)
        disk.write(batch)
        disk.sync()
        return disk

    def get(self, key: bytes) -> bytes | None:
        self._listen(key)
        return super().get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._listen(lo)
        return super().scan(lo, hi)

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        self._listen(lo)
        return super().last_below(lo, hi)

    def _listen(self, key: bytes) -> None:
        if self.deaf and key[0] == keys.ENTRY and key >= keys.entry(GROUP, 0):
            raise StoreUnreadableError("a read failed: IO error: Too many open files")


def test_s9_a_read_that_failed_without_damage_shuts_out_for_one_start_only() -> None:
    cluster = Cluster()
    leader, _ = written(cluster)
    for node in cluster.nodes.values():
        node.disk = DeafDisk.of(node.disk)
        restart(cluster, node)
    cluster.run_until(cluster.leads)
    cluster.settle()
    leader = cluster.leader() or leader
    disk = leader.disk
    assert isinstance(disk, DeafDisk)
    behind = cluster.followers()[0]
    cluster.crash(behind)
    cluster.report_down(behind)
    cluster.propose(leader, b"d")
    cluster.settle()
    leader.group.storage.close()  # the entry is not in the cache any more
    disk.deaf = True
    cluster.restart(behind)
    cluster.run_until(lambda: GROUP in leader.driver.quarantined)
    assert not leader.driver.quarantined[GROUP].for_good
    assert OTHER in leader.driver.groups
    # Opening reads as well: what it cannot read is shut out for that start.
    restart(cluster, leader)
    assert not leader.driver.quarantined[GROUP].for_good
    assert "Too many open files" in leader.driver.quarantined[GROUP].reason
    disk.deaf = False
    restart(cluster, leader)
    assert not leader.driver.quarantined
    cluster.run_until(cluster.leads)
    cluster.settle()
    assert cluster.check_replicas_agree()[-1] == b"d"


def test_s8_a_replica_of_a_cut_store_is_in_doubt_though_its_start_could_not_open_it() -> None:
    cluster = Cluster()
    _, victim = written(cluster)
    cluster.isolate(victim)
    disk = victim.disk = DeafDisk.of(victim.disk)
    cluster.crash(victim)
    disk.deaf = True
    cluster.restart(victim, doubtful=True)
    assert GROUP in victim.driver.quarantined
    disk.deaf = False
    cluster.crash(victim)
    cluster.restart(victim)
    assert victim.group.doubtful
