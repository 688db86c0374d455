"""`rakit bench groups`: what grows with the number of groups, and what does not.

For each count three nodes of our own get so many groups of three replicas that nobody uses. What
they cost at rest (`population`), whether a busy one is slower for them (`busy`), and what the death
and the return of a node come to (`loss`), become one column of a table in which every line should
stay as flat as it can.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from rakit.client.bench.busy import Contender, compare
from rakit.client.bench.loss import lose_a_node
from rakit.client.bench.population import client_of, populate
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Report, at_most
from rakit.client.bench.target import own_cluster

COUNTS: Final = (10, 100, 1000, 10_000)
#: What the project wants to reach with each of the counts.
GOALS: Final = {
    "cpu_percent_max": at_most(10),
    "replica_kb": at_most(20),
    "slower_single": at_most(5),
    "slower_taken": at_most(5),
    "led_again_s": at_most(10),
}


@dataclass(frozen=True, slots=True)
class GroupsSettings:
    """Which counts, how often the busy group is measured, and how long measurements take.

    `seconds` is for CPU at rest, `busy_seconds` for a slice of those that a round is made of.
    """

    counts: Sequence[int] = COUNTS
    #: Of three nodes, each leads the busy group as often.
    rounds: int = 18
    seconds: float = 10
    busy_seconds: float = 0.5


async def bench_groups(settings: GroupsSettings, say: Say) -> AsyncGenerator[Report]:
    """Gives a report for each count, as it is measured."""
    for count in settings.counts:
        yield await _measure(count, settings, say)


async def _measure(count: int, settings: GroupsSettings, say: Say) -> Report:
    seconds = settings.seconds
    async with own_cluster() as target:
        async with client_of(target) as client:
            found = await populate(target, client, count, seconds, say)
        crowded = Contender(target, sum(found.idle_percents))
        busy = await compare(crowded, settings.rounds, seconds, settings.busy_seconds, say)
        lost = await lose_a_node(target, found.groups, seconds, say)
    shown = {
        "groups": count,
        "rounds": settings.rounds,
        "seconds": seconds,
        "busy_seconds": settings.busy_seconds,
    }
    report = Report("groups", shown, (*found.figures, *busy, *lost), column=f"{count:,}")
    return report.aiming(GOALS)
