"""Misuse exits with 2 before anything is asked; nothing that a shell can do makes a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rakit.client.cli import main

from .command import NOBODY, Rakit

NO_TEXT = b"\xff\xfe"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["topic", "create"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["--what"], "No such option"),
        (["consume", "t", "-n", "0"], "Input should be"),
        (["dev", "--port", "70000"], "Input should be"),
        (["consume", "t", "--from", "nonsense"], "none of earliest, latest, an offset, a time"),
        (["consume", "t", "--from", "9" * 20], "none of earliest, latest, an offset, a time"),
        (["consume", "t", "-f", "%z"], "'%z' means nothing"),
        (["topic", "list", "--bootstrap", "nonsense"], "'nonsense' is not host:port"),
        (["topic", "list", "--bootstrap", "host:70000"], "'host:70000' is not host:port"),
        (["topic", "update", "t"], "nothing to change"),
        (["topic", "update", "t", "--reset", "color"], "no setting 'color'; there are batch_bytes"),
        (["produce", "t", "-K", ""], "--key-separator is empty"),
        (["bench", "groups", "--counts", "10,many"], "'10,many' is no list of numbers"),
        (["bench", "groups", "--counts", "0"], "'0' is no list of numbers"),
        (["bench", "growth", "--axes", "nodes,size"], "'nodes,size' is no list of record-bytes,"),
    ],
    ids=" ".join,
)
def test_misuse_exits_with_2(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main.app, arguments, env={"RAKIT_BOOTSTRAP": NOBODY})
    assert result.exit_code == 2
    assert told in result.stderr


def run(arguments: list[bytes], rakit: Rakit, shell: str = "") -> tuple[int, bytes, bytes]:
    """Runs a command with raw arguments, if need be below a shell that changes its streams."""
    command = [os.fsencode(sys.executable), b"-m", b"rakit.client.cli", *arguments]
    if shell:
        command = [b"sh", b"-c", b'exec "$@" ' + shell.encode(), b"sh", *command]
    done = subprocess.run(
        command,
        env={**os.environ, "RAKIT_BOOTSTRAP": rakit.bootstrap},
        input=None if "<" in shell else b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [b"topic", b"get", NO_TEXT],
        [b"topic", b"create", NO_TEXT],
        [b"consume", NO_TEXT],
        [b"produce", NO_TEXT],
        [b"topic", b"list", b"--bootstrap", NO_TEXT + b":7070"],
        [b"topic", b"update", b"t", b"--reset", NO_TEXT],
        [b"consume", b"t", b"--from", NO_TEXT],
    ],
    ids=repr,
)
def test_a_name_that_is_no_text_is_misuse(arguments: list[bytes]) -> None:
    code, out, err = run(arguments, Rakit(NOBODY))
    assert (code, out) == (2, b"")
    assert b"Traceback" not in err
    assert err


def test_separators_and_formats_may_be_any_bytes(rakit: Rakit, tmp_path: Path) -> None:
    rakit.ask("topic", "create", "bytes")
    file = tmp_path / "lines"
    file.write_bytes(b"key\xffvalue\n")
    code, _, err = run([b"produce", b"bytes", b"--file", os.fsencode(file), b"-K", b"\xff"], rakit)
    assert (code, err) == (0, b"")
    assert run([b"consume", b"bytes", b"-f", b"%v\xfe%k"], rakit) == (0, b"value\xfekey", b"")


@pytest.mark.parametrize(
    ("arguments", "shell", "code", "told"),
    [
        ([b"produce", b"closed"], "<&-", 1, b"rakit: there is no stdin to read lines from;"),
        ([b"topic", b"list"], "<&-", 0, b""),
        ([b"topic", b"list"], ">&-", 1, b"rakit: stdin or stdout is closed\n"),
        ([b"consume", b"closed"], ">&-", 1, b"rakit: stdin or stdout is closed\n"),
        ([b"consume", b"closed"], "<&- 2>&-", 0, b""),
        ([b"produce", b"closed"], "<&- >&- 2>&-", 1, b""),
        ([b"topic", b"list"], ">/dev/full", 1, b"No space left on device\n"),
        ([b"consume", b"closed"], ">/dev/full", 1, b"No space left on device\n"),
    ],
)
def test_streams_that_cannot_be_used_are_an_error_and_no_crash(
    rakit: Rakit, arguments: list[bytes], shell: str, code: int, told: bytes
) -> None:
    if "closed" not in rakit.ask("topic", "list")[0]:
        rakit.ask("topic", "create", "closed")
        rakit.run("produce", "closed", feed=b"line\n")
    found, _, err = run(arguments, rakit, shell)
    assert found == code, err
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err
    assert told in err
    assert err.count(b"\n") == (1 if told else 0)


def test_what_stands_for_a_closed_stream_is_there_for_nodes_too() -> None:
    code = (
        "import os; from rakit.client.cli.descriptors import open_closed_streams as work; work();"
        "os.execvp('sh', ['sh', '-c', 'test -c /proc/self/fd/0 -a -c /proc/self/fd/1'])"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_reader_that_goes_away_is_a_quiet_end(rakit: Rakit) -> None:
    with rakit.start("topic", "list") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
