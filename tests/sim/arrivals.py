"""Bases on their way: the leader, the newcomer or the way between them fails at that moment (S1).

A follower that was away while the log went on, or a replica that is new, gets the base of the log
and what follows it. That is rare in a short run, so followers are left behind here on purpose, and
what sends or gets a base is struck as soon as it does.

A leader is left behind as well: its process stands still, and its connections end, until its
successor has cut its log behind everything that it had when it was elected. Of that one the base
may be the first that the old leader hears. Whether it is, is a matter of milliseconds, so the
others notice its return at once here.
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
STILL = 0.3  # of the strikes
STILL_MS = 2500
LOOK_MS = 50


class Arrivals:
    """Waits for bases in one world."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        #: Until when a leader stands still, or less; one at a time.
        self.still_until_ms = 0

    def strike(self) -> None:
        """Leaves a replica behind, while the others are given a lot to do."""
        world, rng = self.world, self.rng
        leaders = [one for one in world.leaders() if one[1] in world.group_ids]
        if not leaders or self.still_until_ms > world.events.now_ms:
            return
        leader, group_id = rng.choice(leaders)
        if rng.random() < STILL:
            self._stand_still(leader, group_id)
            return
        late = rng.choice([one for one in world.nodes if one != leader])
        world.note("left behind", late)
        world.crash(late, (700, 1500))
        for delay_ms in range(50, 700, 50):
            world.events.later(delay_ms, partial(self._write, group_id, [leader]))

    def _write(self, group_id: int, nodes: list[int]) -> None:
        if self.world.chaos and group_id not in self.world.traffic.deleted:
            for node_id in nodes:
                self.world.traffic.burst(node_id, group_id, 2)

    def _stand_still(self, leader: int, group_id: int) -> None:
        world = self.world
        world.note("stands still", leader)
        world.network.heal()
        world.part({leader})
        for other in self._others(leader):  # what is on its way goes with the connection
            world.network.break_link(other, leader)
        self.still_until_ms = world.events.now_ms + STILL_MS
        self._look(leader, world.nodes[leader].boot, group_id)

    def _look(self, leader: int, boot: int, group_id: int) -> None:
        """Keeps a leader from going on before it has missed enough."""
        world = self.world
        over = world.nodes[leader].boot != boot or world.events.now_ms >= self.still_until_ms
        if not world.chaos or over or self._is_cut_behind(leader, group_id):
            self.still_until_ms = 0
            self._goes_on(leader)
            return
        world.pause(leader, LOOK_MS + 1)
        self._write(group_id, self._others(leader))
        world.events.later(LOOK_MS, partial(self._look, leader, boot, group_id))

    def _is_cut_behind(self, leader: int, group_id: int) -> bool:
        """Whether the log of a successor begins with an entry of its own term."""
        for node_id, led in self.world.leaders():
            driver = self.world.nodes[node_id].driver
            if node_id != leader and led == group_id and driver is not None:
                group = driver.groups[group_id]
                if group.storage.base.term == group.term:
                    return True
        return False

    def _others(self, node_id: int) -> list[int]:
        return [one for one in self.world.nodes if one != node_id]

    def _goes_on(self, leader: int) -> None:
        world = self.world
        if not world.chaos:
            return
        world.nodes[leader].paused_until_ms = 0
        world.network.heal()
        for other in self._others(leader):
            if world.nodes[other].up:
                world.events.later(0, partial(self._notices, other), other, world.nodes[other].boot)

    def _notices(self, node_id: int) -> None:
        self.world.watch.look(node_id)
        self.world.nodes[node_id].step()

    def sent(self, node_id: int, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.message.type is MessageType.SNAP:
                target = node_of(envelope.to_replica)
                self.world.faults["base"] += 1
                if (target, envelope.group_id) in self.world.leaders():
                    self.world.faults["base to a leader"] += 1
                if self.rng.random() < STRUCK:
                    self._strike(node_id, target)

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
