"""Guards around every test: nothing may be left behind, and nothing may block the event loop.

A test that leaves a thread or a child process is a defect of the code under test: in production the
same leak is a port that stays bound or a disk that stays locked. A call that waits inside the loop
is one too (see `tests/loop_guard.py`). Time limits and "warnings are errors" stand in
pyproject.toml.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

# As the commands have it (see `rakit.client.demo.processes`); gRPC reads it when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from tests.loop_guard import watched_loop

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile("rakit", deadline=None)
hypothesis.settings.load_profile("rakit")

# Threads that the libraries keep for the life of the process, by the beginning of their names.
LIBRARY_THREADS = ("grpc", "asyncio_", "ThreadPoolExecutor", "execnet", "pytest_timeout", "Dummy")
GRACE_S = 5
# Where the code under test is what lives in the loop of a node or of a client.
LOOP_WATCHED = tuple(Path(__file__).parent / name for name in ("node", "client", "multiraft/host"))


def own_threads() -> set[threading.Thread]:
    return {
        each
        for each in threading.enumerate()
        if each is not threading.main_thread()
        and not each.name.startswith(LIBRARY_THREADS)
        and "_poll_wrapper" not in each.name  # of grpc.aio, for the life of the process
    }


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    threads, children = own_threads(), set(psutil.Process().children())
    yield
    left = own_threads() - threads
    for thread in left:
        thread.join(GRACE_S)
    still = sorted(thread.name for thread in left if thread.is_alive())
    assert not still, f"threads left behind: {still}"
    orphans = set(psutil.Process().children()) - children
    _gone, alive = psutil.wait_procs(list(orphans), timeout=GRACE_S)
    assert not alive, f"processes left behind: {alive}"


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    watched = any(folder in request.path.parents for folder in LOOP_WATCHED)
    if not (watched and inspect.iscoroutinefunction(request.function)):
        yield []
        return
    with watched_loop() as found:
        yield found
    if found:
        pytest.fail("\n".join(found), pytrace=False)
