"""The checker sees bugs in the core from its trace alone, each by the rule that it breaks.

The bugs are those of the simulator (`tests/sim/plants`), run in its worlds, but what the simulator
itself notices of replicas, disks and votes counts for nothing here and stops nothing. Where a
client was told something wrong the run ends, and the trace is judged as far as it goes.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.plan import Topic, topic_of
from tests.sim.planted import BUGS
from tests.sim.runner import is_judged_by_steps
from tests.sim.trace_check.rules import BrokenRuleError, Rule
from tests.sim.tracing import Tracing
from tests.sim.violations import ViolationError
from tests.sim.world import World

CAUGHT_BY = {
    "the_vote_is_cleared_within_a_term": Rule.ONE_VOTE,
    "the_vote_for_oneself_is_not_stored": Rule.DURABLE,
    "half_of_the_votes_are_enough": Rule.MAJORITY_OF_VOTES,
    "votes_go_to_shorter_logs": Rule.UP_TO_DATE,
    "answers_leave_before_the_sync": Rule.DURABLE,
    "a_disk_that_says_it_has_synced": Rule.DURABLE,
    "an_older_vote_record_is_written_over_a_newer": Rule.DURABLE,
    "a_leader_counts_itself_before_its_disk_has_synced": Rule.MAJORITY_OF_LOGS,
    "entries_of_earlier_terms_are_counted": Rule.OWN_TERM,
    "the_commit_index_is_taken_up_to_the_own_end": Rule.COMMIT_OF_FOLLOWER,
    "every_append_truncates": Rule.LOG_OF_FOLLOWER,
    "an_append_is_taken_without_a_look_at_the_entry_before_it": Rule.LOG_OF_FOLLOWER,
    "acknowledgements_in_doubt_count": Rule.DOUBTFUL_ACK,
    "what_was_acknowledged_before_a_loss_is_believed": Rule.COVERED,
    "what_lost_its_tail_is_trusted": Rule.DURABLE,
    "a_doubt_ends_at_once": Rule.DOUBT_ENDS,
    "a_commit_index_is_believed_in_doubt": Rule.DOUBTFUL_COMMIT,
    "a_joint_configuration_decides_by_its_new_half": Rule.MAJORITY_OF_LOGS,
    "a_change_begins_before_the_last_one_is_applied": Rule.ONE_CHANGE,
}
#: Where a bug shows in any run: those that show it soonest.
SOONEST = {"an_append_is_taken_without_a_look_at_the_entry_before_it": Topic.CUTS}
SEEDS = range(1, 201)


class Unheard:
    """Part of the simulator's judgement, which goes on and is not listened to."""

    def __init__(self, judge: Any) -> None:
        self.__dict__["judge"] = judge

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.judge, name)
        if not callable(found):
            return found

        def ask(*args: Any) -> Any:
            try:
                return found(*args)
            except ViolationError:
                return None

        return ask


def broken_rule(seed: int) -> Rule | None:
    """Runs a seed; returns the first rule that its trace breaks."""
    tracing = Tracing()
    world: Any = World(seed, tracing=tracing)
    votes = Unheard(world.checker.votes)
    world.checker, world.damage = Unheard(world.checker), Unheard(world.damage)
    world.checker.__dict__["votes"] = votes
    try:
        world.run()
    except BrokenRuleError as broken:
        return broken.rule
    except Exception:  # what a bug leads to, in the end: judged is the trace up to there
        return rule_of_the_rest(tracing)
    return None


def rule_of_the_rest(tracing: Tracing) -> Rule | None:
    """Judges what a step has told that did not end."""
    try:
        tracing.judge()
    except BrokenRuleError as broken:
        return broken.rule
    return None


@pytest.mark.parametrize("name", sorted(CAUGHT_BY))
def test_a_trace_shows_the_bug_by_its_rule(name: str) -> None:
    bug = BUGS[name]
    topic = bug.topic or SOONEST.get(name)
    seeds = [s for s in SEEDS if topic in {None, topic_of(s)} and is_judged_by_steps(s)]
    with bug.plant():
        # What else the bug leads to does not count.
        assert any(broken_rule(seed) is CAUGHT_BY[name] for seed in seeds)


def test_without_a_bug_no_rule_is_broken() -> None:
    seeds = [seed for seed in range(1, 9) if is_judged_by_steps(seed)]
    assert [seed for seed in seeds if broken_rule(seed) is not None] == []
