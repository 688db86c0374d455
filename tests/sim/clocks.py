"""Clocks that jump, and what a leader may do with one that is wrong (S3).

Each node judges its clock by the product's `Liveness`, which is told of pongs here. The judgement
stands beside it and is made from the same pongs alone: whoever was off the median of those by more
than the limit proposes no trim and forgets nobody. Where a peer has just fallen silent, either view
of it is right, and nothing is judged.
"""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

from rakit.multiraft.config import LivenessConfig
from rakit.multiraft.liveness import Liveness
from tests.sim.violations import Invariant, ViolationError

if TYPE_CHECKING:
    from tests.sim.world import World

_CONFIG = LivenessConfig()
_SURE_MS = _CONFIG.silence_ms // 2
JUMPS_MS = (-3_600_000, -20_000, -6_000, -3_000, -200, 0, 200, 3_000, 6_000, 20_000, 3_600_000)


class Clocks:
    """What the nodes of one world know of each other's clocks."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self._views: dict[tuple[int, int], Liveness] = {}
        # Node -> peer -> (how far its clock is ahead, when it said so)
        self._pongs: dict[int, dict[int, tuple[int, int]]] = {}

    def strike(self) -> None:
        """Sets one clock forwards or back."""
        world, rng = self.world, self.rng
        leaders = world.leaders()
        victim = rng.choice(list(world.nodes))
        if leaders and rng.random() < 0.7:
            victim = rng.choice(leaders)[0]
        jump_ms = rng.choice(JUMPS_MS)
        before_ms = world.clock_offset_ms[victim]
        world.note("clock", victim, before_ms, "->", jump_ms)
        world.faults["clock forwards" if jump_ms > before_ms else "clock back"] += 1
        world.clock_offset_ms[victim] = jump_ms

    def looked(self, node_id: int) -> None:
        """A node pings: whoever can answer tells its clock."""
        world = self.world
        node, now_ms = world.nodes[node_id], world.events.now_ms
        view = self._views.get((node_id, node.boot))
        if view is None:
            view = self._views[node_id, node.boot] = Liveness(_CONFIG, now_ms)
            self._pongs[node_id] = {}
        ours = world.clock_ms(node_id)
        for peer_id, peer in world.nodes.items():
            answers = peer.answers(now_ms) and world.network.connected(node_id, peer_id)
            if peer_id == node_id or not answers:
                continue
            theirs = world.clock_ms(peer_id)
            view.watch(peer_id, now_ms)
            view.hello(peer_id, peer.boot, now_ms)
            number = view.ping_due(peer_id, now_ms, at_once=True)
            assert number is not None, "every ping was answered at once"
            view.pong(peer_id, number, peer.boot, (theirs, ours), now_ms)
            self._pongs[node_id][peer_id] = (theirs - ours, now_ms)
        view.check(now_ms)

    def trusted(self, node_id: int) -> bool:
        """What the product makes of it."""
        view = self._views.get((node_id, self.world.nodes[node_id].boot))
        wrong = view is not None and view.clock_is_wrong()
        if wrong:
            self.world.faults["clock alarm"] += 1
        return not wrong

    def deletes(self, node_id: int, group_id: int) -> None:
        """A leader proposes to delete something by its clock."""
        self.world.faults["deletion"] += 1
        now_ms = self.world.events.now_ms
        ages = [now_ms - said_ms for _, said_ms in self._pongs.get(node_id, {}).values()]
        if any(age > _SURE_MS for age in ages):
            return
        ahead = [ms for ms, _ in self._pongs.get(node_id, {}).values()]
        off_ms = statistics.median([0, *ahead])
        if abs(off_ms) > _CONFIG.clock_skew_ms_max:
            raise ViolationError(
                Invariant.CLOCKS,
                f"group {group_id}: node {node_id} deletes by a clock that is {off_ms:.0f} ms off"
                " those of the others",
            )
