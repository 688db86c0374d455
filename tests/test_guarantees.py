"""docs/GUARANTEES.md names tests for every promise and rule: they exist, and none is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| ([PS]\d+) \|.*\|(.*)\|$", re.MULTILINE)
NOT_BUILT = {"P5", "S25"}


def named_tests() -> dict[str, list[str]]:
    """The tests of each promise and rule."""
    text = (ROOT / "docs/GUARANTEES.md").read_text()
    return {number: re.findall(r"`([^`]+::[^`]+)`", tests) for number, tests in ROW.findall(text)}


def test_every_promise_and_rule_names_a_test() -> None:
    wanted = {f"P{n}" for n in range(1, 11)} | {f"S{n}" for n in range(1, 27)}
    named = named_tests()
    assert set(named) == wanted - NOT_BUILT
    assert [number for number, tests in named.items() if not tests] == []


@pytest.mark.parametrize("number", sorted(named_tests()))
def test_the_named_tests_exist(number: str) -> None:
    for name in named_tests()[number]:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / path).read_text())
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert function in defined, f"{number} names {name}, which is not there"
