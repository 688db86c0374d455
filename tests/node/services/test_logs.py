"""Log lines: one JSON object each, or text for people; values that were passed along stay apart."""

from __future__ import annotations

import json
import logging
import sys

import grpc.aio
import pytest

from rakit.node.logs import GRPC_SERVER, ConsoleFormatter, JsonFormatter, configure


def record(message: str, *, failed: bool = False, **extra: object) -> logging.LogRecord:
    info = None
    if failed:
        try:
            int("the cause")
        except ValueError:
            info = sys.exc_info()
    logger = logging.getLogger("rakit.test")
    return logger.makeRecord(
        "rakit.test", logging.WARNING, "file", 1, message, (), info, extra=extra
    )


def test_a_json_line_holds_everything_in_one_line() -> None:
    line = JsonFormatter().format(record("two\nlines", failed=True, node_id=3, name_of="x"))
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["logger"], parsed["message"]) == (
        "warning",
        "rakit.test",
        "two\nlines",
    )
    assert (parsed["node_id"], parsed["name_of"]) == (3, "x")
    assert "ValueError" in parsed["exception"]
    assert "the cause" in parsed["exception"]
    assert parsed["time"].endswith("Z")


def test_a_value_that_json_does_not_know_becomes_text() -> None:
    assert json.loads(JsonFormatter().format(record("m", what={1, 2})))["what"] == "{1, 2}"


def test_a_console_line_ends_with_the_values() -> None:
    line = ConsoleFormatter().format(record("it happened", node_id=3))
    assert line.endswith("WARNING rakit.test: it happened node_id=3")


def test_one_handler_writes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure("auto", "info")
        configure("json", "warning")
        logging.getLogger("rakit.test").info("not this")
        logging.getLogger("rakit.test").warning("this")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert [json.loads(line)["message"] for line in captured.err.splitlines()] == ["this"]
    finally:
        root.handlers[:], root.level = before, level


def test_a_client_that_went_away_is_no_error_of_this_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, of_grpc = logging.getLogger(), logging.getLogger(GRPC_SERVER)
    before, level, filters = root.handlers[:], root.level, of_grpc.filters[:]
    try:
        configure("json", "info")
        configure("json", "info")
        for error in (grpc.aio.InternalError("its client has gone"), ValueError("a bug")):
            try:
                raise error
            except (grpc.aio.InternalError, ValueError):
                of_grpc.exception("raised by servicer method")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert ["a bug" in line["exception"] for line in lines] == [True]
    finally:
        root.handlers[:], root.level, of_grpc.filters[:] = before, level, filters
