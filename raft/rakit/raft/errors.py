"""What can go wrong in the core, sorted by what the caller must do about it.

Three families, and the caller needs to know only the family:

- `StepRefusedError`: a message was not taken. Drop it and go on; nothing changed.
- `RequestRefusedError`: a request of the local host was not accepted and has had no effect.
- `ReplicaFatalError`: this replica contradicts what it once promised, or its disk does. Stop it,
  never retry; other groups of the node may go on.

Storage errors (`StorageReadError`) are raised by the host's `LogStorage` and handled inside the
core. A broken rule of the core itself is an assertion, not an error: it means a bug.
"""

from __future__ import annotations


class RaftError(Exception):
    """The root of everything that this package raises."""


class StepRefusedError(RaftError):
    """A peer's message was not taken; drop it."""


class StepLocalMessageError(StepRefusedError):
    """The message is of a kind that only the local host may ask for, by a method of its own."""


class StepPeerNotFoundError(StepRefusedError):
    """A response came from a replica that has no part in the current configuration."""


class StepWrongReplicaError(StepRefusedError):
    """The message is addressed to another replica, or claims to come from this one."""


class StepMalformedError(StepRefusedError):
    """The message contradicts itself, for example by a gap between its entries."""


class RequestRefusedError(RaftError):
    """A request of the local host was refused before it had any effect."""


class ProposalDroppedError(RequestRefusedError):
    """The proposal was not appended: NOT_APPLIED is a true answer to the client."""


class NotLeaderError(ProposalDroppedError):
    """Only the leader can do this; `lead` is the leader as far as known, else 0."""

    def __init__(self, lead: int) -> None:
        super().__init__(f"this replica does not lead; the leader is {lead or 'not known'}")
        self.lead = lead


class TransferPendingError(ProposalDroppedError):
    """The leader is handing over and takes no proposals until that succeeds or times out."""


class UncommittedLimitError(ProposalDroppedError):
    """Too many bytes wait for commit: push back on the client."""


class ConfChangePendingError(ProposalDroppedError):
    """An earlier configuration change may not be applied yet: one at a time."""


class ConfChangeInvalidError(ProposalDroppedError):
    """The change cannot follow the current configuration, for example it removes every voter."""


class ReadLimitError(RequestRefusedError):
    """Too many reads wait for confirmation: push back on the client."""


class TransferRefusedError(RequestRefusedError):
    """The target cannot become leader: it is a learner, unknown, or this replica already."""


class StorageReadError(RaftError):
    """The root of what a `LogStorage` may raise on reading."""


class CompactedError(StorageReadError):
    """The index lies before the first entry that is kept."""


class UnavailableError(StorageReadError):
    """The index lies behind the last entry."""


class EntriesTemporarilyUnavailableError(StorageReadError):
    """The entries are being fetched; the host calls `on_entries_fetched` when they are there."""


class SnapshotTemporarilyUnavailableError(StorageReadError):
    """A snapshot is being made; the core asks again after the next heartbeat response."""


class ReplicaFatalError(RaftError):
    """Stop this replica: what it holds contradicts what was promised."""


class HardStateLostError(ReplicaFatalError):
    """The log or the applied state is newer than the stored term and commit (safety S5)."""


class LogLostError(ReplicaFatalError):
    """Entries are missing that this replica has acknowledged or that it knows as committed."""


class MalformedConfChangeError(ReplicaFatalError):
    """An entry that should hold a configuration change holds something else."""


class ConfigurationLostError(ReplicaFatalError):
    """The stored configuration makes no sense, or a committed change cannot follow it."""


class CommittedConflictError(ReplicaFatalError):
    """A leader wants to replace an entry that this replica knows as committed."""


class TwoLeadersError(ReplicaFatalError):
    """Two replicas lead in one term: somebody voted twice in it, since its disk had gone back."""
