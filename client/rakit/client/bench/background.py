"""A load that runs while something is measured, and whose failure ends the measurement at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

_Result = TypeVar("_Result")


class Background:
    """Work that goes on until it is cancelled."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def during(self, work: Coroutine[None, None, _Result]) -> _Result:
        """Awaits other work; raises what ends the background meanwhile."""
        foreground = asyncio.ensure_future(work)
        try:
            await asyncio.wait({foreground, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
                raise AssertionError("a load never ends by itself")
            return foreground.result()
        finally:
            foreground.cancel()
            await asyncio.gather(foreground, return_exceptions=True)


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncGenerator[Background]:
    """Runs work beside the block, and cancels it at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield Background(task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def together(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Runs several works at once; the first that fails ends all, and is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
