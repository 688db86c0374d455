"""Nodes that are slow, and disks that hang (S13).

A slow node works at about a tenth of its speed: each of its turns takes some milliseconds, and what
comes meanwhile waits and is taken together. It is no dead node: it answers, late.

A sync that takes seconds holds back what a leader could apply and answer, though others commit. As
in the host, a driver is told of it at its ticks, and again each second. Who leads then hands over,
or steps down once transfers have had their time; that this happens is judged here, by the driver's
ticks.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from rakit.raft import Role
from tests.sim.node import SimNode
from tests.sim.violations import Invariant, ViolationError

if TYPE_CHECKING:
    from tests.sim.world import World

STALL_MS = 1000
SLOW_TURN_MS = (4, 20)
HUNG_MS = (1500, 4000)


class Slowness:
    """The slow nodes and hung disks of one world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        #: Node -> what a turn takes.
        self.turn_ms: dict[int, int] = {}
        # (node, boot) -> when it was last told, and its ticks since it was first told.
        self._told: dict[tuple[int, int], tuple[int, int]] = {}

    def strike(self) -> None:
        """Makes one node slow, or one disk, or lets both be quick again."""
        world, rng = self.world, self.rng
        leaders = world.leaders()
        victim = rng.choice(list(world.nodes))
        if leaders and rng.random() < 0.7:
            victim = rng.choice(leaders)[0]
        if rng.random() < 0.5:
            world.note("slow node", victim)
            self.turn_ms[victim] = rng.randint(*SLOW_TURN_MS)
            world.events.later(rng.randint(500, 2500), partial(self._quick, victim))
        else:
            world.note("hung disk", victim)
            world.sync_ms[victim] = HUNG_MS
            world.events.later(rng.randint(100, 2000), partial(self._mended, victim))

    def _quick(self, node_id: int) -> None:
        self.turn_ms.pop(node_id, None)

    def _mended(self, node_id: int) -> None:
        self.world.sync_ms[node_id] = (1, 4)

    def turned(self, node: SimNode) -> None:
        """A slow node has made a turn."""
        turn_ms = self.turn_ms.get(node.node_id)
        if turn_ms is not None:
            self.world.faults["slow node"] += 1
            node.busy_until_ms = self.world.events.now_ms + turn_ms

    def ticked(self, node: SimNode) -> None:
        """Tells a driver that its disk hangs, and judges what it does about it."""
        now_ms = self.world.events.now_ms
        key = (node.node_id, node.boot)
        if not node.syncing or now_ms - node.sync_began_ms < STALL_MS:
            self._told.pop(key, None)
            return
        assert node.driver is not None, "events of a node that is down are dropped"
        told_ms, ticks = self._told.get(key, (-STALL_MS, 0))
        if now_ms - told_ms >= STALL_MS:
            told_ms = now_ms
            node.driver.disk_stalled()
        self._told[key] = (told_ms, ticks + 1)
        if ticks > node.config.election_ticks // 2 + 1:
            self._leads_nothing(node, ticks)

    def _leads_nothing(self, node: SimNode, ticks: int) -> None:
        assert node.driver is not None, "looked at in a tick of its own"
        for group_id, group in node.driver.groups.items():
            alone = group.conf_state.voters == (group.meta.replica_id,)
            if group.role is Role.LEADER and not alone:
                raise ViolationError(
                    Invariant.HUNG_DISK,
                    f"group {group_id}: node {node.node_id} leads on, {ticks} ticks after its disk"
                    " was found hanging",
                )
        if node.driver.groups:
            self.world.faults["hung disk"] += 1

    def calm(self) -> None:
        """Everybody is quick."""
        self.turn_ms.clear()
