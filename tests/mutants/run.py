"""Runs tests within a test, and tells by what they failed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parent.parent
#: No cache that the outer run would find, and no second guard of what the outer run guards.
_QUIETLY: Final = (
    "-q",
    "-n0",
    "--no-header",
    "--no-summary",
    "--tb=no",
    "--timeout=0",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:faulthandler",
    "-p",
    "no:unraisableexception",
    "-p",
    "no:threadexception",
)


class _Failures:
    """Collects what ended tests before their ends, by the name of the test."""

    def __init__(self) -> None:
        self.ran: set[str] = set()
        self.found: dict[str, list[BaseException]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        path = item.path.relative_to(TESTS).as_posix()
        name = f"{path}::{item.name.partition('[')[0]}"
        self.ran.add(name)
        if call.excinfo is not None:
            self.found.setdefault(name, []).append(call.excinfo.value)


def failures(tests: Iterable[str]) -> dict[str, list[BaseException]]:
    """Runs tests by their names below `tests/`; returns those that failed, and by what."""
    names = sorted(set(tests))
    seen = _Failures()
    pytest.main([*_QUIETLY, *(str(TESTS / name) for name in names)], plugins=[seen])
    assert seen.ran == set(names), f"{set(names) ^ seen.ran} did not run"
    return seen.found
