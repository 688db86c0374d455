"""Faults of the ways between nodes: cuts, bad weather, links that break and lanes that are full."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.sim.network import Weather

if TYPE_CHECKING:
    from tests.sim.world import World

READS_FOR_MS, READ_EVERY_MS = 1500, 50
WRITES_FOR_MS, WRITE_EVERY_MS = 700, 100


def strike_network(world: World, rng: random.Random, kind: str, victim: int) -> None:
    """Does one thing to the ways between nodes."""
    nodes = set(world.nodes)
    match kind:
        case "split":
            side = set(rng.sample(sorted(nodes), rng.randint(1, len(nodes) - 1)))
            world.network.split(side, nodes - side)
        case "one way":
            world.network.cut(victim, rng.choice(sorted(nodes - {victim})))
        case "isolate":
            world.network.split({victim}, nodes - {victim})
        case "isolate a leader":
            # It goes on believing that it leads, for a while beside its successor, who comes soon.
            leaders = world.leaders()
            if leaders:
                victim = rng.choice(leaders)[0]
            world.part({victim})
            _ask_to_read(world, victim)
            _write_to_the_others(world, victim)
        case "break a link":
            _break_link(world, victim, rng.choice(sorted(nodes - {victim})))
        case "full lane":
            _fill_lane(world, victim, rng.choice(sorted(nodes - {victim})), rng.randint(50, 2500))
        case "weather":
            world.network.weather = Weather(
                loss=rng.choice([0.0, 0.02, 0.2]),
                duplication=rng.choice([0.0, 0.05]),
                delay_ms=rng.choice([(1, 3), (1, 40), (20, 150)]),
                straggling=rng.choice([0.0, 0.1]),
                refusal=rng.choice([0.0, 0.1, 0.3]),
            )
        case _:
            world.network.heal()


def _break_link(world: World, one: int, other: int) -> None:
    """What is on its way is lost, and both ends are told; the next message passes."""
    for source, target in ((one, other), (other, one)):
        world.network.break_link(source, target)
        driver = world.nodes[source].driver
        if driver is not None:
            driver.link_lost(target)
            world.soon(source)


def _fill_lane(world: World, node_id: int, other_id: int, duration_ms: int) -> None:
    """A node's way to another one takes no more appends for a while (S17)."""
    node = world.nodes[node_id]
    if node.driver is None:
        return
    node.driver.lane_shut(other_id)

    def empty() -> None:
        assert node.driver is not None, "events of a node that is down are dropped"
        node.driver.lane_open(other_id)
        node.step()

    world.events.later(duration_ms, empty, node_id, node.boot)


def _ask_to_read(world: World, node_id: int) -> None:
    """Keeps asking one node for reads, whatever it is cut off from."""
    node = world.nodes[node_id]
    boot = node.boot

    def ask() -> None:
        assert node.driver is not None, "events of a node that is down are dropped"
        world.traffic.reads.ask(node_id, boot, node.driver, world.rng)
        node.step()

    for delay_ms in range(0, READS_FOR_MS, READ_EVERY_MS):
        world.events.later(delay_ms, ask, node_id, boot)


def _write_to_the_others(world: World, node_id: int) -> None:
    """Keeps writing to all but one node; clients that wait for that one would find out late."""

    def write() -> None:
        if world.chaos:
            for other in world.nodes:
                if other != node_id:
                    world.traffic.burst(other, world.rng.choice(world.group_ids), 1)

    for delay_ms in range(WRITE_EVERY_MS, WRITES_FOR_MS, WRITE_EVERY_MS):
        world.events.later(delay_ms, write)
