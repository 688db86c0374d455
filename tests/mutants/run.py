"""Runs tests within a test, and tells by what they failed."""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from functools import cache
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Final

import pytest

from rakit.raft import RaftError

_LEFT_OUT: Final = "another case has failed"
_RUNS: Final = count(1)
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


def is_asserted(error: BaseException) -> bool:
    """Tells what a test or the code asserts from a crash.

    `(answer,) = ...` asserts that there is one answer, and a call that must be taken was refused.
    """
    return isinstance(error, (AssertionError, pytest.fail.Exception, RaftError)) or (
        isinstance(error, ValueError) and "values to unpack" in str(error)
    )


class _Failures:
    """Collects what ended tests before their ends, by the name of the test.

    When a case has failed by an assertion, the other cases of its test are left out.
    """

    def __init__(self) -> None:
        self.ran: set[str] = set()
        self.found: dict[str, list[BaseException]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if any(map(is_asserted, self.found.get(_name(item), []))):
            pytest.skip(_LEFT_OUT)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        name = _name(item)
        self.ran.add(name)
        if call.excinfo is not None and str(call.excinfo.value) != _LEFT_OUT:
            self.found.setdefault(name, []).append(call.excinfo.value)


@cache
def _place() -> Path:
    """Where runs put their files: they are there to the end of the process.

    A test that fails leaves a store open until it is garbage. If its directory is gone by then,
    RocksDB takes a second to close each: together they took longer than a test may.
    """
    place = Path(mkdtemp(prefix="rakit-mutants-"))
    atexit.register(rmtree, place, ignore_errors=True)
    return place


def _name(item: pytest.Item) -> str:
    path = item.path.relative_to(TESTS).as_posix()
    return f"{path}::{item.name.partition('[')[0]}"


def failures(tests: Iterable[str]) -> dict[str, list[BaseException]]:
    """Runs tests by their names below `tests/`; returns those that failed, and by what."""
    names = sorted(set(tests))
    seen = _Failures()
    place = f"--basetemp={_place()}/{next(_RUNS)}"
    pytest.main([*_QUIETLY, place, *(str(TESTS / name) for name in names)], plugins=[seen])
    assert seen.ran == set(names), f"{set(names) ^ seen.ran} did not run"
    return seen.found
