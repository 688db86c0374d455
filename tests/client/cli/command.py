"""Runs the `rakit` command as a script would."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from typer.testing import CliRunner

from rakit.client.cli import main

NOBODY = "127.0.0.1:1"


@dataclass(frozen=True)
class Rakit:
    """The command, pointed at one cluster."""

    bootstrap: str

    def start(self, *arguments: str, **options: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "rakit.client.cli", *arguments],
            env={**os.environ, "RAKIT_BOOTSTRAP": self.bootstrap, "COLUMNS": "100"},
            stdin=options.get("stdin", subprocess.PIPE),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ask(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Runs a command that reads no input, in this process, which is quicker."""
        env = {"RAKIT_BOOTSTRAP": self.bootstrap, "COLUMNS": "100"}
        result = CliRunner().invoke(main.app, arguments, env=env)
        assert result.exit_code == code, (arguments, result.output, result.exception)
        return result.stdout, result.stderr

    def run(self, *arguments: str, feed: bytes = b"", code: int = 0) -> tuple[str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(feed, timeout=60)
        assert process.returncode == code, err.decode()
        return out.decode(), err.decode()
