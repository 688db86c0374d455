"""What the driver takes in and gives out: plain values at the edge of the pure half.

A shell carries them out in this order: send `sends`; write `batch`; tell `written`; hand out
completions, reads and role changes; if `must_sync`, have the write synced and tell `synced` when
it is. Sends may leave before the write because the core holds back whatever must wait for a sync.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.quarantine import Quarantined
from rakit.raft import EntryID, Message, Role


@dataclass(slots=True)
class Envelope:
    """A message of a group between two replicas; the nodes are read off the replica ids."""

    group_id: int
    from_replica: int
    to_replica: int
    message: Message
    #: News of a commit in it do not wait for company: a follower that applies late holds others up.
    #: Known to the sender only.
    is_prompt: bool = False


@dataclass(slots=True)
class Completion:
    """The one answer to a proposal."""

    token: object
    group_id: int
    entry: EntryID
    #: What the state machine returned; for a configuration change the new `ConfState`.
    result: object = None
    #: The entry or the leadership was lost: the outcome is unknown, the entry may yet commit.
    lost: bool = False
    #: Voters and learners known to have the entry synced, this replica included.
    replicas: int = 0


@dataclass(slots=True)
class ReadReady:
    """The one answer to a read request: everything up to `index` is applied here."""

    token: object
    group_id: int
    index: int
    #: No leader or no quorum answered: ask again or elsewhere.
    lost: bool = False


@dataclass(slots=True)
class RoleChange:
    """What a replica has become, and whom it takes for the leader (0: nobody known)."""

    group_id: int
    role: Role
    leader_replica: int
    term: int
    #: The replica leads and has applied an entry of its own term: it may take produce (S14).
    ready: bool


@dataclass(slots=True)
class Effects:
    """What one step of the driver asks for."""

    #: Increases by one with every step that asks for anything.
    number: int
    sends: list[Envelope] = field(default_factory=list[Envelope])
    #: May be empty.
    batch: WriteBatch = field(default_factory=WriteBatch)
    must_sync: bool = False
    completions: list[Completion] = field(default_factory=list[Completion])
    reads: list[ReadReady] = field(default_factory=list[ReadReady])
    roles: list[RoleChange] = field(default_factory=list[RoleChange])
    #: Groups whose applied index grew.
    applied: list[int] = field(default_factory=list[int])
    #: Groups that were shut out, and why.
    quarantined: list[tuple[int, Quarantined]] = field(
        default_factory=list[tuple[int, Quarantined]]
    )
    #: What the step cost beside its batch: bytes sent and applied, and so much for each group that
    #: had its turn, and each entry that was applied, as could be read meanwhile.
    moved_bytes: int = 0

    #: (group, replica elsewhere) of members that came back without what they had acknowledged.
    lost_logs: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def __bool__(self) -> bool:
        return bool(
            self.sends
            or self.batch
            or self.must_sync
            or self.completions
            or self.reads
            or self.roles
            or self.applied
            or self.quarantined
            or self.lost_logs
        )
