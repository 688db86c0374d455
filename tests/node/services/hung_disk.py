"""A node on a disk that can be made to hang, or to be full: `python -m` this, with two paths first.

From the moment the first path exists no flush comes back; from when the second one does, writes
fail. Only the end of a process shows that nothing waits for such a disk.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from rakit.multiraft.store.engine import NO_SEGMENTS, EngineError, Operation, RocksEngine
from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.witness import Witness
from rakit.node import app
from rakit.node.command import main

hangs, full = Path(sys.argv[1]), Path(sys.argv[2])
flush_wal, write, close = RocksEngine.flush_wal, RocksEngine.write, RocksEngine.close


def wait_if_it_hangs() -> None:
    if hangs.exists():
        threading.Event().wait()


def hanging_flush(self: RocksEngine, *, durably: bool = True) -> Witness:
    wait_if_it_hangs()
    return flush_wal(self, durably=durably)


def failing_write(
    self: RocksEngine,
    number: int,
    operations: Sequence[Operation],
    segments: Mapping[int, Sequence[Operation]] = NO_SEGMENTS,
) -> None:
    if full.exists():
        raise EngineError(Fault.DISK_FULL, "IO error: No space left on device")
    write(self, number, operations, segments)


def hanging_close(self: RocksEngine) -> None:
    wait_if_it_hangs()
    close(self)


if __name__ == "__main__":
    RocksEngine.flush_wal = hanging_flush  # type: ignore[method-assign]
    RocksEngine.write = failing_write  # type: ignore[method-assign]
    RocksEngine.close = hanging_close  # type: ignore[method-assign]
    app.CLOSE_S_MAX = 1.0  # type: ignore[misc]
    # An exit of the interpreter's own closes the database once more, when its object goes.
    atexit.register(wait_if_it_hangs)
    sys.exit(main(sys.argv[3:]))
