"""Against numbers that others have published or that follow in closed form."""

from __future__ import annotations

import math

import pytest

from tests.bench.intervals import T, ratio, spread

# Cushny and Peebles, as in Student's paper of 1908: additional hours of sleep, ten patients. R's
# `t.test(extra ~ group, sleep, paired = TRUE)` gives 1.58 with 0.7001142 to 2.4598858.
SLEEP = (1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4)


def test_the_interval_of_a_ratio_is_students_over_its_logarithms() -> None:
    found = ratio([(math.exp(each), 1.0) for each in SLEEP])
    logs = [math.log(each) for each in (found.middle, found.low, found.high)]
    assert logs == pytest.approx([1.58, 0.7001142, 2.4598858], abs=2e-4)


def test_rounds_are_paired_so_that_a_slow_machine_is_slow_for_both() -> None:
    found = ratio([(20.0, 10.0), (2.0, 1.0), (200.0, 100.0)])
    assert [found.low, found.middle, found.high] == pytest.approx([2.0, 2.0, 2.0])


def test_twice_as_fast_and_half_as_fast_are_no_difference() -> None:
    found = ratio([(2.0, 1.0), (1.0, 2.0)])
    assert found.middle == pytest.approx(1)
    assert found.low == pytest.approx(1 / found.high)
    assert found.low < 0.01


def test_one_round_proves_nothing() -> None:
    found = ratio([(8.0, 4.0)])
    assert found.middle == pytest.approx(2)
    assert (found.low, found.high) == (0, math.inf)


def test_the_table_of_t_is_right_where_there_is_a_closed_form_and_falls_to_the_normal() -> None:
    assert T[0] == pytest.approx(math.tan(0.475 * math.pi), abs=1e-3)
    assert T[1] == pytest.approx(0.95 / math.sqrt(2 * 0.975 * 0.025), abs=1e-3)
    # For 4 degrees of freedom: t = 2 sqrt(q - 1), q = cos(acos(a) / 3) / a, a^2 = 4 p (1 - p).
    a = math.sqrt(4 * 0.975 * 0.025)
    q = math.cos(math.acos(a) / 3) / a
    assert T[3] == pytest.approx(2 * math.sqrt(q - 1), abs=1e-3)
    assert list(T) == sorted(T, reverse=True)
    assert 1.96 < T[-1] < 2.05
    assert len(T) == 30


def test_more_rounds_than_the_table_has_take_its_last_line() -> None:
    pairs = [(1.1, 1.0), (1.3, 1.0)] * 30
    found = ratio(pairs)
    logs = [math.log(left) for left, _ in pairs]
    mean = sum(logs) / 60
    deviation = math.sqrt(sum((each - mean) ** 2 for each in logs) / 59)
    half = (math.log(found.high) - math.log(found.low)) / 2
    assert half == pytest.approx(2.042 * deviation / math.sqrt(60))


@pytest.mark.parametrize("pairs", [[], [(0.0, 1.0)], [(1.0, -1.0)]])
def test_no_rounds_and_nothing_are_bugs(pairs: list[tuple[float, float]]) -> None:
    with pytest.raises(AssertionError):
        ratio(pairs)


def test_a_spread_has_the_median_and_the_extremes() -> None:
    found = spread([5.0, 1.0, 9.0, 3.0])
    assert (found.count, found.median, found.low, found.high) == (4, 4.0, 1.0, 9.0)
