"""The golden scripts: what the core does, step by step, in files that people can read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.raft.script import run_script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_script(path: Path) -> None:
    expected = path.read_text()
    actual = run_script(expected)
    if os.environ.get("RAKIT_REWRITE_SCRIPTS"):
        path.write_text(actual)
        return
    assert actual == expected


def test_the_scripts_are_there() -> None:
    assert len(SCRIPTS) >= 10


def test_a_wrong_expectation_is_noticed() -> None:
    script = SCRIPTS[0].read_text()
    broken = script.replace("term=2", "term=9", 1)
    assert broken != script
    assert run_script(broken) != broken
