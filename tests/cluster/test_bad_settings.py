"""A node with a bad configuration does not start: exit code 2 and one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.test_start import refused, run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]


def test_a_key_that_does_not_exist_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "rakit.toml"
    path.write_text(f'data_dri = "{tmp_path / "data"}"\n')
    text = f"{path}: unknown key 'data_dri'; the nearest valid one is 'data_dir'"
    refused(run("-m", "rakit.node", f"--config={path}"), 2, text)
    assert not (tmp_path / "data").exists(), "nothing was made"


def test_settings_that_contradict_each_other_are_both_named(tmp_path: Path) -> None:
    path = tmp_path / "rakit.toml"
    path.write_text("[tuning]\nheartbeat_ticks = 9\nelection_ticks = 9\n")
    done = run("-m", "rakit.node", f"--config={path}", f"--data-dir={tmp_path / 'data'}")
    refused(done, 2, "tuning.heartbeat_ticks (9) must be less than tuning.election_ticks (9)")
    assert not (tmp_path / "data").exists(), "nothing was made"


def test_the_environment_is_checked_like_the_rest(tmp_path: Path) -> None:
    done = run(
        "-m", "rakit.node", f"--data-dir={tmp_path / 'data'}", RAKIT_BOOTSTRAP_EXPECT="several"
    )
    refused(done, 2, "must be a whole number from 0 to 15")
