"""Stdin and stdout without blocking the loop.

A terminal or a pipe may be silent for long, and whoever reads our output may stop reading; a thread
each waits for them, so that signals are heard meanwhile. The threads are daemons, because nothing
can free one from its system call, and they use descriptors and not Python's buffers, whose locks
the interpreter needs at its end.
"""

from __future__ import annotations

import asyncio
import io
import os
import queue
import select
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from functools import partial
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from rakit.client.cli.complaints import CommandError

CHUNK_BYTES: Final = 256 << 10
#: Pieces that were read and not yet taken.
CHUNKS_COUNT_MAX: Final = 4


def stdin_descriptor() -> int:
    """Returns the descriptor of stdin; raises CommandError when there is none."""
    # The stubs do not know that it is None when it was closed.
    stdin = cast("io.TextIOBase | None", sys.stdin)
    if stdin is None:
        raise CommandError("there is no stdin to read lines from; --file FILE reads a file")
    return stdin.fileno()


async def chunks(descriptor: int) -> AsyncGenerator[bytes]:
    """Yields what a file descriptor gives, as it comes; b"" is the end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(CHUNKS_COUNT_MAX)
    stopped = threading.Event()

    def read() -> bytes | OSError:
        try:
            return os.read(descriptor, CHUNK_BYTES)
        except OSError as error:
            return error

    def work() -> None:
        while room.acquire() and not stopped.is_set():
            chunk = read()
            is_heard = _tell(loop, partial(found.put_nowait, chunk))
            if not is_heard or not chunk or isinstance(chunk, OSError):
                return

    thread = threading.Thread(target=work, name="rakit-input", daemon=True)
    thread.start()
    try:
        while True:
            chunk = await found.get()
            room.release()
            if isinstance(chunk, OSError):
                raise chunk
            yield chunk
            if not chunk:
                return
    finally:
        stopped.set()
        room.release()


class Output:
    """Stdout. Use it as `async with`."""

    def __init__(self) -> None:
        buffer = sys.stdout.buffer
        self._stream = cast("BinaryIO", getattr(buffer, "raw", buffer))
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None]
        self._jobs = queue.SimpleQueue()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="rakit-output", daemon=True).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._jobs.put(None)

    async def write(self, data: bytes) -> None:
        """Returns when everything is written. Raises OSError, of which BrokenPipeError is one."""
        done = self._loop.create_future()
        self._jobs.put((data, done))
        await done

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            data, done = job
            failure: OSError | None = None
            try:
                self._write(memoryview(data))
            except OSError as error:
                failure = error
            if not _tell(self._loop, partial(_end, done, failure)):
                return

    def _write(self, data: memoryview) -> None:
        while data:
            # None: it is not blocking, by the will of somebody who shares it, and full.
            written = cast("int | None", self._stream.write(data))
            if written is None:
                select.select([], [self._stream], [])
            else:
                data = data[written:]
        self._stream.flush()


def _tell(loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> bool:
    """Calls in the loop; False when it is closed, because the command was interrupted."""
    try:
        loop.call_soon_threadsafe(heard)
    except RuntimeError:
        return False
    return True


def _end(done: asyncio.Future[None], failure: OSError | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)
