"""One seed, one outcome. In a module of its own so that worker processes can import it."""

from __future__ import annotations

import gc
import signal
import time
from dataclasses import dataclass

from tests.sim.hazards import Hazard, hazards_of
from tests.sim.plan import topic_of
from tests.sim.tracing import Tracing
from tests.sim.violations import Invariant, ViolationError
from tests.sim.world import World

#: One seed of so many is traced where many are run: a run with its trace takes 1.74 times as long.
TRACED_EVERY = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    error: str
    #: What the error is about; None if it was no judgement of the simulator's.
    violated: Invariant | None
    steps: int
    acknowledged: int
    cpu_s: float


def begin_work() -> None:
    """What a worker does first: Ctrl-C is its parent's, and garbage is looked for rarely."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def run_seed(seed: int, *, traced: bool = False) -> Outcome:
    """Runs one seed; an error is reported, not raised, so that the others go on.

    `traced`: the specification of Raft judges it too (`tracing`).
    """
    began = time.process_time()
    world = World(seed, tracing=Tracing() if traced else None)
    error, violated = "", None
    try:
        world.run()
    except ViolationError as violation:
        error, violated = str(violation), violation.invariant
    except Exception as failure:  # any exception fails the seed, and is printed with it
        error = f"{type(failure).__name__}: {failure}"
    acknowledged = world.traffic.oracle.acknowledged
    cpu_s = time.process_time() - began
    return Outcome(seed, error, violated, world.steps, acknowledged, cpu_s)


def is_judged_by_steps(seed: int) -> bool:
    """Whether the specification can judge the steps of a run.

    A store that goes back in time breaks what the specification demands of a disk: such runs are
    judged by what comes of it.
    """
    return Hazard.STORES not in hazards_of(seed, topic_of(seed))


def run_one_of_many(seed: int) -> Outcome:
    """Runs one seed of a series, some of which are traced."""
    return run_seed(seed, traced=seed % TRACED_EVERY == 0 and is_judged_by_steps(seed))
