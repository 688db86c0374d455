"""`rakit serve` and `rakit dev`: a node in the foreground.

The command line does not contain the server. `serve` becomes `python -m rakit.node`, so signals and
exit codes are the node's own; `dev` starts the same as a child and cleans up behind it. The child
hears nothing of `RAKIT_*` variables: they belong to `serve`, and a node that joined their cluster
would take its disk along at Ctrl-C.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from rakit.client.cli.complaints import CommandError, complain
from rakit.client.demo.processes import SMALL_RESERVE, free_ports, node_environment

#: Packages of the extra, by the names under which they are imported.
_NODE_PACKAGES: Final = ("rocksdict", "google_crc32c", "psutil", "grpc_health")
_DEFAULT_PORT: Final = 7070
_STOP_S: Final = 15


def require_node() -> None:
    """Exits with a hint where the server's dependencies are missing."""
    missing = [name for name in _NODE_PACKAGES if find_spec(name) is None]
    if missing:
        complain(
            f"running a node needs more packages ({missing[0]} is missing):"
            " pip install 'rakit[node]'"
        )
        sys.exit(1)


def become_node(arguments: Sequence[str]) -> None:
    """Turns this process into a node."""
    require_node()
    command = [sys.executable, "-m", "rakit.node", *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter; nothing for a shell


def free_port(preferred: int) -> int:
    """Returns a port of loopback that is free now: the preferred one, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_ports(1)[0]
    return preferred


async def run_dev(port: int | None) -> int:
    """Runs one node until it ends or somebody interrupts."""
    require_node()
    chosen = free_port(_DEFAULT_PORT) if port is None else port or free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="rakit-dev-") as directory:
        started = time.monotonic()
        node = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "rakit.node", "--name", "dev", "--data-dir", directory),
            *("--listen", f"127.0.0.1:{chosen}", "--peer-listen", "127.0.0.1:0"),
            *("--bootstrap-expect", "1", "--log-level", "warning"),
            *SMALL_RESERVE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C is ours; the node gets its order to stop from us.
            start_new_session=True,
            env=node_environment(),
        )
        try:
            assert node.stdout is not None, "stdout is a pipe"
            if not await node.stdout.readline():
                code = await node.wait()
                raise CommandError(f"the node did not start (exit code {code})")
            _greet(chosen, time.monotonic() - started)
            return 1 if await node.wait() else 0
        except asyncio.CancelledError:
            return 0
        finally:
            await _stop(node)


def _greet(port: int, seconds: float) -> None:
    sys.stdout.write(
        f"rakit dev: ready after {seconds:.1f} s, data in a temporary directory; Ctrl-C ends both\n"
        f"export RAKIT_BOOTSTRAP=127.0.0.1:{port}\n"
    )
    sys.stdout.flush()


async def _stop(node: asyncio.subprocess.Process) -> None:
    """Ends the node, in order if there is time for that: a second Ctrl-C says that there is not."""
    if node.returncode is not None:
        return
    try:
        node.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_S):
            await node.wait()
    except (TimeoutError, asyncio.CancelledError):
        node.kill()
        await node.wait()
