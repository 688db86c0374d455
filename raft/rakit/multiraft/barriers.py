"""Linearizable reads of one node, gathered: many callers, one ReadIndex round for each group.

A round confirms that this replica's leader was the leader when the round began, and returns an
index that everything acknowledged before lies below. So a caller may join a round only while it has
not begun; one that comes later waits for the next, which begins when the running one has ended. A
busy group then pays for one round at a time, whatever the number of readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from rakit.multiraft.effects import ReadReady
from rakit.multiraft.errors import MultiraftError, OverloadedError, ProposalRefusedError


class BarrierLostError(MultiraftError):
    """No leader or no quorum confirmed the read in time: ask again, or elsewhere."""


class _Round:
    """Callers that get the same answer; its identity is the token given to the driver."""

    __slots__ = ("callers", "group_id")

    def __init__(self, group_id: int) -> None:
        self.group_id: Final = group_id
        self.callers: list[asyncio.Future[int]] = []


class Barriers:
    """The rounds of all groups; a group without readers has no state here."""

    def __init__(self, read_index: Callable[[int, object], None], count_max: int) -> None:
        self._read_index = read_index
        self._count_max = count_max
        self._count = 0
        #: Rounds that have not begun.
        self._gathering: dict[int, _Round] = {}
        #: Rounds that the driver works on.
        self._running: dict[int, _Round] = {}

    async def read(self, group_id: int) -> int:
        """Returns an index that the replica has applied and that no earlier ack lies above."""
        if self._count >= self._count_max:
            raise OverloadedError(f"{self._count} linearizable reads wait already")
        caller: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        joined = self._gathering.setdefault(group_id, _Round(group_id))
        joined.callers.append(caller)
        self._count += 1
        try:
            return await caller
        finally:
            self._count -= 1

    def begin(self) -> None:
        """Begins every round that no other round of its group stands before."""
        if not self._gathering:
            return
        for group_id in [each for each in self._gathering if each not in self._running]:
            starting = self._gathering.pop(group_id)
            try:
                self._read_index(group_id, starting)
            except ProposalRefusedError as error:
                _fail(starting, error)
            else:
                self._running[group_id] = starting

    def finish(self, ready: ReadReady) -> None:
        """Answers the callers of a round."""
        done = self._running.get(ready.group_id)
        if done is None or done is not ready.token:
            return  # of a round that was given up with its group
        del self._running[ready.group_id]
        if ready.lost:
            _fail(done, BarrierLostError(f"no leader confirmed a read of group {ready.group_id}"))
            return
        for caller in done.callers:
            if not caller.done():
                caller.set_result(ready.index)

    def give_up(self, error: MultiraftError, group_id: int | None = None) -> None:
        """Fails the readers of one group, or of all."""
        for rounds in (self._running, self._gathering):
            for each in [group_id] if group_id is not None else list(rounds):
                if (lost := rounds.pop(each, None)) is not None:
                    _fail(lost, error)


def _fail(lost: _Round, error: MultiraftError) -> None:
    for caller in lost.callers:
        if not caller.done():
            caller.set_exception(error)
