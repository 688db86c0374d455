"""All planted bugs. A simulator that passes with one of them in force is broken.

They are told in docs/GUARANTEES.md, "Bugs that are planted".
"""

from __future__ import annotations

from tests.sim.plants import (
    BUGS,
    clients,
    commits,
    doubts,
    edge,
    elections,
    hardware,
    logs,
    members,
    reads,
)

__all__ = [
    "BUGS",
    "clients",
    "commits",
    "doubts",
    "edge",
    "elections",
    "hardware",
    "logs",
    "members",
    "reads",
]
