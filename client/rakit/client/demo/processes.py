"""Node processes on loopback, each with its own directory, started and ended by their owner.

Rules:

- Ports are free ones of 127.0.0.1, looked for just before the first start, among those that the
  system does not give to whoever asks for any: it would give one to a connection while the node
  that is to have it is not up yet, or not at the moment. A node keeps its ports over restarts.
- A node counts as started when it has said that it is ready.
- A node is told everything by its flags. What `RAKIT_*` variables say is meant for a node of the
  user's, with seeds and a disk of its own: none of them reaches a node that is thrown away.
- No node is started by a process whose gRPC was loaded with support for forks. Its handlers start
  threads in the forked child, where uvloop forks; while calls were in flight, one child in ten was
  seen to die of a segmentation fault before it became a node, without a word.
- Whatever happens inside `async with`, every process is ended and waited for.
- What a node logs goes to a file beside its data; the last lines are part of an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rakit.client.cli.complaints import CommandError

READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
#: A laptop's disk may be nearly full, and what a few gigabytes would protect is thrown away here.
SMALL_RESERVE: Final = ("--disk-reserve-bytes", str(64 << 20))
#: Linux gives out those from 32,768 on.
_PORTS: Final = range(28_000, 32_768)
_LOG_LINES_SHOWN: Final = 5
_SETTINGS_PREFIX: Final = "RAKIT_"
_FORK_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"


class NodeProcessError(CommandError):
    """A node did not start or ended by itself. The message says what it said last."""


def require_node_package() -> None:
    """Raises `NodeProcessError` where only the client is installed."""
    if importlib.util.find_spec("rakit.node") is None or not importlib.util.find_spec("rocksdict"):
        raise NodeProcessError("this needs the server's packages: pip install 'rakit[node]'")


def free_ports(count: int) -> list[int]:
    """Returns ports of 127.0.0.1 that nobody listens on, all different."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise NodeProcessError(
        f"{count} ports are needed; from {_PORTS.start} to {_PORTS.stop - 1} {len(found)} are free"
    )


def node_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment of a node that obeys its flags alone."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_SETTINGS_PREFIX)}
    return {**kept, _FORK_SUPPORT: "0"}


class NodeProcess:
    """One node. Its addresses and its directory stay the same over restarts."""

    def __init__(self, name: str, directory: Path, address: str, arguments: Sequence[str]) -> None:
        self.name = name
        # Where clients reach it.
        self.address = address
        self._log_path = directory / f"{name}.log"
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The running process's id, 0 when there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    async def start(self, ready_s_max: float = READY_TIMEOUT_S) -> None:
        """Starts the process and waits until the node is ready; raises `NodeProcessError`."""
        assert not self.pid, f"{self.name} is running"
        assert os.environ.get(_FORK_SUPPORT) == "0", f"set {_FORK_SUPPORT}=0 before gRPC is loaded"
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rakit.node",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for us: we end the nodes in order.
                start_new_session=True,
                env=node_environment(),
            )
        assert self._process.stdout is not None, "stdout is a pipe"
        try:
            async with asyncio.timeout(ready_s_max):
                line = await self._process.stdout.readline()
        except TimeoutError:
            self.kill()
            raise NodeProcessError(self._complaint("was not ready in time")) from None
        if not line:
            await self._process.wait()
            raise NodeProcessError(self._complaint("ended before it was ready"))

    def kill(self) -> None:
        """Ends the process as a crash would: no word, no clean-up."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> None:
        """Waits until the process is gone."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Asks the node to stop, and kills it when it does not."""
        if not self.pid or self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _complaint(self, what: str) -> str:
        lines = self._log_path.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "\n  ".join([f"node {self.name} {what}; its log ends with:", *lines])


class LocalCluster:
    """Some nodes that found a cluster together. Use it as `async with`."""

    def __init__(self, directory: Path, count: int = 3, extra: Sequence[str] = ()) -> None:
        ports = free_ports(3 * count)
        clients, peers, lanes = ports[:count], ports[count : 2 * count], ports[2 * count :]
        seeds = ",".join(f"127.0.0.1:{port}" for port in peers)
        self.nodes: list[NodeProcess] = []
        each_ports = zip(clients, peers, lanes, strict=True)
        for number, (client, peer, lane) in enumerate(each_ports, 1):
            name, address = f"node-{number}", f"127.0.0.1:{client}"
            arguments = [
                *("--name", name),
                *("--data-dir", str(directory / name)),
                *("--listen", address),
                *("--peer-listen", f"127.0.0.1:{peer}"),
                # Any free one might be what a node that is down comes back to.
                *("--lane-listen", f"127.0.0.1:{lane}"),
                *("--seeds", seeds),
                *("--bootstrap-expect", str(count)),
                *extra,
            ]
            self.nodes.append(NodeProcess(name, directory, address, arguments))

    @property
    def bootstrap(self) -> str:
        """Every node's client address."""
        return ",".join(node.address for node in self.nodes)

    async def __aenter__(self) -> Self:
        require_node_package()
        starts = [asyncio.create_task(node.start()) for node in self.nodes]
        try:
            # All at once: each waits for the others before it is ready.
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        # Without ceremony: the data is thrown away with the directory.
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            await node.wait()
