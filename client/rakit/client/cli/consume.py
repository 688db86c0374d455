"""`rakit consume`: records to stdout, by default one value per line.

`--from` and `-f` are small languages with a pure parser each. The usual format, a value and a new
line, never makes a record out of the columns.

Records that should be there and do not come for `PATIENCE_MS` are a failure: without --follow it
ends the command, with it there is a line on stderr and the command goes on where it stood.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final, Literal

from rakit.client.cli.complaints import MisuseError, complain
from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, Tree, to_yaml
from rakit.client.cli.running import explain
from rakit.client.cli.streams import Output
from rakit.client.client import Client
from rakit.client.config import ReaderConfig
from rakit.client.errors import RakitError
from rakit.client.reading.progress import From
from rakit.client.records import Record, RecordBatch

VALUE_LINES: Final = "%v\\n"
#: No offset is ever higher.
OFFSET_MAX: Final = (1 << 53) - 1
#: How long nothing may come from a partition that should be there, before that is told.
PATIENCE_MS: Final = 10_000
_ESCAPES: Final = {"\\n": b"\n", "\\t": b"\t", "\\r": b"\r", "\\0": b"\0", "\\\\": b"\\"}
_PART: Final = re.compile(r"%.?|\\.?|[^%\\]+", re.DOTALL)

Piece = bytes | Callable[[Record], bytes]
Printer = Callable[[RecordBatch, int], bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for, as text."""

    start: str
    count: int | None
    follow: bool
    template: str
    output: Format
    # Empty: not as a member of a group.
    group: str = ""


def parse_start(text: str, flag: str = "--from") -> Literal["earliest", "latest"] | int | datetime:
    """Returns where to begin; raises MisuseError with the forms there are."""
    if text in {"earliest", "latest"}:
        return "earliest" if text == "earliest" else "latest"
    if text.isascii() and text.isdigit() and int(text) <= OFFSET_MAX:
        return int(text)
    try:
        if text.startswith("@"):
            return datetime.fromtimestamp(int(text[1:]) / 1000, UTC)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise MisuseError(
            f"{flag} {text!r} is none of earliest, latest, an offset, a time such as"
            " 2026-01-31T12:00:00Z, or @milliseconds"
        ) from error
    return time if time.tzinfo is not None else time.astimezone()


def _headers(record: Record) -> bytes:
    return b",".join(name.encode() + b"=" + value for name, value in record.headers)


_FIELDS: Final[Mapping[str, Callable[[Record], bytes]]] = {
    "%k": lambda record: record.key or b"",
    "%v": lambda record: record.value or b"",
    "%o": lambda record: b"%d" % record.offset,
    "%p": lambda record: b"%d" % record.partition,
    "%t": lambda record: b"%d" % record.timestamp_ms,
    "%h": _headers,
}


def parse_template(text: str) -> list[Piece]:
    """Returns a format as fixed and variable pieces; raises MisuseError for unknown ones."""
    pieces: list[Piece] = []
    for part in _PART.findall(text):
        if part == "%%":
            pieces.append(b"%")
        elif part in _FIELDS:
            pieces.append(_FIELDS[part])
        elif part in _ESCAPES:
            pieces.append(_ESCAPES[part])
        elif part[0] in "%\\":
            raise MisuseError(
                f"-f: {part!r} means nothing; there are %k %v %o %p %t %h %% \\n \\t \\r \\0 \\\\"
            )
        else:
            # An argument may hold any bytes.
            pieces.append(part.encode(errors="surrogateescape"))
    return pieces


def render(pieces: list[Piece], record: Record) -> bytes:
    """Returns a record in a format."""
    return b"".join(piece if isinstance(piece, bytes) else piece(record) for piece in pieces)


def tree_of_record(record: Record) -> Tree:
    """Returns a record as plain data; bytes that are no UTF-8 text stand in base64."""
    return {
        **record._asdict(),
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": [{"name": name, "value": _text(value)} for name, value in record.headers],
    }


def _text(data: bytes | None) -> Tree:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def printer(wanted: Wanted) -> Printer:
    """Returns what turns the first records of a batch into output."""
    match wanted.output:
        case Format.JSON:
            return lambda batch, count: _each(_json_line, batch, count)
        case Format.YAML:
            return lambda batch, count: _each(_yaml_item, batch, count)
        case Format.TABLE if wanted.template == VALUE_LINES:
            return _values
        case Format.TABLE:
            pieces = parse_template(wanted.template)
            return lambda batch, count: _each(partial(render, pieces), batch, count)


def _json_line(record: Record) -> bytes:
    return json.dumps(tree_of_record(record)).encode() + b"\n"


def _yaml_item(record: Record) -> bytes:
    return "".join(line + "\n" for line in to_yaml([tree_of_record(record)])).encode()


async def run(bootstrap: str | None, topic: str, wanted: Wanted) -> int:
    """Prints records until there are enough, the end is reached, or somebody stops it."""
    start, printed = parse_start(wanted.start), printer(wanted)
    try:
        async with connect(bootstrap) as client, Output() as output:
            await _Printing(client, topic, wanted, printed, output).run(start)
    except asyncio.CancelledError:
        if not wanted.follow:
            raise
    return 0


class _Printing:
    """Prints records, and goes on after a failure where that makes sense."""

    def __init__(
        self, client: Client, topic: str, wanted: Wanted, printed: Printer, output: Output
    ) -> None:
        self._client = client
        self._topic = topic
        self._follow = wanted.follow
        self._left = wanted.count
        self._printed = printed
        self._output = output
        self._positions: dict[int, int] | None = None
        # The failure that lasts was told.
        self._is_told = False

    async def run(self, start: From) -> None:
        """Prints to the end."""
        while True:
            begin: From = start if self._positions is None else self._positions
            try:
                await self._print(begin)
            except RakitError as error:
                # A follower that has begun waits for the cluster to come back, however long.
                if not self._follow or not error.retriable or self._positions is None:
                    raise
                self._tell(error)
            else:
                return

    async def _print(self, begin: From) -> None:
        config = ReaderConfig(retry_timeout_ms=PATIENCE_MS)
        async with self._client.reader(
            self._topic, from_=begin, follow=self._follow, config=config
        ) as reader:
            try:
                async with aclosing(reader.batches()) as batches:
                    async for batch in batches:
                        self._is_told = False
                        if await self._print_batch(batch):
                            return
            finally:
                self._positions = reader.positions()

    async def _print_batch(self, batch: RecordBatch) -> bool:
        """Returns whether there are enough now."""
        shown = len(batch) if self._left is None else min(self._left, len(batch))
        await self._output.write(self._printed(batch, shown))
        if self._left is None:
            return False
        self._left -= shown
        return not self._left

    def _tell(self, error: RakitError) -> None:
        if not self._is_told:
            complain(f"{explain(error, is_change=False)}; trying again until Ctrl-C")
            self._is_told = True


def _values(batch: RecordBatch, count: int) -> bytes:
    lines = [b"" if value is None else value for value in batch.values[:count]]
    return b"\n".join(lines) + b"\n"


def _each(shown: Callable[[Record], bytes], batch: RecordBatch, count: int) -> bytes:
    return b"".join(map(shown, islice(batch, count)))
