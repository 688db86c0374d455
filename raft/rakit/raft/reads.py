"""Linearizable reads without writing to the log (dissertation 6.4).

Rules:

- A leader answers only after it has committed an entry of its own term: before that its commit
  index may lie below what its predecessor acknowledged (etcd-io/etcd#7331). Earlier reads wait.
- A follower hands its reads to its leader, one hop, and never to another follower.
- Every read ends: answered, or reported as dropped when the leader changes. A lost message leaves
  one open, which is what the caller's deadline is for; the core forgets it when its place is needed
  for a newer one, or lost messages would add up until nothing can be asked any more.

A lease would save the round of heartbeats. It is left out: it rests on clocks, and the core has
none (docs/decisions/0011).
"""

from __future__ import annotations

from rakit.raft import messages
from rakit.raft.errors import NotLeaderError, ReadLimitError
from rakit.raft.state import Raft
from rakit.raft.types import DropKind, Dropped, Message, ReadState, Role


def request(raft: Raft, context: bytes) -> None:
    """Asks on behalf of the local host (6.4); raises if nobody can be asked or too many wait."""
    if raft.role is Role.LEADER:
        if len(raft.reads) >= raft.config.max_pending_reads:
            raise ReadLimitError(f"{len(raft.reads)} reads wait")
        _accept(raft, raft.id, context)
        return
    if raft.lead == 0:
        raise NotLeaderError(0)
    if len(raft.forwarded_reads) >= raft.config.max_pending_reads:
        raft.dropped.append(Dropped(DropKind.READ, context=raft.forwarded_reads.pop(0)))
    raft.forwarded_reads.append(context)
    raft.post(messages.read_index(raft.lead, raft.id, context))


def handle_request(raft: Raft, message: Message) -> None:
    """Takes a follower's read; refuses it where it could not be answered."""
    full = len(raft.reads) >= raft.config.max_pending_reads
    if raft.role is not Role.LEADER or full:
        raft.post(messages.read_index_refusal(message.from_, raft.id, raft.term, message.context))
        return
    _accept(raft, message.from_, message.context)


def handle_response(raft: Raft, message: Message) -> None:
    """Takes the leader's answer to a read of ours; one that was given up stays given up."""
    if message.context not in raft.forwarded_reads:
        return
    raft.forwarded_reads.remove(message.context)
    if message.reject:
        raft.dropped.append(Dropped(DropKind.READ, context=message.context))
    else:
        raft.read_states.append(ReadState(message.index, message.context))


def _accept(raft: Raft, requester: int, context: bytes) -> None:
    if raft.log.committed < raft.term_start:
        raft.reads.early.append((requester, context))
    elif raft.tracker.is_sole_voter(raft.id):
        _answer(raft, requester, context, raft.log.committed)
    else:
        raft.reads.add(requester, context, raft.log.committed)


def _answer(raft: Raft, requester: int, context: bytes, index: int) -> None:
    assert index >= raft.term_start, "a read was confirmed before an own-term commit"
    if requester == raft.id:
        raft.read_states.append(ReadState(index, context))
    else:
        raft.post(messages.read_index_response(requester, raft.id, raft.term, index, context))


def release_early(raft: Raft) -> None:
    """Lets the reads go on that waited for this term's first commit."""
    assert raft.log.committed >= raft.term_start, "reads go on only after an own-term commit"
    early, raft.reads.early = raft.reads.early, []
    for requester, context in early:
        _accept(raft, requester, context)


def release_confirmed(raft: Raft) -> None:
    """Answers the reads that a quorum has confirmed by now, perhaps because it shrank."""
    tracker = raft.tracker
    for read in raft.reads.confirmed(raft.id, tracker.voters, tracker.counts):
        _answer(raft, read.requester, read.context, read.index)
