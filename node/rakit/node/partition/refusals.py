"""Refusals that rest on what the log holds, and when they may be told.

A leader that was replaced and has not noticed judges by a log that has gone on without it. "Out of
order", or "the next offset is 5", would be a lie then, and no retry undoes it. So a refusal is told
when two things have happened since it was made:

1. The entries that were pending are applied. Had they been lost, it would speak of what never was.
2. A barrier that began afterwards has found this node leading, in the same term (S20).

Then nobody else can have appended before it was made, and it was true at one point of the log:
right behind those entries. So it is not judged again, whatever has come behind that point by now.
Else the answer is NO_LEADER, NOT_APPLIED, which sends the caller to look for the leader.

That the request fails is certain from the beginning, and a `DoomedAnswer` says so: whoever keeps an
order stops it at once, or the next request would pass a failure (contract 10).

Refusals gather: while one round is under way those that come share the next. Only failures pay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rakit.multiraft.effects import Completion
from rakit.node.errors import RakitError
from rakit.node.partition.answers import DoomedAnswer, completed, fetch_error, refusal_uncertain


@dataclass(frozen=True, slots=True)
class _Held:
    answer: DoomedAnswer
    error: RakitError
    # The newest entry that was pending when the refusal was made.
    behind: asyncio.Future[Completion] | None


class Refusals:
    """The refusals of one leadership that are not told yet."""

    def __init__(self, still_leads: Callable[[], Awaitable[bool]]) -> None:
        # Asks a majority whether the leadership that began with this object still holds.
        self._still_leads = still_leads
        # Bounded by what the node takes from clients (`InFlight`).
        self._held: list[_Held] = []
        self._telling: asyncio.Task[None] | None = None

    def hold(self, error: RakitError, behind: asyncio.Future[Completion] | None) -> DoomedAnswer:
        """Takes a refusal that was made just now; returns the answer that it becomes."""
        answer = DoomedAnswer(error)
        answer.add_done_callback(fetch_error)
        self._held.append(_Held(answer, error, behind))
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(), name="refusals of a partition")
        return answer

    async def _tell(self) -> None:
        """One round after the other, until nothing is held."""
        try:
            while self._held:
                held, self._held = self._held, []
                # Entries are applied in order, so the newest one speaks for all.
                certain = await _is_applied(held[-1].behind) and await self._still_leads()
                for each in held:
                    if not each.answer.done():
                        each.answer.set_exception(each.error if certain else refusal_uncertain())
        finally:
            self._telling = None


async def _is_applied(entry: asyncio.Future[Completion] | None) -> bool:
    if entry is None:
        return True
    await asyncio.wait([entry])
    return completed(entry) is not None
