"""All mutants, by family; `python -m tests.mutants` writes the table of them in docs/RAFT.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.mutants import (
    Mutant,
    ahead,
    apart,
    held,
    hosts,
    lanes,
    logs,
    members,
    places,
    segments,
    votes,
)

DOCUMENT: Final = Path(__file__).resolve().parent.parent.parent / "docs/RAFT.md"
MUTANTS: Final[dict[str, Mutant]] = {
    one.name: one
    for one in sorted(
        [
            *votes.MUTANTS,
            *logs.MUTANTS,
            *members.MUTANTS,
            *held.MUTANTS,
            *hosts.MUTANTS,
            *lanes.MUTANTS,
            *segments.MUTANTS,
            *apart.MUTANTS,
            *places.MUTANTS,
            *ahead.MUTANTS,
        ],
        key=lambda one: one.family,
    )
}
_HEAD: Final = "| family | mutant | seen | caught by |\n|---|---|---|---|\n"


def render() -> str:
    """The table, in the order of the families."""
    return _HEAD + "".join(map(_row, MUTANTS.values()))


def _row(one: Mutant) -> str:
    tests = " ".join(f"`{name}`" for name in one.tests)
    return f"| {one.family} | `{one.name}` | {one.seen} | {tests} |\n"


def write() -> None:
    """Replaces the table in the document."""
    text = DOCUMENT.read_text()
    start = text.index(_HEAD)
    end = text.find("\n\n", start)
    rest = "" if end < 0 else text[end + 1 :]
    DOCUMENT.write_text(text[:start] + render() + rest)
