"""The order of measurements: rounds outside, works within, and within a work one system after the
other, forwards in one round and backwards in the next.

A machine that others use changes its speed within minutes. So what is compared is measured close
together, and nobody is always first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.bench.results import Case
from tests.bench.systems import SYSTEMS, stand_in
from tests.bench.works import work


def cases(
    works: Sequence[str], systems: Sequence[str], rounds: int, seconds: float, warm_s: float
) -> list[Case]:
    """Every measurement of a run, in order."""
    # A work that stands in for one and was chosen too is measured once.
    found: dict[Case, None] = {}
    for number in range(rounds):
        for name in works:
            able = list(_able(name, systems))
            for measured, system, setting in reversed(able) if number % 2 else able:
                total = work(measured).rounds(system, rounds)
                for turn in turns(number, rounds, total):
                    found[Case(measured, system, setting, turn, seconds, warm_s)] = None
    return list(found)


def _able(name: str, systems: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for system in systems:
        measured = stand_in(name, system)
        if measured is not None:
            for setting in SYSTEMS[system].settings(work(measured)):
                yield measured, system, setting


def turns(number: int, rounds: int, total: int) -> list[int]:
    """Which of `total` measurements, spread evenly over the rounds, fall into one of these."""
    return [turn for turn in range(total) if turn * rounds // total == number]
