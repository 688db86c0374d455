"""All planted bugs. A simulator that passes with one of them in force is broken.

They are told in docs/GUARANTEES.md, "Bugs that are planted".
"""

from __future__ import annotations

from tests.sim.plants import (
    BUGS,
    bases,
    clients,
    commits,
    doubts,
    elections,
    logs,
    members,
    reads,
)

__all__ = ["BUGS", "bases", "clients", "commits", "doubts", "elections", "logs", "members", "reads"]
