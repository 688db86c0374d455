"""One busy group, with thousands of quiet ones beside it and without: is it slower for them?

Two clusters of three nodes: one has nothing but the busy partition, the other has the quiet groups
as well. They are measured in turn, in short rounds, because the machine changes its speed within
minutes; what counts is the ratio of the two within a round, and the median of that over the rounds.
Every other round begins with the other cluster.

Rules:

- Both clusters run all the time. So whichever is measured, the machine does for both what they do
  at rest, and neither has more of it than the other: what differs is what quiet groups cost within
  the nodes that work. The CPU time that they take from others beside it is a figure of its own
  (`population`). No node is ever stopped: one that was has elections to hold, not records to take.
- A round measures single records, each sent when the one before is acknowledged, and then how much
  one partition takes in, in a closed loop, with what CPU time of all its nodes. CPU time is what
  other work on the machine changes least. It is told as it was measured, and without what the nodes
  use at rest in that time, which is the same however many records come.
- Each measurement has a topic of its own: who leads it is drawn anew, so that neither cluster owes
  its figures to one placement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rakit.client.bench.figures import median
from rakit.client.bench.latency import LatencySettings, one_caller
from rakit.client.bench.population import percents, settled
from rakit.client.bench.produce import ProduceSettings, measure
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure
from rakit.client.bench.target import Target, own_cluster

RECORD_BYTES: Final = 100
#: Batches in flight are small enough that one of many groups would show in them.
BATCH_BYTES: Final = 256 << 10
WARM_UP_S: Final = 0.5


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
            if number % 2:
                first = await _turn(crowded, seconds)
                found.append((await _turn(alone, seconds), first))
            else:
                first = await _turn(alone, seconds)
                found.append((first, await _turn(crowded, seconds)))
    return figures_of(found)


async def _turn(contender: Contender, seconds: float) -> Speed:
    single = LatencySettings(record_bytes=RECORD_BYTES, seconds=seconds, partitions=1)
    times_s = await one_caller(contender.target, single)
    produce = ProduceSettings(RECORD_BYTES, BATCH_BYTES, 1, seconds, warm_up_seconds=WARM_UP_S)
    taken = await measure(contender.target, produce, lambda _: None)
    used_s = sum(taken.spent.node_cpu_s)
    idle_s = contender.idle_percent / 100 * taken.spent.seconds
    return Speed(
        1000 * median(times_s),
        taken.records / taken.spent.seconds,
        used_s / taken.records * 1e6,
        (used_s - idle_s) / taken.records * 1e6,
    )


def figures_of(rounds: Sequence[tuple[Speed, Speed]]) -> tuple[Figure, ...]:
    """Returns what rounds of (alone, crowded) come to."""

    def slower(values: Sequence[tuple[float, float]]) -> float:
        """By how many percent the second of each pair is the larger one, in the median."""
        return 100 * (median([crowded / alone for alone, crowded in values]) - 1)

    single = [(alone.single_p50_ms, crowded.single_p50_ms) for alone, crowded in rounds]
    # The time of a record, so that more is worse everywhere.
    taken = [(1 / alone.records_per_s, 1 / crowded.records_per_s) for alone, crowded in rounds]
    cpu = [(alone.cpu_s, crowded.cpu_s) for alone, crowded in rounds]
    work = [(alone.work_cpu_s, crowded.work_cpu_s) for alone, crowded in rounds]
    rate = median([crowded.records_per_s for _, crowded in rounds])
    p50_ms = median([crowded.single_p50_ms for _, crowded in rounds])
    return (
        Figure("busy_single_p50", "busy group: one caller, p50", p50_ms, "ms"),
        Figure("busy_records_per_s", "busy group: acknowledged", rate, "records/s"),
        Figure("slower_single", "slower than alone: one caller", slower(single), "%"),
        Figure("slower_taken", "slower than alone: closed loop", slower(taken), "%"),
        Figure("slower_cpu", "more CPU for a record than alone", slower(cpu), "%"),
        Figure("slower_work", "the same without CPU at rest", slower(work), "%"),
    )
