"""Stores that go back in time, and the nodes that come back with new ones (S7, S11).

One disk of a run is replaced by an older copy of itself: votes and entries that it had vouched for
are gone, and nothing on it says so. The others know by what its hellos had told them. Every node
has the product's `Gate` and `StoreMemory` here; two processes greet each other before the first
message between them passes, and pings tell how far a store is, as in the host.

What must hold: nobody listens to such a store. Its node is stopped, comes back with an empty disk
as another store, and gets new replicas in the place of those that it had.

A copy is as old as what every other node durably remembers, at least. What is younger no memory can
tell from a store that never had it; that is what the counts in pings are for, and their limit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rakit.multiraft.hello import DATA, Gate, NodeIdentity, Rollback, StoreMemory
from tests.sim.disk import Image, SimDisk
from tests.sim.violations import Invariant, ViolationError

if TYPE_CHECKING:
    from tests.sim.world import World

COPIES_KEPT = 12


@dataclass(frozen=True, slots=True)
class Copy:
    """A disk as it was."""

    image: Image
    count: int


class Frozen:
    """What is durable on a disk, for a look at it."""

    def __init__(self, image: Image) -> None:
        self._disk = SimDisk()
        self._disk.live = image

    def get(self, key: bytes) -> bytes | None:
        return self._disk.get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._disk.scan(lo, hi)

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        return self._disk.last_below(lo, hi)


class Stores:
    """The stores of one world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.uuids = {node_id: f"store-{node_id}-1" for node_id in world.nodes}
        self.copies: dict[int, list[Copy]] = {node_id: [] for node_id in world.nodes}
        self.gates: dict[int, Gate] = {}
        self.memories: dict[int, StoreMemory] = {}
        #: The node whose disk went back, until its new store is there; 0: none.
        self.went_back = 0
        self.done = False
        self._replacing = False
        # (node, boot, node, boot) of processes that talk to each other.
        self._greeted: set[tuple[int, int, int, int]] = set()

    # ------------------------------------------------------------------ nodes

    def started(self, node_id: int) -> None:
        node = self.world.nodes[node_id]
        memory = StoreMemory(node.disk)
        identity = NodeIdentity(
            cluster_id="cluster",
            node_id=node_id,
            store_uuid=self.uuids[node_id],
            boot_epoch=node.boot,
            opened_counter=node.disk.count,
        )
        self.memories[node_id] = memory
        self.gates[node_id] = Gate(
            identity, lambda: node.disk.count, memory, self._condemned, self._answers
        )

    def _answers(self, node_id: int) -> int:
        node = self.world.nodes[node_id]
        return node.boot if node.answers(self.world.events.now_ms) else 0

    def looked(self, node_id: int) -> None:
        """A node pings the others, and is copied now and then."""
        world = self.world
        now_ms = world.events.now_ms
        for peer_id, peer in world.nodes.items():
            reached = peer.answers(now_ms) and world.network.connected(node_id, peer_id)
            if peer_id != node_id and reached and self.pass_between(node_id, peer_id):
                self.gates[node_id].heard(peer_id, peer.boot, peer.disk.count)
        memory, node = self.memories[node_id], world.nodes[node_id]
        if memory.has_news:  # made durable by the next sync, whatever that is for
            node.disk.write(node.written, memory.take_notes())
        copies = self.copies[node_id]
        if world.chaos and not self.done:
            copies.append(Copy(node.disk.durable.copy(), node.disk.count))
            del copies[:-COPIES_KEPT]

    # ------------------------------------------------------------------ greetings

    def pass_between(self, one: int, other: int) -> bool:
        """Whether two processes talk to each other; they greet before the first message."""
        nodes = self.world.nodes
        if not (nodes[one].up and nodes[other].up):
            return False  # what a process has sent ends with it
        key = (one, nodes[one].boot, other, nodes[other].boot)
        if key in self._greeted:
            return True
        here, there = self.gates[one], self.gates[other]
        refusals = (
            there.judge(here.hello(other, DATA), one),
            here.judge(there.hello(one, DATA), other),
        )
        if any(refusals):
            self.world.note(f"{one} and {other} do not talk:", *filter(None, refusals))
            if self.went_back in {one, other}:
                self.world.network.shut(one, other)
            return False
        for node_id in (one, other):
            if node_id == self.went_back:
                raise ViolationError(
                    Invariant.WENT_BACK,
                    f"the store of node {node_id} lacks what it had synced, and nodes {one} and"
                    f" {other} talk to each other",
                )
        self._greeted |= {key, (*key[2:], *key[:2])}
        return True

    def _condemned(self, rollback: Rollback) -> None:
        """A person is told, and moves the data directory away."""
        node_id = rollback.node_id
        if node_id != self.went_back:
            raise ViolationError(
                Invariant.WENT_BACK,
                f"the store of node {node_id} lacks nothing, and was refused: {rollback}",
            )
        if not self._replacing:
            self._replacing = True
            self.world.events.later(self.rng.randint(50, 1000), partial(self._replace, node_id))

    # ------------------------------------------------------------------ back in time, and anew

    def strike(self) -> None:
        """Replaces one disk by an older copy of itself, once in a run."""
        world = self.world
        victims = [one for one, node in world.nodes.items() if node.up and self._copy_of(one)]
        if self.done or not victims or world.damage.replicas:
            return
        node_id = self.rng.choice(victims)
        node, copy = world.nodes[node_id], self._copy_of(node_id)
        assert copy is not None, "just looked"
        self.done, self.went_back = True, node_id
        world.note("back in time", node_id, node.disk.count, "->", copy.count)
        world.faults["rollback"] += 1
        world.crash(node_id, (50, 500))
        before = node.disk.durable
        node.disk.durable, node.disk.live = copy.image.copy(), copy.image.copy()
        node.disk.count = copy.count
        world.checker.cut(node_id, before)
        world.graves.forget(node_id)

    def _copy_of(self, node_id: int) -> Copy | None:
        """The youngest copy that is older than what all the others durably remember."""
        if not any(node_id in one.replicas for one in self.world.members.groups.values()):
            return None
        remembered = min(
            StoreMemory(Frozen(node.disk.durable)).highest(self.uuids[node_id])
            for one, node in self.world.nodes.items()
            if one != node_id
        )
        old = [copy for copy in self.copies[node_id] if copy.count < remembered]
        return old[-1] if old else None

    def _replace(self, node_id: int) -> None:
        """The node comes back with an empty disk, and new replicas are wanted of it."""
        world = self.world
        node = world.nodes[node_id]
        world.crash(node_id, (50, 500))
        world.note("a new store", node_id)
        for group_id, one in world.members.groups.items():
            old = one.replicas.get(node_id)
            if old is None:
                continue
            world.checker.replaced(node_id, group_id)
            world.damage.gave_up(group_id, old)
            if old in one.desired:
                world.members.replace(self.rng, group_id, old, [])
            else:
                del one.replicas[node_id]
        node.disk.wipe()
        world.graves.forget(node_id)
        self.uuids[node_id] = f"store-{node_id}-2"
        self.went_back = 0
        world.tending = True
        world.network.open(node_id)
        world.settle_members()
        world.faults["new store"] += 1
