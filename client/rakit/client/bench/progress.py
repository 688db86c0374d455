"""What a person sees while a bench runs: one line on stderr that says what is being done.

Nothing is shown where stderr is no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

#: Says what begins now.
Say = Callable[[str], None]


@contextmanager
def shown_progress() -> Generator[Say]:
    """Shows the line until the block ends; the given function changes it."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Drawn seldom: it shares the machine with what is measured.
    with Progress(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=4,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("starting", total=None)

        def say(what: str) -> None:
            progress.reset(task, description=what, total=None)

        yield say
