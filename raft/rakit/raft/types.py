"""The values that cross the boundary of the Raft core.

What a host gives to the core and gets back from it: log entries, peer messages, the durable vote
record, configurations and their changes, and `Ready`, the numbered bundle of work. Everything here
is plain data. It owns no behaviour beyond checking and encoding itself, imports the standard
library only, and mirrors no wire format: the host translates to protobuf at its rim.

Rules that hold for every value:

- Ids, terms and indexes are positive integers; 0 means none.
- Values are frozen. The two exceptions, `Message` and `Ready`, belong to one owner at a time and
  are built field by field on the hot path, where freezing them would cost more than it protects.
- A replica id names one incarnation of one replica and is never used again (the caller's duty; the
  core relies on it).
- Numbers of `MessageType` and `EntryType` are those of etcd's raftpb, so that traces and dumps of
  the two can be laid side by side. They never change.

Left out on purpose: cluster, group and incarnation. They belong to the envelope around a message
and are checked by the host before a message gets here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from rakit.raft.errors import MalformedConfChangeError

#: (term, index): names one entry for ever, since one term has one leader and that leader never
#: gives an index twice.
EntryID: TypeAlias = tuple[int, int]

#: What an entry costs beside its payload when messages and windows are measured. Without it a
#: million empty entries would weigh nothing and fit into one message.
ENTRY_OVERHEAD_BYTES: Final = 24


class MessageType(IntEnum):
    """The kinds of messages, numbered as in raftpb.

    `HUP`, `BEAT`, `PROP`, `UNREACHABLE`, `SNAP_STATUS`, `CHECK_QUORUM`, `TRANSFER_LEADER` and
    `FORGET_LEADER` are requests of the local host. They have methods of their own here and are
    refused when they arrive from a peer.

    `BASE_PULL` and `BASE_PART` are not raftpb's: hosts exchange them about a base that is too large
    for one message, and the core refuses them.
    """

    HUP = 0
    BEAT = 1
    PROP = 2
    APP = 3
    APP_RESP = 4
    VOTE = 5
    VOTE_RESP = 6
    SNAP = 7
    HEARTBEAT = 8
    HEARTBEAT_RESP = 9
    UNREACHABLE = 10
    SNAP_STATUS = 11
    CHECK_QUORUM = 12
    TRANSFER_LEADER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_RESP = 16
    PRE_VOTE = 17
    PRE_VOTE_RESP = 18
    FORGET_LEADER = 23
    BASE_PULL = 101
    BASE_PART = 102


class EntryType(IntEnum):
    """What an entry's payload is: the application's bytes, or an encoded `ConfChange`."""

    NORMAL = 0
    CONF_CHANGE = 1


class Role(IntEnum):
    """What a replica is at the moment (section 5.1; pre-candidate: dissertation 9.6)."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


#: What an entry carries; where it is large it may be a view of the bytes that it was read with.
Payload: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """One slot of the replicated log."""

    term: int
    index: int
    type: EntryType = EntryType.NORMAL
    data: Payload = b""
    #: Over place and payload, once whoever stores or sends the entry has taken or checked it, so
    #: that a large payload is gone over once. The core only carries it.
    checksum: int | None = field(default=None, compare=False, repr=False)


def payload_bytes(entries: list[Entry] | tuple[Entry, ...]) -> int:
    """Sums the payloads: what the uncommitted limit and the apply quota are measured in."""
    return sum([len(entry.data) for entry in entries])


def message_bytes(entries: list[Entry] | tuple[Entry, ...]) -> int:
    """Sums payloads and overhead: what message size and send windows are measured in."""
    return sum([len(entry.data) for entry in entries]) + ENTRY_OVERHEAD_BYTES * len(entries)


