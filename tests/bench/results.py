"""Where figures are kept: a file of JSON lines, one for each measurement, written when it ends.

A run that is stopped goes on where it stopped: what has figures with the same duration is not
measured again. A measurement that failed is kept with its error, and is tried again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured once."""

    work: str
    system: str
    # Of the client, where several are measured.
    setting: str
    # How often it has been measured before.
    round: int
    seconds: float
    warm_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it: figures, or an error."""

    case: Case
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    error: str = ""


def append(path: Path, result: Result) -> None:
    """Adds a line, durably: what took minutes is not lost."""
    line = {**asdict(result.case), "figures": dict(result.figures), "error": result.error}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> list[Result]:
    """Everything in a file, in its order; nothing if there is none. The last line may be cut."""
    if not path.exists():
        return []
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        # A run that was killed while it wrote; what follows must not be glued to it.
        with path.open("r+", encoding="utf-8") as file:
            file.truncate(sum(len(line.encode()) + 1 for line in lines))
    return [_result(cast("dict[str, object]", json.loads(line))) for line in lines]


def _result(line: dict[str, object]) -> Result:
    figures = cast("dict[str, float]", line["figures"])
    case = Case(
        str(line["work"]),
        str(line["system"]),
        str(line["setting"]),
        cast("int", line["round"]),
        cast("float", line["seconds"]),
        cast("float", line["warm_s"]),
    )
    return Result(case, figures, str(line["error"]))


def missing(cases: Iterable[Case], found: Iterable[Result]) -> list[Case]:
    """The cases that have no figures yet, in their order."""
    done = {result.case for result in found if result.figures}
    return [case for case in cases if case not in done]


def latest(found: Iterable[Result]) -> list[Result]:
    """One result for each case: the last one."""
    return list({result.case: result for result in found}.values())
