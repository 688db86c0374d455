"""Some nodes as processes, which a test may kill, pause and start again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from rakit.client.demo.processes import SMALL_RESERVE, LocalCluster
from rakit.testing.thread import LoopThread


class Cluster:
    """A cluster of `count` nodes, from `with` to its end. `bootstrap` names them all."""

    def __init__(self, count: int = 3) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rakit-")
        self._inner = LocalCluster(Path(self._directory.name), count, SMALL_RESERVE)
        self._thread: LoopThread | None = None

    @property
    def bootstrap(self) -> str:
        """Every node's client address."""
        return self._inner.bootstrap

    @property
    def addresses(self) -> tuple[str, ...]:
        """The client addresses, by the number of the node."""
        return tuple(node.address for node in self._inner.nodes)

    def __enter__(self) -> Self:
        self._thread = LoopThread("rakit cluster")
        try:
            self._thread.wait(self._inner.__aenter__())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None, "it was entered"
        try:
            self._thread.wait(self._inner.__aexit__(kind, error, traceback))
        finally:
            self._close()

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.close()
        self._directory.cleanup()

    def pid(self, number: int) -> int:
        """The process id of a node; 0 while it is not running. Nodes are numbered from 0."""
        return self._inner.nodes[number].pid

    def kill(self, number: int) -> None:
        """Ends a node as a crash would, and waits until it is gone."""
        self._inner.nodes[number].kill()
        self._wait().wait(self._inner.nodes[number].wait())

    def stop(self, number: int) -> None:
        """Asks a node to stop, and waits until it has."""
        self._wait().wait(self._inner.nodes[number].stop())

    def start(self, number: int) -> None:
        """Starts a node again, on its data and its addresses; waits until it is ready."""
        self._wait().wait(self._inner.nodes[number].start())

    def _wait(self) -> LoopThread:
        assert self._thread is not None, "use it as `with Cluster() as cluster`"
        return self._thread
