"""What the metadata tasks need of the host: the part of `rakit.multiraft.host.Host` they call.

Named here so that every task says what it depends on, and so that tests can put a small double in
the place of a node with a disk and a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import grpc.aio

from rakit.multiraft.effects import Completion, RoleChange
from rakit.multiraft.hello import NodeIdentity, Rollback, StoreStart
from rakit.multiraft.leaders import LeaderCallback, LeaderInfo
from rakit.multiraft.machine import GroupMeta
from rakit.multiraft.quarantine import Quarantined
from rakit.raft import ConfChange, ConfState, EntryID, Status


class GroupView(Protocol):
    """A replica of this node, as others may read it."""

    meta: GroupMeta
    conf_state: ConfState
    ready: bool
    term: int
    applied: int
    leader_replica: int

    def status(self) -> Status:
        """Everything that the core tells of the replica."""
        ...


class ProposalView(Protocol):
    """A proposal that was appended."""

    @property
    def entry(self) -> EntryID:
        """Term and index."""
        ...

    @property
    def done(self) -> asyncio.Future[Completion]:
        """What became of it."""
        ...


class LeadersView(Protocol):
    """Which node leads which group."""

    def get(self, group_id: int) -> LeaderInfo | None:
        """The leader, as far as known."""
        ...

    def led_here(self) -> dict[int, int]:
        """The groups that this node leads and may serve, with their terms."""
        ...

    def on_change(self, callback: LeaderCallback) -> Callable[[], None]:
        """Tells of every change; returns what ends that."""
        ...


class HostPort(Protocol):
    """The host."""

    node_id: int
    identity: NodeIdentity

    @property
    def leaders(self) -> LeadersView:
        """The routing table."""
        ...

    @property
    def groups(self) -> Mapping[int, GroupView]:
        """The working replicas of this node."""
        ...

    def group(self, group_id: int) -> GroupView | None:
        """A replica of this node."""
        ...

    @property
    def quarantined(self) -> Mapping[int, Quarantined]:
        """The replicas of this node that are shut out for damage, by group."""
        ...

    @property
    def damaged_store(self) -> str:
        """Why this node must not rewrite its tables; empty: it may."""
        ...

    def feature_level(self, store_uuid: str) -> int:
        """What the version reads that greeted last on a store; 0: none has told it."""
        ...

    def trust_births_from(self, group_id: int) -> None:
        """Takes in that no group from this id on existed when this start began (S8)."""
        ...

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        """Creates a replica; raises `GroupRefusedError`."""
        ...

    def remove_group(self, group_id: int) -> None:
        """Removes a replica for good."""
        ...

    def propose(self, group_id: int, data: bytes, /) -> ProposalView:
        """Appends an entry to a group that this node leads; raises `ProposalRefusedError`."""
        ...

    async def change_membership(self, group_id: int, change: ConfChange) -> Completion:
        """Changes a group's members; raises `ProposalRefusedError`."""
        ...

    async def read_barrier(self, group_id: int) -> int:
        """A linearizable read; raises `MultiraftError`."""
        ...

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        """Hands the leadership over; raises `ProposalRefusedError`."""
        ...

    def set_peer(self, node_id: int, address: str | None) -> None:
        """Takes in where a node is."""
        ...

    def channel(self, node_id: int) -> grpc.aio.Channel:
        """The channel to a peer."""
        ...

    def node_is_up(self, node_id: int) -> bool:
        """Whether a node answered lately."""
        ...

    def has_room(self, node_id: int) -> bool:
        """Whether a node's disk takes more records, as it said last."""
        ...

    @property
    def somebody_lacks_room(self) -> bool:
        """Whether `has_room` is false for any node."""
        ...

    @property
    def damaged_groups(self) -> list[int]:
        """Groups led here that have, or had, damaged replicas elsewhere."""
        ...

    def shut_out_elsewhere(self, group_id: int) -> set[int]:
        """The replicas of a group that is led here which other nodes have shut out for good."""
        ...

    def answering(self, node_id: int) -> int:
        """The boot epoch of the process that answers for a peer at this moment, else 0."""
        ...

    def rollback_of(self, start: StoreStart) -> Rollback | None:
        """What a start of a store lacks that the store had synced (S7)."""
        ...

    def refuse_replaced(self, is_replaced: Callable[[int, str], bool]) -> None:
        """Refuses peers on a store that lost its node id to another one (S11)."""
        ...

    def on_turned_away(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """Calls back when a peer refuses this node because of who it is; returns what ends that."""
        ...

    def on_applied(self, group_id: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back when the group's applied index grew; returns what ends that."""
        ...

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        """Calls back at every change of a role; returns what ends that."""
        ...

    def on_node(self, callback: Callable[[int, bool], None]) -> Callable[[], None]:
        """Calls back when a node came or went; returns what ends that."""
        ...
