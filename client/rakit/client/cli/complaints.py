"""How the command line reports a failure: one line on stderr."""

from __future__ import annotations

import sys


class CommandError(Exception):
    """A command failed in a way that it explains itself, in one line."""


class MisuseError(CommandError):
    """The command was called in a way that makes no sense, whatever the cluster says to it."""


def complain(text: str) -> None:
    """Writes one line to stderr."""
    line = " ".join(text.split())
    sys.stderr.write(f"rakit: {line}\n")
