from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rakit.raft import (
    ConfChange,
    ConfChangeInvalidError,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
    confchange,
)
from rakit.raft.tracker import Membership
from tests.raft.script import parse_change

ids = st.integers(min_value=1, max_value=6)
single = st.builds(ConfChangeSingle, st.sampled_from(list(ConfChangeType)), ids)
steps = st.lists(single, min_size=1, max_size=5).map(tuple)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    """A simple configuration, by way of its stored form."""
    members = draw(st.sets(ids, min_size=1))
    voters = draw(st.sets(st.sampled_from(sorted(members)), min_size=1))
    return confchange.restore(ConfState(tuple(sorted(voters)), tuple(sorted(members - voters))))


def after(start: ConfState, text: str) -> ConfState:
    change = parse_change(text.split())
    return confchange.follow(confchange.restore(start), change).conf_state()


THREE = ConfState((1, 2, 3))


def test_one_voter_may_change_directly() -> None:
    assert after(THREE, "v4") == ConfState((1, 2, 3, 4))
    assert after(THREE, "r3") == ConfState((1, 2))
    assert after(THREE, "l3") == ConfState((1, 2), (3,))
    assert after(THREE, "l4") == ConfState((1, 2, 3), (4,))


def test_two_steps_go_through_a_joint_configuration() -> None:
    joint = after(THREE, "v4 r1")
    assert joint == ConfState((2, 3, 4), voters_outgoing=(1, 2, 3), auto_leave=True)
    assert after(joint, "") == ConfState((2, 3, 4))


def test_a_demoted_voter_learns_only_after_the_joint_phase() -> None:
    joint = after(THREE, "l1 v4 explicit")
    assert joint == ConfState((2, 3, 4), (), (1, 2, 3), (1,), auto_leave=False)
    assert after(joint, "") == ConfState((2, 3, 4), (1,))


def test_a_later_step_undoes_an_earlier_one() -> None:
    assert after(THREE, "l4 v4 explicit") == ConfState((1, 2, 3, 4), voters_outgoing=(1, 2, 3))
    assert after(THREE, "l3 v3 explicit") == ConfState((1, 2, 3), voters_outgoing=(1, 2, 3))


def test_repeats_change_nothing() -> None:
    assert after(THREE, "v3") == THREE
    assert after(THREE, "r9") == THREE
    learners = ConfState((1, 2), (3,))
    assert after(learners, "l3") == learners


@pytest.mark.parametrize(
    ("start", "text", "message"),
    [
        (ConfState((1,)), "r1", "removes every voter"),
        (ConfState((1,)), "l1", "removes every voter"),
        (THREE, "", "not joint"),
        (ConfState((1, 2), voters_outgoing=(2, 3)), "v4", "must be left"),
        (ConfState((1, 2), voters_outgoing=(2, 3)), "v4 v5", "is joint already"),
        (ConfState(), "v4 v5", "without voters"),
        (THREE, "v0", "not a replica id"),
    ],
)
def test_what_cannot_follow_is_refused(start: ConfState, text: str, message: str) -> None:
    with pytest.raises(ConfChangeInvalidError, match=message):
        after(start, text)


def test_two_voters_do_not_change_directly() -> None:
    change = parse_change(["v4", "v5"])
    with pytest.raises(ConfChangeInvalidError, match="more than one voter"):
        confchange.simple(confchange.restore(THREE), change.changes)


@pytest.mark.parametrize(
    "state",
    [
        ConfState((2, 1)),
        ConfState((1, 1)),
        ConfState((1,), (1,)),
        ConfState((1,), (), (2,), (3,)),
        ConfState((1, 2), (), (2,), (2,)),
        ConfState((1,), auto_leave=True),
        ConfState((), (1,)),
        ConfState((0, 1)),
    ],
)
def test_a_stored_configuration_is_checked(state: ConfState) -> None:
    with pytest.raises(ConfChangeInvalidError):
        confchange.restore(state)


@given(memberships(), steps)
def test_a_joint_change_ends_where_the_steps_one_by_one_end(
    start: Membership, change: tuple[ConfChangeSingle, ...]
) -> None:
    """Direct steps and the joint way lead to the same members."""
    one_by_one = start
    try:
        for step in change:
            one_by_one = confchange.simple(one_by_one, (step,))
    except ConfChangeInvalidError:
        assume(False)
    joint = confchange.enter_joint(start, change, auto_leave=True)
    left = confchange.leave_joint(joint)
    assert set(left.ids) == set(one_by_one.ids)
    assert left.voters.incoming == one_by_one.voters.incoming


@given(memberships(), steps)
def test_a_direct_change_keeps_majorities_overlapping(
    start: Membership, change: tuple[ConfChangeSingle, ...]
) -> None:
    try:
        after_ = confchange.simple(start, change)
    except ConfChangeInvalidError:
        return
    assert len(set(start.voters.incoming) ^ set(after_.voters.incoming)) <= 1


@given(memberships(), steps, st.sampled_from(list(ConfChangeTransition)))
def test_every_configuration_survives_being_stored(
    start: Membership, change: tuple[ConfChangeSingle, ...], transition: ConfChangeTransition
) -> None:
    try:
        followed = confchange.follow(start, ConfChange(change, transition))
    except ConfChangeInvalidError:
        return
    state = followed.conf_state()
    assert confchange.restore(state) == followed
    assert set(followed.ids) == {i for i in range(1, 7) if i in state}
    assert not set(followed.learners) & set(followed.voters.ids)
