"""Measuring itself: what must not count does not, and what was started is ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import psutil
import pytest

from tests.bench import measuring
from tests.bench.__main__ import arguments, measured
from tests.bench.measuring import Timing, measure
from tests.bench.results import Case
from tests.bench.systems.base import Client, Cluster, MeasurementError, Single, System, Tally
from tests.bench.works import Work, work

PRODUCE = work("produce-100-p1-x1-batch")


class Nowhere(Cluster):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def pids(self) -> list[int]:
        return [os.getpid()]


class Fake(Client):
    """Acknowledges ten records a turn, and forgets the first `lost`."""

    def __init__(self, lost: int, error: Exception | None) -> None:
        self._lost = lost
        self._error = error
        self._count = 0

    async def create(self, partitions: int) -> None: ...

    async def pump(self, work: Work, tally: Tally) -> None:
        del work
        while not tally.is_over:
            if self._error is not None and tally.acknowledged:
                raise self._error
            tally.add(10)
            await asyncio.sleep(0)
        self._count = tally.acknowledged

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        raise NotImplementedError

    async def stored(self) -> int:
        return self._count - self._lost


class Faked(System):
    def __init__(self, lost: int = 0, error: Exception | None = None) -> None:
        super().__init__("fake")
        self._client = Fake(lost, error)

    def cluster(self, directory: Path) -> Cluster:
        return Nowhere(directory)

    def client(self, cluster: Cluster, setting: str) -> Client:
        del cluster, setting
        return self._client


async def test_records_that_are_not_there_give_no_figure(tmp_path: Path) -> None:
    timing = Timing(0.05, 0.01)
    figures = await measure(Faked(), PRODUCE, "", tmp_path / "data", timing)
    assert figures["records_per_s"] > 100
    with pytest.raises(MeasurementError, match="records were acknowledged"):
        await measure(Faked(lost=1), PRODUCE, "", tmp_path / "data", timing)
    assert not (tmp_path / "data").exists()


async def test_a_load_that_fails_ends_the_measurement_with_its_error(tmp_path: Path) -> None:
    system = Faked(error=OSError("the client broke"))
    with pytest.raises(OSError, match="the client broke"):
        await measure(system, PRODUCE, "", tmp_path / "data", Timing(30, 30))


def test_what_is_never_acknowledged_counts_with_what_it_has_waited() -> None:
    figures = measuring._times([0.001] * 98, 100, time.perf_counter() - 20)
    assert figures["unacknowledged"] == 2
    assert figures["p50_ms"] == 1
    assert figures["p99_ms"] >= 20_000


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("disk", "produce-1k-p1-x1-batch"),
        ("echo", "produce-1k-p1-x1-batch"),
        ("pipeline", "produce-1k-p1-x1-batch"),
        ("pipeline", "latency-1000"),
        ("echo", "unary-100-x64"),
    ],
)
def test_references_are_measured_in_a_process_of_their_own(
    system: str, name: str, tmp_path: Path
) -> None:
    result = measured(Case(name, system, "", 0, 0.3, 0.1), tmp_path)
    assert not result.error
    figures = {"latency-1000": "p50_ms", "unary-100-x64": "records_per_s"}
    assert result.figures[figures.get(name, "mb_per_s")] > 0
    assert not psutil.Process().children(recursive=True)


@pytest.mark.cluster
def test_rakit_is_filled_and_read_back_by_the_batch(tmp_path: Path) -> None:
    result = measured(Case("read-1k-x1-batch", "rakit", "", 0, 0.3, 0.1), tmp_path)
    assert not result.error
    assert result.figures["records_per_s"] > 1000
    assert result.figures["memory_mib"] > 30
    assert not list((tmp_path / "rakit").glob("*"))


def test_an_error_of_a_worker_is_its_result(tmp_path: Path) -> None:
    result = measured(Case("produce-1k-p6-x1-batch", "pipeline", "", 0, 0.1, 0.1), tmp_path)
    assert (result.error, result.figures) == ("AssertionError: it is one log", {})


def test_a_worker_that_dies_leaves_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no memory >&2\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    result = measured(Case(PRODUCE.name, "disk", "", 0, 0.1, 0.1), tmp_path)
    assert result.error == "no answer (9): no memory"


def nodes_of(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for each in psutil.Process(pid).children(recursive=True):
        # A process may end between two looks at it.
        with suppress(psutil.NoSuchProcess):
            if "rakit.node" in each.cmdline():
                found.append(each)
    return found


@pytest.mark.cluster
def test_an_interrupted_run_ends_what_it_started_and_keeps_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--seconds", "600", "--warm", "0", "--systems", "rakit", "--works", "kill"]
    command = [sys.executable, "-m", "tests.bench", *options, "--rounds", "1", "--out", str(out)]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "data"), "--works", PRODUCE.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert b"1 of 1: produce-100-p1-x1-batch rakit" in process.stderr.readline()
        while len(nodes := nodes_of(process.pid)) < 3:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert b"--resume goes on" in said
    assert process.returncode == 130
    _, alive = psutil.wait_procs(nodes, timeout=5)
    assert not alive


def test_results_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps({}))
    with pytest.raises(SystemExit):
        arguments(["--out", str(out)])
    assert "--resume goes on" in capsys.readouterr().err
    assert arguments(["--out", str(out), "--resume"]).resume
