"""What the commands of `rakit bench` have in common: their options, and how they end."""

# ruff: noqa: PLC0415 - a command loads the SDK and gRPC when it runs, so that help is quick

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
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

    async def one(say: Say) -> AsyncGenerator[Report]:
        yield await bench(say)

    finish_all(output, one, bootstrap)


def finish_all(
    output: Format,
    benches: Callable[[Say], AsyncGenerator[Report]],
    bootstrap: str | None = None,
) -> None:
    """Runs benches and exits."""
    from rakit.client.bench.collector import calm
    from rakit.client.cli import running
    from rakit.client.cli.serve import require_node

    if bootstrap is None:
        require_node()
    calm()
    running.finish(_run(output, benches))


async def _run(output: Format, benches: Callable[[Say], AsyncGenerator[Report]]) -> int:
    """Shows what was measured, also where an error or Ctrl-C ends it before its time."""
    from rakit.client.bench.machine import describe
    from rakit.client.bench.progress import shown_progress
    from rakit.client.bench.report import show

    reports: list[Report] = []
    try:
        with shown_progress() as say:
            async with aclosing(benches(say)) as found:
                async for report in found:
                    reports.append(report)  # noqa: PERF401 - an error leaves those before it
    finally:
        if reports:
            show(describe(), reports, output)
    return 0
