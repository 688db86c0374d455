"""Running one program of one language: its orders in, its progress and its answers out.

Rules:

- Orders are one JSON object on stdin; the answer is one JSON line on stdout, written at the end.
- A line `progress VALUE` on stderr says that a record was acknowledged, or read, or what a watch
  told. What the runner does in the meantime hangs on it, so no run depends on time.
- Whatever happens, the process is gone afterwards. Other lines on stderr are shown on failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRESS = "progress "
LINE_BYTES_MAX = 1 << 20
LINES_SHOWN = 12


@dataclass(frozen=True)
class Command:
    """How a program is started."""

    argv: Sequence[str]
    directory: Path
    environment: Mapping[str, str]


@dataclass
class Run:
    """A program at work, and afterwards what came of it."""

    progress: list[str] = field(default_factory=list[str])
    results: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    complaints: list[str] = field(default_factory=list[str])
    # The runner ended it, as the scenario says.
    killed: bool = False
    process: asyncio.subprocess.Process | None = None

    def kill(self) -> None:
        """SIGKILL, on the scenario's behalf."""
        assert self.process is not None, "it was started"
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)


async def run(
    command: Command,
    orders: Mapping[str, Any],
    limit_s: float,
    on_progress: Callable[[Run], Awaitable[None]],
) -> Run:
    """Runs a program to its end, or to its limit; says what is wrong rather than raising."""
    this = Run()
    this.process = process = await asyncio.create_subprocess_exec(
        *command.argv,
        cwd=command.directory,
        env=dict(command.environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    assert process.stdin, "a pipe"
    assert process.stdout, "a pipe"
    assert process.stderr, "a pipe"
    said: list[str] = []
    try:
        async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
            group.create_task(_feed(process.stdin, json.dumps(orders)))
            group.create_task(_listen(process.stderr, this, said, on_progress))
            output = group.create_task(process.stdout.read())
            group.create_task(process.wait())
    except TimeoutError:
        this.complaints.append(f"not done within {limit_s} s")
    else:
        _take(this, output.result().decode(errors="replace"), process.returncode)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if this.complaints:
        this.complaints += said[-LINES_SHOWN:]
    return this


async def _feed(stdin: asyncio.StreamWriter, text: str) -> None:
    # A program that dies at once is judged by its exit code.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(text.encode() + b"\n")
        await stdin.drain()
    stdin.close()


async def _listen(
    stderr: asyncio.StreamReader,
    this: Run,
    said: list[str],
    on_progress: Callable[[Run], Awaitable[None]],
) -> None:
    async for raw in stderr:
        line = raw.decode(errors="replace").rstrip("\n")
        if line.startswith(PROGRESS):
            this.progress.append(line.removeprefix(PROGRESS))
            await on_progress(this)
        elif line:
            said.append(line)


def _take(this: Run, output: str, code: int | None) -> None:
    if this.killed:
        return
    if code != 0:
        this.complaints.append(f"exit code {code}")
    lines = output.splitlines()
    try:
        (line,) = lines
        this.results = json.loads(line)["results"]
    except (ValueError, KeyError, TypeError):
        this.complaints.append(f"one JSON line with `results` was due, not {output[:300]!r}")
