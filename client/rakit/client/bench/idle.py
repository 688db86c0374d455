"""`rakit bench idle`: what partitions cost that nobody uses.

The memory of the empty cluster is noted, then a topic with all partitions is created, three
replicas of each. Once every partition has a leader and the CPU use has stopped falling, CPU time is
taken over a while: percent of one core for each node, all that the node does included. Memory for
each replica is what the nodes have grown by, divided by the replicas, allocator slack included.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Final

from rakit.client.bench.figures import has_settled
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.target import bench_topic, own_cluster
from rakit.client.bench.usage import Usage
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.model import Topic

SETTLE_S_MAX: Final = 120.0
LEADERS_S_MAX: Final = 120.0
#: Between two looks, and the width of one sample of CPU use.
LOOK_S: Final = 1.0
#: Sampling CPU use of nearly nothing is coarse; below this percentage it counts as settled.
QUIET_PERCENT: Final = 2.0


@dataclass(frozen=True, slots=True)
class IdleSettings:
    """How many partitions, and for how long CPU time is taken."""

    partitions: int = 1000
    seconds: float = 20


async def bench_idle(settings: IdleSettings, say: Say) -> Report:
    """Measures three nodes of our own."""
    async with own_cluster() as target, Client(target.bootstrap) as client:
        usage = target.usage()
        assert usage is not None, "the nodes are ours"
        say("idle: the empty cluster")
        await _settled(usage)
        empty_bytes = usage.rss_bytes()
        say(f"idle: creating {settings.partitions:,} partitions")
        began_s = time.perf_counter()
        async with bench_topic(client, settings.partitions) as name:
            topic = await _all_led(client, name)
            led_s = time.perf_counter() - began_s
            say("idle: waiting until it is quiet")
            await _settled(usage)
            say(f"idle: measuring for {settings.seconds:g} s")
            percents = await _percents(usage, settings.seconds)
            grown_bytes = sum(usage.rss_bytes()) - sum(empty_bytes)
    replicas = sum(len(each.replicas) for each in topic.partitions)
    figures = (
        Figure("cpu_percent_mean", "CPU of a node, mean", sum(percents) / len(percents), "%"),
        Figure("cpu_percent_max", "CPU of the busiest node", max(percents), "%"),
        Figure("replica_kb", "memory of a replica", grown_bytes / replicas / 1e3, "kB"),
        Figure("empty_node_mb", "memory of an empty node", max(empty_bytes) / 1e6, "MB"),
        Figure("all_led_s", "created, and all have leaders", led_s, "s"),
    )
    return Report("idle", {**asdict(settings), "replicas": replicas}, figures)


async def _all_led(client: Client, name: str) -> Topic:
    """Waits until every partition has a leader."""
    deadline_s = time.perf_counter() + LEADERS_S_MAX
    while time.perf_counter() < deadline_s:
        topic = await client.admin.get_topic(name)
        if all(each.leader_node_id for each in topic.partitions):
            return topic
        await asyncio.sleep(LOOK_S)
    raise CommandError(f"some partitions had no leader within {LEADERS_S_MAX:.0f} s")


async def _settled(usage: Usage) -> None:
    """Waits until the CPU use of all nodes together has stopped falling."""
    samples: list[float] = []
    while len(samples) * LOOK_S < SETTLE_S_MAX:
        samples.append(sum(await _percents(usage, LOOK_S)))
        if has_settled(samples, quiet=QUIET_PERCENT * len(usage.rss_peak_bytes)):
            return
    shown = ", ".join(f"{sample:.0f}" for sample in samples[-5:])
    raise CommandError(f"not quiet after {SETTLE_S_MAX:.0f} s: last {shown} % of a core")


async def _percents(usage: Usage, seconds: float) -> list[float]:
    """Percent of one core that each node uses meanwhile."""
    began_s, before = time.perf_counter(), usage.cpu_s()
    await asyncio.sleep(seconds)
    after, passed_s = usage.cpu_s(), time.perf_counter() - began_s
    return [100 * (late - early) / passed_s for early, late in zip(before, after, strict=True)]
