"""What a measurement comes to: named figures, for people as a table, for programs as a tree.

A figure has a key that stays the same between versions, so that a script can follow it. A reference
is a figure that was measured without rakit; its ratio is rakit's figure divided by it: for a rate,
the share of what the machine could do; for a time, how many times as long rakit takes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rakit.client.bench.figures import Latencies, median
from rakit.client.cli.output import Format, Tree, print_table, print_tree


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should reach."""

    limit: float
    # Whether more is better.
    is_floor: bool

    def is_met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.limit if self.is_floor else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.is_floor else '<='} {_number(self.limit)}"


def at_least(limit: float) -> Goal:
    """A floor."""
    return Goal(limit, is_floor=True)


def at_most(limit: float) -> Goal:
    """A ceiling."""
    return Goal(limit, is_floor=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number."""

    key: str
    text: str
    value: float
    unit: str
    # Only for references: rakit's figure divided by this one.
    ratio: float | None = None
    goal: Goal | None = None

    def tree(self) -> dict[str, Tree]:
        """The figure as plain data."""
        tree: dict[str, Tree] = {"key": self.key, "value": self.value, "unit": self.unit}
        if self.ratio is not None:
            tree["ratio"] = self.ratio
        if self.goal is not None:
            tree |= {"goal": self.goal.limit, "is_met": self.goal.is_met(self.value)}
        return tree


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run of one command."""

    name: str
    settings: Mapping[str, Tree]
    figures: tuple[Figure, ...]
    #: Reports of one name that follow each other and have one of these are columns of one table.
    column: str = ""

    def aiming(self, goals: Mapping[str, Goal]) -> Report:
        """Returns the report with goals at some of its figures."""
        unknown = goals.keys() - {each.key for each in self.figures}
        assert not unknown, f"goals for figures that nobody measures: {unknown}"
        return replace(
            self,
            figures=tuple(replace(each, goal=goals.get(each.key)) for each in self.figures),
        )

    def tree(self) -> dict[str, Tree]:
        """The report as plain data."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "figures": [each.tree() for each in self.figures],
        }


def median_of(reports: Sequence[Report]) -> Report:
    """Returns one report of several of the same: each figure is the median of theirs."""
    figures: list[Figure] = []
    for found in zip(*(report.figures for report in reports), strict=True):
        assert all(each.key == found[0].key for each in found), "the same figures in each"
        figures.append(replace(found[0], value=median([each.value for each in found])))
    return replace(reports[0], figures=tuple(figures))


def latency_figures(prefix: str, text: str, latencies: Latencies) -> list[Figure]:
    """Returns the three figures of a summary."""
    return [
        Figure(f"{prefix}_p50", f"{text}, p50", latencies.p50_ms, "ms"),
        Figure(f"{prefix}_p99", f"{text}, p99", latencies.p99_ms, "ms"),
        Figure(f"{prefix}_max", f"{text}, longest", latencies.max_ms, "ms"),
    ]


def show(machine: Mapping[str, Tree], reports: Sequence[Report], output: Format) -> None:
    """Prints reports of one machine."""
    if output is not Format.TABLE:
        print_tree({"machine": machine, "reports": [each.tree() for each in reports]}, output)
        return
    for key, value in machine.items():
        sys.stdout.write(f"{key:9} {value}\n")
    for table, found in groupby(reports, lambda report: report.name if report.column else ""):
        if table:
            _print_growth(list(found))
            continue
        for report in found:
            _print_head(report)
            _print(report.figures)


def _print_head(report: Report, left_out: frozenset[str] = frozenset()) -> None:
    settings = [f"{key} {value}" for key, value in report.settings.items() if key not in left_out]
    sys.stdout.write(f"\n{report.name}: {', '.join(settings)}\n")


def _print_growth(reports: Sequence[Report]) -> None:
    """Reports with the same figures, side by side; the goal is met if each of them meets it."""
    first = reports[0]
    differing = frozenset(
        key
        for key, value in first.settings.items()
        if any(each.settings[key] != value for each in reports)
    )
    _print_head(first, differing)
    rows: list[list[str]] = []
    for number, figure in enumerate(first.figures):
        found = [report.figures[number] for report in reports]
        assert all(each.key == figure.key for each in found), "the same figures in each column"
        goal = figure.goal
        missed = goal is not None and not all(goal.is_met(each.value) for each in found)
        verdict = " " if goal is None else "MISSED" if missed else "met"
        cells = [_number(each.value) for each in found]
        rows.append([figure.text, *cells, figure.unit, str(goal or " "), verdict])
    columns = [report.column for report in reports]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns) + 1)]
    heads = [name.rjust(width) for name, width in zip(columns, widths[1:], strict=True)]
    for row in rows:
        for at, width in enumerate(widths[1:], 1):
            row[at] = row[at].rjust(max(width, len(columns[at - 1])))
    print_table(["FIGURE", *heads, "UNIT", "GOAL", ""], rows)


def _print(figures: Sequence[Figure]) -> None:
    # Columns that nothing fills are left out.
    heads = ["FIGURE", "VALUE", "UNIT", "RATIO", "GOAL", ""]
    used = [True] * 3
    used.append(any(each.ratio is not None for each in figures))
    used += [any(each.goal is not None for each in figures)] * 2
    width = max(len("VALUE"), *(len(_number(each.value)) for each in figures))
    rows = [
        [
            each.text,
            _number(each.value).rjust(width),
            each.unit,
            " " if each.ratio is None else f"{each.ratio:.2f}",
            each.goal or " ",
            " " if each.goal is None else "met" if each.goal.is_met(each.value) else "MISSED",
        ]
        for each in figures
    ]
    print_table(_only(heads, used), [_only(row, used) for row in rows])


def _only(cells: Sequence[object], used: Sequence[bool]) -> list[str]:
    return [str(cell) for cell, is_used in zip(cells, used, strict=True) if is_used]


def _number(value: float) -> str:
    """Three digits are more than a shared machine can repeat."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
