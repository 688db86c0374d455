"""Bases on their way: the leader, the newcomer or the way between them fails at that moment (S1).

A follower that was away while the log went on, or a replica that is new, gets the base of the log
and what follows it. That is rare in a short run, so followers are left behind here on purpose, and
what sends or gets a base is struck as soon as it does.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from rakit.multiraft.effects import Envelope
from rakit.multiraft.machine import node_of
from rakit.raft import MessageType

if TYPE_CHECKING:
    from tests.sim.world import World

STRUCK = 0.8  # of the bases
SHORT_MS = (10, 300)


class Arrivals:
    """Waits for bases in one world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng

    def strike(self) -> None:
        """Leaves a follower behind, while the others are given a lot to do."""
        world, rng = self.world, self.rng
        leaders = [one for one in world.leaders() if one[1] in world.group_ids]
        if not leaders:
            return
        leader, group_id = rng.choice(leaders)
        late = rng.choice([one for one in world.nodes if one != leader])
        world.note("left behind", late)
        world.crash(late, (700, 1500))
        for delay_ms in range(50, 700, 50):
            world.events.later(delay_ms, partial(self._write, leader, group_id))

    def _write(self, leader: int, group_id: int) -> None:
        if self.world.chaos and group_id not in self.world.traffic.deleted:
            self.world.traffic.burst(leader, group_id, 2)

    def sent(self, node_id: int, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.message.type is MessageType.SNAP:
                self.world.faults["base"] += 1
                if self.rng.random() < STRUCK:
                    self._strike(node_id, node_of(envelope.to_replica))

    def _strike(self, leader: int, newcomer: int) -> None:
        world, rng = self.world, self.rng
        kind = rng.choice(["leader", "newcomer", "boundary", "way"])
        world.note("base:", kind, "fails", leader, "->", newcomer)
        world.faults[f"base, {kind}"] += 1
        delay_ms = rng.randint(0, 12)
        match kind:
            case "leader":
                crash = partial(world.crash, leader, SHORT_MS)
                world.events.later(delay_ms, crash, leader, world.nodes[leader].boot)
            case "newcomer":
                crash = partial(world.crash, newcomer, SHORT_MS)
                world.events.later(delay_ms, crash, newcomer, world.nodes[newcomer].boot)
            case "boundary":
                world.armed[newcomer] = rng.randint(1, 4)
            case _:
                world.network.break_link(leader, newcomer)
                world.events.later(0, partial(self._lost, leader, newcomer), leader)

    def _lost(self, leader: int, newcomer: int) -> None:
        node = self.world.nodes[leader]
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.link_lost(newcomer)
        node.step()
