"""One busy group, with thousands of quiet ones beside it and without: is it slower for them?

Two clusters of three nodes: one has nothing but the busy partition, the other has the quiet groups
as well. What is looked for is a few percent, and the machine changes its speed by more than that
within a minute. So a round measures both in short slices, one after the other in turn, each side as
often before the other as after it; a round gives one ratio. What is told is the mean
of the rounds' ratios, and how far its 95 % interval goes to each side: a difference that is
smaller than that was not measured.

Rules:

- Both clusters run all the time. So whichever is measured, the machine does for both what they do
  at rest, and neither has more of it than the other: what differs is what quiet groups cost within
  the nodes that work. The CPU time that they take from others beside it is a figure of its own
  (`population`). No node is ever stopped: one that was has elections to hold, not records to take.
- Slices are of single records, each sent when the one before is acknowledged, and then of a closed
  loop, from the first record to the last acknowledgement, with what CPU time of all its nodes. CPU
  time is what other work on the machine changes least. It is told as it was measured, and without
  what the nodes use at rest in that time, which is the same however many records come.
- Nothing else looks at the nodes meanwhile: for their memory the kernel walks all their pages,
  which takes longer where there are more of them.
- A round has topics of its own, and the busy partition is led by another node than in the round
  before: nodes are not alike (one leads the metadata), and neither side owes its figures to where
  its leader is.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from rakit.client.bench.figures import half_width, median
from rakit.client.bench.meter import Meter
from rakit.client.bench.population import percents, settled
from rakit.client.bench.produce import ProduceSettings, contents_of
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure
from rakit.client.bench.target import Target, bench_topic, own_cluster
from rakit.client.client import Client
from rakit.client.demo.verify import durable
from rakit.client.producing.producer import Producer

#: Batches in flight are small enough that one of many groups would show in them.
PRODUCE: Final = ProduceSettings(record_bytes=100, batch_bytes=256 << 10, partitions=1)
#: Before the slices of each kind, so that connections are open and buffers have their size.
WARM_UP_S: Final = 0.5
#: Slices of each kind that one side gets in a round; even, so that each side is first as often.
SLICES: Final = 4
#: Those of the closed loop are so many times as long: stores write and sort their tables in lumps.
LOOP_TIMES: Final = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """What one round measured on one cluster."""

    single_p50_ms: float
    records_per_s: float
    #: CPU time of all nodes for a million records of the closed loop.
    cpu_s: float
    #: The same without what the nodes use at rest.
    work_cpu_s: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A cluster that is measured, and what its nodes use together when nobody uses them."""

    target: Target
    idle_percent: float


async def compare(
    crowded: Contender, rounds: int, idle_seconds: float, seconds: float, say: Say
) -> tuple[Figure, ...]:
    """Measures a cluster that is at rest, in turn with an empty one beside it."""
    async with own_cluster() as target:
        say("one busy group: the cluster without others")
        usage = target.usage()
        assert usage is not None, "the nodes are ours"
        await settled(usage)
        alone = Contender(target, sum(await percents(usage, idle_seconds)))
        found: list[tuple[Speed, Speed]] = []
        for number in range(rounds):
            say(f"one busy group: round {number + 1} of {rounds}")
            async with _side(alone, number) as one, _side(crowded, number) as other:
                found.append(await _round((one, other), seconds))
    return figures_of(found)


