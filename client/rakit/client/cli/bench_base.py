"""What the commands of `rakit bench` have in common: their options, and how they end."""

# ruff: noqa: PLC0415 - a command loads the SDK and gRPC when it runs, so that help is quick

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated

import typer

from rakit.client.cli.output import Format

if TYPE_CHECKING:
    from rakit.client.bench.progress import Say
    from rakit.client.bench.report import Report

Bootstrap = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT,...",
        help="Load this cluster, in a topic that is deleted again.",
        show_default="three nodes of its own",
    ),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="How the figures are printed.")]


def finish(
    output: Format,
    bench: Callable[[Say], Coroutine[None, None, Report]],
    bootstrap: str | None = None,
) -> None:
    """Runs one bench and exits."""

    async def one(say: Say) -> list[Report]:
        return [await bench(say)]

    finish_all(output, one, bootstrap)


def finish_all(
    output: Format,
    benches: Callable[[Say], Coroutine[None, None, list[Report]]],
    bootstrap: str | None = None,
) -> None:
    """Runs benches and exits."""
    from rakit.client.cli import running
    from rakit.client.cli.serve import require_node

    if bootstrap is None:
        require_node()
    running.finish(_run(output, benches))


async def _run(
    output: Format, benches: Callable[[Say], Coroutine[None, None, list[Report]]]
) -> int:
    from rakit.client.bench.machine import describe
    from rakit.client.bench.progress import shown_progress
    from rakit.client.bench.report import show

    with shown_progress() as say:
        reports = await benches(say)
    show(describe(), reports, output)
    return 0
