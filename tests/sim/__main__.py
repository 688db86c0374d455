"""`python -m tests.sim --seed 7` replays one run; `--seeds 500` runs many, on every core.

A run that fails is told with what came before it, the replicas of the group concerned, and the
promise that was broken (`report`). Many runs tell how far they are, and each failure at once; they
end at Ctrl-C and say where to go on (`--from`). With `--plant` a known bug is in force, to see what
a failure looks like; its names are in `tests/sim/plants`.

Some of many runs are judged by the specification of Raft as well (`tracing`). What the Raft core of
each group did in one run is written by `--seed 7 --trace FILE`, for `tests.sim.trace_check`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from tests.sim.planted import BUGS
from tests.sim.report import EVENT_LINES, report
from tests.sim.runner import Outcome, begin_work, run_one_of_many
from tests.sim.tracing import Tracing
from tests.sim.violations import ViolationError
from tests.sim.world import World

TRACE_LINES = 20_000
PROGRESS_EVERY_S = 10.0


def replay(seed: int, lines: int, plant: str | None) -> int:
    """Runs one seed, and tells what broke; 1 if anything did."""
    with BUGS[plant].plant() if plant else nullcontext():
        world = World(seed, TRACE_LINES)
        try:
            world.run()
        except Exception as error:
            print(*report(world, error, lines), sep="\n")
            if not isinstance(error, ViolationError):
                raise  # no judgement of the simulator's: the place in the code says more
            return 1
    print(
        f"seed {seed}: {world.plan}, {world.steps} steps,"
        f" {world.traffic.oracle.acknowledged} batches acknowledged,"
        f" {world.traffic.reading.given} read, kept\n"
        f"met: {', '.join(sorted(world.faults))}"
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


class Progress:
    """How far many runs are."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count
        self.began = self.told = time.monotonic()
        self.failed: list[Outcome] = []
        self.cpu_s = 0.0
        self.steps = self.acknowledged = self.done = 0
        # Seeds are done in any order; all below `next` are.
        self.next = first
        self._beyond: set[int] = set()

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        self.cpu_s += outcome.cpu_s
        self.steps += outcome.steps
        self.acknowledged += outcome.acknowledged
        self._beyond.add(outcome.seed)
        while self.next in self._beyond:
            self._beyond.remove(self.next)
            self.next += 1
        if outcome.error:
            self.failed.append(outcome)
            print(f"seed {outcome.seed} FAILED: {outcome.error}", flush=True)
        if time.monotonic() - self.told >= PROGRESS_EVERY_S:
            self.told = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        spent_s = time.monotonic() - self.began
        left_s = spent_s / self.done * (self.count - self.done)
        return (
            f"{self.done} of {self.count} seeds, {len(self.failed)} failed,"
            f" {spent_s:.0f} s gone, about {left_s:.0f} s left"
        )

    def summary(self) -> Iterator[str]:
        yield (
            f"{self.done} seeds, {len(self.failed)} failed, {self.steps} steps,"
            f" {self.acknowledged} batches acknowledged,"
            f" {self.cpu_s / max(self.done, 1):.3f} CPU s a seed,"
            f" {time.monotonic() - self.began:.0f} s"
        )
        if self.failed:
            yield f"replay one with: make sim SEED={min(each.seed for each in self.failed)}"


def run_many(first: int, count: int, jobs: int) -> int:
    """Runs many seeds and prints a summary; 1 if any failed, 130 when it was stopped."""
    progress = Progress(first, count)
    seeds = range(first, first + count)
    # Workers ignore Ctrl-C from their first moment: it is for this process to stop them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("spawn").Pool(jobs, begin_work) as pool:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print(f"{count} seeds from {first} on; Ctrl-C stops", file=sys.stderr, flush=True)
            for outcome in pool.imap_unordered(run_one_of_many, seeds, chunksize=4):
                progress.add(outcome)
        except KeyboardInterrupt:
            pool.terminate()
            print("stopped;", *progress.summary(), sep="\n")
            left = first + count - progress.next
            print(f"go on with: --from {progress.next} --seeds {left}", flush=True)
            return 130
    print(*progress.summary(), sep="\n")
    return 1 if progress.failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--plant", choices=sorted(BUGS), help="with this bug in force")
    parser.add_argument("--lines", type=int, default=EVENT_LINES, help="of events before a failure")
    parser.add_argument("--seeds", type=int, default=500, help="how many to run")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--trace", type=Path, help="with --seed: where to write its trace")
    options = parser.parse_args()
    if options.trace is not None:
        if options.seed is None:
            parser.error("--trace needs --seed")
        return write_trace(options.seed, options.trace)
    if options.seed is not None:
        return replay(options.seed, options.lines, options.plant)
    if options.plant is not None:
        parser.error("--plant goes with --seed")
    return run_many(options.first, options.seeds, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
