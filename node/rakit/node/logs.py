"""Logging: standard library loggers everywhere, one handler, JSON lines or text for people.

Every module logs through `logging.getLogger(__name__)` and passes values that a machine may want as
`extra={...}`; they become keys of the JSON line and `key=value` at the end of a console line.

Rules: one record is one line on stderr, tracebacks included (as a field in JSON); stdout belongs
to the line that says that the node is ready; no payload of a record and no secret is ever logged.
An error is for whoever runs the node: that a client went away before its answer is none.

The formatters stand here, because importing structlog costs a fifth of a second of a start that
may take two (it loads a terminal library), and these two functions are all that a node uses.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

import grpc.aio

#: Attributes that every record has; what else it has came in as `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: What grpc says of the calls that it serves.
GRPC_SERVER: Final = "grpc._cython.cygrpc"


def configure(log_format: str, level: str) -> None:
    """Installs the one handler of the process. "auto" is text on a terminal, JSON elsewhere."""
    as_text = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What these say below a warning concerns nobody who runs a node.
    for name in ("asyncio", "grpc"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger(GRPC_SERVER).addFilter(_concerns_this_node)


def _concerns_this_node(record: logging.LogRecord) -> bool:
    """False where grpc could not answer a call because its client had gone.

    It logs that as an error, with a traceback, when it learns of the end only by its failed answer.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, grpc.aio.InternalError)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders the record; values that JSON does not know become text."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """A line for people; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders time, level, logger, text and the extra values."""
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        text = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{extras}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
