"""How the command line reports a failure: one line on stderr."""

from __future__ import annotations

import sys


class CommandError(Exception):
    """A command failed in a way that it explains itself, in one line."""


def complain(text: str) -> None:
    """Writes one line to stderr."""
    line = " ".join(text.split())
    sys.stderr.write(f"rakit: {line}\n")
