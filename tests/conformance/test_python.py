"""The Python column of `make conformance`: every scenario that is built, against processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import building
from tests.conformance.runner import verdicts
from tests.conformance.scenarios import load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def test_a_python_program_with_nothing_but_stubs_passes_what_is_built(tmp_path: Path) -> None:
    commands = {"python": building.build("python")}
    scenarios = load()
    found = [each async for each in verdicts(tmp_path / "c", scenarios, commands)]
    assert [each.scenario for each in found] == [each.name for each in scenarios]
    assert [each for each in found if each.status == "failed"] == []
    needy = {each.name for each in scenarios if each.needs}
    assert {each.scenario for each in found if each.status == "not built"} <= needy
    assert sum(each.status == "passed" for each in found) >= len(scenarios) - len(needy)
