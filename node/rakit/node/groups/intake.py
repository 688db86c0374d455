"""What waits at a coordinator, and how it becomes entries. Pure but for the futures of who waits.

Everything that came while one entry was on its way goes into the next one: many commits, and the
next change of every group that something is asked of. One entry is in flight, so each change is
decided on the state that it is applied to. That of a large group is decided in a thread, on a copy
of that state: it may take longer than others can be left waiting.

Each caller is answered once: with what became of its part, or with an error that says whether it
may have been applied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.groups.limits import ENTRY_BYTES_MAX, WAITING_BYTES_MAX, WAITING_COUNT_MAX
from rakit.node.groups.reconcile import Wishes, next_change
from rakit.node.groups.state import Groups
from rakit.node.groups.subscriptions import View
from rakit.peer.v1.group_command_pb2 import (
    CommitGroupOffsets,
    CommitResult,
    GroupChange,
    GroupCommand,
    GroupResult,
)

#: Groups that are looked at for one entry: each may have to be assigned anew.
_GROUPS_AN_ENTRY_COUNT_MAX: Final = 32
#: Members and what they own, from which on a group's change is decided in a thread.
LARGE_COUNT: Final = 2_000

#: True: a change was applied. False: there was nothing to change, which nobody has confirmed.
Changed: TypeAlias = asyncio.Future[bool]


@dataclass(slots=True)
class Batch:
    """One entry, and who waits for which part of it."""

    command: GroupCommand = field(default_factory=GroupCommand)
    changes: list[list[Changed]] = field(default_factory=list[list[Changed]])
    commits: list[asyncio.Future[CommitResult]] = field(
        default_factory=list[asyncio.Future[CommitResult]]
    )
    drops: list[list[Changed]] = field(default_factory=list[list[Changed]])
    #: Groups whose next change turned out to be none.
    idle: list[Changed] = field(default_factory=list[Changed])

    def settle(self, result: GroupResult) -> None:
        """Tells everybody what became of the entry."""
        for changed, waiting in zip(result.changed, self.changes, strict=True):
            for each in waiting:
                if changed:
                    _answer(each, True)
                else:
                    # It was decided on this very state, so this is all that can be in the way.
                    _refuse(each, too_many_groups())
        for outcome, committed in zip(result.commits, self.commits, strict=True):
            if not committed.done():
                committed.set_result(outcome)
        for dropped, waiting in zip(result.dropped, self.drops, strict=True):
            for each in waiting:
                _answer(each, dropped)

    def fail(self, error: RakitError) -> None:
        """Tells everybody that the entry was lost or never proposed."""
        for waiting in (*self.changes, *self.drops):
            for each in waiting:
                _refuse(each, error)
        for committed in self.commits:
            if not committed.done():
                committed.set_exception(error)


class Intake:
    """See the module."""

    def __init__(self, state: Groups) -> None:
        self._state = state
        self._wishes: dict[str, Wishes] = {}
        self._waiting: dict[str, list[Changed]] = {}
        self._commits: deque[tuple[CommitGroupOffsets, asyncio.Future[CommitResult]]] = deque()
        self._drops: dict[str, list[Changed]] = {}
        self._forgotten: list[int] = []
        self._bytes = 0
        self._count = 0
        #: Set when there is something to take.
        self.some = asyncio.Event()

    def wishes(self, group: str) -> Wishes:
        """What is asked of the group's next change; whoever looks at it adds to it."""
        self.some.set()
        return self._wishes.setdefault(group, Wishes())

    def asked(self, group: str) -> Wishes:
        """The same, to look at only."""
        return self._wishes.get(group, Wishes())

    def changed(self, group: str) -> Changed:
        """The outcome of the group's next change."""
        return self._wait(self._waiting.setdefault(group, []))

    def commit(self, commit: CommitGroupOffsets) -> asyncio.Future[CommitResult]:
        """Has offsets committed. Raises THROTTLED."""
        self.check_room(commit.ByteSize())
        done: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()
        self._commits.append((commit, done))
        self._bytes += commit.ByteSize()
        self._count += 1
        self.some.set()
        return done

    def drop(self, group: str) -> Changed:
        """Has a group forgotten; False where it has members, or is not there."""
        return self._wait(self._drops.setdefault(group, []))

    def forget_topics(self, topic_ids: list[int]) -> None:
        """Has the offsets of deleted topics forgotten."""
        self._forgotten = topic_ids
        self.some.set()

    def check_room(self, size: int = 0) -> None:
        """Raises THROTTLED where too much waits already."""
        if self._count >= WAITING_COUNT_MAX or self._bytes + size > WAITING_BYTES_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_THROTTLED,
                "Too many changes and commits wait at this group's coordinator.",
                {"retry_delay_ms": "100"},
            )

    def _wait(self, waiting: list[Changed]) -> Changed:
        done: Changed = asyncio.get_running_loop().create_future()
        waiting.append(done)
        self._count += 1
        self.some.set()
        return done

    async def take(self, view: View) -> Batch | None:
        """The next entry; None where nothing is to be changed."""
        batch = Batch()
        try:
            room = ENTRY_BYTES_MAX - await self._take_changes(batch, view)
        except asyncio.CancelledError:
            # Nothing of it was proposed: `fail` tells them so with all others.
            self._waiting[""] = [each for some in (*batch.changes, batch.idle) for each in some]
            raise
        while self._commits and (room > 0 or not batch.commits):
            commit, done = self._commits.popleft()
            size = commit.ByteSize()
            self._bytes -= size
            self._count -= 1
            if done.cancelled():
                # Nobody waits for it, and nobody must be surprised by it later.
                continue
            batch.command.commits.append(commit)
            batch.commits.append(done)
            room -= size
        for name, waiting in self._drops.items():
            batch.command.dropped_groups.append(name)
            batch.drops.append(waiting)
            self._count -= len(waiting)
        self._drops.clear()
        batch.command.forgotten_topic_ids.extend(self._forgotten)
        self._forgotten = []
        for each in batch.idle:
            _answer(each, False)
        if not (self._wishes or self._waiting or self._commits):
            self.some.clear()
        return batch if batch.command.ByteSize() else None

    async def _take_changes(self, batch: Batch, view: View) -> int:
        """Adds changes of groups until there is enough; returns their size."""
        size = 0
        names = [*dict.fromkeys((*self._wishes, *self._waiting))]
        for name in names[:_GROUPS_AN_ENTRY_COUNT_MAX]:
            if size >= ENTRY_BYTES_MAX:
                break
            wishes = self._wishes.pop(name, Wishes())
            waiting = self._waiting.pop(name, [])
            self._count -= len(waiting)
            try:
                change = await self._decide(name, wishes, view)
            except asyncio.CancelledError:
                batch.idle += waiting
                raise
            if change is None:
                batch.idle += waiting
                continue
            batch.command.changes.append(change)
            batch.changes.append(waiting)
            size += change.ByteSize()
        return size

    async def _decide(self, name: str, wishes: Wishes, view: View) -> GroupChange | None:
        group = self._state.groups.get(name)
        if group is None or len(group.members) + len(group.owners) < LARGE_COUNT:
            return next_change(name, group, wishes, view)
        # Records are replaced and never changed, so this much is a copy that stays as it is.
        still = replace(group, members=dict(group.members), owners=dict(group.owners))
        seen = view.of([*still.members.values(), *wishes.joins.values()])
        return await asyncio.to_thread(next_change, name, still, wishes, seen)

    def fail(self, error: RakitError) -> None:
        """Nothing that waits is taken any more."""
        lost = Batch(
            changes=[*self._waiting.values()],
            commits=[done for _, done in self._commits],
            drops=[*self._drops.values()],
        )
        self._waiting.clear()
        self._commits.clear()
        self._drops.clear()
        lost.fail(error)


def too_many_groups() -> RakitError:
    """What a caller is told whose group would be one too many."""
    return RakitError(
        error_pb2.ERROR_REASON_GROUP_FULL,
        "The cluster has as many groups in this group's partition as it may have: delete some.",
    )


def _answer(done: Changed, outcome: bool) -> None:
    if not done.done():
        done.set_result(outcome)


def _refuse(done: Changed, error: RakitError) -> None:
    if not done.done():
        done.set_exception(error)
