"""A simulator that cannot fail proves nothing: it catches planted bugs, where docs/RAFT.md says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from rakit.multiraft.driver import Driver
from tests.sim.hazards import Hazard
from tests.sim.plan import Topic
from tests.sim.planted import BUGS, DOCUMENT, is_caught, render, seeds_about, table
from tests.sim.runner import run_seed
from tests.sim.violations import Invariant

SEEN = table()
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


@pytest.mark.parametrize("name", sorted(BUGS))
def test_the_simulator_catches(name: str) -> None:
    """By the invariant that the bug breaks, at the seed that docs/RAFT.md gives."""
    seed = SEEN.get(name)
    anew = f"`python -m tests.sim.planted --table {name}` looks for the seed at which it is caught"
    assert seed, f"docs/RAFT.md has no seed for {name}: {anew}"
    assert is_caught(name, seed), f"seed {seed} passes with {name} in force: {anew}"


def test_the_table_has_every_bug_and_is_as_the_command_writes_it() -> None:
    assert list(SEEN) == list(BUGS)
    assert render(SEEN) in DOCUMENT.read_text()


def test_what_is_not_caught_does_not_count_as_caught() -> None:
    """A bug that breaks something else is not seen by its own invariant."""
    wrong = replace(BUGS["half_of_the_votes_are_enough"], trips=Invariant.RETENTION)
    with patch.dict(BUGS, {"wrong": wrong}):
        assert not is_caught("wrong", SEEN["half_of_the_votes_are_enough"] or 0)


def test_every_invariant_can_fail() -> None:
    assert {bug.trips for bug in BUGS.values()} == set(Invariant)


def test_every_topic_has_its_share_of_the_seeds() -> None:
    assert all(len(seeds_about(topic)) >= 6 for topic in Topic)
    assert all(len(seeds_about(None, hazard)) >= 12 for hazard in Hazard)


def test_runs_reach_every_input_of_a_node() -> None:
    """What no run does to a node, no run can judge."""
    reached: set[str] = set()
    by_turns = [seed for turn in zip(*map(seeds_about, Topic), strict=False) for seed in turn]

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(Driver, name)

        def call(driver: Driver, *args: Any) -> Any:
            reached.add(name)
            return original(driver, *args)

        return call

    with ExitStack() as stack:
        for name in INPUTS:
            stack.enter_context(patch.object(Driver, name, noting(name)))
        for seed in by_turns:
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
