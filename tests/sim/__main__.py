"""`python -m tests.sim --seed 7` replays one run with its trace; `--seeds 500` runs many.

A failing seed is printed with the last events before the failure. Runs are spread over processes,
one per core; some of them are judged by the specification of Raft as well (`tracing`).

`--seed 7 --trace FILE` writes what the Raft core of each group did, for `tests.sim.trace_check`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

from tests.sim.runner import Outcome, run_one_of_many
from tests.sim.tracing import Tracing
from tests.sim.world import World

TRACE_LINES = 400


def replay(seed: int) -> int:
    """Runs one seed and prints its last events and its end."""
    world = World(seed, TRACE_LINES)
    try:
        world.run()
    except Exception:
        print(*(world.trace or ()), sep="\n")
        raise
    print(
        f"seed {seed}: {world.plan}, {world.steps} steps,"
        f" {world.traffic.oracle.acknowledged} batches acknowledged, kept"
    )
    return 0


def write_trace(seed: int, file: Path) -> int:
    """Runs one seed and writes its trace, up to where it failed if it did."""
    with file.open("w", encoding="utf-8") as out:
        tracing = Tracing(out)
        try:
            World(seed, tracing=tracing).run()
        finally:
            tracing.judge()
    return 0


def run_many(first: int, count: int) -> int:
    """Runs many seeds and prints a summary; 1 if any failed."""
    began = time.monotonic()
    failed: list[Outcome] = []
    cpu_s = acknowledged = steps = 0.0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for outcome in pool.imap_unordered(
            run_one_of_many, range(first, first + count), chunksize=4
        ):
            cpu_s += outcome.cpu_s
            steps += outcome.steps
            acknowledged += outcome.acknowledged
            if outcome.error:
                failed.append(outcome)
                print(f"seed {outcome.seed} FAILED: {outcome.error}", flush=True)
    print(
        f"{count} seeds, {len(failed)} failed, {steps:.0f} steps,"
        f" {acknowledged:.0f} batches acknowledged, {cpu_s / count:.3f} CPU s a seed,"
        f" {time.monotonic() - began:.0f} s"
    )
    if failed:
        print(f"replay one with: make sim SEED={min(outcome.seed for outcome in failed)}")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one, with its trace")
    parser.add_argument("--seeds", type=int, default=500, help="how many to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--trace", type=Path, help="with --seed: where to write its trace")
    options = parser.parse_args()
    if options.trace is not None:
        if options.seed is None:
            parser.error("--trace needs --seed")
        return write_trace(options.seed, options.trace)
    if options.seed is not None:
        return replay(options.seed)
    return run_many(options.first, options.seeds)


if __name__ == "__main__":
    sys.exit(main())
