"""A simulator that cannot fail proves nothing: planted bugs must be caught within a few seeds."""

from __future__ import annotations

import pytest

from tests.sim.planted import BUGS
from tests.sim.runner import run_seed

SEEDS = range(1, 121)


@pytest.mark.parametrize("name", sorted(BUGS))
def test_the_simulator_catches(name: str) -> None:
    with BUGS[name]():
        caught = next((outcome for seed in SEEDS if (outcome := run_seed(seed)).error), None)
    assert caught is not None, f"{len(SEEDS)} seeds passed with the bug in force"


def test_a_run_is_decided_by_its_seed() -> None:
    first, second = run_seed(11), run_seed(11)
    assert (first.steps, first.acknowledged) == (second.steps, second.acknowledged)
    assert not first.error
