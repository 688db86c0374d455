"""How a bench of several reports ends, and what is shown of it then."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Coroutine

import pytest

from rakit.client.bench.collector import GC_THRESHOLDS
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.cli import bench_base, running
from rakit.client.cli.complaints import CommandError
from rakit.client.cli.output import Format


def report(count: int) -> Report:
    return Report("groups", {"groups": count}, (Figure("cpu", "CPU", 1.5, "%"),), column=f"{count}")


async def two_and_an_error(say: Say) -> AsyncGenerator[Report]:
    say("measuring")
    yield report(10)
    yield report(100)
    raise CommandError("not quiet after 120 s")


async def one_and_an_interrupt(say: Say) -> AsyncGenerator[Report]:
    say("measuring")
    yield report(10)
    raise asyncio.CancelledError


async def nothing_but_an_error(say: Say) -> AsyncGenerator[Report]:
    say("measuring")
    for count in list[int]():
        yield report(count)
    raise CommandError("no node came up")


def test_what_was_measured_is_shown_though_a_later_column_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = running.run(bench_base._run(Format.JSON, two_and_an_error))
    out, err = capsys.readouterr()
    assert code == running.FAILED
    assert [each["settings"]["groups"] for each in json.loads(out)["reports"]] == [10, 100]
    assert err == "rakit: not quiet after 120 s\n"


def test_what_was_measured_is_shown_after_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    code = running.run(bench_base._run(Format.TABLE, one_and_an_interrupt))
    out, err = capsys.readouterr()
    assert code == running.FAILED
    assert "CPU" in out
    assert err == "rakit: interrupted\n"


def test_collections_are_rare_while_something_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def freeze() -> None:
        seen.append("frozen")

    def set_threshold(*thresholds: int) -> None:
        seen.append(thresholds)

    monkeypatch.setattr(gc, "freeze", freeze)
    monkeypatch.setattr(gc, "set_threshold", set_threshold)

    def finish(work: Coroutine[object, object, int]) -> None:
        work.close()
        seen.append("measured")

    monkeypatch.setattr(running, "finish", finish)
    bench_base.finish_all(Format.JSON, nothing_but_an_error, "localhost:1")
    assert seen == ["frozen", GC_THRESHOLDS, "measured"]


def test_where_nothing_was_measured_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code = running.run(bench_base._run(Format.TABLE, nothing_but_an_error))
    assert code == running.FAILED
    assert capsys.readouterr() == ("", "rakit: no node came up\n")
