"""Long work in steps, so that the node serves others between two of them.

A request may hold so many rows that turning them around takes longer than followers wait for their
leader. Such work is a generator that yields after each `STEP_ROWS`: whoever has time runs it to its
end (`at_once`), a request lets everybody else have a turn after each step (`in_turns`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar, cast

ResultT = TypeVar("ResultT")
#: Yields between two steps and returns what came of them.
Steps: TypeAlias = Generator[None, None, ResultT]

#: A few milliseconds each.
STEP_ROWS: Final = 1024


def at_once(work: Steps[ResultT]) -> ResultT:
    """Does it all."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("ResultT", end.value)


async def in_turns(work: Steps[ResultT]) -> ResultT:
    """Does it all, and lets others run between the steps."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("ResultT", end.value)
        await asyncio.sleep(0)
