"""What a run consists of; drawn from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, auto


class Topic(Enum):
    """What a run is about, beside the usual faults."""

    EVERYTHING = auto()
    #: Members come and go, and some are damaged and replaced; nodes without a replica are spare.
    MEMBERS = auto()
    #: Disks lose tails that they had synced, when it hurts most (S8).
    CUTS = auto()
    #: The metadata group runs beside the partitions, and its members come and go.
    REGISTRY = auto()
    #: Leaders that reach a minority, crash, and come back: figure 8 of the paper.
    FIGURE_8 = auto()
    #: Rival candidates, and voters that crash as soon as they have voted.
    VOTES = auto()
    #: Readers find replicas damaged: they are shut out, and some are replaced (S9).
    DAMAGE = auto()
    #: A group is deleted while it is at work.
    DELETION = auto()


_TOPICS = [
    Topic.EVERYTHING,
    Topic.EVERYTHING,
    Topic.MEMBERS,
    Topic.MEMBERS,
    Topic.CUTS,
    Topic.CUTS,
    Topic.REGISTRY,
    Topic.FIGURE_8,
    Topic.VOTES,
    Topic.VOTES,
    Topic.DAMAGE,
    Topic.DELETION,
]


#: Bytes of a part of a base, where bases travel most or are all that a group keeps.
_PART_BYTES = {Topic.MEMBERS: 30, Topic.REGISTRY: 6, Topic.DAMAGE: 50}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard a run is, and what it is about."""

    topic: Topic
    nodes: int
    groups: int
    chaos_ms: int
    strike_every_ms: int
    # Few ticks make rival candidates likely.
    election_ticks: int
    # Small messages divide what a follower lacks among several, small batches what it writes.
    message_bytes: int
    batch_bytes: int
    # Small parts divide every base that is sent and every checkpoint that is stored.
    base_part_bytes: int
    # Nodes without a replica in the beginning.
    spares: int
    heal_ms: int = 25_000

    @staticmethod
    def drawn(rng: random.Random) -> Plan:
        topic = rng.choice(_TOPICS)
        nodes, groups = rng.choice([3, 3, 3, 5]), rng.choice([1, 1, 2])
        ticks, message_bytes = rng.choice([4, 10, 10]), 400
        strike_every_ms = rng.choice([250, 500, 900])
        if topic is Topic.FIGURE_8:
            nodes, groups, message_bytes = rng.choice([3, 5]), 1, 150
        elif topic is Topic.VOTES:
            ticks, strike_every_ms, groups = 4, 300, 1
        elif topic is Topic.CUTS:
            strike_every_ms = 400
        elif topic is Topic.MEMBERS:
            nodes, strike_every_ms = 3, 400
        elif topic is Topic.DELETION:
            groups = 2
        # Some bugs take seconds to show; most runs are shorter, so that there can be more of them.
        chaos_ms = min(rng.randint(1_700, 4_200), rng.randint(1_700, 4_200))
        # A run costs what its replicas do; many of them need less time to meet as much.
        chaos_ms = chaos_ms * 13 // (2 * (5 + nodes * groups))
        if topic is Topic.VOTES:
            chaos_ms *= 2  # two votes that differ are rare
        return Plan(
            topic=topic,
            nodes=nodes,
            groups=groups,
            chaos_ms=chaos_ms,
            strike_every_ms=strike_every_ms,
            election_ticks=ticks,
            message_bytes=message_bytes,
            batch_bytes=400 if topic is Topic.MEMBERS else 1200,
            base_part_bytes=_PART_BYTES.get(topic, 1_000_000),
            spares=3 if topic is Topic.MEMBERS else 2 if topic is Topic.REGISTRY else 0,
        )


def topic_of(seed: int) -> Topic:
    """What a run is about."""
    return Plan.drawn(random.Random(seed)).topic
