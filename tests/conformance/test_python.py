"""The Python column of `make conformance`: every scenario, against processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import building
from tests.conformance.runner import verdicts
from tests.conformance.scenarios import load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


async def test_a_python_program_with_nothing_but_stubs_passes_every_scenario(
    tmp_path: Path,
) -> None:
    commands = {"python": building.build("python")}
    scenarios = load()
    found = [each async for each in verdicts(tmp_path / "c", scenarios, commands)]
    assert [each.scenario for each in found] == [each.name for each in scenarios]
    assert [each for each in found if each.status != "passed"] == []
