"""What a run consists of; drawn from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard a run is, and what it is about beside the usual faults."""

    nodes: int
    groups: int
    chaos_ms: int
    strike_every_ms: int
    # Few ticks make rival candidates likely.
    election_ticks: int
    # Nodes without a replica in the beginning; with some, members come and go.
    spares: int = 0
    # Disks lose tails that they had synced (S8).
    cuts: bool = False
    # The metadata group runs beside the partitions.
    registry: bool = False
    # Readers find replicas damaged, which are shut out, and some of them replaced (S9).
    damage: bool = False
    heal_ms: int = 25_000

    @staticmethod
    def drawn(rng: random.Random) -> Plan:
        about = rng.choice(["members", "members", "cuts", "registry", "damage", "", ""])
        return Plan(
            nodes=rng.choice([3, 3, 3, 5]),
            groups=rng.choice([1, 1, 2]),
            chaos_ms=rng.randint(4_000, 9_000),
            strike_every_ms=rng.choice([250, 500, 900]),
            election_ticks=rng.choice([4, 10, 10]),
            spares=rng.randint(1, 2) if about == "members" else 0,
            cuts=about == "cuts",
            registry=about == "registry",
            damage=about == "damage",
        )
