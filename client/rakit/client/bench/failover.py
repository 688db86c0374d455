"""`rakit bench failover`: how long writers wait when a leader dies.

While a record goes to every partition every few milliseconds, the node that leads one of them gets
SIGKILL. The gap of a partition that it led runs from the signal to the first acknowledgement of a
record that was sent after it; acknowledgements that were on their way do not count. Two figures
come from each kill: the gap of the partition that went on first, and that of the last one, after
which nobody waits any more.

Then the node is started again. The next kill waits until the cluster is whole: every node up, every
replica with the same digest as the others, every leadership where it was in the beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from rakit.client.bench.background import Background, running
from rakit.client.bench.figures import median
from rakit.client.bench.meter import Meter
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.target import NODES_COUNT, Target, bench_topic, own_cluster
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.demo.processes import NodeProcess
from rakit.client.model import Topic
from rakit.client.producing.producer import Producer

PARTITIONS: Final = 6
#: Between two records to the same partition. The gap is found to within this.
PACE_S: Final = 0.01
VALUE: Final = bytes(100)
#: Longer than any election; beyond it the cluster is broken.
GAP_S_MAX: Final = 60.0
WHOLE_S_MAX: Final = 120.0
LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Kill:
    """What one SIGKILL led to."""

    node: str
    # Seconds, by partition that the node led.
    gaps_s: Mapping[int, float]

    @property
    def first_s(self) -> float:
        """Until the first of its partitions went on."""
        return min(self.gaps_s.values())

    @property
    def last_s(self) -> float:
        """Until all of them went on."""
        return max(self.gaps_s.values())


class GapWatch:
    """Measures the gaps after one event at a time."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._waiting: set[int] = set()
        self._gaps_s: dict[int, float] = {}
        self._over = asyncio.Event()

    def begin(self, partitions: set[int], now_s: float) -> None:
        """The event happens now and concerns these partitions."""
        assert partitions, "an event without partitions has no gap"
        assert not self._waiting, "one event at a time"
        self._since_s, self._waiting, self._gaps_s = now_s, set(partitions), {}
        self._over.clear()

    def acknowledged(self, partition: int, sent_s: float, now_s: float) -> None:
        """Takes an acknowledgement of a record that was sent then."""
        if partition in self._waiting and sent_s >= self._since_s:
            self._waiting.remove(partition)
            self._gaps_s[partition] = now_s - self._since_s
            if not self._waiting:
                self._over.set()

    async def end(self) -> dict[int, float]:
        """Waits until every partition went on; returns the gaps in seconds."""
        await self._over.wait()
        return self._gaps_s


async def bench_failover(kills_count: int, say: Say) -> Report:
    """Kills leaders of three nodes of our own."""
    meter, watch = Meter(), GapWatch()
    kills: list[Kill] = []
    async with (
        own_cluster() as target,
        Client(target.bootstrap) as client,
        bench_topic(client, PARTITIONS) as name,
        client.producer() as producer,
        running(_send(producer, name, meter, watch)) as load,
    ):
        say("failover: waiting for leaders")
        settled = await load.during(_all_led(client, name))
        for number in range(kills_count):
            say(f"failover: kill {number + 1} of {kills_count}")
            partition = number % PARTITIONS
            kill = await load.during(_kill(target, settled, partition, watch))
            kills.append(kill)
            meter.check()
            say(f"failover: {kill.node} was killed, {1000 * kill.last_s:,.0f} ms; mending")
            await _mend(target, client, settled, load)
    return Report("failover", {"kills": kills_count, "partitions": PARTITIONS}, _figures(kills))


def _figures(kills: list[Kill]) -> tuple[Figure, ...]:
    firsts, lasts = [1000 * each.first_s for each in kills], [1000 * each.last_s for each in kills]
    return (
        *(
            Figure(
                f"kill_{number}",
                f"kill {number}: {each.node}, all {len(each.gaps_s)} partitions",
                1000 * each.last_s,
                "ms",
            )
            for number, each in enumerate(kills, 1)
        ),
        Figure("first_median", "first partition goes on, median", median(firsts), "ms"),
        Figure("first_max", "first partition goes on, longest", max(firsts), "ms"),
        Figure("all_median", "all partitions go on, median", median(lasts), "ms"),
        Figure("all_max", "all partitions go on, longest", max(lasts), "ms"),
    )


async def _send(producer: Producer, topic: str, meter: Meter, watch: GapWatch) -> None:
    """Sends to every partition in turn until it is cancelled."""

    def acknowledged(partition: int, sent_s: float) -> None:
        watch.acknowledged(partition, sent_s, time.perf_counter())

    while True:
        for partition in range(PARTITIONS):
            sent_s = time.perf_counter()
            delivery = await producer.send(topic, VALUE, partition=partition)
            meter.then(delivery, partial(acknowledged, partition, sent_s))
        await asyncio.sleep(PACE_S)


async def _kill(target: Target, settled: Topic, partition: int, watch: GapWatch) -> Kill:
    victim = _node_at(target, settled.partitions[partition].leader_address)
    led = {each.partition for each in settled.partitions if each.leader_address == victim.address}
    watch.begin(led, time.perf_counter())
    victim.kill()
    try:
        async with asyncio.timeout(GAP_S_MAX):
            gaps_s = await watch.end()
    except TimeoutError:
        raise CommandError(
            f"no acknowledgement within {GAP_S_MAX:.0f} s of the end of {victim.name}"
        ) from None
    await victim.wait()
    return Kill(victim.name, gaps_s)


def _node_at(target: Target, address: str) -> NodeProcess:
    return next(node for node in target.nodes if node.address == address)


async def _mend(target: Target, client: Client, settled: Topic, load: Background) -> None:
    """Starts what is down and waits until the cluster is as it was."""
    for node in target.nodes:
        if not node.pid:
            await load.during(node.start())
    try:
        async with asyncio.timeout(WHOLE_S_MAX):
            while not await load.during(_is_whole(client, settled)):
                await load.during(asyncio.sleep(LOOK_S))
    except TimeoutError:
        raise CommandError(f"the cluster was not whole after {WHOLE_S_MAX:.0f} s") from None


async def _all_led(client: Client, name: str) -> Topic:
    """Waits until every partition has a leader and every node leads some."""
    deadline_s = time.perf_counter() + WHOLE_S_MAX
    while time.perf_counter() < deadline_s:
        topic = await client.admin.get_topic(name)
        leading = set(leaders(topic))
        if 0 not in leading and len(leading) == NODES_COUNT:
            return topic
        await asyncio.sleep(LOOK_S)
    raise CommandError(f"not every node led a partition within {WHOLE_S_MAX:.0f} s")


async def _is_whole(client: Client, settled: Topic) -> bool:
    cluster = await client.admin.get_cluster()
    if not all(node.is_up for node in cluster.nodes):
        return False
    topic = await client.admin.get_topic(settled.name)
    if leaders(topic) != leaders(settled):
        return False
    ends = {each.partition: each.latest for each in await client.admin.get_offsets(topic.name)}
    for each in topic.partitions:
        digest = await client.admin.get_digest(topic.name, each.partition)
        has_all = len(digest.replicas) == len(each.replicas)
        if not (digest.agrees and has_all) or digest.end_offset < ends[each.partition]:
            return False
    return True


def leaders(topic: Topic) -> list[int]:
    """The leading nodes in the order of the partitions."""
    return [each.leader_node_id for each in topic.partitions]
