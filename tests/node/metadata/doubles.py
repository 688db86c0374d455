"""A host without disk and network: what the metadata tasks ask of it is done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc.aio

from rakit.multiraft.barriers import BarrierLostError
from rakit.multiraft.effects import Completion, RoleChange
from rakit.multiraft.errors import NotLeadingError
from rakit.multiraft.hello import NodeIdentity, Rollback, StoreStart
from rakit.multiraft.leaders import LeaderCallback, LeaderInfo
from rakit.multiraft.machine import GroupKind, GroupMeta
from rakit.multiraft.quarantine import Quarantined
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.raft import ConfChange, ConfState, EntryID, Status
from tests.node.metadata.support import Log


class FakeGroup:
    def __init__(self, node_id: int) -> None:
        self.meta = GroupMeta(METADATA_GROUP_ID, node_id << 24 | node_id, GroupKind.METADATA)
        self.conf_state = ConfState()
        self.ready = False
        self.term = 1
        self.applied = 1
        self.leader_replica = 0

    def status(self) -> Status:
        raise AssertionError("nobody asks for it here")


@dataclass
class FakeProposal:
    entry: EntryID
    done: asyncio.Future[Completion]


@dataclass
class FakeLeaders:
    leader: int = 0
    callbacks: list[LeaderCallback] = field(default_factory=list[LeaderCallback])

    def get(self, group_id: int) -> LeaderInfo | None:
        assert group_id == METADATA_GROUP_ID
        return LeaderInfo(self.leader, 1) if self.leader else None

    def led_here(self) -> dict[int, int]:
        return {}

    def on_change(self, callback: LeaderCallback) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def becomes(self, node_id: int) -> None:
        self.leader = node_id
        for callback in self.callbacks:
            callback(METADATA_GROUP_ID, self.get(METADATA_GROUP_ID))


class FakeHost:
    """Applies proposals to a `Log` at once while it leads; `lose` makes it lose them instead."""

    def __init__(self, node_id: int, log: Log) -> None:
        self.node_id = node_id
        self.identity = NodeIdentity(
            "cluster", node_id, f"store-n{node_id}", boot_epoch=1, opened_counter=1
        )
        self.log = log
        self.leaders = FakeLeaders()
        self.here = FakeGroup(node_id)
        self.lose = False
        self.barrier_fails = False
        self.up: set[int] = {node_id}
        self.full: set[int] = set()
        #: Of peers whose process answers.
        self.boot_epochs: dict[int, int] = {}
        self.rollback: Rollback | None = None
        self.channels: dict[int, grpc.aio.Channel] = {}
        self.proposed: list[pb.MetadataCommand] = []
        self.quarantined: dict[int, Quarantined] = {}
        self.damaged_store = ""
        self.births_trusted_from = 0
        #: What the version reads that greeted last on a store.
        self.levels: dict[str, int] = {}
        #: Groups, and their replicas elsewhere that are shut out.
        self.shut_out: list[tuple[int, int]] = []
        #: Groups of which a member once came back without what it had acknowledged.
        self.had_losses: list[int] = []

    @property
    def damaged_groups(self) -> list[int]:
        return sorted({*self.had_losses, *(group_id for group_id, _ in self.shut_out)})

    def shut_out_elsewhere(self, group_id: int) -> set[int]:
        return {replica for of, replica in self.shut_out if of == group_id}

    @property
    def groups(self) -> Mapping[int, GroupView]:
        return {METADATA_GROUP_ID: self.here}

    def group(self, group_id: int) -> GroupView | None:
        return self.here if group_id == METADATA_GROUP_ID else None

    def feature_level(self, store_uuid: str) -> int:
        return self.levels.get(store_uuid, 0)

    def trust_births_from(self, group_id: int) -> None:
        self.births_trusted_from = group_id

    def create_group(
        self, meta: GroupMeta, conf: ConfState | None, first_leader: int | None = None
    ) -> None:
        raise AssertionError(f"nobody creates {meta} {conf} {first_leader} here")

    def remove_group(self, group_id: int) -> None:
        raise AssertionError(f"nobody removes {group_id} here")

    def propose(self, group_id: int, data: bytes) -> FakeProposal:
        if self.leaders.leader != self.node_id:
            raise NotLeadingError(self.leaders.leader << 24, 1)
        command = pb.MetadataCommand.FromString(data)
        self.proposed.append(command)
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        if self.lose:
            done.set_result(Completion(None, group_id, (1, 0), lost=True))
            return FakeProposal((1, 0), done)
        result = self.log.apply(command, command.time_ms)
        entry = (1, self.log.entries[-1].index)
        self.here.applied = entry[1]
        done.set_result(Completion(None, group_id, entry, result))
        return FakeProposal(entry, done)

    async def change_membership(self, group_id: int, change: ConfChange) -> Completion:
        raise AssertionError(f"nobody changes {group_id} by {change} here")

    async def read_barrier(self, group_id: int) -> int:
        if self.barrier_fails:
            raise BarrierLostError(f"no majority of group {group_id}")
        return self.here.applied

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        raise AssertionError(f"nobody moves {group_id} to {to_replica} here")

    def set_peer(self, node_id: int, address: str | None) -> None:
        raise AssertionError(f"nobody moves node {node_id} to {address} here")

    def channel(self, node_id: int) -> grpc.aio.Channel:
        return self.channels[node_id]

    def node_is_up(self, node_id: int) -> bool:
        return node_id in self.up

    def has_room(self, node_id: int) -> bool:
        return node_id not in self.full

    @property
    def somebody_lacks_room(self) -> bool:
        return bool(self.full)

    def answering(self, node_id: int) -> int:
        return self.boot_epochs.get(node_id, 0)

    def rollback_of(self, start: StoreStart) -> Rollback | None:
        assert start.boot_epoch
        return self.rollback

    def refuse_replaced(self, is_replaced: Callable[[int, str], bool]) -> None:
        assert not is_replaced(1, "a store")

    def on_turned_away(self, callback: Callable[[int], None]) -> Callable[[], None]:
        del callback
        return lambda: None

    def on_applied(self, group_id: int, callback: Callable[[], None]) -> Callable[[], None]:
        del group_id, callback
        return lambda: None

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        del callback
        return lambda: None

    def on_node(self, callback: Callable[[int, bool], None]) -> Callable[[], None]:
        del callback
        return lambda: None
