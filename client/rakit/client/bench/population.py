"""Groups that nobody uses: making them, and seeing that the cluster has come to rest with them.

`idle` and `groups` measure what many groups cost. Both begin alike: the memory of the empty cluster
is noted, topics with three replicas of each partition are created until there are so many groups,
and once all are led by the node that should lead them and the CPU use has stopped falling, CPU time
is taken over a while.

Rules:

- Whether all groups are led is asked of every node that is up, by `GetCluster`, which costs a node
  little however many groups there are. Each must know a leader of all of them on a node that is up.
- Groups at rest are such as nothing has to be done for. Leaderships that an election gave to
  another node than placement wanted go back, some each second, for a minute after the creation:
  that is work, and such that CPU use does not change meanwhile.
- Memory for each replica is what the nodes have grown by, divided by the replicas, allocator slack
  included.
- A wait ends with an error that says what was waited for and how far it had come.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from rakit.client.bench.figures import has_settled
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure
from rakit.client.bench.target import Target
from rakit.client.bench.usage import Usage
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.config import ClientConfig
from rakit.client.demo.processes import NodeProcess
from rakit.client.errors import RakitError
from rakit.client.model import Topic

#: Partitions of one topic: an answer about it stays small.
TOPIC_PARTITIONS_MAX: Final = 1000
SETTLE_S_MAX: Final = 120.0
LED_S_MAX: Final = 180.0
#: Some of ten thousand leaderships go back, ten a second and node.
IN_PLACE_S_MAX: Final = 300.0
#: Creating waits for leaders; on a busy machine that takes its time.
CREATE_MS_MAX: Final = 120_000
#: The width of one sample of CPU use.
SAMPLE_S: Final = 1.0
#: Between two looks for leaders.
LOOK_S: Final = 0.2
#: Between two looks at every partition, which are not free.
LOOK_AT_ALL_S: Final = 2.0
#: Sampling CPU use of nearly nothing is coarse; below this percentage it counts as settled.
QUIET_PERCENT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Population:
    """What it took to have so many groups, and what they cost at rest."""

    groups: int
    replicas: int
    empty_bytes: Sequence[int]
    full_bytes: Sequence[int]
    #: Until everything was created and led.
    led_s: float
    #: Of one core, for each node.
    idle_percents: Sequence[float]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What every command tells of it."""
        idle = self.idle_percents
        grown_bytes = sum(self.full_bytes) - sum(self.empty_bytes)
        return (
            Figure("cpu_percent_mean", "CPU of a node, mean", sum(idle) / len(idle), "%"),
            Figure("cpu_percent_max", "CPU of the busiest node", max(idle), "%"),
            Figure("replica_kb", "memory of a replica", grown_bytes / self.replicas / 1e3, "kB"),
            Figure("empty_node_mb", "memory of an empty node", max(self.empty_bytes) / 1e6, "MB"),
            Figure("node_mb", "memory of the largest node", max(self.full_bytes) / 1e6, "MB"),
            Figure("all_led_s", "created, and all have leaders", self.led_s, "s"),
        )


def client_of(target: Target) -> Client:
    """Returns a client that waits as long as creating many partitions may take."""
    bootstrap = tuple(target.bootstrap.split(","))
    config = ClientConfig(
        bootstrap, request_timeout_ms=CREATE_MS_MAX, attempt_timeout_ms=CREATE_MS_MAX // 2
    )
    return Client(config)


async def populate(
    target: Target, client: Client, groups: int, seconds: float, say: Say
) -> Population:
    """Fills a cluster of our own that is empty; takes CPU time for so many seconds."""
    usage = target.usage()
    assert usage is not None, "the nodes are ours"
    say(f"{groups:,} groups: the empty cluster")
    await settled(usage)
    empty_bytes = usage.memory_bytes()
    began_s = time.perf_counter()
    topics = await _create(client, groups, say)
    replicas = sum(len(each.replicas) for topic in topics for each in topic.partitions)
    await all_led(target.nodes, groups, f"{groups:,} groups: waiting for leaders", say)
    led_s = time.perf_counter() - began_s
    await in_place(client, [topic.name for topic in topics], say)
    say(f"{groups:,} groups: waiting until it is quiet")
    await settled(usage)
    say(f"{groups:,} groups: measuring for {seconds:g} s")
    idle = await percents(usage, seconds)
    return Population(groups, replicas, empty_bytes, usage.memory_bytes(), led_s, idle)


