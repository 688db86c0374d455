"""Replicas that a reader finds damaged: their nodes shut them out, and some are replaced (S9).

One replica of each group at most, so that the others go on. Its node may restart soon after. A
quarantine counts from when it is durable, and one that a crash takes back is as if nobody had
looked; but from then on the replica says nothing and does nothing any more, whatever restarts.
Nobody else is ever shut out.

Where members come and go, every damaged replica is replaced; elsewhere some stay as they are, and
their group goes on without them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from rakit.multiraft import quarantine
from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.machine import node_of
from tests.sim.plan import Topic
from tests.sim.violations import Invariant, ViolationError

if TYPE_CHECKING:
    from tests.sim.world import World

REPLACEMENTS = 0.5  # of the replicas that are shut out, where members stay
RESTARTS = 0.8  # of their nodes
RESTART_MS = (1, 2000)


class Damage:
    """What is damaged in one world, and what has become of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.rng.random())
        #: Group -> its damaged replica.
        self.replicas: dict[int, int] = {}
        #: (group, replica) of those whose quarantine is durable.
        self.shut_out: set[tuple[int, int]] = set()
        # (node, group) of quarantines that may not be durable yet -> the write that makes them.
        self._under_way: dict[tuple[int, int], int] = {}

    def strike(self) -> None:
        """Has a reader find a replica damaged."""
        world = self.world
        group_id = self.rng.choice(sorted(world.members.groups))
        replica = self.rng.choice(world.members.groups[group_id].desired)
        node = world.nodes[node_of(replica)]
        group = node.driver.group(group_id) if node.driver is not None else None
        if group_id in self.replicas or group is None or node.driver is None:
            return
        if world.faults["torn batch"]:
            return  # others may doubt, and want an answer of every voter
        stores = world.hazards.stores
        if stores is not None and stores.went_back:
            return  # the replicas of that store count as lost, and will be given up
        self.replicas[group_id] = group.meta.replica_id
        world.members.groups[group_id].damaged.add(group.meta.replica_id)
        node.driver.quarantine(group_id, "a reader found damage")
        world.soon(node.node_id)
        if self.rng.random() < RESTARTS:
            crash = partial(world.crash, node.node_id)
            world.events.later(self.rng.randint(*RESTART_MS), crash, node.node_id, node.boot)

    def gave_up(self, group_id: int, replica: int) -> None:
        """A replica has gone with its store: it counts like one that is shut out."""
        self.replicas[group_id] = replica
        self.shut_out.add((group_id, replica))
        self.world.members.groups[group_id].damaged.add(replica)

    def found(self, node_id: int, effects: Effects) -> None:
        """A node tells which replicas it has shut out, and at its start which it had."""
        rest = False
        for group_id, shut_out in effects.quarantined:
            if not shut_out.for_good and self.world.hazards.unreadable(node_id):
                rest = True
                continue
            replica = self.replicas.get(group_id)
            if replica is None or node_of(replica) != node_id:
                raise ViolationError(
                    Invariant.NO_DAMAGE,
                    f"node {node_id} shut out group {group_id}: {shut_out.reason}",
                )
            self._under_way[node_id, group_id] = effects.number
        if rest:
            self.world.hazards.mend(node_id)

    def synced(self, node_id: int, number: int) -> None:
        """Every write up to `number` is durable: so are the quarantines in them."""
        for key, written in list(self._under_way.items()):
            if key[0] == node_id and written <= number:
                del self._under_way[key]
                self._hold(node_id, key[1])

    def _hold(self, node_id: int, group_id: int) -> None:
        node, members = self.world.nodes[node_id], self.world.members
        assert node.driver is not None, "a node that is down has no syncer"
        replica = self.replicas[group_id]
        if group_id not in node.driver.quarantined:
            return  # its successor was made as soon as this start had found it
        self.shut_out.add((group_id, replica))
        must = self.world.plan.topic is Topic.MEMBERS
        if replica in members.groups[group_id].desired and (
            must or self.rng.random() < REPLACEMENTS
        ):
            target = members.replace(self.rng, group_id, replica, list(self.world.nodes))
            if target == node_id:
                self.world.checker.replaced(node_id, group_id)
            self.world.settle_members()

    def crashed(self, node_id: int) -> None:
        """The process has gone; what its disk remembers of a quarantine holds from now on."""
        for group_id, replica in list(self.replicas.items()):
            if node_of(replica) != node_id:
                continue
            self._under_way.pop((node_id, group_id), None)
            if (group_id, replica) in self.shut_out:
                continue
            if quarantine.noted(self.world.nodes[node_id].disk, group_id) is None:
                del self.replicas[group_id]
                self.world.members.groups[group_id].damaged.discard(replica)
            else:
                self.shut_out.add((group_id, replica))

    def sent(self, envelopes: Iterable[Envelope]) -> None:
        """What is shut out says nothing."""
        if not self.shut_out:
            return
        for envelope in envelopes:
            if (envelope.group_id, envelope.from_replica) in self.shut_out:
                raise ViolationError(
                    Invariant.SHUT_OUT,
                    f"group {envelope.group_id}: replica {envelope.from_replica:x} is shut out and"
                    f" sends {envelope.message.type.name}",
                )

    def stepped(self, node_id: int, driver: Driver) -> None:
        """What is shut out does nothing."""
        for group_id, replica in self.shut_out:
            group = driver.group(group_id) if node_of(replica) == node_id else None
            if group is not None and group.meta.replica_id == replica:
                raise ViolationError(
                    Invariant.SHUT_OUT, f"group {group_id}: node {node_id} forgot a quarantine"
                )
