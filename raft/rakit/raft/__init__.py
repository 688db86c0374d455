"""The Raft consensus algorithm as a pure function of messages, ticks and disk completions.

Raft keeps a log equal on a group of replicas, as long as a majority of them works. This package
is the algorithm and nothing else: no disk, no network, no clock, no thread, no random numbers but
those it is given. A host drives it (`RawNode`) and does what it asks for (`Ready`). The same inputs
give the same outputs, which is what the simulator, the golden scripts and the proofs of bugs rest
on.

Papers: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (sections are
cited as 5.2, 5.4.2, ...), and Ongaro's dissertation (3.10, 4.x, 6.2, 6.4, 9.6, 10.2.1). Message
kinds and most semantics are those of etcd's implementation; numbered Readys are those of tikv's.

Roles
-----

    FOLLOWER       takes entries from a leader, votes
    PRE_CANDIDATE  asks whether it could win, without changing any term
    CANDIDATE      stands for election in a term of its own
    LEADER         takes proposals, replicates, commits, answers reads, changes the membership

    learners       get everything and decide nothing; a new member learns before it votes

One proposal
------------

1. `propose` appends the entry and returns its (term, index). Nothing is sent yet.
2. `ready` gathers what was proposed since, as one append for each peer. The leader's appends may
   leave at once; its own disk works at the same time and counts like any other (S13).
3. A follower checks that its log joins, appends, and asks its host to write. Its answer waits for
   its disk.
4. The leader commits what is durable on a majority, if it is of its own term (5.4.2).
5. Each replica hands the entry out to be applied once it is committed *and* durable there.

The rules that everything else serves
-------------------------------------

- Election Safety: at most one leader in a term. One vote in a term, durable before it is given.
- Leader Append-Only: a leader never replaces its own entries.
- Log Matching: equal (term, index) means equal logs up to there.
- Leader Completeness: what is committed is in the log of every later leader.
- State Machine Safety: no two replicas apply different entries at one index.
- Nothing is promised before it is durable, and a completion counts only for what it was about
  (`raw_node`, rules N1 to N4; `log_unstable`, rule U1).

Where to read what
------------------

docs/RAFT.md goes through the paper rule by rule: the function that holds it, and its test.

    types, errors, config, status   the boundary
    raw_node                        driving it: Readys in flight, completions
    state, raft                     a replica's state; terms, messages, ticks
    election                        votes, pre-vote, the vote lease
    leader, replication, tracker/   office, proposals, transfer; what is sent to whom; progress
    follower                        taking entries and bases
    membership, confchange          when the membership changes, and to what
    reads, read_only                linearizable reads
    doubt                           replicas that may have lost what they promised (S8; not in the
                                    papers)
    log, log_unstable, storage      the log: durable, in flight, waiting
    quorum                          majorities, joint majorities
    messages, describe              one constructor for each kind; text for people
    trace                           events, to check a run against the specification

Caveats
-------

- Membership changes take effect when they are applied, not when they are appended. A replica with
  a committed change that it has not applied does not stand for election.
- A removed replica is needed until the others know of its removal: it answers and votes as long as
  its host keeps it. The host should keep it for a while. Once it has started from a checkpoint
  behind its removal it looks like one that never belonged, and votes no more (rule E7).
- A base state lies behind the entries that follow it, never ahead (S1), and may lack the replica
  that it is sent to (S2).
- Proposals and transfers are taken by the leader only; nothing but reads is forwarded.
- What a deposed leader has proposed may yet commit. `Ready.dropped` says "unknown", never "failed".
- There is no lease read: it rests on clocks, and this package has none (docs/decisions/0011).
- A replica trusts its peers: it survives loss, delay, repetition and reordering of messages, and
  crashes at any point, not lies.
"""

from rakit.raft.config import Config
from rakit.raft.errors import (
    CommittedConflictError,
    CompactedError,
    ConfChangeInvalidError,
    ConfChangePendingError,
    ConfigurationLostError,
    EntriesTemporarilyUnavailableError,
    HardStateLostError,
    LogLostError,
    MalformedConfChangeError,
    NotLeaderError,
    ProposalDroppedError,
    RaftError,
    ReadLimitError,
    ReplicaFatalError,
    RequestRefusedError,
    SnapshotTemporarilyUnavailableError,
    StepLocalMessageError,
    StepMalformedError,
    StepPeerNotFoundError,
    StepRefusedError,
    StepWrongReplicaError,
    StorageReadError,
    TransferPendingError,
    TransferRefusedError,
    TwoLeadersError,
    UnavailableError,
    UncommittedLimitError,
)
from rakit.raft.raw_node import RawNode
from rakit.raft.status import BasicStatus, PeerStatus, QuiesceStatus, Status
from rakit.raft.storage import LogStorage, MemoryStorage
from rakit.raft.trace import TraceEvent, Tracer
from rakit.raft.tracker import ProgressState
from rakit.raft.types import (
    ENTRY_OVERHEAD_BYTES,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
    DropKind,
    Dropped,
    Entry,
    EntryID,
    EntryType,
    HardState,
    Message,
    MessageType,
    Payload,
    ReadState,
    Ready,
    Role,
    Snapshot,
    SoftState,
    message_bytes,
    payload_bytes,
)

__all__ = [
    "ENTRY_OVERHEAD_BYTES",
    "BasicStatus",
    "CommittedConflictError",
    "CompactedError",
    "ConfChange",
    "ConfChangeInvalidError",
    "ConfChangePendingError",
    "ConfChangeSingle",
    "ConfChangeTransition",
    "ConfChangeType",
    "ConfState",
    "Config",
    "ConfigurationLostError",
    "DropKind",
    "Dropped",
    "EntriesTemporarilyUnavailableError",
    "Entry",
    "EntryID",
    "EntryType",
    "HardState",
    "HardStateLostError",
    "LogLostError",
    "LogStorage",
    "MalformedConfChangeError",
    "MemoryStorage",
    "Message",
    "MessageType",
    "NotLeaderError",
    "Payload",
    "PeerStatus",
    "ProgressState",
    "ProposalDroppedError",
    "QuiesceStatus",
    "RaftError",
    "RawNode",
    "ReadLimitError",
    "ReadState",
    "Ready",
    "ReplicaFatalError",
    "RequestRefusedError",
    "Role",
    "Snapshot",
    "SnapshotTemporarilyUnavailableError",
    "SoftState",
    "Status",
    "StepLocalMessageError",
    "StepMalformedError",
    "StepPeerNotFoundError",
    "StepRefusedError",
    "StepWrongReplicaError",
    "StorageReadError",
    "TraceEvent",
    "Tracer",
    "TransferPendingError",
    "TransferRefusedError",
    "TwoLeadersError",
    "UnavailableError",
    "UncommittedLimitError",
    "message_bytes",
    "payload_bytes",
]
