"""Computes the configuration that follows a change (section 6; dissertation 4.3).

Pure: configurations in, configurations out. Whether a change may be proposed *now* is the
leader's business (`membership`); what it leads to is decided here, and is the same on each replica.

Rules:

- Rule C1: a change of at most one voter may be made directly, since any two majorities of the old
  and the new configuration overlap. Everything else goes through a joint configuration.
- Rule C2: a voter that is demoted while joint stays a voter of the outgoing half; it is noted in
  `learners_next` and becomes a learner when the joint phase ends, so that no replica is ever a
  voter and a learner at once.
- Rule C3: no change leaves the group without voters.
- Rule C4: adding what is there and removing what is not there change nothing and are allowed, so
  that a repeated request is harmless.

A joint change may replace a majority of the voters, even all of them. That is legal for Raft;
whether the data is safe on the new ones is checked above the core.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rakit.raft.errors import ConfChangeInvalidError
from rakit.raft.quorum import JointConfig
from rakit.raft.tracker.tracker import Membership
from rakit.raft.types import ConfChange, ConfChangeSingle, ConfChangeType, ConfState


def follow(current: Membership, change: ConfChange) -> Membership:
    """Returns the configuration after `change`; raises `ConfChangeInvalidError`."""
    if change.leaves_joint:
        return leave_joint(current)
    if change.enters_joint:
        return enter_joint(current, change.changes, auto_leave=change.auto_leave)
    return simple(current, change.changes)


def simple(current: Membership, steps: tuple[ConfChangeSingle, ...]) -> Membership:
    """Applies the steps directly, as long as they change at most one voter (4.1, rule C1)."""
    if current.voters.is_joint:
        raise ConfChangeInvalidError("a joint configuration must be left before the next change")
    draft = _Draft.of(current)
    draft.apply(steps)
    if len(set(current.voters.incoming) ^ draft.incoming) > 1:
        raise ConfChangeInvalidError("more than one voter changes without a joint phase")
    return draft.finish(auto_leave=False)


def enter_joint(
    current: Membership, steps: tuple[ConfChangeSingle, ...], *, auto_leave: bool
) -> Membership:
    """Makes the current voters the outgoing half, applies the steps to the incoming one (4.3)."""
    if current.voters.is_joint:
        raise ConfChangeInvalidError("the configuration is joint already")
    if not current.voters.incoming:
        raise ConfChangeInvalidError("a configuration without voters cannot become joint")
    draft = _Draft.of(current)
    draft.outgoing = set(draft.incoming)
    draft.apply(steps)
    return draft.finish(auto_leave=auto_leave)


def leave_joint(current: Membership) -> Membership:
    """Drops the outgoing half (4.3); demoted voters become learners now (rule C2)."""
    if not current.voters.is_joint:
        raise ConfChangeInvalidError("the configuration is not joint")
    draft = _Draft.of(current)
    draft.learners |= draft.learners_next
    draft.learners_next.clear()
    draft.outgoing.clear()
    return draft.finish(auto_leave=False)


def restore(state: ConfState) -> Membership:
    """Reads a stored configuration; raises `ConfChangeInvalidError` if it cannot be one."""
    membership = Membership(
        voters=JointConfig(state.voters, state.voters_outgoing),
        learners=state.learners,
        learners_next=state.learners_next,
        auto_leave=state.auto_leave,
    )
    for ids in (state.voters, state.learners, state.voters_outgoing, state.learners_next):
        if list(ids) != sorted(set(ids)):
            raise ConfChangeInvalidError(f"{ids} is not sorted or has repeats")
        if ids and ids[0] < 1:
            raise ConfChangeInvalidError(f"{ids[0]} is not a replica id")
    if state != ConfState() and not state.voters:
        raise ConfChangeInvalidError("the configuration has no voters")
    _check(membership)
    return membership


@dataclass(slots=True)
class _Draft:
    """A configuration under construction."""

    incoming: set[int] = field(default_factory=set[int])
    outgoing: set[int] = field(default_factory=set[int])
    learners: set[int] = field(default_factory=set[int])
    learners_next: set[int] = field(default_factory=set[int])

    @staticmethod
    def of(current: Membership) -> _Draft:
        return _Draft(
            set(current.voters.incoming),
            set(current.voters.outgoing),
            set(current.learners),
            set(current.learners_next),
        )

    def apply(self, steps: tuple[ConfChangeSingle, ...]) -> None:
        for step in steps:
            if step.replica_id < 1:
                raise ConfChangeInvalidError(f"{step.replica_id} is not a replica id")
            match step.type:
                case ConfChangeType.ADD_VOTER:
                    self._add_voter(step.replica_id)
                case ConfChangeType.ADD_LEARNER:
                    self._add_learner(step.replica_id)
                case ConfChangeType.REMOVE:
                    self._remove(step.replica_id)
        if not self.incoming:
            raise ConfChangeInvalidError("the change removes every voter")

    def _add_voter(self, replica_id: int) -> None:
        self.learners.discard(replica_id)
        self.learners_next.discard(replica_id)
        self.incoming.add(replica_id)

    def _add_learner(self, replica_id: int) -> None:
        if replica_id in self.learners or replica_id in self.learners_next:
            return
        self._remove(replica_id)
        if replica_id in self.outgoing:
            self.learners_next.add(replica_id)
        else:
            self.learners.add(replica_id)

    def _remove(self, replica_id: int) -> None:
        self.incoming.discard(replica_id)
        self.learners.discard(replica_id)
        self.learners_next.discard(replica_id)

    def finish(self, *, auto_leave: bool) -> Membership:
        membership = Membership(
            voters=JointConfig(tuple(sorted(self.incoming)), tuple(sorted(self.outgoing))),
            learners=tuple(sorted(self.learners)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=auto_leave,
        )
        _check(membership)
        assert membership.voters.incoming, "a configuration has voters (rule C3)"
        return membership


def _check(membership: Membership) -> None:
    """Refuses a configuration that breaks an invariant of `Tracker`."""
    voters = {*membership.voters.incoming, *membership.voters.outgoing}
    if voters & set(membership.learners):
        raise ConfChangeInvalidError("a replica is voter and learner at once")
    if not set(membership.learners_next) <= set(membership.voters.outgoing):
        raise ConfChangeInvalidError("a learner to be is not an outgoing voter")
    if set(membership.learners_next) & set(membership.voters.incoming):
        raise ConfChangeInvalidError("a learner to be is an incoming voter")
    if membership.auto_leave and not membership.voters.is_joint:
        raise ConfChangeInvalidError("only a joint configuration can be left on its own")
