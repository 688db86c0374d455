"""Faults, drawn from the seed: what to do to the world, and when."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.machine import node_of
from rakit.raft import Role
from tests.sim.network import Weather
from tests.sim.outages import strike_network
from tests.sim.plan import Topic

if TYPE_CHECKING:
    from tests.sim.world import World

#: How often each fault is drawn, in parts of the sum.
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
    "break a link": 2,
    "weather": 3,
    "clock": 2,
    "slow disk": 2,
    "full lane": 1,
    "transfer": 2,
    "stall": 1,
}
#: What is drawn more or less often, or only, in runs about something. An ambush needs some quiet
#: before it: a group with a leader.
ABOUT = {
    Topic.EVERYTHING: {"pause the others": 12, "weather": 12},
    Topic.MEMBERS: {
        "members": 30,
        "damage": 6,
        "crash": 3,
        "crash at a boundary": 5,
        "isolate": 1,
        "split": 1,
        "one way": 1,
        "heal": 15,
    },
    Topic.CUTS: {
        "steal a vote": 30,
        "leave a tail": 20,
        "crash": 3,
        "crash at a boundary": 3,
        "crash a leader": 2,
        "isolate": 1,
        "split": 1,
        "one way": 1,
        "heal": 12,
    },
    Topic.REGISTRY: {"members": 25, "isolate": 1, "split": 1, "one way": 1, "heal": 12},
    Topic.FIGURE_8: {"reach a minority": 40},
    Topic.VOTES: {"duel": 50, "pause": 1, "split": 1, "one way": 1, "isolate": 1, "crash": 3},
    Topic.DAMAGE: {"damage": 15},
    Topic.DELETION: {"delete": 15},
}


def strike(world: World, rng: random.Random) -> None:
    """Does one thing to the world."""
    victim = rng.choice(list(world.nodes))
    weights = WEIGHTS | ABOUT[world.plan.topic]
    kind = rng.choices(list(weights), list(weights.values()))[0]
    world.note("nemesis", kind, victim)
    world.faults[kind] += 1
    if kind in _NETWORK:
        strike_network(world, rng, kind, victim)
    elif kind in _CRASHES:
        _crash(world, rng, kind, victim)
    else:
        _other(world, rng, kind, victim)


_NETWORK = {
    "split",
    "one way",
    "isolate",
    "isolate a leader",
    "heal",
    "break a link",
    "full lane",
    "weather",
}
_CRASHES = {
    "crash",
    "crash at a boundary",
    "crash all",
    "crash a leader",
    "pause",
    "pause the others",
    "reach a minority",
}


def _crash(world: World, rng: random.Random, kind: str, victim: int) -> None:
    match kind:
        case "crash":
            world.crash(victim)
        case "crash at a boundary":
            world.armed[victim] = rng.randint(1, 6)
        case "crash all":
            for node_id in world.nodes:
                world.crash(node_id)
        case "crash a leader":
            # Soon after it has begun to replicate.
            leaders = world.leaders()
            if leaders:
                world.armed[rng.choice(leaders)[0]] = rng.randint(1, 3)
        case "pause":
            world.pause(victim, rng.randint(200, 2500))
        case "pause the others":
            # Whoever leads goes on, and nobody answers.
            alone = rng.choice(world.leaders())[0] if world.leaders() else victim
            for node_id in world.nodes:
                if node_id != alone:
                    world.pause(node_id, rng.randint(3500, 5000))
        case _:
            _reach_a_minority(world, rng)


def _reach_a_minority(world: World, rng: random.Random) -> None:
    """Lets a leader replicate to too few for a while, and then end: figure 8 of the paper."""
    world.network.heal()
    leaders = world.leaders()
    if not leaders:
        return
    leader = rng.choice(leaders)[0]
    others = [one for one in world.nodes if one != leader]
    reached = rng.sample(others, rng.randint(0, (len(world.nodes) - 1) // 2 - 1))
    side = {leader, *reached}
    world.network.split(side, set(world.nodes) - side)

    def end() -> None:
        if world.chaos:
            world.network.heal()
            world.crash(leader, (30, 900))

    world.events.later(rng.randint(100, 700), end)


def _other(world: World, rng: random.Random, kind: str, victim: int) -> None:
    match kind:
        case "clock":
            world.clock_offset_ms[victim] = rng.randint(-3_600_000, 3_600_000)
        case "slow disk":
            world.sync_ms[victim] = rng.choice([(1, 4), (1, 4), (20, 200), (500, 1500)])
        case "transfer":
            for node_id, group_id in world.leaders():
                _transfer(world, node_id, group_id)
        case "members":
            _change_members(world, rng)
        case "damage":
            world.damage.strike()
        case "delete":
            _delete(world, rng)
        case "steal a vote":
            world.ambush.steal_vote()
        case "duel":
            _duel(world, rng)
        case "leave a tail":
            _leave_a_tail(world, rng)
        case _:
            driver = world.nodes[victim].driver
            if driver is not None:
                # The disk has kept a sync waiting for too long (S13).
                driver.disk_stalled()
                world.soon(victim)


def _change_members(world: World, rng: random.Random) -> None:
    """Wants other members; somebody hears of it late, or the leader is alone with it at first."""
    world.members.change(rng, list(world.nodes))
    world.settle_members()
    leaders = world.leaders()
    if not leaders:
        return
    leader = rng.choice(leaders)[0]
    if rng.random() < 0.5:
        others = [one for one in world.nodes if one != leader]
        world.pause(rng.choice(others), rng.randint(500, 2000))
    else:
        world.network.split({leader}, set(world.nodes) - {leader})
        world.events.later(rng.randint(200, 800), partial(_heal, world))


def _heal(world: World) -> None:
    if world.chaos:
        world.network.heal()


def _transfer(world: World, node_id: int, group_id: int) -> None:
    driver = world.nodes[node_id].driver
    assert driver is not None, "a node that is down leads nothing"
    to = world.rng.choice(driver.groups[group_id].conf_state.voters)
    if node_of(to) != node_id:
        with suppress(ProposalRefusedError):  # a voter in doubt is no target
            driver.transfer_leader(group_id, to)
    else:
        driver.hand_over(group_id)
    world.soon(node_id)


def _duel(world: World, rng: random.Random) -> None:
    """Has two replicas stand at once, while their messages take long: a split vote."""
    world.network.heal()
    world.network.weather = Weather(delay_ms=rng.choice([(1, 30), (5, 90)]))
    group_id = rng.choice(world.group_ids)
    rivals = rng.sample(list(world.nodes), 2)
    for node_id in rivals:
        driver = world.nodes[node_id].driver
        group = driver.group(group_id) if driver is not None else None
        if driver is not None and group is not None:
            if group.role is Role.LEADER:
                driver.step_down(group_id)
            driver.campaign(group_id)
            world.soon(node_id)


def _leave_a_tail(world: World, rng: random.Random) -> None:
    """Has a leader that nobody reaches append what its successor will replace."""
    leaders = world.leaders()
    if not leaders:
        return
    leader, group_id = rng.choice(leaders)
    world.network.heal()
    world.part({leader})
    if group_id in world.group_ids:
        world.traffic.burst(leader, group_id, rng.randint(3, 9))
    world.events.later(rng.randint(400, 1000), partial(_heal, world))


def _delete(world: World, rng: random.Random) -> None:
    """Once in a run, and never the last group."""
    if world.members.deleted:
        return
    group_id = rng.choice(world.group_ids)
    world.members.delete(group_id)
    world.traffic.delete(group_id)
    world.settle_members()
