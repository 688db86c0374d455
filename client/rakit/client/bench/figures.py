"""Percentiles and summaries of measured times. Pure.

A percentile here is one of the values that were measured (the nearest-rank definition): the
smallest one that at least p percent of all values do not exceed. Nothing is interpolated and
nothing is trimmed, so p50 of few values is never better than a value that somebody saw.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Student's t at 97.5 %, by degrees of freedom from 1; beyond the last it hardly changes.
_T: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the nearest-rank percentile of values in ascending order."""
    assert values, "a percentile needs at least one value"
    assert 0 < percent <= 100, "a percentile is above 0 and at most 100"
    return values[math.ceil(percent / 100 * len(values)) - 1]


@dataclass(frozen=True, slots=True)
class Latencies:
    """What many waits come to, in milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def summarise(seconds: Sequence[float]) -> Latencies:
    """Returns the summary of waits given in seconds, in any order."""
    ordered = sorted(seconds)
    return Latencies(
        len(ordered),
        1000 * percentile(ordered, 50),
        1000 * percentile(ordered, 99),
        1000 * percentile(ordered, 100),
    )


def median(values: Sequence[float]) -> float:
    """Returns the 50th percentile of values in any order."""
    return percentile(sorted(values), 50)


def has_settled(
    samples: Sequence[float], *, window: int = 3, change: float = 0.1, quiet: float = 0.0
) -> bool:
    """Whether a rate has stopped changing.

    The mean of the last `window` samples differs from that of the `window` before by no more than
    the part `change`, or both are at most `quiet`.
    """
    if len(samples) < 2 * window:
        return False
    before = sum(samples[-2 * window : -window]) / window
    now = sum(samples[-window:]) / window
    return max(before, now) <= quiet or abs(before - now) <= change * max(before, now)


def lower_end(values: Sequence[float]) -> float:
    """Returns the lower end of the 95 % interval of the mean; of one value there is none but it."""
    return values[0] if len(values) == 1 else statistics.fmean(values) - half_width(values)


def half_width(values: Sequence[float]) -> float:
    """Returns how far the 95 % interval of the mean of two or more values goes to each side."""
    assert len(values) > 1, "the spread is known from the values alone"
    t = _T[min(len(values) - 1, len(_T)) - 1]
    return t * statistics.stdev(values) / math.sqrt(len(values))
