"""Each bug that is put back makes the tests that claim to hold it fail, as docs/RAFT.md has it."""

from __future__ import annotations

import pytest

from tests.mutants import hosts, in_force, logs, members, votes
from tests.mutants.listed import DOCUMENT, MUTANTS, render
from tests.mutants.run import failures


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    """By an assertion in each of the tests that it names."""
    one = MUTANTS[name]
    with in_force(one):
        failed = failures(one.tests)
    for test in one.tests:
        assert test in failed, f"{test} passes with {name} in force"
        asserted = [_is_asserted(error) for error in failed[test]]
        assert any(asserted), f"{test} does not fail by an assertion: {failed[test]}"


def _is_asserted(error: BaseException) -> bool:
    """Tells an assertion from a crash; `(answer,) = ...` asserts that there is one answer."""
    return isinstance(error, (AssertionError, pytest.fail.Exception)) or (
        isinstance(error, ValueError) and "values to unpack" in str(error)
    )


def test_without_a_mutant_the_same_tests_pass() -> None:
    assert failures(test for one in MUTANTS.values() for test in one.tests) == {}


def test_the_table_has_every_mutant_and_is_as_the_command_writes_it() -> None:
    assert render() in DOCUMENT.read_text()


def test_no_two_mutants_have_one_name() -> None:
    parts = (votes, logs, members, hosts)
    assert len(MUTANTS) == sum(len(part.MUTANTS) for part in parts)
