"""A cluster for the commands of one module."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from rakit.client.demo.processes import free_ports

from .command import Rakit


@pytest.fixture(scope="module")
def rakit() -> Iterator[Rakit]:
    """`rakit dev` on a free port; ended by Ctrl-C, which must leave nothing behind."""
    started = time.monotonic()
    process = Rakit("").start("dev", "--port", str(free_ports(1)[0]))
    assert process.stdout is not None
    ready, export = process.stdout.readline().decode(), process.stdout.readline().decode()
    assert ready.startswith("rakit dev: ready after")
    assert time.monotonic() - started < 20
    yield Rakit(export.strip().removeprefix("export RAKIT_BOOTSTRAP="))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")
