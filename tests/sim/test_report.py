"""What a person sees: a failing seed is told so that one can begin to look; many runs can stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.sim.__main__ import Progress, replay
from tests.sim.planted import BUGS
from tests.sim.runner import Outcome, run_seed
from tests.sim.violations import Invariant
from tests.sim.world import World

ROOT = Path(__file__).resolve().parents[2]
PLANT = "a_reader_is_given_what_is_appended_and_not_committed"


def a_failing_seed() -> int:
    with BUGS[PLANT].plant():
        return next(seed for seed in range(1, 50) if run_seed(seed).violated)


def test_a_failing_seed_is_told_with_its_events_its_replicas_and_the_promise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = a_failing_seed()
    assert replay(seed, 20, PLANT) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("--- broken at ")
    assert f"UNCOMMITTED, which says that {Invariant.UNCOMMITTED.value}. But " in lines[-1]
    group = re.search(r"group (\d+)", lines[-1])
    assert group is not None
    begins = lines.index(f"--- the last events of group {group[1]}")
    ends = next(n for n, line in enumerate(lines) if line.startswith("--- replicas"))
    assert 0 < ends - begins - 1 <= 20
    assert all(f" group {group[1]} " in line or line[6:16].isspace() for line in lines[1:ends])
    states = [line for line in lines if re.match(rf"  group {group[1]} node \d: ", line)]
    assert len(states) >= 3
    assert any("LEADER" in line for line in states)
    # The same seed tells the same.
    assert replay(seed, 20, PLANT) == 1
    assert capsys.readouterr().out.splitlines() == lines


def test_what_is_no_judgement_is_told_and_raised(capsys: pytest.CaptureFixture[str]) -> None:
    def judge(world: World) -> None:
        raise ValueError(f"no idea what to make of group {world.group_ids[0]}")

    with (
        patch("tests.sim.judgement.judge", judge),
        pytest.raises(ValueError, match="no idea"),
    ):
        replay(1, 20, None)
    assert "--- broken at " in capsys.readouterr().out


def test_progress_tells_what_is_left_and_where_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(first=10, count=4)
    for seed, error in ((11, ""), (10, "READS: stale"), (13, "")):
        progress.add(Outcome(seed, error, None, 5, 1, 0.5))
    assert "seed 10 FAILED: READS: stale" in capsys.readouterr().out
    assert progress.next == 12, "12 is the first that is not done"
    assert re.fullmatch(r"3 of 4 seeds, 1 failed, \d+ s gone, about \d+ s left", progress.line())
    assert "replay one with: make sim SEED=10" in list(progress.summary())


def test_many_runs_end_at_ctrl_c_and_say_where_to_go_on() -> None:
    command = [sys.executable, "-m", "tests.sim", "--seeds", "100000", "--jobs", "1"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None, "it is a pipe"
        assert "Ctrl-C stops" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert re.search(r"go on with: --from \d+ --seeds \d+", out)
