"""However a command is ended, the nodes that it started end with it, and their data is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from .command import Rakit

pytestmark = pytest.mark.cluster

START_S = 60
END_S = 30
# The demo with a few rows of its own, so that nothing is downloaded.
DEMO = """
import pathlib
from rakit.client.cli import main
from rakit.client.demo import flights

async def fetch():
    return pathlib.Path("nowhere")

flights.fetch = fetch
flights.read = lambda _path: [flights.Flight(None, b"%d" % n) for n in range(1_000_000)]
main.run()
"""


def start(arguments: list[str], directory: Path, code: str = "") -> subprocess.Popen[bytes]:
    module = ["-c", code] if code else ["-m", "rakit.client.cli"]
    environ: Mapping[str, str] = {**os.environ, "TMPDIR": str(directory)}
    return subprocess.Popen(
        [sys.executable, *module, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until_nodes_run(process: subprocess.Popen[bytes], count: int) -> list[psutil.Process]:
    """Waits until so many nodes are there, and have opened their stores."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        nodes = psutil.Process(process.pid).children()
        if len(nodes) == count and all(node.net_connections() for node in nodes):
            return nodes
        time.sleep(0.05)
    pytest.fail(f"there were no {count} nodes in time")


@pytest.fixture(autouse=True)
def hang_ups_are_heard() -> Iterator[None]:
    """Whoever runs the tests below `nohup` makes all their children deaf to SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_command_below_nohup_goes_on_when_the_terminal_is_gone(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with start(["dev", "--port", "0"], tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        rakit = Rakit(process.stdout.readline().decode().strip().rpartition("=")[2])
        process.send_signal(signal.SIGHUP)
        assert "1 of 1 nodes up" in rakit.ask("cluster", "status")[0]
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=END_S) == (b"", b"")
    assert process.returncode == 0


DEMO_RUN = (["demo"], DEMO, 3, 1)
BENCH_RUN = (["bench", "idle"], "", 3, 1)
DEV_RUN = (["dev", "--port", "0"], "", 1, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("run", [DEMO_RUN, BENCH_RUN, DEV_RUN], ids=["demo", "bench", "dev"])
def test_no_node_and_no_file_is_left_behind(
    tmp_path: Path, run: tuple[list[str], str, int, int], number: signal.Signals
) -> None:
    arguments, code, nodes_count, exit_code = run
    with start(arguments, tmp_path, code) as process:
        nodes = until_nodes_run(process, nodes_count)
        assert list(tmp_path.iterdir()), "the data is in there"
        process.send_signal(number)
        _, err = process.communicate(timeout=END_S)
        assert process.returncode == exit_code, err
    _, alive = psutil.wait_procs(nodes, timeout=0)
    for node in alive:
        node.kill()
    assert not alive
    assert list(tmp_path.iterdir()) == []
    assert err == (b"rakit: interrupted\n" if exit_code else b"")
