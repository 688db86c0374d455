"""What the pure half of the host raises, sorted by what the caller must do about it.

- `ProposalRefusedError`: nothing was appended, so NOT_APPLIED is a true answer. The three kinds
  tell the caller whether to go elsewhere, to wait, or to look the group up again.
- `GroupRefusedError`: a replica cannot be created as asked.
- `StoreCorruptError`: stored bytes are not what was written. One group is affected, unless the
  store says otherwise; it is quarantined (safety S9), never repaired by guessing.
- `StoreUnreadableError`: the same, but a later start may be able to read what this one cannot.
"""

from __future__ import annotations


class MultiraftError(Exception):
    """The root of what the pure half raises for operating errors."""


class StoreCorruptError(MultiraftError):
    """What is stored contradicts itself or fails its checksum."""


class StoreUnreadableError(StoreCorruptError):
    """A read failed, for another reason than damage: what is stored may be well."""


class ProposalRefusedError(MultiraftError):
    """A proposal or a request was not accepted and has had no effect."""


class UnknownGroupError(ProposalRefusedError):
    """This node holds no working replica of the group (never had one, removed, quarantined)."""

    def __init__(self, group_id: int) -> None:
        super().__init__(f"this node holds no working replica of group {group_id}")
        self.group_id = group_id


class NotLeadingError(ProposalRefusedError):
    """The replica cannot take proposals; `leader_replica` is the leader as far as known, else 0."""

    def __init__(self, leader_replica: int, term: int) -> None:
        known = leader_replica or "unknown"
        super().__init__(f"this replica does not lead in term {term}; the leader is {known}")
        self.leader_replica = leader_replica
        self.term = term


class OverloadedError(ProposalRefusedError):
    """Too many bytes wait for commit or too many requests for an answer: try again later."""


class ConfChangeRefusedError(ProposalRefusedError):
    """The configuration change cannot follow the present state of the group."""


class GroupRefusedError(MultiraftError):
    """The replica cannot be created: its id is dead, or another replica of the group lives here."""


class MachineFailedError(MultiraftError):
    """A state machine could not apply what was committed: its replica stops (fail-stop)."""
