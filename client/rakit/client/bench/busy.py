"""One busy group, with thousands of quiet ones beside it and without: is it slower for them?

Two clusters of three nodes: one has nothing but the busy partition, the other has the quiet groups
as well. They are measured in turn, in rounds, because the machine changes its speed within minutes;
what counts is the ratio of the two within a round, and the median of that over the rounds. Every
other round begins with the other cluster.

Rules:

- Who is not measured is stopped (SIGSTOP) and costs nothing. Nodes that were stopped together give
  each other the time back (S15), and nothing is measured before they are as quiet as before.
- A round measures single records, each sent when the one before is acknowledged, and then how much
  one partition takes in, in a closed loop, with what CPU time of all nodes. CPU time is what other
  work on the machine changes least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rakit.client.bench.figures import median
from rakit.client.bench.latency import LatencySettings, one_caller
from rakit.client.bench.population import percents
from rakit.client.bench.produce import ProduceSettings, measure
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure
from rakit.client.bench.target import Target
from rakit.client.cli.complaints import CommandError

RECORD_BYTES: Final = 100
#: Batches in flight are small enough that one of many groups would show in them.
BATCH_BYTES: Final = 256 << 10
WARM_UP_S: Final = 0.5
#: How much more than at rest the nodes may use when a measurement begins, in % of a core.
REST_PERCENT: Final = 10.0
REST_S_MAX: Final = 30.0
_SAMPLE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Speed:
    """What one round measured on one cluster."""

    single_p50_ms: float
    records_per_s: float
    #: CPU time of all nodes for a million records of the closed loop.
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A cluster that is measured, and what its nodes use together when nobody uses them."""

    target: Target
    idle_percent: float


async def compare(
    alone: Contender, crowded: Contender, rounds: int, seconds: float, say: Say
) -> tuple[Figure, ...]:
    """Measures both in turn; both are to be running, and so they are afterwards."""
    found: list[tuple[Speed, Speed]] = []
    crowded.target.pause()
    for number in range(rounds):
        say(f"one busy group: round {number + 1} of {rounds}")
        if number % 2:
            first = await _turn(crowded, alone, seconds)
            found.append((await _turn(alone, crowded, seconds), first))
        else:
            first = await _turn(alone, crowded, seconds)
            found.append((first, await _turn(crowded, alone, seconds)))
    alone.target.pause()
    crowded.target.resume()
    await _at_rest(crowded)
    return figures_of(found)


async def _turn(contender: Contender, other: Contender, seconds: float) -> Speed:
    other.target.pause()
    contender.target.resume()
    await _at_rest(contender)
    single = LatencySettings(record_bytes=RECORD_BYTES, seconds=seconds, partitions=1)
    times_s = await one_caller(contender.target, single)
    produce = ProduceSettings(RECORD_BYTES, BATCH_BYTES, 1, seconds, warm_up_seconds=WARM_UP_S)
    taken = await measure(contender.target, produce, lambda _: None)
    return Speed(
        1000 * median(times_s),
        taken.records / taken.spent.seconds,
        sum(taken.spent.node_cpu_s) / taken.records * 1e6,
    )


async def _at_rest(contender: Contender) -> None:
    """Waits until nodes that were stopped use no more than they did before."""
    usage = contender.target.usage()
    assert usage is not None, "the nodes are ours"
    deadline_s = time.perf_counter() + REST_S_MAX
    while (used := sum(await percents(usage, _SAMPLE_S))) > contender.idle_percent + REST_PERCENT:
        if time.perf_counter() >= deadline_s:
            raise CommandError(
                f"nodes that had been stopped were not quiet after {REST_S_MAX:.0f} s: they use"
                f" {used:.0f} % of a core, and {contender.idle_percent:.0f} % before"
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
    rate = median([crowded.records_per_s for _, crowded in rounds])
    p50_ms = median([crowded.single_p50_ms for _, crowded in rounds])
    return (
        Figure("busy_single_p50", "busy group: one caller, p50", p50_ms, "ms"),
        Figure("busy_records_per_s", "busy group: acknowledged", rate, "records/s"),
        Figure("slower_single", "slower than alone: one caller", slower(single), "%"),
        Figure("slower_taken", "slower than alone: closed loop", slower(taken), "%"),
        Figure("slower_cpu", "more CPU for a record than alone", slower(cpu), "%"),
    )
