"""`rakit bench growth`: how throughput and its cost change with what is asked for.

Curves, not points. Each axis changes one thing and leaves the rest as it is in `rakit bench
produce`, and becomes one table with a column for each value:

- the size of a record, 100 bytes to 1 MiB (with batches of 1 MiB and a little more);
- the partitions of the topic;
- the producers, with connections of their own in one process;
- the nodes, with three replicas each;
- how much was written before: the first GB of a topic, the second, and so on.

Each point has a cluster of its own, which is new; only the last axis goes on with the same one,
because that is the question. Rounds go through all points of an axis, every other one backwards,
and a figure is the median over the rounds: the machine changes its speed within minutes, and points
that were measured one after the other would show that instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

from rakit.client.bench.produce import (
    Measured,
    ProduceSettings,
    between,
    figures_of,
    loaded,
    measure,
)
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Report, median_of
from rakit.client.bench.target import NODES_COUNT, own_cluster
from rakit.client.cli.complaints import CommandError

GB: Final = 1_000_000_000


class Axis(StrEnum):
    """What changes."""

    RECORD_BYTES = "record-bytes"
    PARTITIONS = "partitions"
    PRODUCERS = "producers"
    NODES = "nodes"
    LOG_GB = "log-gb"


VALUES: Final = {
    Axis.RECORD_BYTES: (100, 1 << 10, 16 << 10, 1 << 20),
    Axis.PARTITIONS: (1, 6, 48),
    Axis.PRODUCERS: (1, 4, 16),
    Axis.NODES: (3, 5),
}


@dataclass(frozen=True, slots=True)
class GrowthSettings:
    """Which curves, and how exactly."""

    axes: Sequence[Axis] = tuple(Axis)
    seconds: float = 30
    warm_up_seconds: float = 5
    rounds: int = 1
    log_gb: int = 5
    gb_bytes: int = GB


@dataclass(frozen=True, slots=True)
class Point:
    """One column."""

    axis: Axis
    value: int
    produce: ProduceSettings
    nodes: int = NODES_COUNT

    def report(self, measured: Measured) -> Report:
        """What was measured there."""
        if not measured.latencies_s:
            raise CommandError("nothing was acknowledged in the measured time; measure for longer")
        figures = figures_of(measured, self.produce.record_bytes)
        shown = {"nodes": self.nodes, **asdict(self.produce)}
        if self.axis is Axis.LOG_GB:
            shown["written_gb"] = self.value
            shown["seconds"] = measured.spent.seconds
        name = f"growth-{self.axis}"
        return Report(name, shown, tuple(figures), column=f"{self.value:,}")


def points_of(axis: Axis, settings: GrowthSettings) -> list[Point]:
    """Returns the columns of an axis other than the log's size."""
    produce = ProduceSettings(seconds=settings.seconds, warm_up_seconds=settings.warm_up_seconds)
    points: list[Point] = []
    for value in VALUES[axis]:
        match axis:
            case Axis.RECORD_BYTES:
                points.append(Point(axis, value, replace(produce, record_bytes=value)))
            case Axis.PARTITIONS:
                points.append(Point(axis, value, replace(produce, partitions=value)))
            case Axis.PRODUCERS:
                points.append(Point(axis, value, replace(produce, producers=value)))
            case Axis.NODES:
                points.append(Point(axis, value, produce, nodes=value))
            case Axis.LOG_GB:
                raise AssertionError("the log grows by itself")
    return points


def in_turn(points: Sequence[Point], rounds: int) -> list[Point]:
    """Returns the order of measuring: every other round goes backwards."""
    order: list[Point] = []
    for number in range(rounds):
        order += reversed(points) if number % 2 else points
    return order


async def bench_growth(settings: GrowthSettings, say: Say) -> AsyncGenerator[Report]:
    """Measures one axis after the other, and gives the reports of each when it is done."""
    for axis in settings.axes:
        if axis is Axis.LOG_GB:
            reports = await _log(settings, say)
        else:
            reports = await curve(points_of(axis, settings), settings.rounds, say)
        for report in reports:
            yield report


async def curve(points: Sequence[Point], rounds: int, say: Say) -> list[Report]:
    """Returns a report for each point."""
    found: dict[Point, list[Report]] = {point: [] for point in points}
    for point in in_turn(points, rounds):
        async with own_cluster(point.nodes) as target:
            say(f"growth: {point.axis} {point.value:,}")
            measured = await measure(target, point.produce, lambda _: None)
        found[point].append(point.report(measured))
    return [median_of(reports) for reports in found.values()]


async def _log(settings: GrowthSettings, say: Say) -> list[Report]:
    """Writes one GB after the other, in rounds of new clusters."""
    rounds = [await _gigabytes(settings, say) for _ in range(settings.rounds)]
    return [median_of(found) for found in zip(*rounds, strict=True)]


async def _gigabytes(settings: GrowthSettings, say: Say) -> list[Report]:
    produce = ProduceSettings(warm_up_seconds=0)
    step = max(1, settings.gb_bytes // produce.record_bytes)
    reports: list[Report] = []
    async with own_cluster() as target, loaded(target, produce) as (load, meter):
        for number in range(1, settings.log_gb + 1):
            say(f"growth: GB {number} of {settings.log_gb}")
            period = meter.reach(meter.records + step)
            measured = await load.during(between(target.usage(), period, meter))
            reports.append(Point(Axis.LOG_GB, number, produce).report(measured))
    return reports
