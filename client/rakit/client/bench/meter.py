"""Counts what a producer gets acknowledged, and how long each acknowledgement took.

A delivery that fails would make every figure worthless, and so would one that was acknowledged
without fsync; so the first error is kept, and raised when the run looks at it. Callbacks of
deliveries run one turn of the loop after `flush()` may have returned, so a run that needs all of
them waits for their number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from rakit.client.cli.complaints import CommandError
from rakit.client.demo.verify import durable
from rakit.client.errors import RakitError
from rakit.client.producing.batch import Delivery


class Meter:
    """Acknowledgements so far."""

    def __init__(self) -> None:
        self.records = 0
        # Seconds from the call to the acknowledgement, while `is_recording`.
        self.latencies_s: list[float] = []
        self.is_recording = False
        self._ended_count = 0
        self._error: RakitError | CommandError | None = None
        self._ended_one = asyncio.Event()

    def watch(self, delivery: Delivery, records: int, since_s: float) -> None:
        """Counts a delivery once it is acknowledged; it stands for so many records."""
        self.then(delivery, partial(self._count, records, since_s))

    def then(self, delivery: Delivery, acknowledged: Callable[[], None]) -> None:
        """Calls `acknowledged` once a delivery is."""
        delivery.add_done_callback(partial(self._ended, acknowledged))

    def check(self) -> None:
        """Raises the first error of a delivery."""
        if self._error is not None:
            raise self._error.again() if isinstance(self._error, RakitError) else self._error

    async def until(self, count: int) -> None:
        """Waits until so many deliveries have ended, and checks them."""
        while self._ended_count < count:
            await self._next()
        self.check()

    async def reach(self, records: int) -> None:
        """Waits until so many records are acknowledged; raises the first error instead."""
        while self.records < records and self._error is None:
            await self._next()
        self.check()

    async def _next(self) -> None:
        self._ended_one.clear()
        await self._ended_one.wait()

    def _count(self, records: int, since_s: float) -> None:
        self.records += records
        if self.is_recording:
            self.latencies_s.append(time.perf_counter() - since_s)

    def _ended(self, acknowledged: Callable[[], None], delivery: Delivery) -> None:
        self._ended_count += 1
        try:
            durable(delivery.result())
        except (RakitError, CommandError) as error:
            self._error = self._error or error
        else:
            acknowledged()
        self._ended_one.set()
