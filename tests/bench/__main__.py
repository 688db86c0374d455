"""`python -m tests.bench`: measures, and shows what was measured. `make bench-peers` starts it.

Each result is kept when it is there. After Ctrl-C, or whatever else ended a run, `--resume` goes
on; `--show` prints what there is without measuring anything.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rakit.client.bench.machine import describe
from tests.bench import memory, plot, table
from tests.bench.results import Case, Result, append, load, missing
from tests.bench.schedule import cases
from tests.bench.systems import SYSTEMS
from tests.bench.versions import versions
from tests.bench.works import DEFAULT, WORKS, UnknownNameError, chosen

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("build/bench/peers.jsonl")
DATA = Path("build/bench/data")
#: Beside warm-up and measurement: start, creation, filling, reading back, end.
WORKER_S_MAX = 600.0
#: For a worker to end its nodes.
END_S_MAX = 60.0


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    names = [each.name for each in WORKS]
    parser.add_argument("--rounds", type=int, default=5, help="of every measurement (5)")
    parser.add_argument("--seconds", type=float, default=30, help="measured each time (30)")
    parser.add_argument("--warm", type=float, default=10, help="seconds before that (10)")
    parser.add_argument("--systems", nargs="+", default=["*"], help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--works", nargs="+", default=list(DEFAULT), help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=OUT, help=f"JSON lines ({OUT})")
    parser.add_argument("--data", type=Path, default=DATA, help=f"of the nodes ({DATA})")
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw SVG files there")
    wanted = parser.parse_args(given)
    try:
        wanted.systems = chosen(wanted.systems, list(SYSTEMS))
        wanted.works = chosen(wanted.works, names)
    except UnknownNameError as error:
        parser.error(str(error))
    if wanted.out.exists() and not (wanted.resume or wanted.show):
        parser.error(f"{wanted.out} has results: --resume goes on, --show shows them")
    return wanted


def measured(case: Case, data: Path) -> Result:
    """Has a worker measure one case. Whatever happens, it is gone afterwards."""
    order = {
        "system": case.system,
        "work": case.work,
        "setting": case.setting,
        "seconds": case.seconds,
        "warm_s": case.warm_s,
        "directory": str((data / case.system).resolve()),
    }
    # Clients of others say much about nodes that are gone; it is for whoever looks for a reason.
    log = data / f"{case.system}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.worker", json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=said,
            # Ctrl-C is for us.
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        )
    try:
        out, _ = process.communicate(timeout=WORKER_S_MAX + 10 * (case.seconds + case.warm_s))
    except subprocess.TimeoutExpired:
        out = b""
    finally:
        _end(process)
    if not out:
        why = log.read_text(errors="replace").strip().splitlines()[-1:]
        return Result(case, error=" ".join([f"no answer ({process.returncode}):", *why]))
    answer = json.loads(out.splitlines()[-1])
    return Result(case, answer.get("figures", {}), answer.get("error", ""))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a worker that still runs; it ends its nodes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(wanted: argparse.Namespace) -> None:
    """Measures what is missing, and tells how far it is."""
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    every = cases(wanted.works, wanted.systems, wanted.rounds, wanted.seconds, wanted.warm)
    todo = missing(every, load(wanted.out))
    wanted.data.mkdir(parents=True, exist_ok=True)
    filler = wanted.data / "filler"
    try:
        _measure(todo, wanted, filler)
    finally:
        filler.unlink(missing_ok=True)


def _measure(todo: Sequence[Case], wanted: argparse.Namespace, filler: Path) -> None:
    began_s = time.monotonic()
    for number, case in enumerate(todo):
        passed_s = time.monotonic() - began_s
        left = f", {passed_s / number * (len(todo) - number) / 60:.0f} min left" if number else ""
        what = f"{case.work} {case.system} {case.setting}".rstrip()
        print(f"{number + 1} of {len(todo)}{left}: {what}", file=sys.stderr, flush=True)
        memory.fill(filler, memory.to_fill_bytes(memory.MEMORY.read_text()))
        result = measured(case, wanted.data)
        append(wanted.out, result)
        if result.error:
            print(f"  failed: {result.error}", file=sys.stderr, flush=True)
        # What a system left to be written is not written while the next one is measured.
        os.sync()


def main(given: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    wanted = arguments(given)
    interrupted = False
    # A shell's background job is born deaf to SIGINT, and would leave its nodes behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if not wanted.show:
        try:
            run(wanted)
        except KeyboardInterrupt:
            interrupted = True
            print("stopped; --resume goes on", file=sys.stderr)
    found = load(wanted.out)
    machine = {**describe(), "peers": versions()}
    if wanted.output == "json":
        print(json.dumps(table.tree(machine, found), indent=2))
    else:
        table.show(machine, found)
    if wanted.plots is not None:
        plot.plot(found, wanted.plots)
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
