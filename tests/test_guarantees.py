"""docs/GUARANTEES.md names tests for every promise and rule: they exist, and none is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| ([PS]\d+) \|.*\|(.*)\|$", re.MULTILINE)


def document() -> str:
    return (ROOT / "docs/GUARANTEES.md").read_text()


def named_tests() -> dict[str, list[str]]:
    """The tests of each promise and rule."""
    text = document()
    return {number: re.findall(r"`([^`]+::[^`]+)`", tests) for number, tests in ROW.findall(text)}


def functions(path: str) -> set[str]:
    """The names of all functions of a file below `tests`."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_promise_and_rule_names_a_test() -> None:
    wanted = {f"P{n}" for n in range(1, 11)} | {f"S{n}" for n in range(1, 27)}
    named = named_tests()
    assert set(named) == wanted
    assert [number for number, tests in named.items() if not tests] == []


@pytest.mark.parametrize("number", sorted(named_tests()))
def test_the_named_tests_exist(number: str) -> None:
    for name in named_tests()[number]:
        path, _, function = name.partition("::")
        assert function in functions(path), f"{number} names {name}, which is not there"


@pytest.mark.parametrize("path", ["test_guarantees.py", "sim/planted.py"])
def test_a_name_that_is_gone_is_noticed(path: str) -> None:
    assert "test_that_nobody_wrote" not in functions(path)


def test_s_numbers_in_code_and_tests_are_those_of_the_document() -> None:
    known = set(named_tests())
    cited = {
        number
        for piece in ("raft", "node", "client", "tests")
        for path in (ROOT / piece).rglob("*.py")
        if "_pb2" not in path.name
        for number in re.findall(r"\b(S\d{1,2})\b", path.read_text())
    }
    assert len(cited) > 20
    assert cited <= known, f"cited, and nowhere explained: {cited - known}"
