"""A node of many groups dies and returns: until all are led again, and what the return costs.

One of three nodes, which lead equally much, gets SIGKILL. The time runs from the signal until both
others know a leader of every group on a node that is up; the CPU time that they used meanwhile
comes with it, since two nodes and this process share the machine's cores with whatever else runs
there. Then they are let come to rest, and the node is started again: until it says that it is
ready, and until all three nodes agree that everything is led. In the end CPU time is taken once
more: by then the returned node's replicas have been looked at and rest, and leaderships go back to
it, a few each second.
"""

from __future__ import annotations

import time
from typing import Final

from rakit.client.bench.population import all_led, percents, settled
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure
from rakit.client.bench.target import Target
from rakit.client.bench.usage import Usage

#: A node reads every group's log and its state before it is ready.
READY_S_MAX: Final = 180.0


async def lose_a_node(target: Target, groups: int, seconds: float, say: Say) -> tuple[Figure, ...]:
    """Kills a node of a cluster that is at rest, and brings it back."""
    victim, *others = reversed(target.nodes)
    usage = Usage(node.pid for node in others)
    say(f"{groups:,} groups: {victim.name} is killed")
    before_s, began_s = sum(usage.cpu_s()), time.perf_counter()
    victim.kill()
    await all_led(others, groups, f"{groups:,} groups: after the kill", say)
    led_s, led_cpu_s = time.perf_counter() - began_s, sum(usage.cpu_s()) - before_s
    await victim.wait()
    say(f"{groups:,} groups: waiting until it is quiet")
    await settled(usage)
    say(f"{groups:,} groups: {victim.name} is started again")
    before_s, began_s = sum(usage.cpu_s()), time.perf_counter()
    await victim.start(READY_S_MAX)
    ready_s = time.perf_counter() - began_s
    await all_led(target.nodes, groups, f"{groups:,} groups: after the return", say)
    back_s, back_cpu_s = time.perf_counter() - began_s, sum(usage.cpu_s()) - before_s
    everyone = target.usage()
    assert everyone is not None, "the nodes are ours"
    say(f"{groups:,} groups: waiting until it is quiet")
    await settled(everyone)
    back_percents = await percents(everyone, seconds)
    return (
        Figure("led_again_s", "a node is killed: all are led again", led_s, "s"),
        Figure("led_again_cpu_s", "CPU of both others until then", led_cpu_s, "s"),
        Figure("ready_again_s", "it is started: ready", ready_s, "s"),
        Figure("back_s", "it is started: all nodes see all led", back_s, "s"),
        Figure("back_cpu_s", "CPU of both others until then", back_cpu_s, "s"),
        Figure("back_percent_max", "CPU of the busiest node afterwards", max(back_percents), "%"),
    )
