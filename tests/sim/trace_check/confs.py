"""Configurations as the checker knows them: who decides, and what follows a change (section 6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.sim.trace_check.rules import Rule, demand

Ids = frozenset[str]
NOBODY: Ids = frozenset()


class Conf(NamedTuple):
    """Who has which part."""

    voters: Ids = NOBODY
    outgoing: Ids = NOBODY
    learners: Ids = NOBODY
    learners_next: Ids = NOBODY
    auto_leave: bool = False

    @property
    def everybody(self) -> Ids:
        return self.voters | self.outgoing | self.learners

    @property
    def deciders(self) -> Ids:
        return self.voters | self.outgoing

    def majority(self, agrees: Callable[[str], bool]) -> bool:
        """Tells whether more than half of each half agree."""
        return all(
            2 * sum(1 for one in half if agrees(one)) > len(half)
            for half in (self.voters, self.outgoing)
            if half
        ) and bool(self.voters)


class Change(NamedTuple):
    """A change of members: (action, who), and whether there is a joint phase."""

    steps: tuple[tuple[str, str], ...]
    joint: bool
    auto_leave: bool

    @property
    def leaves(self) -> bool:
        return not self.steps and not self.joint


def read_conf(members: dict[str, Any]) -> Conf:
    halves = [
        frozenset(members[part]) for part in ("voters", "outgoing", "learners", "learners_next")
    ]
    return Conf(halves[0], halves[1], halves[2], halves[3], bool(members["auto_leave"]))


def follow(conf: Conf, change: Change) -> Conf:
    """Returns what a configuration becomes by a change."""
    joint = bool(conf.outgoing)
    if change.leaves:
        demand(joint, Rule.CHANGE_APPLIED, "a joint phase ends that has not begun")
        return Conf(conf.voters, NOBODY, conf.learners | conf.learners_next)
    demand(not joint, Rule.CHANGE_APPLIED, "a change begins within a joint phase")
    outgoing = conf.voters if change.joint else NOBODY
    draft = Conf(conf.voters, outgoing, conf.learners)
    for action, who in change.steps:
        draft = _step(draft, action, who)
    demand(bool(draft.voters), Rule.CHANGE_APPLIED, "nobody is left to vote")
    if not change.joint:
        moved = conf.voters ^ draft.voters
        demand(
            len(moved) <= 1, Rule.CHANGE_APPLIED, f"{sorted(moved)} change without a joint phase"
        )
    return draft._replace(auto_leave=change.joint and change.auto_leave)


def _step(draft: Conf, action: str, who: str) -> Conf:
    one = frozenset({who})
    voters, learners, later = draft.voters - one, draft.learners - one, draft.learners_next - one
    if action == "AddNewServer":
        return draft._replace(voters=voters | one, learners=learners, learners_next=later)
    if action == "AddLearner":
        if who in draft.outgoing:
            return draft._replace(voters=voters, learners=learners, learners_next=later | one)
        return draft._replace(voters=voters, learners=learners | one, learners_next=later)
    return draft._replace(voters=voters, learners=learners, learners_next=later)