@dataclass(frozen=True, slots=True)
class ConfState:
    """A configuration as it is stored: who votes, who learns, and whether it is joint.

    Invariants (checked when a configuration is installed, in `confchange`):

    - Every tuple is sorted and free of repeats.
    - `voters_outgoing` is empty unless the configuration is joint (section 6).
    - `learners_next` are outgoing voters that become learners when the joint phase ends.
    """

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    #: The leader leaves the joint phase on its own as soon as the change is applied.
    auto_leave: bool = False

    def __contains__(self, replica_id: int) -> bool:
        """Tells whether the replica has any part in this configuration."""
        return (
            replica_id in self.voters
            or replica_id in self.learners
            or replica_id in self.voters_outgoing
            or replica_id in self.learners_next
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A base state as of one index, from which ordinary entries continue (safety S1).

    `data` is the application's: for a partition a small checkpoint, never the records. A large one
    is not here but in parts, which the hosts exchange before the core hears of the base.
    """

    index: int
    term: int
    conf_state: ConfState
    data: bytes = b""
    #: CRC32C of each part of a base in parts, in their order; `data` is empty then.
    parts: tuple[int, ...] = ()
    #: In BASE_PULL and BASE_PART: which part is asked for, or is in `data`.
    part: int = 0


@dataclass(slots=True)
class Message:
    """A message between two replicas of one group.

    One class for all kinds, as in etcd, so that traces line up; `messages` has one constructor for
    each kind, which sets and checks the fields that this kind uses.
    """

    type: MessageType
    to: int = 0
    from_: int = 0
    term: int = 0
    #: Term of the entry at `index` (append, vote request), or of the entry at `reject_hint`.
    log_term: int = 0
    index: int = 0
    entries: tuple[Entry, ...] = ()
    commit: int = 0
    reject: bool = False
    reject_hint: int = 0
    #: Opaque: round number of a heartbeat, caller's context of a read, boot mark of a doubtful
    #: replica, or the mark of a forced election.
    context: bytes = b""
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before a promise leaves the node: one atomic record (section 5.1)."""

    term: int = 0
    vote: int = 0
    commit: int = 0


@dataclass(frozen=True, slots=True)
class SoftState:
    """What the host likes to know but never stores."""

    lead: int
    role: Role


@dataclass(frozen=True, slots=True)
class ReadState:
    """A confirmed read: once `index` is applied, the state is at least as new as the request."""

    index: int
    context: bytes


class DropKind(IntEnum):
    """What a change of role or of leader took the answer away from."""

    #: Proposals of `term` above `index`: outcome unknown, not "failed" (they may yet commit).
    PROPOSALS = 0
    #: A read by its `context`: never answered; ask again.
    READ = 1


@dataclass(frozen=True, slots=True)
class Dropped:
    """Work that the core will not answer any more, so that nobody waits for ever."""

    kind: DropKind
    term: int = 0
    index: int = 0
    context: bytes = b""


@dataclass(slots=True)
class Ready:
    """A numbered bundle of work for the host, in the order in which it must be done.

    1. Send `messages` (whenever it suits; they need not wait for the disk).
    2. Write `snapshot`, then `entries`, then `hard_state`, as one atomic batch.
    3. When the batch is durable (at once if nothing up to this number had to be synced), call
       `on_persisted(number)`, then send `messages_after_persist`.
    4. Apply `committed_entries` in order, then call `on_applied`. They are durable already.

    Several may be in flight (safety S18). Their batches are written in the order of the numbers
    and reported in that order, one by one: a bundle with `must_sync` unset is still reported only
    after every bundle before it.
    """

    number: int
    soft_state: SoftState | None = None
    hard_state: HardState | None = None
    #: To be written; everything stored from `entries[0].index` on is replaced by them.
    entries: list[Entry] = field(default_factory=list[Entry])
    #: To be installed before the entries; it replaces the whole stored log.
    snapshot: Snapshot | None = None
    #: Entries, a snapshot, a term or a vote changed. A commit index alone never forces a sync.
    must_sync: bool = False
    messages: list[Message] = field(default_factory=list[Message])
    #: Bytes of entries and bases among the messages: what reading and sending them costs.
    sent_bytes: int = 0
    messages_after_persist: list[Message] = field(default_factory=list[Message])
    committed_entries: list[Entry] = field(default_factory=list[Entry])
    read_states: list[ReadState] = field(default_factory=list[ReadState])
    dropped: list[Dropped] = field(default_factory=list[Dropped])
    #: Peers that came back without entries that they had acknowledged: for people (`doubt`).
    lost_logs: list[int] = field(default_factory=list[int])


class ConfChangeType(IntEnum):
    """One step of a configuration change."""

    ADD_VOTER = 0
    REMOVE = 1
    ADD_LEARNER = 3


class ConfChangeTransition(IntEnum):
    """How a change is carried out (section 6)."""

    #: Directly when at most one voter changes, else through a joint phase that ends on its own.
    AUTO = 0
    #: Through a joint phase that ends on its own.
    JOINT_IMPLICIT = 1
    #: Through a joint phase that the caller ends by proposing an empty change.
    JOINT_EXPLICIT = 2


@dataclass(frozen=True, slots=True)
class ConfChangeSingle:
    """One step: what happens to which replica."""

    type: ConfChangeType
    replica_id: int


# Version, transition, number of steps; then the steps; the rest is context.
_HEAD: Final = struct.Struct(">BBH")
_STEP: Final = struct.Struct(">BQ")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ConfChange:
    """A change of the configuration, carried by an entry of type `CONF_CHANGE`.

    An empty change leaves a joint configuration. The encoding is the core's own, deterministic and
    versioned, so that the core needs no serialisation library and equal changes are equal bytes.
    """

    changes: tuple[ConfChangeSingle, ...] = ()
    transition: ConfChangeTransition = ConfChangeTransition.AUTO
    #: The caller's own bytes, for example the number of the operation that asked.
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        """Whether this change ends a joint phase instead of changing members."""
        return not self.changes and self.transition is ConfChangeTransition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether this change goes through a joint phase."""
        return self.transition is not ConfChangeTransition.AUTO or len(self.changes) > 1

    @property
    def auto_leave(self) -> bool:
        """Whether the joint phase, if there is one, ends on its own."""
        return self.transition is not ConfChangeTransition.JOINT_EXPLICIT

    def encode(self) -> bytes:
        """Returns the bytes that an entry carries."""
        steps = [_STEP.pack(step.type, step.replica_id) for step in self.changes]
        head = _HEAD.pack(_VERSION, self.transition, len(self.changes))
        return b"".join([head, *steps, self.context])

    @staticmethod
    def decode(data: bytes) -> ConfChange:
        """Reads what `encode` wrote; raises `MalformedConfChangeError` on anything else."""
        try:
            version, transition, count = _HEAD.unpack_from(data)
            if version != _VERSION:
                raise MalformedConfChangeError(f"unknown version {version}")
            end = _HEAD.size + count * _STEP.size
            if len(data) < end:
                raise MalformedConfChangeError(f"{len(data)} bytes hold no {count} steps")
            steps = tuple(
                ConfChangeSingle(ConfChangeType(kind), replica_id)
                for kind, replica_id in _STEP.iter_unpack(data[_HEAD.size : end])
            )
            return ConfChange(steps, ConfChangeTransition(transition), data[end:])
        except (struct.error, ValueError) as error:
            raise MalformedConfChangeError(str(error)) from error
