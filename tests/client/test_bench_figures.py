"""Percentiles, summaries, and when a rate counts as settled."""

from __future__ import annotations

import random
import statistics

import pytest

from rakit.client.bench.figures import Latencies, has_settled, median, percentile, summarise


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (1, 50, 50.5, 99, 100)] == [
        *(1, 50, 51, 99, 100)
    ]


def test_a_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([7.0], 1) == percentile([7.0], 99) == 7
    assert percentile([1.0, 9.0], 50) == 1
    assert percentile([1.0, 9.0], 51) == 9
    assert percentile([1.0, 2.0, 9.0], 99) == 9


def test_one_slow_answer_in_a_hundred_is_the_longest_and_not_p99() -> None:
    waits = [0.001] * 99 + [5.0]
    random.Random(1).shuffle(waits)
    assert summarise(waits) == Latencies(100, 1, 1, 5000)


def test_two_slow_answers_in_a_hundred_are_p99() -> None:
    assert summarise([0.001] * 98 + [5.0] * 2).p99_ms == 5000


def test_an_odd_median_is_the_middle_one() -> None:
    values = [5.0, 1.0, 4.0]
    assert median(values) == statistics.median(values) == 4


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_percentile_outside_its_range_is_a_bug(percent: float) -> None:
    with pytest.raises(AssertionError, match="above 0 and at most 100"):
        percentile([1.0], percent)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(AssertionError, match="at least one value"):
        summarise([])


@pytest.mark.parametrize(
    ("samples", "settled"),
    [
        ([5, 5, 5, 5, 5], False),
        ([90, 60, 30, 5, 5, 5], False),
        ([90, 5, 5, 5, 5, 5, 5], True),
        ([100, 100, 100, 90, 90, 90], True),
        ([100, 100, 100, 89, 89, 89], False),
        ([5, 5, 5, 20, 20, 20], False),
    ],
)
def test_a_rate_has_settled_when_it_stops_changing(samples: list[float], *, settled: bool) -> None:
    assert has_settled(samples) is settled


def test_a_change_of_nearly_nothing_is_quiet() -> None:
    samples = [1.5, 1.5, 1.5, 0.1, 0.1, 0.1]
    assert not has_settled(samples)
    assert has_settled(samples, quiet=2)
    assert not has_settled(samples, quiet=1)
