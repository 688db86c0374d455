"""What every system has: nodes that are started and ended, and a client that loads them.

Rules:

- Everything listens on loopback and keeps its data below one directory, which is thrown away.
- Every node is a session of its own, so that Ctrl-C is for us and a signal reaches its helpers too;
  nothing is ended but what was started here.
- A client's library is loaded when it is used: the project itself does not have it.
- Clients count with `Tally` in a closed loop and call back in an open one, possibly from a thread
  of their library.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Protocol, Self

from tests.bench.works import Interface, Kind, Work

HOST = "127.0.0.1"
NODES_COUNT = 3
READY_S_MAX = 120.0
LOOK_S = 0.1
#: Different contents that are sent in turn, so that no cache flatters a copy.
CONTENTS_COUNT = 8
#: Unacknowledged bytes and records of all producers of a closed loop together.
WINDOW_BYTES = 64 << 20
WINDOW_COUNT_MAX = 500_000

#: What a sync before each acknowledgement changes; for all else the system at its default stands.
FSYNC_KINDS = frozenset({Kind.PRODUCE, Kind.LATENCY, Kind.TAIL})

Ended = Callable[[], None]
Call = Callable[[], Awaitable[None]]


class MeasurementError(Exception):
    """A measurement that gives no figure."""


class Tally:
    """What a closed loop has had acknowledged, and whether it is to end."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.is_over = False

    def add(self, count: int) -> None:
        """So many more are acknowledged."""
        self.acknowledged += count


def contents(size_bytes: int) -> list[bytes]:
    """Some values of one size."""
    return [os.urandom(size_bytes) for _ in range(CONTENTS_COUNT)]


def window(work: Work) -> int:
    """Unacknowledged records of one of the producers."""
    return max(8, min(WINDOW_COUNT_MAX, WINDOW_BYTES // work.size_bytes) // work.clients)


class Single(Protocol):
    """A producer of single records."""

    async def send(self, value: bytes, ended: Ended) -> None:
        """Sends one without waiting for it; calls back when it is acknowledged."""
        ...

    async def drain(self) -> None:
        """Waits until everything is acknowledged."""
        ...


class Cluster(ABC):
    """Three nodes on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    async def start(self) -> None:
        """Starts the nodes and waits until they serve."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The root process of each node, by number, and of their helpers behind them."""

    @abstractmethod
    async def stop(self) -> None:
        """Ends what was started, without ceremony."""

    def signal(self, node: int, number: signal.Signals) -> None:
        """Sends a signal to a node."""
        pid = self.pids()[node]
        assert pid > 0, "the node runs"
        os.killpg(pid, number)

    async def __aenter__(self) -> Self:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self.directory)


class Processes(Cluster):
    """Nodes that are programs of others."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts one; what it says goes to a file."""
        path = self.directory / f"process-{len(self._processes)}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._processes.append(process)

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def listening(self, port: int) -> None:
        """Waits until somebody listens; raises if a node has ended meanwhile."""
        deadline_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline_s:
            for number, process in enumerate(self._processes):
                if process.poll() is not None:
                    log = (self.directory / f"process-{number}.log").read_text(errors="replace")
                    raise MeasurementError(f"process {number} ended at its start: {log[-500:]}")
            with suppress(OSError), socket.create_connection((HOST, port), 1):
                return
            await asyncio.sleep(LOOK_S)
        raise MeasurementError(f"nobody listened on {port} after {READY_S_MAX:.0f} s")

    async def stop(self) -> None:
        for process in self._processes:
            # A group outlives its first process for as long as that has not been waited for.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            await asyncio.to_thread(process.wait)


class Client(ABC):
    """A system as its best Python client has it, and one topic, queue or set of streams."""

    async def open(self) -> None:  # noqa: B027 - not every library connects
        """Connects."""

    async def close(self) -> None:  # noqa: B027 - nor disconnects
        """Disconnects."""

    @abstractmethod
    async def create(self, partitions: int) -> None:
        """Makes the topic; returns when every replica of every partition is there."""

    @abstractmethod
    async def pump(self, work: Work, tally: Tally) -> None:
        """Sends from several producers until the tally is over and all is acknowledged."""

    @abstractmethod
    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        """A producer of single records to the first partition; it may have to outlive a leader."""

    @abstractmethod
    async def stored(self) -> int | None:
        """Records in the log; None if nobody can tell."""

    async def read(self, count: int, interface: Interface) -> int:
        """Reads so many records of the first partition from the beginning; returns their bytes."""
        raise NotImplementedError

    def tail(self, got: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        """Calls back for every value that is appended to the first partition from now on."""
        raise NotImplementedError

    def calling(self, size_bytes: int) -> AbstractAsyncContextManager[Call]:
        """A function that has one record stored by a unary call, which anybody could make."""
        raise NotImplementedError

    async def leader(self) -> int:
        """The number of the node that leads the first partition."""
        raise NotImplementedError


class System(ABC):
    """Who is measured."""

    #: Whether it is what the machine allows, and so nobody to be ahead of.
    is_reference = False
    #: Whether it makes durable before it acknowledges.
    fsyncs = False
    kinds: frozenset[Kind] = frozenset(Kind)
    interfaces: Mapping[Kind, Sequence[Interface]] = {}

    def __init__(self, name: str) -> None:
        self.name = name

    def can(self, work: Work) -> bool:
        """Whether it is measured with a work."""
        if work.kind not in self.kinds:
            return False
        return work.interface in self.interfaces.get(work.kind, tuple(Interface))

    def settings(self, work: Work) -> Sequence[str]:
        """Settings of the client that are all measured, because which is best depends."""
        del work
        return ("",)

    @abstractmethod
    def cluster(self, directory: Path) -> Cluster:
        """Nodes that are not started yet."""

    @abstractmethod
    def client(self, cluster: Cluster, setting: str) -> Client:
        """A client of nodes that run."""