async def _create(client: Client, groups: int, say: Say) -> list[Topic]:
    """Creates topics with so many partitions together."""
    topics: list[Topic] = []
    for first in range(0, groups, TOPIC_PARTITIONS_MAX):
        say(f"{groups:,} groups: creating them, {first:,} are there")
        count = min(TOPIC_PARTITIONS_MAX, groups - first)
        created = await client.admin.create_topic(f"bench-{uuid.uuid4().hex[:12]}", count)
        topics.append(created.topic)
    return topics


async def in_place(client: Client, topics: Sequence[str], say: Say) -> None:
    """Waits until every partition is led by its first replica, as placement wanted it."""
    deadline_s = time.perf_counter() + IN_PLACE_S_MAX
    while True:
        found = [await client.admin.get_topic(name) for name in topics]
        astray = sum(
            each.leader_node_id != each.replicas[0].node_id
            for topic in found
            for each in topic.partitions
        )
        if not astray:
            return
        if time.perf_counter() >= deadline_s:
            raise CommandError(
                f"{astray:,} groups were not led by their first replica after"
                f" {IN_PLACE_S_MAX:.0f} s"
            )
        say(f"waiting for leaderships that go to their places: {astray:,}")
        await asyncio.sleep(LOOK_AT_ALL_S)


async def all_led(
    nodes: Collection[NodeProcess], groups: int, doing: str, say: Say, *, up_count: int = 0
) -> None:
    """Waits until each of these nodes holds every group for led by a node that is up.

    `up_count` is how many nodes are to be up as they see it, by default as many as these.
    """
    deadline_s = time.perf_counter() + LED_S_MAX
    left = groups
    for node in nodes:
        async with Client(node.address) as client:
            while True:
                try:
                    cluster = await client.admin.get_cluster()
                except RakitError:
                    # A node may be too busy to answer in time; how long that lasts is bounded.
                    if time.perf_counter() >= deadline_s:
                        raise
                    await asyncio.sleep(LOOK_S)
                    continue
                up = sum(each.is_up for each in cluster.nodes)
                left = cluster.leaderless_partition_count
                if up == (up_count or len(nodes)) and not left:
                    break
                say(f"{doing}, {left:,} have none")
                if time.perf_counter() >= deadline_s:
                    raise CommandError(
                        f"{left:,} of {groups:,} groups had no leader that {node.name} knew of, and"
                        f" {up} nodes were up for it, after {LED_S_MAX:.0f} s"
                    )
                await asyncio.sleep(LOOK_S)


async def settled(usage: Usage) -> None:
    """Waits until the CPU use of all nodes together has stopped falling."""
    samples: list[float] = []
    while len(samples) * SAMPLE_S < SETTLE_S_MAX:
        samples.append(sum(await percents(usage, SAMPLE_S)))
        if has_settled(samples, quiet=QUIET_PERCENT * len(usage.memory_peak_bytes)):
            return
    shown = ", ".join(f"{sample:.0f}" for sample in samples[-5:])
    raise CommandError(f"not quiet after {SETTLE_S_MAX:.0f} s: last {shown} % of a core")


async def percents(usage: Usage, seconds: float) -> list[float]:
    """Percent of one core that each node uses meanwhile."""
    began_s, before = time.perf_counter(), usage.cpu_s()
    await asyncio.sleep(seconds)
    after, passed_s = usage.cpu_s(), time.perf_counter() - began_s
    return [100 * (late - early) / passed_s for early, late in zip(before, after, strict=True)]
