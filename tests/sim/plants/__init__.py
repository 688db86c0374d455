"""Bugs that are put back into the real code, to prove that the simulator sees them.

Each is a context manager that patches the code, and names the invariant that must be broken by it.
Where a bug shows in runs of one topic or with one hazard only, it says so, and only those are run.
One module for each part of the system that the bugs are in.
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
    """One bug."""

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
        BUGS[plant.__name__] = Planted(contextmanager(plant), trips, topic, hazard)
        return plant

    return enter
