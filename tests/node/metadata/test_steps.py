"""The next change of a group's members, and where a row of such changes leads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.multiraft.machine import replica_id
from rakit.node.metadata import steps
from rakit.node.metadata.steps import Group, HandOver, Propose
from rakit.raft import ConfChangeType, ConfState

A, B, C, D, E = (replica_id(node, 1) for node in range(1, 6))
B2 = replica_id(2, 9)
ALL = frozenset({A, B, C, D, E, B2})


def group(
    voters: tuple[int, ...],
    desired: tuple[int, ...],
    learners: tuple[int, ...] = (),
    *,
    voters_count_max: int = 9,
    up: frozenset[int] = ALL,
    caught_up: frozenset[int] = ALL,
) -> Group:
    conf = ConfState(voters=voters, learners=learners)
    return Group(conf, desired, voters[0], voters_count_max, up, caught_up)


def changes(step: steps.Step | None) -> list[tuple[ConfChangeType, int]]:
    assert isinstance(step, Propose)
    return [(one.type, one.replica_id) for one in step.change.changes]


ADD, REMOVE, LEARN = ConfChangeType.ADD_VOTER, ConfChangeType.REMOVE, ConfChangeType.ADD_LEARNER


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        # A missing replica learns first, and only when its node is there.
        (group((A, B), (A, B, C)), [(LEARN, C)]),
        (group((A, B), (A, B, C, D), up=frozenset({A, B, D})), [(LEARN, D)]),
        # It votes when it has caught up.
        (group((A, B), (A, B, C), (C,)), [(ADD, C)]),
        # A dead store's voter is exchanged for the fresh replica in one change.
        (group((A, B, C), (A, B2, C), (B2,)), [(ADD, B2), (REMOVE, B)]),
        # Rather for the one on the same node than for another that is ready too.
        (group((A, B, C), (A, D, B2, C), (D, B2)), [(ADD, B2), (REMOVE, B)]),
        # A learner that should not be there just goes.
        (group((A, B), (A, B), (C,)), [(REMOVE, C)]),
        # A voter too many goes without exchange.
        (group((A, B, C), (A, B)), [(REMOVE, C)]),
        # Above the number of voters, learners stay learners; more of them are added.
        (group((A, B), (A, B, C, D), (C,), voters_count_max=2), [(LEARN, D)]),
    ],
)
def test_the_next_step(seen: Group, expected: list[tuple[ConfChangeType, int]]) -> None:
    assert changes(steps.next_step(seen)) == expected


@pytest.mark.parametrize(
    "seen",
    [
        group((A, B, C), (A, B, C)),
        # Not caught up, or not there: it must not vote yet.
        group((A, B), (A, B, C), (C,), caught_up=frozenset({A, B})),
        group((A, B), (A, B, C), (C,), up=frozenset({A, B})),
        group((A, B), (A, B, C), up=frozenset({A, B})),
        # The dead voter stays until the fresh replica is ready: the number must not drop.
        group((A, B, C), (A, B2, C), (B2,), caught_up=frozenset({A, C})),
    ],
)
def test_nothing_to_do_at_the_moment(seen: Group) -> None:
    assert steps.next_step(seen) is None


def test_row_20_nothing_happens_within_a_joint_phase() -> None:
    seen = group((A, B2, C), (A, B2, C, D))
    joint = replace(seen, conf=ConfState(voters=(A, B2, C), voters_outgoing=(A, B, C)))
    assert steps.next_step(joint) is None
    assert not steps.settled(joint)


def test_a_leader_hands_over_before_it_goes() -> None:
    assert steps.next_step(group((A, B, C), (B, C))) == HandOver(B)
    # Only to somebody who is up and has everything.
    late = group((A, B, C), (B, C), caught_up=frozenset({C}))
    assert steps.next_step(late) == HandOver(C)
    nobody = group((A, B, C), (B, C), caught_up=frozenset())
    assert steps.next_step(nobody) is None


def apply(conf: ConfState, step: Propose) -> ConfState:
    """What the core makes of a change, joint phase included."""
    voters, learners = set(conf.voters), set(conf.learners)
    for one in step.change.changes:
        voters.discard(one.replica_id)
        learners.discard(one.replica_id)
        if one.type is ADD:
            voters.add(one.replica_id)
        elif one.type is LEARN:
            learners.add(one.replica_id)
    return ConfState(voters=tuple(sorted(voters)), learners=tuple(sorted(learners)))


ids = st.sets(st.sampled_from([A, B, C, D, E, B2]), min_size=1, max_size=5)


@given(ids, ids, st.integers(1, 5))
@settings(max_examples=400, deadline=None)
def test_steps_lead_from_any_members_to_any_other_without_a_dip(
    start: set[int], target: set[int], voters_max: int
) -> None:
    conf = ConfState(voters=tuple(sorted(start)))
    desired = tuple(sorted(target))
    leader = conf.voters[0]
    fewest = min(len(start), voters_max, len(target))
    for _ in range(30):
        seen = Group(conf, desired, leader, voters_max, ALL, ALL)
        if steps.settled(seen):
            break
        step = steps.next_step(seen)
        if isinstance(step, HandOver):
            assert step.replica_id in conf.voters
            leader = step.replica_id
            continue
        assert step is not None, f"stuck at {conf} on the way to {desired}"
        before = conf
        conf = apply(conf, step)
        assert leader in conf.voters, "a leader does not remove itself"
        assert len(conf.voters) >= min(len(before.voters), fewest)
    else:
        raise AssertionError("the steps do not end")
    assert {*conf.voters, *conf.learners} == target
