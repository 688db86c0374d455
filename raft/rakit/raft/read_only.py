"""Reads that wait for proof that the leader still leads (dissertation 6.4, "ReadIndex").

A read is answered with the commit index at its arrival once a quorum has answered a heartbeat that
was sent after it arrived. Reads that arrive together share one round of heartbeats.

Rules:

- Rule R1: rounds have numbers of our own. Two callers may use the same context; a round confirms by
  its number, never by what the caller wrote (etcd-io/etcd#20418).
- Rule R2: an answer to round n confirms every round up to n, since its heartbeat left later.
- Rule R3: a quorum is counted under the configuration at the time of counting, in both halves, and
  of voters that count then: not of one in doubt, nor of one that lost its log (`doubt`).

Invariants: `_waiting` ascends by round, `_round` is the round of the newest read, and
`_round_sent <= _round`, equal once nobody waits for a round to be sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final

from rakit.raft.quorum import JointConfig

_ROUND: Final = Struct(">Q")


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read on its way: who asked, with which context, and what it may see."""

    requester: int
    context: bytes
    index: int
    round: int


class ReadOnly:
    """The leader's reads in waiting; one object for each time that it leads."""

    __slots__ = ("_acked", "_round", "_round_sent", "_waiting", "early")

    def __init__(self) -> None:
        #: Reads that arrived before the first commit of this term: (requester, context).
        self.early: list[tuple[int, bytes]] = []
        self._waiting: list[PendingRead] = []
        self._round = 0
        self._round_sent = 0
        self._acked: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self.early)

    @property
    def needs_heartbeat(self) -> bool:
        """Whether reads wait for a round that has not been sent."""
        return self._round > self._round_sent

    def add(self, requester: int, context: bytes, commit: int) -> None:
        """Adds a read; it joins the round that has not been sent yet, or opens one."""
        if self._round == self._round_sent:
            self._round += 1
        assert self._round == self._round_sent + 1, "one round at most is open"
        self._waiting.append(PendingRead(requester, context, commit, self._round))

    def send_round(self) -> bytes:
        """Returns the context of a heartbeat that leaves now; b"" if nobody waits."""
        self._round_sent = self._round
        return _ROUND.pack(self._round) if self._waiting else b""

    def acknowledge(self, replica_id: int, context: bytes) -> None:
        """Notes a peer's answer to the heartbeat with `context` (rule R2)."""
        if len(context) != _ROUND.size:
            return
        (round_,) = _ROUND.unpack(context)
        if round_ > self._round_sent:
            # An answer to a leader of an earlier time with the same term cannot exist; a damaged
            # or forged number must confirm nothing.
            return
        if round_ > self._acked.get(replica_id, 0):
            self._acked[replica_id] = round_

    def confirmed(
        self, own_id: int, voters: JointConfig, counts: Callable[[int], bool]
    ) -> list[PendingRead]:
        """Removes and returns the reads that a quorum of voters that count has confirmed (6.4)."""
        if not self._waiting:
            return []

        def acked(voter: int) -> int:
            if not counts(voter):
                return 0
            return self._round_sent if voter == own_id else self._acked.get(voter, 0)

        round_ = voters.committed_index(acked)
        count = bisect_right(self._waiting, round_, key=lambda read: read.round)
        done = self._waiting[:count]
        del self._waiting[:count]
        return done

    def abandon(self) -> list[tuple[int, bytes]]:
        """Removes and returns (requester, context) of every read: nobody will confirm them."""
        lost = [*self.early, *((read.requester, read.context) for read in self._waiting)]
        self.early.clear()
        self._waiting.clear()
        self._round_sent = self._round
        return lost
