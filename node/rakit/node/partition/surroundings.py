"""What a partition needs around it: the host's replica, the host, and a few things of the node.

Narrow on purpose. `rakit.multiraft.Host` and its `Group` fit these protocols as they are; tests
give something smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rakit.multiraft.kv import KeyValue
from rakit.multiraft.machine import StateMachine
from rakit.node.partition.appender import Proposal
from rakit.node.partition.reader import Log
from rakit.raft import ConfState, Payload, Role


class Replica(Protocol):
    """The part of the host's `Group` that is used here."""

    @property
    def leader_replica(self) -> int:
        """The leader as far as known; 0 if not."""
        ...

    @property
    def term(self) -> int:
        """The current term."""
        ...

    @property
    def role(self) -> Role:
        """What this replica is."""
        ...

    @property
    def ready(self) -> bool:
        """It leads and has applied an entry of its own term."""
        ...

    @property
    def applied(self) -> int:
        """Index of the last entry that was applied."""
        ...

    @property
    def pending_count(self) -> int:
        """How many proposals of its leadership are neither applied nor lost."""
        ...

    @property
    def conf_state(self) -> ConfState:
        """The members."""
        ...

    @property
    def machine(self) -> StateMachine:
        """Its state machine."""
        ...

    @property
    def storage(self) -> Log:
        """Its stored log."""
        ...


class ReplicaHost(Protocol):
    """The part of `rakit.multiraft.Host` that is used here."""

    def group(self, group_id: int) -> Replica | None:
        """Returns the working replica of a group on this node."""
        ...

    def propose(self, group_id: int, *pieces: Payload) -> Proposal:
        """Appends an entry, these pieces in a row, to the leader's log.

        Raises `ProposalRefusedError`.
        """
        ...

    async def read_barrier(self, group_id: int) -> int:
        """Returns when everything committed before the call is applied here (ReadIndex)."""
        ...

    def on_applied(self, group_id: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back when a group's applied index grew; returns what ends that."""
        ...

    def quarantine(self, group_id: int, reason: str, *, for_good: bool) -> None:
        """Shuts a replica out that cannot be read (S9), until a restart or for good."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionContext:
    """What a partition needs from its node beside the host. One value for all of a node's."""

    disk: KeyValue
    clock_ms: Callable[[], int]
    #: False only with the test flag that leaves out fsync.
    fsynced: bool
    #: False while this node's clock is off by more than its peers tolerate (S3).
    clock_trusted: Callable[[], bool]
    #: Whether every node of the cluster reads entries of several batches.
    runs_are_read: Callable[[], bool]
