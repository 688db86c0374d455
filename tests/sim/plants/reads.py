"""Linearizable reads."""

from __future__ import annotations

from collections.abc import Generator
from unittest.mock import patch

from rakit.raft import ReadState, messages, reads, replication
from rakit.raft.read_only import PendingRead, ReadOnly
from rakit.raft.state import Raft
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.READS)
def reads_need_no_round() -> Generator[None]:
    """A leader answers that was replaced long ago."""

    def add(self: ReadOnly, requester: int, context: bytes, commit: int) -> None:
        self._waiting.append(PendingRead(requester, context, commit, 0))

    with patch.object(ReadOnly, "add", add):
        yield


@bug(Invariant.REST)
def reads_put_off_the_clocks_heartbeats() -> Generator[None]:
    """What was lost is not sent again while somebody reads (rule T3)."""
    original = replication.broadcast_heartbeat

    def broadcast_heartbeat(raft: Raft) -> None:
        raft.heartbeat_elapsed = 0
        original(raft)

    with patch.object(replication, "broadcast_heartbeat", broadcast_heartbeat):
        yield


@bug(Invariant.READS)
def a_new_leader_reads_before_its_first_commit() -> Generator[None]:
    """Its end lies below what was acknowledged."""

    def accept(raft: Raft, requester: int, context: bytes) -> None:
        raft.reads.add(requester, context, raft.log.committed)

    def answer(raft: Raft, requester: int, context: bytes, index: int) -> None:
        if requester == raft.id:
            raft.read_states.append(ReadState(index, context))
        else:
            raft.post(messages.read_index_response(requester, raft.id, raft.term, index, context))

    with patch.object(reads, "_accept", accept), patch.object(reads, "_answer", answer):
        yield


@bug(Invariant.READS)
def an_answer_to_an_earlier_round_confirms_a_read() -> Generator[None]:
    """It was sent before the read was asked (as with equal contexts)."""
    original = ReadOnly.add

    def add(self: ReadOnly, requester: int, context: bytes, commit: int) -> None:
        if self._round_sent:
            self._waiting.append(PendingRead(requester, context, commit, self._round_sent))
            return
        original(self, requester, context, commit)

    with patch.object(ReadOnly, "add", add):
        yield
