"""What a person sees: one table of figures for each work, and one of bars.

Every figure is the median over rounds, with the lowest and the highest in brackets. The ratio in a
table of figures is rakit's to that system, in the first figure, with its 95 % interval: above 1 is
better for rakit, whichever way is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rakit.client.cli.output import Tree, print_table
from tests.bench.bars import BARS, Against
from tests.bench.intervals import Interval, ratio, spread
from tests.bench.results import Result, latest
from tests.bench.systems import SYSTEMS, stand_in
from tests.bench.verdicts import LEAST, OURS, Rounds, Verdict, best, judge, rounds_of
from tests.bench.works import WORKS, Kind, twin, work

#: The figures of each kind, the first of which decides: key, head, and whether more is better.
SHOWN: Mapping[Kind, Sequence[tuple[str, str, bool]]] = {
    Kind.PRODUCE: (
        ("mb_per_s", "MB/s", True),
        ("records_per_s", "RECORDS/s", True),
        ("cpu_s_per_gb", "CPU s/GB", False),
    ),
    Kind.UNARY: (("records_per_s", "CALLS/s", True),),
    Kind.READ: (("records_per_s", "RECORDS/s", True), ("mb_per_s", "MB/s", True)),
    Kind.LATENCY: (("p50_ms", "P50 ms", False), ("p99_ms", "P99 ms", False)),
    Kind.TAIL: (("p50_ms", "P50 ms", False), ("p99_ms", "P99 ms", False)),
    Kind.KILL: (("gap_s", "GAP s", False),),
    Kind.PAUSE: (("gap_s", "GAP s", False),),
    Kind.IDLE: (
        ("cores_per_partition", "CORES/PARTITION", False),
        ("replica_kb", "kB/REPLICA", False),
        ("created_s", "CREATED s", False),
    ),
}
#: What processes take; in the tables of the kinds that have it.
TAKEN = (
    ("node_cpu_s", "NODES' CPU s"),
    ("client_cpu_s", "CLIENT'S CPU s"),
    ("memory_mib", "MEMORY MiB"),
    ("written_mb", "WRITTEN MB"),
)


def number(value: float) -> str:
    """Three digits are more than a shared machine can repeat."""
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _spread(rounds: Rounds) -> str:
    found = spread(list(rounds.values()))
    if found.count == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)} to {number(found.high)})"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if math.isinf(interval.high):
        return number(interval.middle)
    return f"{number(interval.middle)} [{number(interval.low)}, {number(interval.high)}]"


def works_of(found: Sequence[Result]) -> list[str]:
    """The works with results, in their own order; not those that only stand in for others."""
    there: dict[str, set[str]] = {}
    for result in found:
        there.setdefault(result.case.work, set()).add(result.case.system)

    def stands_in(name: str) -> bool:
        other = twin(name)
        return other in there and all(stand_in(other, each) == name for each in there[name])

    return [each.name for each in WORKS if each.name in there and not stands_in(each.name)]


def rows_of(found: Sequence[Result], name: str) -> list[list[str]]:
    """The lines of one work: each system with each of its settings, and its interface if that is
    another than the work's.
    """
    shown = SHOWN[work(name).kind]
    deciding, _, more_is_better = shown[0]
    ours = rounds_of(found, name, OURS, deciding)
    our_best = best(ours, more_is_better=more_is_better)[1] if ours else {}
    rows: list[list[str]] = []
    for system in SYSTEMS:
        measured = stand_in(name, system)
        if measured is None:
            continue
        interface = "" if measured == name else work(measured).interface
        for setting, rounds in rounds_of(found, measured, system, deciding).items():
            cells = [system, setting or interface, str(len(rounds))]
            for key, _ in [*((key, head) for key, head, _ in shown), *TAKEN]:
                figure = rounds_of(found, measured, system, key).get(setting)
                cells.append(_spread(figure) if figure else "")
            shared = sorted(our_best.keys() & rounds.keys())
            if system != OURS and shared:
                pairs = [(max(our_best[at], LEAST), max(rounds[at], LEAST)) for at in shared]
                if not more_is_better:
                    pairs = [(right, left) for left, right in pairs]
                cells.append(_interval(ratio(pairs)))
            else:
                cells.append("")
            rows.append(cells)
    return rows


def _print_work(found: Sequence[Result], name: str) -> None:
    heads = ["SYSTEM", "SETTING", "ROUNDS", *(head for _, head, _ in SHOWN[work(name).kind])]
    heads += [*(head for _, head in TAKEN), "RAKIT'S RATIO"]
    rows = rows_of(found, name)
    used = [any(row[at] for row in rows) for at in range(len(heads))]
    print(f"\n{name}")
    if rows:
        print_table(_only(heads, used), [_only(row, used) for row in rows])
    for result in found:
        if result.error and result.case.work == stand_in(name, result.case.system):
            print(f"failed: {result.case.system} {result.case.setting}: {result.error}")


def _only(cells: Sequence[str], used: Sequence[bool]) -> list[str]:
    return [cell for cell, is_used in zip(cells, used, strict=True) if is_used]


def verdicts(found: Sequence[Result]) -> list[Verdict]:
    """Of the bars whose work was measured."""
    return [verdict for verdict in (judge(found, bar) for bar in BARS) if verdict.ours is not None]


def _bar(verdict: Verdict, limit: float | None) -> str:
    if limit is None:
        return ""
    reached = verdict.reaches(limit)
    sign = "" if verdict.bar.against is Against.NOBODY else " x"
    return f"{number(limit)}{sign} {'open' if reached is None else 'yes' if reached else 'NO'}"


def show(machine: Mapping[str, Tree], results: Sequence[Result]) -> None:
    """Prints everything."""
    found = latest(results)
    for key, value in machine.items():
        print(f"{key:9} {value}")
    durations = sorted({(each.case.seconds, each.case.warm_s) for each in found})
    each = ", ".join(
        f"{seconds:g} s after {warm_s:g} s of warm-up" for seconds, warm_s in durations
    )
    print(f"{'each':9} {each}")
    for name in works_of(found):
        _print_work(found, name)
    rows = [
        [
            verdict.bar.text,
            number(verdict.ours or 0),
            verdict.other or verdict.bar.against.value,
            _interval(verdict.ratio),
            _bar(verdict, verdict.bar.must),
            _bar(verdict, verdict.bar.goal),
            " ".join(verdict.missing),
        ]
        for verdict in verdicts(found)
    ]
    if rows:
        print()
        print_table(["BAR", "RAKIT", "AGAINST", "RATIO", "MUST", "GOAL", "NOT MEASURED"], rows)


def tree(machine: Mapping[str, Tree], results: Sequence[Result]) -> dict[str, Tree]:
    """The same for programs: every figure of every round, and every verdict."""
    found = latest(results)
    figures: list[Tree] = [
        {
            "work": each.case.work,
            "system": each.case.system,
            "setting": each.case.setting,
            "round": each.case.round,
            "seconds": each.case.seconds,
            "warm_s": each.case.warm_s,
            "figures": dict(each.figures),
            "error": each.error,
        }
        for each in found
    ]
    judged: list[Tree] = []
    for verdict in verdicts(found):
        interval = verdict.ratio
        judged.append(
            {
                "text": verdict.bar.text,
                "work": verdict.bar.work,
                "figure": verdict.bar.figure,
                "rakit": verdict.ours,
                "against": verdict.other or verdict.bar.against.value,
                "ratio": interval.middle if interval else None,
                "ratio_low": interval.low if interval else None,
                "ratio_high": _finite(interval.high) if interval else None,
                "must": verdict.bar.must,
                "must_is_met": verdict.reaches(verdict.bar.must),
                "goal": verdict.bar.goal,
                "goal_is_met": verdict.reaches(verdict.bar.goal),
                "missing": list(verdict.missing),
            }
        )
    return {"machine": dict(machine), "results": figures, "verdicts": judged}


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value
