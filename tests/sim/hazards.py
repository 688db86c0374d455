"""What befalls the machines of a run, beside what its topic brings: disks, clocks, speed, stores.

Half of the runs have none of it, the others one or two kinds, whatever they are about: so every
kind meets members that come and go, votes, damage and deletions. The kinds, and when they strike,
are drawn from a generator of their own, which is seeded by the seed.
"""

from __future__ import annotations

import random
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from rakit.multiraft.effects import Envelope
from rakit.multiraft.store.errors import StoreFailedError
from rakit.node.partition.settings import TopicSettings
from tests.sim.arrivals import Arrivals
from tests.sim.clocks import Clocks
from tests.sim.failing import Failures
from tests.sim.node import SimNode
from tests.sim.plan import Topic
from tests.sim.slowness import Slowness
from tests.sim.stores import Stores

if TYPE_CHECKING:
    from tests.sim.world import World

STRIKE_EVERY_MS = 350
RETENTION_MS = 1_000
SHORT_BYTES = 450


class Hazard(Enum):
    """A kind of misfortune."""

    #: Disks that fail, stall, are full or tear (S8, S12).
    DISKS = auto()
    #: Slow nodes, and disks that hang (S13).
    SLOWNESS = auto()
    #: Clocks that jump (S3).
    CLOCKS = auto()
    #: Bases that meet with trouble (S1).
    BASES = auto()
    #: A store that goes back in time (S7).
    STORES = auto()


_DRAWN = [Hazard.DISKS, Hazard.DISKS, Hazard.SLOWNESS, Hazard.CLOCKS, Hazard.BASES, Hazard.STORES]
#: A cut tail has a limit of its own: a minority may be in doubt, and nothing else may be lost then.
_NOT_TOGETHER = {(Topic.CUTS, Hazard.STORES)}


def hazards_of(seed: int, topic: Topic) -> list[Hazard]:
    """Returns the kinds of a seed's run."""
    rng = random.Random(f"the hazards of {seed}")
    if rng.random() < 0.5:
        return []
    drawn = {rng.choice(_DRAWN)}
    if rng.random() < 0.3:
        drawn.add(rng.choice(_DRAWN))
    if Hazard.DISKS in drawn:
        drawn.discard(Hazard.STORES)  # what nodes note about stores is written without retries here
    return [one for one in Hazard if one in drawn and (topic, one) not in _NOT_TOGETHER]


class Hazards:
    """Those of one world. What it has none of costs it nothing."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = rng = random.Random(f"when they strike in {seed}")
        self.kinds = kinds = hazards_of(seed, world.plan.topic)
        self.disks = Failures(world, rng) if Hazard.DISKS in kinds else None
        self.slowness = Slowness(world, rng)
        self.clocks = Clocks(world, rng) if Hazard.CLOCKS in kinds else None
        self.bases = Arrivals(world, rng) if Hazard.BASES in kinds else None
        self.stores = Stores(world, rng) if Hazard.STORES in kinds else None
        slowness = self.slowness if Hazard.SLOWNESS in kinds else None
        parts = [self.disks, slowness, self.clocks, self.bases, self.stores]
        self._strikers = [part for part in parts if part is not None]

    def begin(self) -> None:
        if self._strikers:
            self._later()

    def _later(self) -> None:
        delay_ms = self.rng.randint(1, 2 * STRIKE_EVERY_MS)
        self.world.events.later(delay_ms, self._strike)

    def _strike(self) -> None:
        if self.world.striking:
            self.rng.choice(self._strikers).strike()
            self._later()

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.slowness.calm()
        if self.disks is not None:
            self.disks.calm()

    # ------------------------------------------------------------------ what nodes do

    def started(self, node_id: int) -> None:
        if self.stores is not None:
            self.stores.started(node_id)

    def sent(self, node_id: int, envelopes: list[Envelope]) -> None:
        if self.bases is not None and self.world.chaos:
            self.bases.sent(node_id, envelopes)

    def arrives(self, source: int, target: int) -> bool:
        """Whether a message from one node is heard by another."""
        return self.stores is None or self.stores.pass_between(source, target)

    def stepped(self, node: SimNode) -> None:
        self.slowness.turned(node)

    def ticked(self, node: SimNode) -> None:
        self.slowness.ticked(node)

    def looked(self, node_id: int) -> None:
        if self.clocks is not None:
            self.clocks.looked(node_id)
        if self.stores is not None:
            self.stores.looked(node_id)

    # ------------------------------------------------------------------ what befalls them

    def stalled(self, node_id: int) -> None:
        assert self.disks is not None, "only a disk that may fail stalls"
        self.disks.stalled(node_id)

    def failed(self, node_id: int, error: StoreFailedError) -> None:
        assert self.disks is not None, "only a disk that may fail fails"
        self.disks.failed(node_id, error)

    def crashed(self, node_id: int, lost: int) -> None:
        if lost:
            self.world.faults["lost tail"] += 1
        if self.disks is not None:
            self.disks.crashed(node_id, lost)

    def unreadable(self, node_id: int) -> bool:
        return self.disks is not None and self.disks.unreadable(node_id)

    def mend(self, node_id: int) -> None:
        assert self.disks is not None, "only a disk that may fail needs mending"
        self.disks.mend(node_id)

    # ------------------------------------------------------------------ what topics are like

    @property
    def trims(self) -> bool:
        """Whether this world is about logs that are cut."""
        return self.clocks is not None or self.bases is not None

    def settings(self, usual: TopicSettings) -> TopicSettings:
        """What a topic is like: records go by age too, or logs are so short that bases are sent."""
        if self.bases is not None:
            usual = replace(usual, retention_bytes=SHORT_BYTES, segment_bytes=SHORT_BYTES // 3)
        return usual if self.clocks is None else replace(usual, retention_ms=RETENTION_MS)

    def trusts_clock(self, node_id: int) -> bool:
        return self.clocks is None or self.clocks.trusted(node_id)

    def deletes(self, node_id: int, group_id: int) -> None:
        """A leader proposes a deletion, by its clock."""
        if self.clocks is not None:
            self.clocks.deletes(node_id, group_id)
