"""`rakit produce`: each line is a record.

A line that somebody types goes out at once, and a large file goes through in big pieces. The
command ends well only when everything is acknowledged. The first failure is told when it happens,
and no line is taken after it: a pipe that goes on for days must not fail in silence until its end.
What was taken before is still delivered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rakit.client.cli.complaints import CommandError, MisuseError, complain
from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, print_table, print_tree
from rakit.client.cli.running import FAILED, explain
from rakit.client.cli.streams import chunks, stdin_descriptor
from rakit.client.config import BATCH_BYTES_LIMIT
from rakit.client.errors import RakitError
from rakit.client.producing.producer import Producer

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
        if self._held_bytes > BATCH_BYTES_LIMIT:
            raise CommandError(
                f"a line is longer than {BATCH_BYTES_LIMIT >> 20} MiB, which is more than a record"
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
    separator = parse_separator(source.key_separator)
    with _opened(source.file) as descriptor:
        async with connect(bootstrap) as client, client.producer() as producer:
            await client.admin.get_topic(topic)
            with _shown(Progress()) as progress:
                sending = _send_all(producer, topic, descriptor, separator, progress)
                failure = await _first_failure(producer, sending)
                if failure is not None:
                    complain(f"{failure}; no line is taken after this")
                    # The first one was told; how many more there are is no news.
                    with suppress(RakitError):
                        await producer.flush()
                    return FAILED
    if output is Format.TABLE:
        print_table(("TOPIC", "ACKNOWLEDGED"), [(topic, progress.count)])
    elif output is not None:
        print_tree({"topic": topic, "acknowledged": progress.count}, output)
    return 0


def parse_separator(text: str | None) -> bytes | None:
    """Returns what separates key and value; an argument may hold any bytes."""
    if text == "":
        raise MisuseError("--key-separator is empty: nothing separates a key from a value then")
    return None if text is None else text.encode(errors="surrogateescape")


async def _first_failure(producer: Producer, sending: Coroutine[None, None, None]) -> str | None:
    """Sends everything and waits for it, or until a record fails; returns what failed."""
    work = asyncio.ensure_future(sending)
    failing = asyncio.ensure_future(producer.failure())
    try:
        await asyncio.wait({work, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            raise failing.result()
        work.result()
        await producer.flush()
    except RakitError as error:
        return explain(error, is_change=True)
    except (CommandError, OSError) as error:
        return str(error)
    finally:
        for task in (work, failing):
            task.cancel()
        await asyncio.gather(work, failing, return_exceptions=True)
    return None


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
def _shown(progress: Progress) -> Generator[Progress]:
    """Shows the progress where somebody watches."""
    if not sys.stderr.isatty():
        yield progress
        return
    showing = asyncio.create_task(progress.show())
    try:
        yield progress
    finally:
        showing.cancel()
        progress.print("\n")


@contextmanager
def _opened(file: Path | None) -> Generator[int]:
    if file is None:
        yield stdin_descriptor()
        return
    with file.open("rb") as stream:
        yield stream.fileno()
