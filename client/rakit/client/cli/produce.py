"""`rakit produce`: each line is a record.

Lines are read by a thread, because a terminal or a pipe may be silent for long and a file read
blocks; the thread hands over whatever is there, so a line that somebody types goes out at once and
a large file goes through in big pieces. The command ends well only when everything is acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rakit.client.cli.complaints import CommandError
from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, print_table, print_tree
from rakit.client.producing.intake import ENCODED_BYTES_MAX
from rakit.client.producing.producer import Producer

CHUNK_BYTES: Final = 256 << 10
#: Pieces that were read and not yet sent.
CHUNKS_COUNT_MAX: Final = 4
PROGRESS_S: Final = 0.2


class Lines:
    """Cuts bytes into lines. The last line may lack its end."""

    def __init__(self) -> None:
        # The beginning of a line, in the pieces in which it came.
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Returns the lines that are complete; raises CommandError for one that has no end."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces, self._held_bytes = [], 0
        self._pieces.append(rest)
        self._held_bytes += len(rest)
        if self._held_bytes > ENCODED_BYTES_MAX:
            raise CommandError(
                f"a line is longer than {ENCODED_BYTES_MAX >> 20} MiB, which is more than a record"
                " can hold: records are separated by new lines"
            )
        return lines

    def end(self) -> list[bytes]:
        """Returns what is left."""
        return [b"".join(self._pieces)] if self._held_bytes else []


def split_key(line: bytes, separator: bytes | None) -> tuple[bytes | None, bytes]:
    """Returns key and value; a line without the separator has no key."""
    if separator is None:
        return None, line
    key, found, value = line.partition(separator)
    return (key, value) if found else (None, line)


@dataclass(frozen=True, slots=True)
class Source:
    """Where lines come from, and how they are cut into key and value."""

    file: Path | None
    key_separator: str | None


async def run(bootstrap: str | None, topic: str, source: Source, output: Format | None) -> int:
    """Sends every line and waits for all acknowledgements."""
    separator = source.key_separator.encode() if source.key_separator else None
    with _opened(source.file) as descriptor:
        async with connect(bootstrap) as client, client.producer() as producer:
            await client.admin.get_topic(topic)
            progress = Progress()
            showing = asyncio.create_task(progress.show()) if sys.stderr.isatty() else None
            try:
                await _send_all(producer, topic, descriptor, separator, progress)
                await producer.flush()
            finally:
                if showing is not None:
                    showing.cancel()
                    progress.print("\n")
    if output is Format.TABLE:
        print_table(("TOPIC", "ACKNOWLEDGED"), [(topic, progress.count)])
    elif output is not None:
        print_tree({"topic": topic, "acknowledged": progress.count}, output)
    return 0


async def _send_all(
    producer: Producer,
    topic: str,
    descriptor: int,
    separator: bytes | None,
    progress: Progress,
) -> None:
    lines = Lines()
    async with aclosing(chunks(descriptor)) as pieces:
        async for piece in pieces:
            complete = lines.feed(piece) if piece else lines.end()
            for line in complete:
                key, value = split_key(line, separator)
                await producer.send(topic, value, key)
            progress.sent(len(complete))


class Progress:
    """Counts for a person who watches."""

    def __init__(self) -> None:
        self.count = 0

    def sent(self, count: int) -> None:
        """Notes that records were handed over."""
        self.count += count

    async def show(self) -> None:
        """Keeps one line up to date."""
        while True:
            self.print()
            await asyncio.sleep(PROGRESS_S)

    def print(self, end: str = "") -> None:
        """Writes the line."""
        sys.stderr.write(f"\r{self.count:,} records sent{end}")
        sys.stderr.flush()


@contextmanager
def _opened(file: Path | None) -> Generator[int]:
    if file is None:
        yield sys.stdin.fileno()
        return
    with file.open("rb") as stream:
        yield stream.fileno()


async def chunks(descriptor: int) -> AsyncGenerator[bytes]:
    """Yields what a file descriptor gives, as it comes; b"" is the end."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue(CHUNKS_COUNT_MAX)
    stopped = threading.Event()

    def read() -> None:
        chunk = b"?"
        while chunk and not stopped.is_set():
            try:
                chunk = os.read(descriptor, CHUNK_BYTES)
            except OSError as error:
                asyncio.run_coroutine_threadsafe(queue.put(error), loop)
                return
            room = asyncio.run_coroutine_threadsafe(queue.put(chunk), loop)
            room.result()

    # A daemon: it may be stuck in a read of a terminal when the command is interrupted.
    thread = threading.Thread(target=read, name="rakit-lines", daemon=True)
    thread.start()
    try:
        while True:
            chunk = await queue.get()
            if isinstance(chunk, OSError):
                raise chunk
            yield chunk
            if not chunk:
                return
    finally:
        stopped.set()
