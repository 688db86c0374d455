"""The open loop: sends that are due at fixed times, whatever the system does meanwhile.

A closed loop waits for an answer before it sends again, so a system that stalls for a second is
asked nothing during it and the stall appears as one slow answer among thousands. Users do not wait
for each other. Here every send has a time at which it is due, and its latency counts from then:
when the system, or this process, holds sends up, each of them is late and each of them shows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Time and waiting; tests have their own."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


class RealClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        return time.perf_counter()

    async def sleep(self, seconds: float) -> None:
        """Waits; the event loop rounds to about a millisecond."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Pace:
    """How many sends are due in each second, and for how long."""

    rate_per_s: float
    seconds: float

    def __post_init__(self) -> None:
        if self.rate_per_s <= 0 or self.seconds <= 0:
            raise ValueError("a rate and a duration must be above 0")

    @property
    def count(self) -> int:
        """Sends in the whole run, at least one."""
        return max(1, round(self.rate_per_s * self.seconds))

    def due_s(self, number: int) -> float:
        """When a send is due, counted from the beginning; the first is number 0."""
        return number / self.rate_per_s


async def send_paced(
    pace: Pace, send: Callable[[Callable[[], None]], Awaitable[None]], clock: Clock
) -> list[float]:
    """Calls `send(ended)` when each send is due, or as soon as possible afterwards.

    `send` calls `ended` once the send is acknowledged, possibly much later. Returns the list to
    which every `ended` adds seconds from when that send was due; it is complete when the caller has
    seen everything acknowledged.
    """
    latencies: list[float] = []
    began_s = clock.now_s()

    def ended(due_s: float) -> None:
        latencies.append(clock.now_s() - due_s)

    now_s = began_s
    for number in range(pace.count):
        due_s = began_s + pace.due_s(number)
        # What is due by the last look at the clock needs no other one.
        if due_s > now_s and due_s > (now_s := clock.now_s()):
            await clock.sleep(due_s - now_s)
        await send(partial(ended, due_s))
    return latencies
