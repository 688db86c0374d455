"""`rakit demo`: the demonstration on a person's terminal, and its exit code."""

from __future__ import annotations

import sys

import uvloop
from rich.console import Console

from rakit.client.demo.flights import FlightsError
from rakit.client.demo.processes import NodeProcessError
from rakit.client.demo.run import run_demo
from rakit.client.errors import RakitError


def demo_command() -> int:
    """Runs the demonstration: 0 if every promise held, 1 if not or if it could not be run."""
    try:
        return uvloop.run(run_demo(Console()))
    except (FlightsError, NodeProcessError, RakitError) as error:
        sys.stderr.write(f"rakit: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("rakit: stopped; the nodes are ended and their data is gone\n")
        return 1
