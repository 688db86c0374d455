"""Faults, drawn from the seed: what to do to the world, and when."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim.network import Weather

if TYPE_CHECKING:
    from tests.sim.world import World


# How often each fault is drawn, in parts of the sum; others only in runs that are about them.
WEIGHTS = {
    "crash": 6,
    "crash at a boundary": 8,
    "crash all": 1,
    "crash a leader": 6,
    "pause": 3,
    "split": 3,
    "one way": 3,
    "isolate": 3,
    "isolate a leader": 5,
    "heal": 6,
    "weather": 3,
    "clock": 2,
    "slow disk": 2,
    "full lane": 1,
    "transfer": 2,
    "stall": 1,
}


def strike(world: World, rng: random.Random) -> None:
    """Does one thing to the world."""
    nodes = sorted(world.nodes)
    victim = rng.choice(nodes)
    weights = {
        **WEIGHTS,
        "members": 8 if world.plan.spares else 0,
        "damage": 15 if world.plan.damage else 0,
    }
    kind = rng.choices(list(weights), list(weights.values()))[0]
    world.note("nemesis", kind, victim)
    match kind:
        case "crash":
            world.crash(victim)
        case "crash at a boundary":
            world.armed[victim] = rng.randint(1, 6)
        case "crash all":
            for node_id in nodes:
                world.crash(node_id)
        case "crash a leader":
            # Soon after it has begun to replicate: what figure 8 of the paper is made of.
            leaders = world.leaders()
            if leaders:
                world.armed[rng.choice(leaders)] = rng.randint(1, 3)
        case "pause":
            world.pause(victim, rng.randint(200, 2500))
        case "split":
            side = set(rng.sample(nodes, rng.randint(1, len(nodes) - 1)))
            world.network.split(side, set(nodes) - side)
        case "one way":
            other = rng.choice([one for one in nodes if one != victim])
            world.network.cut(victim, other)
        case "isolate":
            world.network.split({victim}, set(nodes) - {victim})
        case "isolate a leader":
            # It goes on believing that it leads, for a while beside its successor.
            victim = rng.choice(world.leaders() or nodes)
            world.network.split({victim}, set(nodes) - {victim})
            world.ask_to_read(victim)
        case "heal":
            world.network.heal()
        case "weather":
            world.network.weather = Weather(
                loss=rng.choice([0.0, 0.02, 0.2]),
                duplication=rng.choice([0.0, 0.05]),
                delay_ms=rng.choice([(1, 3), (1, 40), (20, 150)]),
                straggling=rng.choice([0.0, 0.05]),
            )
        case "clock":
            world.clock_offset_ms[victim] = rng.randint(-3_600_000, 3_600_000)
        case "slow disk":
            world.sync_ms[victim] = rng.choice([(1, 4), (1, 4), (20, 200), (500, 1500)])
        case "full lane":
            other = rng.choice([one for one in nodes if one != victim])
            world.fill_lane(victim, other, rng.randint(50, 2500))
        case "transfer":
            world.transfer(rng)
        case "members":
            world.change_members(rng)
        case "damage":
            world.damage(victim, rng)
        case _:
            world.stall(victim)
