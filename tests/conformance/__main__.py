"""`python -m tests.conformance`: builds the programs, runs every scenario, prints who passed what.

Exit code: 0 all passed, 1 something failed or could not be built, 2 misuse.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

# As the commands have it (see `rakit.client.demo.processes`); gRPC reads it when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from tests.conformance import building
from tests.conformance.programs import Command
from tests.conformance.runner import Verdict, verdicts
from tests.conformance.scenarios import Scenario, load

SIGNS = {"passed": "ok", "failed": "FAILED"}


def main() -> int:
    scenarios = {scenario.name: scenario for scenario in load()}
    parser = argparse.ArgumentParser(prog="tests.conformance", description=__doc__)
    languages = building.LANGUAGES
    parser.add_argument("--languages", nargs="*", choices=languages, default=[], metavar="LANGUAGE")
    parser.add_argument("--scenarios", nargs="*", choices=scenarios, default=[], metavar="SCENARIO")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    commands: dict[str, Command] = {}
    failed: list[str] = []
    for language in asked.languages or languages:
        try:
            commands[language] = building.build(language)
        except building.BuildError as error:
            failed.append(language)
            print(f"{language}: {error}", file=sys.stderr)
    # Once each: a scenario's topic bears its name.
    chosen = [scenarios[name] for name in dict.fromkeys(asked.scenarios or scenarios)]
    found = asyncio.run(play(chosen, commands))
    if asked.output == "json":
        print(json.dumps([asdict(verdict) for verdict in found]))
    else:
        print(table(found, list(commands)))
    return 1 if failed or any(verdict.status == "failed" for verdict in found) else 0


async def play(scenarios: Sequence[Scenario], commands: dict[str, Command]) -> list[Verdict]:
    """Runs everything; says on stderr how it goes."""
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        async for verdict in verdicts(Path(directory) / "cluster", scenarios, commands):
            found.append(verdict)
            sign, seconds = SIGNS[verdict.status], verdict.seconds
            print(f"{verdict.scenario} {verdict.language}: {sign} {seconds:.1f} s", file=sys.stderr)
            for complaint in verdict.complaints:
                print(f"  {complaint}", file=sys.stderr)
    return found


def table(found: Sequence[Verdict], languages: Sequence[str]) -> str:
    """Scenarios down, languages across."""
    names = list(dict.fromkeys(verdict.scenario for verdict in found))
    cells = {(each.scenario, each.language): SIGNS[each.status] for each in found}
    lines = [["", *languages]]
    lines += [[name, *(cells[name, language] for language in languages)] for name in names]
    width = max(len(line[0]) for line in lines) + 2
    return "\n".join(
        line[0].ljust(width) + "".join(cell.ljust(11) for cell in line[1:]).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
