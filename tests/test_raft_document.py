"""docs/RAFT.md names functions, tests and plants: each is there, and no row is left out."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.listed import MUTANTS
from tests.sim.planted import BUGS

ROOT = Path(__file__).resolve().parent.parent
PAPER = "The paper, rule by rule"
FEATURES = "What a Raft has to have in production"
KNOWN = "Known bugs of others, and what keeps them out"
#: What the document speaks of, and where: a word of code, a function, a test, a plant.
QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    section: str
    cells: list[str]


def rows() -> list[Row]:
    found: list[Row] = []
    for section in (ROOT / "docs/RAFT.md").read_text().split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        table = [line for line in body.splitlines() if line.startswith("| ")]
        found += [
            Row(title, [cell.strip() for cell in line.split("|")[1:-1]]) for line in table[1:]
        ]
    return found


def section(title: str) -> list[list[str]]:
    return [row.cells for row in rows() if row.section == title]


@cache
def functions(path: Path) -> set[str]:
    """The names of all functions of a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def is_there(name: str) -> bool:
    """Whether a name of code below `rakit.raft`, or below `rakit`, is defined."""
    return _resolves(f"rakit.raft.{name}") or _resolves(f"rakit.{name}")


def _resolves(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False


def test_no_row_is_left_out() -> None:
    assert [cells[0].split()[0] for cells in section(FEATURES)] == [str(n) for n in range(1, 25)]
    assert [cells[0] for cells in section(KNOWN)] == [str(n) for n in range(1, 33)]
    paper = " ".join(cells[0] for cells in section(PAPER))
    for part in (
        "Figure 2",
        "AppendEntries 1",
        "RequestVote 1",
        "5.1",
        "5.2",
        "5.3",
        "5.4.1",
        "5.4.2",
    ):
        assert f"**{part}" in paper, part
    for part in ("6", "7", "8", "3.10", "4.1", "4.2.1", "4.3", "6.2", "6.4", "9.6"):
        assert f"**{part}**" in paper, part


@pytest.mark.parametrize("title", [PAPER, FEATURES])
def test_every_rule_and_feature_names_code_and_a_test(title: str) -> None:
    for cells in section(title):
        *_, where, held_by = cells
        assert QUOTED.findall(where), cells
        assert QUOTED.findall(held_by), cells


def test_every_known_bug_names_what_holds_it() -> None:
    shown = {one.family for one in MUTANTS.values()}
    for number, told, planted, held_by in section(KNOWN):
        assert QUOTED.findall(held_by), number
        assert planted or int(number) in shown or "By construction" in told, (
            f"row {number} has neither a plant nor a mutant and does not say why"
        )


def test_the_functions_are_there() -> None:
    named = [
        name
        for title in (PAPER, FEATURES)
        for cells in section(title)
        for name in QUOTED.findall(cells[-2])
    ]
    assert len(named) > 80
    assert [name for name in named if not is_there(name)] == []


def test_the_tests_are_there() -> None:
    text = (ROOT / "docs/RAFT.md").read_text()
    named = [name for name in QUOTED.findall(text) if ".py::" in name]
    assert len(named) > 100
    for name in named:
        path, _, function = name.partition("::")
        assert function in functions(ROOT / "tests" / path), f"{name} is not there"


def test_the_plants_are_there() -> None:
    named = {name for cells in section(KNOWN) for name in QUOTED.findall(cells[2])}
    assert named <= set(BUGS)


@pytest.mark.parametrize("name", ["election.handle_reply", "no_module.Raft", "log.RaftLog.nothing"])
def test_a_name_that_is_gone_is_noticed(name: str) -> None:
    assert not is_there(name)
