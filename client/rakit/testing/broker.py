"""A whole node inside of this process: real store, real consensus with itself, real gRPC."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rakit.node.app import End, Node
from rakit.node.config import load
from rakit.testing.thread import LoopThread

READY_TIMEOUT_S: Final = 30.0


class BrokerError(Exception):
    """The node did not start, or did not end well. The message says what it said."""


class Broker:
    """One node, from `with` to its end. `bootstrap` is where clients find it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rakit-")
        self._thread: LoopThread | None = None
        self._node: Node
        self._running: asyncio.Task[End]
        self.bootstrap = ""

    def __enter__(self) -> Self:
        self._thread = LoopThread("rakit broker")
        try:
            self.bootstrap = self._thread.wait(self._start())
        except BaseException:
            self._close()
            raise
        return self

    async def _start(self) -> str:
        flags = [
            "--name=broker",
            f"--data-dir={Path(self._directory.name) / 'data'}",
            "--listen=127.0.0.1:0",
            "--peer-listen=127.0.0.1:0",
            "--bootstrap-expect=1",
            f"--disk-reserve-bytes={1 << 20}",
        ]
        # What RAKIT_* variables say is meant for another node.
        self._node = Node(load(flags, {}))
        self._running = asyncio.create_task(self._node.run())
        ready = asyncio.create_task(self._node.ready.wait())
        await asyncio.wait(
            {self._running, ready}, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if ready.done():
            return next(iter(self._node.listeners.advertised.values()))
        ready.cancel()
        self._node.stop()
        end = await self._running
        raise BrokerError(end.reason or f"the node was not ready within {READY_TIMEOUT_S:.0f} s")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None, "it was entered"
        try:
            end = self._thread.wait(self._stop())
        finally:
            self._close()
        if end.code:
            raise BrokerError(f"the node ended with {end.code}: {end.reason}")

    async def _stop(self) -> End:
        self._node.stop()
        return await self._running

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.close()
        self._directory.cleanup()
