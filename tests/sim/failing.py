"""Disks that fail: reads, writes and syncs that give errors, writes that stall, no room left (S12).

- A read that fails takes its replica out of service until the next start, which comes soon, as a
  person or a supervisor would have it.
- A write or a sync that fails ends the process: nothing more leaves it, whoever waits learns
  nothing, and it comes back. What the failed call wrote is on the disk, or is not.
- A write that stalls is handed in again, the same, before anything else; the node stands still.
- A full disk ends the process with another code. The next start releases the ballast: what the
  groups need is written, and producers are turned away until there is room.
- A power cut may leave garbage where the last write was: the store is cut there and doubts what it
  had promised, though nothing that it had synced is gone (S8).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from rakit.multiraft.errors import StoreUnreadableError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store.errors import StoreFailedError, WriteStalledError
from tests.sim.disk import SimDisk

if TYPE_CHECKING:
    from tests.sim.world import World

KINDS = {
    "read error": 4,
    "write error": 3,
    "sync error": 4,
    "write stall": 4,
    "full disk": 2,
}
TORN = 0.4  # of the crashes that lose writes
MUTE_MS = 1000  # a stall of this length is silence to the others (S13)


class FailingDisk(SimDisk):
    """A disk that does as it is told, and fails where it is told."""

    def __init__(self) -> None:
        super().__init__()
        # How many reads will fail, and how many before that will not.
        self.reads_failing = self.reads_spared = 0
        # Whether this start has had a read that failed.
        self.unreadable = False
        self.write_error: StoreFailedError | None = None
        self.sync_error: StoreFailedError | None = None
        self.stalled = False
        # Of the room on the disk; None: plenty.
        self.room_bytes: int | None = None
        # What a failed write leaves: all of it or nothing.
        self.leaves_it = False

    def write(self, number: int, batch: WriteBatch) -> None:
        if self.stalled:
            raise WriteStalledError("Result incomplete: Write stall")
        error, self.write_error = self.write_error, None
        if self.room_bytes is not None:
            self.room_bytes -= batch.size_bytes
            if self.room_bytes < 0:
                error = StoreFailedError("No space left on device", disk_full=True)
        if error is None or self.leaves_it:
            super().write(number, batch)
        if error is not None:
            raise error

    def sync(self, number: int) -> None:
        error, self.sync_error = self.sync_error, None
        if error is not None:
            raise error
        super().sync(number)

    def _may_fail(self, key: bytes) -> None:
        if self.at_work and self.reads_failing:
            if self.reads_spared:
                self.reads_spared -= 1
                return
            self.reads_failing -= 1
            self.unreadable = True
            raise StoreUnreadableError(f"IO error: {key!r} cannot be read")

    def get(self, key: bytes) -> bytes | None:
        self._may_fail(key)
        return super().get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._may_fail(lo)
        return super().scan(lo, hi)

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        self._may_fail(hi)
        return super().last_below(lo, hi)


class Failures:
    """What befalls the disks of one world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        for node in world.nodes.values():
            witnessed = node.disk.witnessed
            node.disk = FailingDisk()
            node.disk.witnessed = witnessed

    def _disk(self, node_id: int) -> FailingDisk:
        disk = self.world.nodes[node_id].disk
        assert isinstance(disk, FailingDisk), "every disk of this world may fail"
        return disk

    def strike(self) -> None:
        """Has one disk fail at the next opportunity."""
        world, rng = self.world, self.rng
        leaders = world.leaders()
        victim = rng.choice(list(world.nodes))
        if leaders and rng.random() < 0.5:
            victim = rng.choice(leaders)[0]
        disk = self._disk(victim)
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        world.note("disk", kind, victim)
        disk.leaves_it = rng.random() < 0.5
        match kind:
            case "read error":
                disk.reads_failing, disk.reads_spared = rng.choice([1, 1, 2, 5]), rng.randint(0, 12)
                if rng.random() < 0.7:  # reads are rare but at a start
                    world.crash(victim, (10, 300))
            case "write error":
                disk.write_error = StoreFailedError("IO error: write", disk_full=False)
            case "sync error":
                disk.sync_error = StoreFailedError("IO error: fdatasync", disk_full=False)
            case "write stall":
                disk.stalled = True
            case _:
                disk.room_bytes = rng.randint(0, 1500)

    def stalled(self, node_id: int) -> None:
        """A node holds a write: the disk takes it some time later."""
        world, node, rng = self.world, self.world.nodes[node_id], self.rng
        world.faults["write stall"] += 1
        now_ms = world.events.now_ms
        wait_ms = rng.choice([rng.randint(5, 80), rng.randint(100, 1600)]) if world.chaos else 5
        node.resume_ms, node.mute_from_ms = now_ms + wait_ms, now_ms + MUTE_MS
        node.resume = partial(self._resume, node_id, wait_ms)
        world.events.later(wait_ms, node.resume, node_id, node.boot)

    def _resume(self, node_id: int, waited_ms: int) -> None:
        node = self.world.nodes[node_id]
        assert node.driver is not None, "events of a node that is down are dropped"
        self._disk(node_id).stalled = False
        if waited_ms >= MUTE_MS:
            node.driver.disk_stalled()
        node.retry()

    def failed(self, node_id: int, error: StoreFailedError) -> None:
        """The process has ended with the error's code, and is started again."""
        world, disk = self.world, self._disk(node_id)
        world.note("node", node_id, "ends with", error.exit_code, error)
        world.faults[f"exit {error.exit_code}"] += 1
        world.faults[str(error)] += 1
        if error.disk_full:
            disk.room_bytes = None  # the ballast is released
            world.traffic.full.add(node_id)
            freed = partial(self._freed, node_id)
            world.events.later(self.rng.randint(300, 3000) if world.chaos else 1, freed)
        world.crash(node_id, (10, 1500) if world.chaos else (10, 100))

    def _freed(self, node_id: int) -> None:
        self.world.traffic.full.discard(node_id)

    def crashed(self, node_id: int, lost: int) -> None:
        """A process has gone; its last write may be torn."""
        disk = self._disk(node_id)
        disk.write_error = disk.sync_error = None
        disk.stalled = disk.unreadable = False
        # A doubt ends when every voter has answered; one that is shut out for good never will.
        may = lost and self.world.chaos and not self.world.damage.replicas
        if may and self.rng.random() < TORN:
            self.world.note("torn", node_id)
            self.world.faults["torn batch"] += 1
            self.world.nodes[node_id].was_cut = True

    def unreadable(self, node_id: int) -> bool:
        """Whether this start of a node has met a read that failed, so that replicas rest."""
        return self._disk(node_id).unreadable

    def mend(self, node_id: int) -> None:
        """Has a node started again that a failed read has taken replicas from."""
        world = self.world
        world.faults["read error"] += 1
        again = partial(world.crash, node_id, (10, 200))
        world.events.later(self.rng.randint(1, 800), again, node_id, world.nodes[node_id].boot)

    def calm(self) -> None:
        """Nothing fails any more."""
        self.world.traffic.full.clear()
        for node_id, node in self.world.nodes.items():
            disk = self._disk(node_id)
            disk.reads_failing, disk.room_bytes = 0, None
            disk.write_error = disk.sync_error = None
            if node.held is not None:
                node.resume_ms = self.world.events.now_ms
