"""Medians, spread, and how sure a ratio is. Pure.

A ratio is taken within a round, where both systems met the same machine, and its logarithm is what
is averaged: twice as fast and half as fast are equally far from 1. The interval is Student's, over
rounds: n logarithms with mean m and standard deviation s give m -+ t * s / sqrt(n), where t leaves
2.5 % on each side with n - 1 degrees of freedom.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: Student's t at 97.5 %, for 1, 2, ... degrees of freedom (Fisher and Yates, table III).
T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval. One round alone has no ends."""

    middle: float
    low: float
    high: float


def ratio(pairs: Sequence[tuple[float, float]]) -> Interval:
    """How many times the second of each pair the first is."""
    assert pairs, "a ratio needs at least one round"
    assert all(ours > 0 and theirs > 0 for ours, theirs in pairs), "a ratio is of positive figures"
    logs = [math.log(ours / theirs) for ours, theirs in pairs]
    middle = math.exp(statistics.fmean(logs))
    if len(logs) == 1:
        return Interval(middle, 0.0, math.inf)
    # With more rounds than the table has, the last line is on the safe side.
    t = T[min(len(logs) - 1, len(T)) - 1]
    half = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(middle, middle * math.exp(-half), middle * math.exp(half))


@dataclass(frozen=True, slots=True)
class Spread:
    """What several rounds of one figure come to."""

    count: int
    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median, which is the mean of both middle ones of an even number, and the extremes."""
    return Spread(len(values), statistics.median(values), min(values), max(values))
