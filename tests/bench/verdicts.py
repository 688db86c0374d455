"""Whether rakit reaches its bars, from results alone. Pure.

Rules:

- A system's figure is that of its best setting: the one with the best median. A bar may name
  another of rakit's.
- A ratio pairs results of the same round. It is taken against every system that a bar names, and
  the one with the lowest lower end decides: rakit is to be ahead of all of them.
- A system that has one interface only stands in the rows of both (see `works`): where a work of
  batches has no result of it, that of single records counts, and the other way round.
- One round proves nothing: its interval has no lower end, and the row is open.
- A measurement that failed is no figure. A peer whose every measurement failed is nobody to be
  ahead of, and the row says who is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.bars import Against, Bar
from tests.bench.intervals import Interval, ratio
from tests.bench.results import Result
from tests.bench.systems import SYSTEMS, stand_in

OURS = "rakit"
#: No idle cost is too small to be divided by.
LEAST = 1e-9

#: Of one figure, by round.
Rounds = dict[int, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the judgement."""

    bar: Bar
    # Rakit's median, None if it was not measured.
    ours: float | None
    # Who decides, and the ratio; None for a limit.
    other: str
    ratio: Interval | None
    missing: tuple[str, ...] = ()

    def reaches(self, limit: float | None) -> bool | None:
        """Whether it reaches a must or a goal; None while that is open or there is none."""
        if limit is None or self.ours is None:
            return None
        if self.bar.against is Against.NOBODY:
            return self.ours >= limit if self.bar.more_is_better else self.ours <= limit
        if self.ratio is None or not self.ratio.low:
            return None
        return self.ratio.low > limit


def rounds_of(found: Iterable[Result], name: str, system: str, figure: str) -> dict[str, Rounds]:
    """A figure by setting and round."""
    settings: dict[str, Rounds] = {}
    for result in found:
        case = result.case
        if (case.work, case.system) == (name, system) and figure in result.figures:
            settings.setdefault(case.setting, {})[case.round] = result.figures[figure]
    return settings


def best(settings: dict[str, Rounds], *, more_is_better: bool) -> tuple[str, Rounds]:
    """The setting with the best median."""
    ordered = sorted(settings.items(), key=lambda item: median(item[1].values()))
    return ordered[-1 if more_is_better else 0]


def figure_of(found: Sequence[Result], bar: Bar, system: str) -> Rounds | None:
    """A system's figure in a row, at its best setting; None if there is none."""
    name = stand_in(bar.work, system)
    settings = rounds_of(found, name, system, bar.figure) if name else {}
    if bar.setting is not None and system == OURS:
        return settings.get(bar.setting)
    return best(settings, more_is_better=bar.more_is_better)[1] if settings else None


def rivals(bar: Bar) -> list[str]:
    """The systems that a row is held against, of all that can be measured with its work."""
    if bar.against in (Against.KAFKA, Against.PIPELINE, Against.ECHO):
        return [bar.against.value]
    if bar.against is Against.NOBODY:
        return []
    return [
        system.name
        for system in SYSTEMS.values()
        if system.name != OURS
        and not system.is_reference
        and (system.fsyncs or bar.against is Against.PEERS)
        and stand_in(bar.work, system.name)
    ]


def judge(found: Sequence[Result], bar: Bar) -> Verdict:
    """Judges one row."""
    ours = figure_of(found, bar, OURS)
    if ours is None:
        return Verdict(bar, None, "", None)
    decisive: tuple[str, Interval] | None = None
    missing: list[str] = []
    for system in rivals(bar):
        theirs = figure_of(found, bar, system)
        shared = sorted(ours.keys() & (theirs or {}).keys())
        if theirs is None or not shared:
            missing.append(system)
            continue
        pairs = [(max(ours[each], LEAST), max(theirs[each], LEAST)) for each in shared]
        if not bar.more_is_better:
            pairs = [(right, left) for left, right in pairs]
        interval = ratio(pairs)
        key = (interval.low, interval.middle)
        if decisive is None or key < (decisive[1].low, decisive[1].middle):
            decisive = system, interval
    other, deciding = decisive if decisive is not None else ("", None)
    return Verdict(bar, median(ours.values()), other, deciding, tuple(missing))
