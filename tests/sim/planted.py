"""All planted bugs. A simulator that passes with one of them in force is broken.

`python -m tests.sim.planted --table` looks for the lowest seed at which each is caught and writes
the table of docs/RAFT.md anew, "Bugs that are planted". It has to be run after a change of what a
run does: of the simulator, or of the code that it runs. Names after `--table` do that for some.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
from pathlib import Path
from typing import Final

from tests.sim.hazards import Hazard, hazards_of
from tests.sim.plan import Topic, topic_of
from tests.sim.plants import (
    BUGS,
    bases,
    clients,
    commits,
    doubts,
    edge,
    elections,
    hardware,
    logs,
    members,
    quiet,
    reads,
)
from tests.sim.runner import run_seed

__all__ = [
    "BUGS",
    "bases",
    "clients",
    "commits",
    "doubts",
    "edge",
    "elections",
    "hardware",
    "logs",
    "members",
    "quiet",
    "reads",
]

SEEDS: Final = range(1, 1001)
DOCUMENT: Final = Path(__file__).resolve().parent.parent.parent / "docs/RAFT.md"
_HEAD: Final = "| plant | what comes of it | trips | seed |\n|---|---|---|---|\n"
_ROW: Final = re.compile(r"^\| `(\w+)` \| [^|]+ \| `\w+` \| (\d+|none) \|$", re.MULTILINE)


def is_caught(name: str, seed: int) -> bool:
    """Whether the run of a seed ends by the invariant that the bug breaks, and no other error."""
    bug = BUGS[name]
    with bug.plant():
        return run_seed(seed).violated is bug.trips


def seeds_about(topic: Topic | None, hazard: Hazard | None = None) -> list[int]:
    """The seeds whose runs are about a topic; what a bug does elsewhere is not waited for."""
    return [
        seed
        for seed in SEEDS
        if topic in {None, topic_of(seed)} and hazard in {None, *hazards_of(seed, topic_of(seed))}
    ]


def lowest_seed(name: str) -> int | None:
    """The first seed at which a bug is caught."""
    seeds = seeds_about(BUGS[name].topic, BUGS[name].hazard)
    return next((one for one in seeds if is_caught(name, one)), None)


def table() -> dict[str, int | None]:
    """The seed of each bug, as the document has it."""
    rows = _ROW.findall(DOCUMENT.read_text())
    return {name: None if seed == "none" else int(seed) for name, seed in rows}


def render(seeds: dict[str, int | None]) -> str:
    """The table, in the order of the modules."""
    rows = [
        f"| `{name}` | {bug.told.rstrip('.')} | `{bug.trips.name}` |"
        f" {seeds.get(name) or 'none'} |\n"
        for name, bug in BUGS.items()
    ]
    return _HEAD + "".join(rows)


def write(seeds: dict[str, int | None]) -> None:
    """Replaces the table in the document."""
    text = DOCUMENT.read_text()
    start = text.index(_HEAD)
    end = text.find("\n\n", start)
    rest = "" if end < 0 else text[end + 1 :]
    DOCUMENT.write_text(text[:start] + render(seeds) + rest)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.planted", description=__doc__)
    parser.add_argument("--table", nargs="*", metavar="NAME", required=True, help="which; else all")
    names = parser.parse_args().table or list(BUGS)
    seeds = table()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for name, seed in zip(names, pool.imap(lowest_seed, names), strict=True):
            seeds[name] = seed
            print(f"{name}: {seed or 'NOT CAUGHT'}", flush=True)
    write(seeds)
    return 0 if all(seeds.get(name) for name in BUGS) else 1


if __name__ == "__main__":
    sys.exit(main())
