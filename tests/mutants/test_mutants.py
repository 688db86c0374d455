"""Each bug that is put back makes the tests that claim to hold it fail, as docs/RAFT.md has it."""

from __future__ import annotations

from types import ModuleType

import pytest

from rakit.raft import election
from rakit.raft.log import RaftLog
from tests.mutants import (
    Mutant,
    ahead,
    apart,
    held,
    hosts,
    in_force,
    lanes,
    logs,
    members,
    mutant,
    named_in,
    places,
    segments,
    votes,
)
from tests.mutants.listed import DOCUMENT, MUTANTS, render
from tests.mutants.run import failures, is_asserted

known = named_in("raft/test_known_bugs.py")
COMMITS = known("bug_08_a_follower_commits_only_what_the_message_covers")


def check(one: Mutant) -> None:
    """Asserts that each of the tests that the mutant names fails by an assertion."""
    with in_force(one):
        failed = failures(one.tests)
    for test in one.tests:
        assert test in failed, f"{test} passes with {one.name} in force"
        assert any(map(is_asserted, failed[test])), (
            f"{test} does not fail by an assertion: {failed[test]}"
        )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    check(MUTANTS[name])


@pytest.mark.parametrize("part", [votes, logs, members], ids=lambda part: part.__name__)
def test_without_a_mutant_the_same_tests_pass(part: ModuleType) -> None:
    """Run as these are run. The suite has them all, as they are."""
    assert failures(test for one in part.MUTANTS for test in one.tests) == {}


def test_the_table_has_every_mutant_and_is_as_the_command_writes_it() -> None:
    assert render() in DOCUMENT.read_text()


def test_no_two_mutants_have_one_name() -> None:
    parts = (votes, logs, members, held, hosts, lanes, segments, ahead, apart, places)
    assert len(MUTANTS) == sum(len(part.MUTANTS) for part in parts)


# What a mutant must not get away with.


def committing(old: str, new: str) -> Mutant:
    return mutant("one", 8, "", (RaftLog.commit_to, old, new), COMMITS)


def test_a_change_that_its_test_does_not_see_is_told() -> None:
    with pytest.raises(AssertionError, match="passes with one in force"):
        check(committing("if index <= self.committed:", "if index < self.committed + 1:"))


def test_a_crash_does_not_count_as_caught() -> None:
    with pytest.raises(AssertionError, match="does not fail by an assertion"):
        check(committing("if index <= self.committed:", "if index <= self.nothing:"))


@pytest.mark.parametrize("old", ["no such text", "self"])
def test_a_text_that_is_not_there_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(AssertionError, match=r"stands \d+ times"):
        check(committing(old, "x"))


def test_a_mutant_is_gone_when_it_has_been_looked_at() -> None:
    code = election.refuse.__code__
    one = mutant("one", 17, "", (election.refuse, "raft.term,", "message.term,"), COMMITS)
    with in_force(one):
        assert election.refuse.__code__ is not code
    assert election.refuse.__code__ is code


def test_a_test_that_does_not_exist_is_told() -> None:
    with pytest.raises(AssertionError, match="did not run"):
        failures([known("bug_99_nobody_wrote_this")])
