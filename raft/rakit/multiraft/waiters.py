"""Who waits for what in one group, so that every request is answered exactly once.

A proposal is answered when the entry at its index is applied: with the result if that entry has
its term, as lost if another one took the place. When leadership ends the core names the entries
whose fate is open, and their proposers are told that it is unknown, at once rather than at a
time-out (row 22 of the feature list); should such an entry commit after all, its proposer has been
answered already.

A read waits twice: for the leader's confirmation, under a context that is never used again (not
even after a restart, hence the nonce: an answer to an earlier life must not confirm a new read),
and then until the confirmed index is applied here.

Invariant: a token leaves these lists in the same step in which its answer goes into the effects.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rakit.raft import Entry, EntryID

_CONTEXT: Final = struct.Struct(">QQ")


class ReadContexts:
    """Contexts for reads: a nonce of this life of the node, and a counter."""

    __slots__ = ("_counter", "_nonce")

    def __init__(self, nonce: int) -> None:
        self._nonce = nonce
        self._counter = 0

    def next(self) -> bytes:
        """Returns a context that was never returned before."""
        self._counter += 1
        return _CONTEXT.pack(self._nonce, self._counter)


@dataclass(frozen=True, slots=True)
class Settled:
    """A proposal whose fate is known, or known to be unknown."""

    token: object
    entry: EntryID
    lost: bool


class Proposals:
    """The proposals of a group that wait to be applied, by index.

    There may be thousands, so they stand in a deque; but one that is empty keeps 600 bytes, and
    most groups of a node are quiet. So there is one only while somebody waits.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[EntryID, object]] | None = None

    def __len__(self) -> int:
        return len(self._waiting) if self._waiting is not None else 0

    def add(self, entry: EntryID, token: object) -> None:
        """Notes who proposed the entry."""
        if self._waiting is None:
            self._waiting = deque()
        assert not self._waiting or self._waiting[-1][0][1] < entry[1], (
            "proposals of one leader ascend"
        )
        self._waiting.append((entry, token))

    def applied(self, entry: Entry) -> Iterator[Settled]:
        """Yields the proposals that the application of `entry` settles."""
        waiting = self._waiting
        while waiting and waiting[0][0][1] <= entry.index:
            (term, index), token = waiting.popleft()
            lost = (term, index) != (entry.term, entry.index)
            yield Settled(token, (term, index), lost)
        self._keep(waiting)

    def covered(self, index: int) -> Iterator[Settled]:
        """Yields, as lost, what a base up to `index` jumped over without applying it here."""
        waiting = self._waiting
        while waiting and waiting[0][0][1] <= index:
            yield _lost(waiting.popleft())
        self._keep(waiting)

    def dropped(self, term: int, above: int) -> Iterator[Settled]:
        """Yields, as lost, the proposals of `term` above the index `above`."""
        kept: deque[tuple[EntryID, object]] = deque()
        for waiting in self._waiting or ():
            (of_term, index), _token = waiting
            if of_term <= term and index > above:
                yield _lost(waiting)
            else:
                kept.append(waiting)
        self._keep(kept)

    def abandoned(self) -> Iterator[Settled]:
        """Yields everything as lost: the replica is gone."""
        waiting = self._waiting
        while waiting:
            yield _lost(waiting.popleft())
        self._waiting = None

    def _keep(self, waiting: deque[tuple[EntryID, object]] | None) -> None:
        self._waiting = waiting or None


def _lost(waiting: tuple[EntryID, object]) -> Settled:
    entry, token = waiting
    return Settled(token, entry, lost=True)


@dataclass(frozen=True, slots=True)
class WaitingRead:
    """A read request and the tick at which it is given up."""

    token: object
    deadline_tick: int


@dataclass(frozen=True, slots=True)
class _Asked:
    reads: list[WaitingRead]
    #: Whether this replica led when it asked: then a drop means that leadership was lost.
    leading: bool
    retry_tick: int


class Reads:
    """The reads of a group: queued, asked, and confirmed but not applied that far."""

    __slots__ = ("_asked", "_confirmed", "_count", "_queued")

    def __init__(self) -> None:
        self._queued: list[WaitingRead] = []
        self._asked: dict[bytes, _Asked] = {}
        #: (index to be applied, reads).
        self._confirmed: list[tuple[int, list[WaitingRead]]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def queued(self) -> bool:
        """Whether reads wait to be asked for."""
        return bool(self._queued)

    def add(self, token: object, deadline_tick: int) -> None:
        """Queues a read."""
        self._queued.append(WaitingRead(token, deadline_tick))
        self._count += 1

    def asked(self, context: bytes, retry_tick: int, *, leading: bool) -> None:
        """Notes that everything queued was asked for under `context`: one question for all."""
        self._asked[context] = _Asked(self._queued, leading, retry_tick)
        self._queued = []

    def confirmed(self, context: bytes, index: int) -> None:
        """Notes the leader's answer; unknown contexts were given up before."""
        asked = self._asked.pop(context, None)
        if asked is not None:
            self._confirmed.append((index, asked.reads))

    def take_applied(self, applied: int) -> Iterator[tuple[object, int]]:
        """Yields (token, index) of the confirmed reads that the applied index has reached."""
        if not self._confirmed:
            return
        waiting = self._confirmed
        self._confirmed = [one for one in waiting if one[0] > applied]
        for index, reads in waiting:
            if index <= applied:
                self._count -= len(reads)
                for read in reads:
                    yield read.token, index

    def dropped(self, context: bytes) -> list[object]:
        """Takes the core's word that nobody will answer; returns the tokens that are lost.

        A follower's question is asked again, of the next leader, until its reads' deadlines.
        """
        asked = self._asked.pop(context, None)
        if asked is None:
            return []
        if not asked.leading:
            self._queued = asked.reads + self._queued
            return []
        self._count -= len(asked.reads)
        return [read.token for read in asked.reads]

    def expire(self, tick: int) -> list[object]:
        """Returns the tokens that are past their deadline; queues unanswered questions again."""
        for context in [key for key, one in self._asked.items() if tick >= one.retry_tick]:
            if not self._asked[context].leading:
                self._queued = self._asked.pop(context).reads + self._queued
        late: list[object] = []
        self._queued = _split(self._queued, tick, late)
        for asked in self._asked.values():
            asked.reads[:] = _split(asked.reads, tick, late)
        for _, reads in self._confirmed:
            reads[:] = _split(reads, tick, late)
        self._count -= len(late)
        return late

    def abandoned(self) -> list[object]:
        """Returns every token: the replica is gone."""
        lost = [read.token for read in self._queued]
        for asked in self._asked.values():
            lost += [read.token for read in asked.reads]
        for _, reads in self._confirmed:
            lost += [read.token for read in reads]
        self._queued = []
        self._asked.clear()
        self._confirmed.clear()
        self._count = 0
        return lost


def _split(reads: list[WaitingRead], tick: int, late: list[object]) -> list[WaitingRead]:
    """Returns the reads that may still wait; the tokens of the others go to `late`."""
    kept = [read for read in reads if tick < read.deadline_tick]
    if len(kept) != len(reads):
        late += [read.token for read in reads if tick >= read.deadline_tick]
    return kept
