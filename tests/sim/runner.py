"""One seed, one outcome. In a module of its own so that worker processes can import it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    error: str
    steps: int
    acknowledged: int
    cpu_s: float


def run_seed(seed: int) -> Outcome:
    """Runs one seed; an error is reported, not raised, so that the others go on."""
    began = time.process_time()
    world = World(seed)
    error = ""
    try:
        world.run()
    except Exception as failure:  # any exception fails the seed, and is printed with it
        error = f"{type(failure).__name__}: {failure}"
    return Outcome(seed, error, world.steps, world.oracle.acknowledged, time.process_time() - began)
