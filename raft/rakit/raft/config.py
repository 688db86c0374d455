"""The one configuration object of the core: frozen, and validated when it is made.

Every limit carries its unit in its name. Times are counted in ticks, since the core has no clock:
the host decides how long a tick is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rakit.raft.trace import Tracer

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How one replica behaves. Replicas of a group should agree on all but `id` and `applied`."""

    #: This replica's id, never used before in this group.
    id: int

    #: Source of the randomised election timeouts (section 5.2); a seed makes a run repeatable.
    rng: random.Random

    #: Last index that the application has applied and stored; 0 for a replica without state.
    applied: int = 0

    #: A follower that hears nothing campaigns after [election_tick, 2 * election_tick) ticks.
    #: Also the period of the leader's quorum check and the longest wait for a transfer.
    election_tick: int = 20

    #: Ticks between a leader's heartbeats; well below `election_tick`, so that several may be lost.
    heartbeat_tick: int = 5

    #: Bytes of entries in one append message; one entry is always sent, however large. Larger
    #: messages delay others on the link, smaller ones cost a message each.
    max_size_per_msg_bytes: int = _MIB

    #: Append messages on their way to one peer; beyond it the peer is sent nothing but probes.
    max_inflight_messages: int = 256

    #: Bytes on their way to one peer; what a slow follower can pin in the leader's send queue.
    max_inflight_bytes: int = 16 * _MIB

    #: Bytes of entries that one `Ready` sends to one peer, the message that goes beyond included;
    #: the next `Ready` goes on. So one that has much to catch up with is served in turn with the
    #: others.
    max_sent_bytes_per_ready: int = 2 * _MIB

    #: Payload bytes that a leader has appended and not yet handed out as committed; beyond it
    #: proposals are dropped, so that a leader without a quorum does not grow for ever.
    max_uncommitted_bytes: int = 64 * _MIB

    #: Payload bytes in one `Ready.committed_entries` (at least one entry), and what may be handed
    #: out without being reported as applied.
    max_committed_bytes_per_ready: int = _MIB

    #: The same limit by number: small entries cost more than their bytes.
    max_committed_entries_per_ready: int = 256

    #: Reads that wait for their round of heartbeats, or, on a follower, for the leader's answer.
    max_pending_reads: int = 4096

    #: A leader that hears of no quorum for an election timeout steps down, and a follower that
    #: hears from its leader refuses to vote (dissertation 6.2, 4.2.3).
    check_quorum: bool = True

    #: Ask whether an election could be won before raising the term (dissertation 9.6).
    pre_vote: bool = True

    #: Number of this boot of the node, rising with every start; stamped on acknowledgements so that
    #: a leader can tell those of an earlier boot. 0 stamps nothing. A host that ever starts a
    #: replica as doubtful must always pass it.
    boot: int = 0

    #: This replica's store may have lost what it once promised (safety S8): its vote and its
    #: acknowledgements count only under the rules of `doubt`.
    doubtful: bool = False

    #: Is told every event, for a check against the specification (see `trace`); None tells nobody.
    tracer: Tracer | None = None

    def __post_init__(self) -> None:
        """Refuses a configuration that could not work."""
        positive = {
            "id": self.id,
            "heartbeat_tick": self.heartbeat_tick,
            "max_size_per_msg_bytes": self.max_size_per_msg_bytes,
            "max_inflight_messages": self.max_inflight_messages,
            "max_inflight_bytes": self.max_inflight_bytes,
            "max_sent_bytes_per_ready": self.max_sent_bytes_per_ready,
            "max_uncommitted_bytes": self.max_uncommitted_bytes,
            "max_committed_bytes_per_ready": self.max_committed_bytes_per_ready,
            "max_committed_entries_per_ready": self.max_committed_entries_per_ready,
            "max_pending_reads": self.max_pending_reads,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1")
        if self.applied < 0:
            raise ValueError(f"applied is {self.applied}, it must not be negative")
        if self.election_tick <= self.heartbeat_tick:
            raise ValueError(
                f"election_tick {self.election_tick} must be greater than"
                f" heartbeat_tick {self.heartbeat_tick}"
            )
        if self.boot < 0 or (self.doubtful and self.boot == 0):
            raise ValueError(
                f"boot is {self.boot}; a doubtful replica needs the number of its boot"
            )
        if self.max_inflight_bytes < self.max_size_per_msg_bytes:
            raise ValueError(
                f"max_inflight_bytes {self.max_inflight_bytes} must hold at least one message of"
                f" max_size_per_msg_bytes {self.max_size_per_msg_bytes}"
            )
