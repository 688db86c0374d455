"""The next change of a group's configuration, from what it is to what the registry says. Pure.

One step at a time, and each from the state as it is then, so that a new leader, a crash or a change
of mind in between needs no memory: the next step is simply decided again.

Rules:

- A replica comes in as a learner and votes only when it has caught up, so that it never stands in
  the way of a commit.
- A voter that should go is exchanged for one that is ready, in one joint change: the number of
  voters does not drop meanwhile. It goes without exchange only when nobody else is to come.
- A leader does not remove itself; it hands over first.
- Nothing happens while an earlier change is in its joint phase (feature row 20).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

from rakit.multiraft.machine import node_of
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, ConfState


@dataclass(frozen=True, slots=True)
class Group:
    """What the leader of a group knows when it decides."""

    conf: ConfState
    #: The replicas that should be, in the order of preference.
    desired: tuple[int, ...]
    #: The leader's own replica.
    leader: int
    #: How many of the desired ones are to vote; the others learn.
    voters_count_max: int
    #: Replicas on nodes that are up.
    up: AbstractSet[int]
    #: Replicas whose log is all but complete.
    caught_up: AbstractSet[int]


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give the leadership to this replica."""

    replica_id: int


@dataclass(frozen=True, slots=True)
class Propose:
    """Propose this change of the configuration."""

    change: ConfChange
    #: For the log and for people.
    why: str


Step: TypeAlias = HandOver | Propose


def next_step(group: Group) -> Step | None:
    """The next step; None when all is as it should be, or nothing can be done at the moment."""
    conf = group.conf
    if conf.voters_outgoing or conf.learners_next:
        return None
    strange_learners = sorted(set(conf.learners) - set(group.desired))
    if strange_learners:
        return _remove(strange_learners[0])
    return _exchange(group) or _promote(group) or _add(group)


def _exchange(group: Group) -> Step | None:
    """Lets go a voter that should not be there any more."""
    strange = [one for one in group.conf.voters if one not in group.desired]
    if not strange:
        return None
    # The leader goes last, when somebody else can take over.
    others = [one for one in strange if one != group.leader]
    if not others:
        heirs = [one for one in group.conf.voters if one in group.desired and one in group.up]
        ready = [one for one in heirs if one in group.caught_up]
        return HandOver(ready[0]) if ready else None
    leaving = others[0]
    ready = _ready(group)
    if ready:
        same_node = [one for one in ready if node_of(one) == node_of(leaving)]
        coming = (same_node or ready)[0]
        steps = (
            ConfChangeSingle(ConfChangeType.ADD_VOTER, coming),
            ConfChangeSingle(ConfChangeType.REMOVE, leaving),
        )
        return Propose(ConfChange(steps), f"replica {coming} takes the place of {leaving}")
    staying = [one for one in group.conf.voters if one in group.desired]
    waiting = [one for one in group.desired if one not in staying]
    wanted = min(group.voters_count_max, len(group.desired))
    if len(staying) >= wanted or not waiting:
        return _remove(leaving)
    return None


def _promote(group: Group) -> Step | None:
    """Lets a learner vote that is ready, while there are too few voters."""
    staying = [one for one in group.conf.voters if one in group.desired]
    ready = _ready(group)
    if not ready or len(staying) >= group.voters_count_max:
        return None
    change = ConfChange((ConfChangeSingle(ConfChangeType.ADD_VOTER, ready[0]),))
    return Propose(change, f"replica {ready[0]} has caught up and votes from now on")


def _add(group: Group) -> Step | None:
    """Brings in a replica that is missing and whose node is there to receive it."""
    present = {*group.conf.voters, *group.conf.learners}
    missing = [one for one in group.desired if one not in present and one in group.up]
    if not missing:
        return None
    change = ConfChange((ConfChangeSingle(ConfChangeType.ADD_LEARNER, missing[0]),))
    return Propose(change, f"replica {missing[0]} learns")


def _ready(group: Group) -> list[int]:
    return [
        one
        for one in group.desired
        if one in group.conf.learners and one in group.up and one in group.caught_up
    ]


def _remove(replica: int) -> Propose:
    change = ConfChange((ConfChangeSingle(ConfChangeType.REMOVE, replica),))
    return Propose(change, f"replica {replica} is no part of the group any more")


def settled(group: Group) -> bool:
    """Whether the configuration is what it should be, so that nobody need look again."""
    conf = group.conf
    wanted = min(group.voters_count_max, len(group.desired))
    return (
        not conf.voters_outgoing
        and not conf.learners_next
        and {*conf.voters, *conf.learners} == set(group.desired)
        and len(conf.voters) >= wanted
    )
