"""Bugs that are put back into the real code, to prove that the simulator sees them.

Each is a context manager that patches the code, and names the invariant that must be broken by it.
Where a bug shows in runs of one topic or with one hazard only, it says so, and only those are run.
Its docstring says what comes of it. One module for each part of the system that the bugs are in;
`tests.sim.planted` has them all, and writes the table of them in docs/RAFT.md.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.sim.hazards import Hazard
from tests.sim.plan import Topic
from tests.sim.violations import Invariant


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug, and what comes of it."""

    told: str
    plant: Callable[[], AbstractContextManager[None]]
    trips: Invariant
    #: The runs in which it shows; None: any.
    topic: Topic | None
    #: The kind of misfortune that it takes; None: none.
    hazard: Hazard | None = None


BUGS: dict[str, Planted] = {}

_Plant = Callable[[], Generator[None]]


def bug(
    trips: Invariant, topic: Topic | None = None, hazard: Hazard | None = None
) -> Callable[[_Plant], _Plant]:
    """Enters a bug under the name of its function."""

    def enter(plant: _Plant) -> _Plant:
        told = plant.__doc__
        assert told, "what comes of a planted bug is said in its docstring"
        BUGS[plant.__name__] = Planted(told, contextmanager(plant), trips, topic, hazard)
        return plant

    return enter