async def _round(sides: tuple[_Side, _Side], seconds: float) -> tuple[Speed, Speed]:
    in_turn = (sides, sides[::-1]) * (SLICES // 2)
    for each in sides:
        await each.singles(WARM_UP_S)
        each.times_s.clear()
    for order in in_turn:
        for each in order:
            await each.singles(seconds)
    for each in sides:
        await each.loop(WARM_UP_S)
        each.spent = Spent()
    for order in in_turn:
        for each in order:
            await each.loop(LOOP_TIMES * seconds)
    one, other = sides
    return one.speed(), other.speed()


@dataclass(slots=True)
class Spent:
    """What closed loops came to."""

    records: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


class _Side:
    """The busy partition of one cluster, for one round."""

    def __init__(
        self, contender: Contender, producer: Producer, topic: str, partition: int
    ) -> None:
        usage = contender.target.usage()
        assert usage is not None, "the nodes are ours"
        self._usage = usage
        self._idle_percent = contender.idle_percent
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._value = os.urandom(PRODUCE.record_bytes)
        self._contents = contents_of(PRODUCE)
        self.times_s: list[float] = []
        self.spent = Spent()

    async def singles(self, seconds: float) -> None:
        """Sends each record when the one before is acknowledged."""
        began_s = time.perf_counter()
        while (sent_s := time.perf_counter()) - began_s < seconds:
            delivery = await self._producer.send(
                self._topic, self._value, partition=self._partition
            )
            durable(await delivery)
            self.times_s.append(time.perf_counter() - sent_s)

    async def loop(self, seconds: float) -> None:
        """Sends batches for so long as the producer has room, and waits for the last of them."""
        meter, count = Meter(), 0
        began_s, cpu_s = time.perf_counter(), sum(self._usage.cpu_s())
        while (sent_s := time.perf_counter()) - began_s < seconds:
            values = self._contents[count % len(self._contents)]
            delivery = await self._producer.send_batch(
                self._topic, values, partition=self._partition
            )
            meter.watch(delivery, len(values), sent_s)
            count += 1
        await self._producer.flush()
        await meter.until(count)
        self.spent.records += meter.records
        self.spent.seconds += time.perf_counter() - began_s
        self.spent.cpu_s += sum(self._usage.cpu_s()) - cpu_s

    def speed(self) -> Speed:
        """What all slices since the warm-up come to."""
        spent = self.spent
        idle_s = self._idle_percent / 100 * spent.seconds
        return Speed(
            1000 * median(self.times_s),
            spent.records / spent.seconds,
            spent.cpu_s / spent.records * 1e6,
            (spent.cpu_s - idle_s) / spent.records * 1e6,
        )


@asynccontextmanager
async def _side(contender: Contender, number: int) -> AsyncGenerator[_Side]:
    """A topic of its own, of which the partition is used that is this round's."""
    target = contender.target
    async with (
        Client(target.bootstrap) as client,
        bench_topic(client, len(target.nodes)) as name,
        client.producer(PRODUCE.producer_config) as producer,
    ):
        topic = await client.admin.get_topic(name)
        by_leader = sorted(topic.partitions, key=lambda each: each.leader_node_id)
        busy = by_leader[number % len(by_leader)]
        yield _Side(contender, producer, name, busy.partition)


def figures_of(rounds: Sequence[tuple[Speed, Speed]]) -> tuple[Figure, ...]:
    """Returns what rounds of (alone, crowded) come to."""

    def slower(key: str, text: str, of: Callable[[Speed], float]) -> list[Figure]:
        """By how many percent the second of each pair is the larger one."""
        ratios = [math.log(of(crowded) / of(alone)) for alone, crowded in rounds]
        percent = 100 * math.expm1(statistics.fmean(ratios))
        figures = [Figure(f"slower_{key}", text, percent, "%")]
        if len(ratios) > 1:  # one round does not tell how far it is off
            within = 100 * math.expm1(half_width(ratios))
            figures.append(Figure(f"slower_{key}_within", "  give or take", within, "%"))
        return figures

    return (
        Figure(
            "busy_single_p50",
            "busy group: one caller, p50",
            median([crowded.single_p50_ms for _, crowded in rounds]),
            "ms",
        ),
        Figure(
            "busy_records_per_s",
            "busy group: acknowledged",
            median([crowded.records_per_s for _, crowded in rounds]),
            "records/s",
        ),
        *slower("single", "slower than alone: one caller", lambda each: each.single_p50_ms),
        # The time of a record, so that more is worse everywhere.
        *slower("taken", "slower than alone: closed loop", lambda each: 1 / each.records_per_s),
        *slower("cpu", "more CPU for a record than alone", lambda each: each.cpu_s),
        *slower("work", "the same without CPU at rest", lambda each: each.work_cpu_s),
    )
