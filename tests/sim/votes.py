"""Terms and votes, as the network and the disks show them.

- One vote per term, also across restarts (section 5.2): judged by the grants and the requests for
  votes that leave a node, since who asks has voted for itself, and by the vote records. A record
  counts from when it is durable: one that a crash takes back was never given to anybody.
- The term of a vote record never falls, not even across a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rakit.multiraft import keys
from rakit.multiraft.effects import Envelope
from rakit.raft import HardState, MessageType
from tests.sim.disk import SimDisk
from tests.sim.records import hard_state_of
from tests.sim.violations import Invariant, ViolationError


@dataclass(slots=True)
class _Record:
    """What is known of one group."""

    # (node, term) -> the replica that it voted for
    votes: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    # By node.
    terms: dict[int, int] = field(default_factory=dict[int, int])
    # (term, candidate) -> the replicas that said that they vote for it, whatever they forgot later.
    said: dict[tuple[int, int], set[int]] = field(default_factory=dict[tuple[int, int], set[int]])


class Votes:
    """Who has voted for whom."""

    def __init__(self, disk_of: Callable[[int], SimDisk]) -> None:
        self.disk_of = disk_of
        self.groups: dict[int, _Record] = {}
        # By node: (write, group, term, vote) of vote records that are not durable yet.
        self.written: dict[int, deque[tuple[int, int, int, int]]] = {}

    def _record(self, group_id: int) -> _Record:
        record = self.groups.get(group_id)
        if record is None:
            record = self.groups[group_id] = _Record()
        return record

    def sent(self, node_id: int, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            message = envelope.message
            if message.type is MessageType.VOTE:
                self._voted(node_id, envelope.group_id, message.term, envelope.from_replica)
                self._said(envelope, envelope.from_replica)
            elif message.type is MessageType.VOTE_RESP and not message.reject:
                self._voted(node_id, envelope.group_id, message.term, envelope.to_replica)
                self._said(envelope, envelope.to_replica)

    def _said(self, envelope: Envelope, candidate: int) -> None:
        said = self._record(envelope.group_id).said
        said.setdefault((envelope.message.term, candidate), set()).add(envelope.from_replica)

    def for_whom(self, group_id: int, term: int, candidate: int) -> set[int]:
        """Returns who has voted for a candidate, the candidate itself among them."""
        return self._record(group_id).said.get((term, candidate), set())

    def _voted(self, node_id: int, group_id: int, term: int, replica: int) -> None:
        votes = self._record(group_id).votes
        if votes.setdefault((node_id, term), replica) != replica:
            raise ViolationError(
                Invariant.ONE_VOTE,
                f"group {group_id}: node {node_id} voted for {votes[node_id, term]:x}"
                f" and {replica:x} in term {term}",
            )

    def wrote(self, node_id: int, number: int, key: bytes, row: bytes) -> None:
        """Write `number` holds a vote record."""
        group_id = keys.group_of(key)
        state = hard_state_of(group_id, row)
        terms = self._record(group_id).terms
        if terms.get(node_id, 0) > state.term:
            raise ViolationError(
                Invariant.MONOTONE,
                f"group {group_id}: node {node_id} stored term {state.term} after {terms[node_id]}",
            )
        terms[node_id] = state.term
        if state.vote:
            written = self.written.setdefault(node_id, deque())
            written.append((number, group_id, state.term, state.vote))

    def synced(self, node_id: int, number: int) -> None:
        """Every write up to `number` is durable: the votes in them are given."""
        written = self.written.get(node_id)
        while written and written[0][0] <= number:
            _, group_id, term, vote = written.popleft()
            self._voted(node_id, group_id, term, vote)

    def crashed(self, node_id: int, kept: int) -> None:
        """What was written after write `kept` is gone, and terms may be taken back with it."""
        self.synced(node_id, kept)
        self.written.pop(node_id, None)
        self._read_terms(node_id)

    def _read_terms(self, node_id: int) -> None:
        for group_id, record in self.groups.items():
            record.terms[node_id] = self._stored(node_id, group_id).term

    def _stored(self, node_id: int, group_id: int) -> HardState:
        row = self.disk_of(node_id).durable.rows.get(keys.hard_state(group_id))
        return hard_state_of(group_id, row) if row else HardState()

    def replaced(self, node_id: int, group_id: int) -> None:
        """A new replica takes the place of one on the same node: it is another voter."""
        record = self._record(group_id)
        record.terms.pop(node_id, None)
        for vote in [one for one in record.votes if one[0] == node_id]:
            del record.votes[vote]

    def forgotten(self, node_id: int) -> None:
        """A disk lost what it had synced: it may vote again where it does not know that it has."""
        self._read_terms(node_id)
        for group_id, record in self.groups.items():
            state = self._stored(node_id, group_id)
            known = state.term if state.vote else state.term - 1
            for vote in [one for one in record.votes if one[0] == node_id and one[1] > known]:
                del record.votes[vote]
