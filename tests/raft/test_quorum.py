"""Quorums against a count that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.raft.quorum import EVERYTHING, JointConfig, VoteResult

ids = st.integers(min_value=1, max_value=9)
half = st.sets(ids, max_size=7).map(lambda s: tuple(sorted(s)))
acked = st.dictionaries(ids, st.integers(min_value=0, max_value=12))
votes = st.dictionaries(ids, st.booleans())


def naive_committed(voters: tuple[int, ...], acks: dict[int, int]) -> int:
    """Tries every index: the largest that more than half of the voters reach."""
    if not voters:
        return EVERYTHING
    reached = [
        index
        for index in range(13)
        if 2 * sum(acks.get(voter, 0) >= index for voter in voters) > len(voters)
    ]
    return max(reached)


def naive_vote(voters: tuple[int, ...], answers: dict[int, bool]) -> VoteResult:
    """Tries every way in which the missing answers could come out."""
    if not voters:
        return VoteResult.WON
    missing = [voter for voter in voters if voter not in answers]
    outcomes: set[bool] = set()
    for pattern in range(2 ** len(missing)):
        filled = dict(answers)
        for position, voter in enumerate(missing):
            filled[voter] = bool(pattern >> position & 1)
        outcomes.add(2 * sum(filled[voter] for voter in voters) > len(voters))
    if outcomes == {True}:
        return VoteResult.WON
    return VoteResult.LOST if outcomes == {False} else VoteResult.PENDING


@given(half, acked)
def test_a_majority_commits_like_the_naive_count(
    voters: tuple[int, ...], acks: dict[int, int]
) -> None:
    config = JointConfig(voters)
    assert config.committed_index(lambda v: acks.get(v, 0)) == naive_committed(voters, acks)


@given(half, half, acked)
def test_a_joint_quorum_needs_both_halves(
    incoming: tuple[int, ...], outgoing: tuple[int, ...], acks: dict[int, int]
) -> None:
    config = JointConfig(incoming, outgoing)
    expected = min(naive_committed(incoming, acks), naive_committed(outgoing, acks))
    assert config.committed_index(lambda v: acks.get(v, 0)) == expected


@given(half, votes)
def test_a_vote_stands_like_the_naive_count(
    voters: tuple[int, ...], answers: dict[int, bool]
) -> None:
    assert JointConfig(voters).vote_result(answers) is naive_vote(voters, answers)


@given(half, half, votes)
def test_a_joint_vote_is_won_in_both_halves_and_lost_in_either(
    incoming: tuple[int, ...], outgoing: tuple[int, ...], answers: dict[int, bool]
) -> None:
    parts = {naive_vote(incoming, answers), naive_vote(outgoing, answers)}
    result = JointConfig(incoming, outgoing).vote_result(answers)
    if parts == {VoteResult.WON}:
        assert result is VoteResult.WON
    elif VoteResult.LOST in parts:
        assert result is VoteResult.LOST
    else:
        assert result is VoteResult.PENDING


@given(half, half)
def test_two_majorities_of_one_half_always_meet(
    incoming: tuple[int, ...], outgoing: tuple[int, ...]
) -> None:
    """No two disjoint sets of voters can both win."""
    config = JointConfig(incoming, outgoing)
    everyone = sorted({*incoming, *outgoing})
    for pattern in range(2 ** min(len(everyone), 8)):
        yes = {v for i, v in enumerate(everyone) if pattern >> i & 1}
        sides = [
            config.vote_result({v: (v in side) for v in everyone})
            for side in (yes, set(everyone) - yes)
        ]
        if incoming or outgoing:
            assert sides != [VoteResult.WON, VoteResult.WON]


@pytest.mark.parametrize("count", [2, 4, 6])
def test_half_of_an_even_number_is_no_majority(count: int) -> None:
    config = JointConfig(tuple(range(1, count + 1)))
    half = count // 2
    assert config.vote_result({v: v <= half for v in config.ids}) is VoteResult.LOST
    assert config.vote_result(dict.fromkeys(config.ids[:half], True)) is VoteResult.PENDING
    assert config.committed_index(lambda voter: 9 if voter <= half else 1) == 1
    assert config.committed_index(lambda voter: 9 if voter <= half + 1 else 1) == 9


def test_ids_are_sorted_and_without_repeats() -> None:
    assert JointConfig((1, 8), (2, 8)).ids == (1, 2, 8)
    assert JointConfig((1, 4)).ids == (1, 4)
