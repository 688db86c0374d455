"""A simulator that cannot fail proves nothing: planted bugs must be caught within a few seeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from rakit.multiraft.driver import Driver
from tests.sim.hazards import Hazard, hazards_of
from tests.sim.plan import Plan, Topic
from tests.sim.planted import BUGS
from tests.sim.runner import run_seed
from tests.sim.violations import Invariant

SEEDS = range(1, 201)
#: What a host tells a driver, but for time and for what was written.
INPUTS = {
    "campaign",
    "create_group",
    "disk_stalled",
    "hand_over",
    "lane_open",
    "lane_shut",
    "leader_ended",
    "link_lost",
    "node_down",
    "node_up",
    "propose",
    "propose_conf_change",
    "quarantine",
    "read_index",
    "receive",
    "remove_group",
    "step_down",
    "transfer_leader",
    "unreachable",
}


def topic_of(seed: int) -> Topic:
    return Plan.drawn(random.Random(seed)).topic


def seeds_about(topic: Topic | None, hazard: Hazard | None = None) -> list[int]:
    """The seeds whose runs are about a topic; what a bug does elsewhere is not waited for."""
    return [
        seed
        for seed in SEEDS
        if topic in {None, topic_of(seed)} and hazard in {None, *hazards_of(seed, topic_of(seed))}
    ]


@pytest.mark.parametrize("name", sorted(BUGS))
def test_the_simulator_catches(name: str) -> None:
    """By the invariant that the bug breaks: an error of another kind does not count."""
    bug = BUGS[name]
    seeds = seeds_about(bug.topic, bug.hazard)
    with bug.plant():
        caught = any(run_seed(seed).violated is bug.trips for seed in seeds)
    assert caught, f"{len(seeds)} seeds passed {bug.trips.name} with the bug in force"


def test_every_invariant_can_fail() -> None:
    assert {bug.trips for bug in BUGS.values()} == set(Invariant)


def test_every_topic_has_its_share_of_the_seeds() -> None:
    assert all(len(seeds_about(topic)) >= 6 for topic in Topic)
    assert all(len(seeds_about(None, hazard)) >= 12 for hazard in Hazard)


def test_runs_reach_every_input_of_a_node() -> None:
    """What no run does to a node, no run can judge."""
    reached: set[str] = set()

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(Driver, name)

        def call(driver: Driver, *args: Any) -> Any:
            reached.add(name)
            return original(driver, *args)

        return call

    with ExitStack() as stack:
        for name in INPUTS:
            stack.enter_context(patch.object(Driver, name, noting(name)))
        for seed in SEEDS:
            run_seed(seed)
            if reached == INPUTS:
                break
    assert reached == INPUTS


@pytest.mark.parametrize("hazard", Hazard)
def test_a_run_is_decided_by_its_seed(hazard: Hazard) -> None:
    seed = seeds_about(None, hazard)[0]
    first, second = run_seed(seed), run_seed(seed)
    assert (first.steps, first.acknowledged) == (second.steps, second.acknowledged)
    assert not first.error
