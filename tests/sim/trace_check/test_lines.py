"""From a run to a file and to a verdict, and what the checker may know."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.__main__ import write_trace
from tests.sim.runner import run_seed
from tests.sim.trace_check.events import FormatError
from tests.sim.trace_check.lines import check_lines
from tests.sim.trace_check.rules import Rule

HERE = Path(__file__).parent


def verdict(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sim.trace_check", str(file)]
    return subprocess.run(command, cwd=HERE.parents[2], capture_output=True, text=True, check=False)


def test_the_checker_knows_nothing_of_rakit() -> None:
    modules = [path for path in HERE.glob("*.py") if not path.name.startswith("test_")]
    assert len(modules) > 8
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            ours = [one for one in names if one.startswith(("rakit", "tests"))]
            assert all(one.startswith("tests.sim.trace_check") for one in ours), path.name


def test_a_written_trace_is_good_and_one_that_was_changed_is_not(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    assert write_trace(3, file) == 0
    told = verdict(file)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "group 2" in told.stdout

    lines = file.read_text().splitlines()
    at = next(i for i, one in enumerate(lines) if '"name":"BecomeLeader"' in one)
    row = json.loads(lines[at])
    row["event"]["state"]["commit"] += 1
    lines[at] = json.dumps(row)
    file.write_text("\n".join(lines))
    told = verdict(file)
    assert told.returncode == 1
    assert f"line {at + 1}, " in told.stdout
    assert f"{Rule.COMMIT_OF_FOLLOWER.name} (5.3)" in told.stdout


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '{"tag":"trace"}',
        '{"tag":"trace","event":{"name":"Sleep"}}',
        '{"tag":"trace","event":{"name":"Ready","nid":"1","role":"StateFollower"}}',
    ],
)
def test_what_is_no_event_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(FormatError, match="line 2"):
        check_lines(['{"tag":"other"}', line])


def test_an_empty_trace_is_no_good_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text("")
    assert verdict(file).returncode == 2


def test_a_run_is_the_same_with_and_without_its_trace() -> None:
    plain, traced = run_seed(11), run_seed(11, traced=True)
    assert (plain.steps, plain.acknowledged) == (traced.steps, traced.acknowledged)
    assert not traced.error
