"""The figures as pictures for the docs: one SVG for each work that was measured.

Each system is a bar at the median of its rounds, at its best setting, with a point for every round.
What a reader can do with a picture is see how far apart systems are and how much rounds differ; for
everything else there is the table.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.results import Result, latest
from tests.bench.systems import SYSTEMS, stand_in
from tests.bench.table import SHOWN, works_of
from tests.bench.verdicts import OURS, Rounds, best, rounds_of
from tests.bench.works import work

OUR_COLOUR, PEER_COLOUR, REFERENCE_COLOUR = "#b5532a", "#8a97a6", "#d5d9de"


def series(found: Sequence[Result], name: str) -> list[tuple[str, Rounds]]:
    """Each system's rounds of the deciding figure, in the order of the systems."""
    figure, _, more_is_better = SHOWN[work(name).kind][0]
    rows: list[tuple[str, Rounds]] = []
    for system in SYSTEMS:
        measured = stand_in(name, system)
        settings = rounds_of(found, measured, system, figure) if measured else {}
        if settings:
            setting, rounds = best(settings, more_is_better=more_is_better)
            rows.append((f"{system} {setting}".strip(), rounds))
    return rows


def plot(results: Sequence[Result], directory: Path) -> list[Path]:
    """Draws every work; returns the files."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    # The same picture from the same figures, byte for byte, and text that stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "rakit", "svg.fonttype": "none"})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    found = latest(results)
    directory.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name in works_of(found):
        rows = series(found, name)
        if not rows:
            continue
        figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.4 * len(rows)))
        for at, (label, rounds) in enumerate(reversed(rows)):
            values = list(rounds.values())
            axes.barh(at, median(values), color=_colour(label.split()[0]), height=0.7)
            axes.plot(values, [at] * len(values), ".", color="black", markersize=4)
        axes.set_yticks(range(len(rows)), [label for label, _ in reversed(rows)])
        axes.set_xlabel(f"{name}: {SHOWN[work(name).kind][0][1]}")
        axes.spines[["top", "right"]].set_visible(False)
        path = directory / f"{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
        paths.append(path)
    return paths


def _colour(system: str) -> str:
    if system == OURS:
        return OUR_COLOUR
    return REFERENCE_COLOUR if SYSTEMS[system].is_reference else PEER_COLOUR
