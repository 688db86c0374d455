"""`rakit consume`: records to stdout, by default one value per line.

`--from` and `-f` are small languages with a pure parser each. The usual format, a value and a new
line, never makes a record out of the columns.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final, Literal

from rakit.client.cli.complaints import CommandError
from rakit.client.cli.connect import connect
from rakit.client.cli.output import Format, Tree, to_yaml
from rakit.client.records import Record, RecordBatch

VALUE_LINES: Final = "%v\\n"
_ESCAPES: Final = {"\\n": b"\n", "\\t": b"\t", "\\r": b"\r", "\\0": b"\0", "\\\\": b"\\"}
_PART: Final = re.compile(r"%.?|\\.?|[^%\\]+", re.DOTALL)

Piece = bytes | Callable[[Record], bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for, as text."""

    start: str
    count: int | None
    follow: bool
    template: str
    output: Format


def parse_start(text: str) -> Literal["earliest", "latest"] | int | datetime:
    """Returns where to begin; raises CommandError with the forms there are."""
    if text in {"earliest", "latest"}:
        return "earliest" if text == "earliest" else "latest"
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        if text.startswith("@"):
            return datetime.fromtimestamp(int(text[1:]) / 1000, UTC)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise CommandError(
            f"--from {text!r} is none of earliest, latest, an offset, a time such as"
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
    """Returns a format as fixed and variable pieces; raises CommandError for unknown ones."""
    pieces: list[Piece] = []
    for part in _PART.findall(text):
        if part == "%%":
            pieces.append(b"%")
        elif part in _FIELDS:
            pieces.append(_FIELDS[part])
        elif part in _ESCAPES:
            pieces.append(_ESCAPES[part])
        elif part[0] in "%\\":
            raise CommandError(
                f"-f: {part!r} means nothing; there are %k %v %o %p %t %h %% \\n \\t \\r \\0 \\\\"
            )
        else:
            pieces.append(part.encode())
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


def _printer(wanted: Wanted) -> Callable[[RecordBatch, int], bytes]:
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
    start, printed = parse_start(wanted.start), _printer(wanted)
    left = wanted.count
    try:
        async with (
            connect(bootstrap) as client,
            client.reader(topic, from_=start, follow=wanted.follow) as reader,
            aclosing(reader.batches()) as batches,
        ):
            async for batch in batches:
                shown = len(batch) if left is None else min(left, len(batch))
                _write(printed(batch, shown))
                if left is not None:
                    left -= shown
                    if not left:
                        break
    except BrokenPipeError:
        # Whoever read our output has seen enough. The interpreter would complain again at its end.
        sys.stdout = None  # pyright: ignore[reportAttributeAccessIssue] - as the standard library says
    except asyncio.CancelledError:
        if not wanted.follow:
            raise
    return 0


def _values(batch: RecordBatch, count: int) -> bytes:
    lines = [b"" if value is None else value for value in batch.values[:count]]
    return b"\n".join(lines) + b"\n"


def _each(shown: Callable[[Record], bytes], batch: RecordBatch, count: int) -> bytes:
    return b"".join(map(shown, islice(batch, count)))


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
