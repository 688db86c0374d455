"""This node's partitions: births, removals, and the membership of those it leads.

Births and removals follow the registry. A replica is born when the registry assigns one to this
node's present store: with the group's first configuration if it belongs to that, else with nothing,
to be filled by the leader. It is removed only on positive evidence, never because something is not
found (nothing is removed, for example, by an empty registry): that its group is dead, or that the
registry assigns this node a newer replica in its place, which is then born. It does so where one is
damaged (`evictions`), whether that is shut out or does not know of its damage. An older one in the
registry means nothing: ids only grow, so it is the past.

Both wait for a first linearizable read: before it the registry of a node that was away shows the
past, topics that were deleted since and stores that were replaced since. And both look at the uuid
of this node's store: a registry that still assigns replicas to the store that this one replaced
does not mean this one (S11).

On groups that this node leads, `tending` brings the members to what the registry says. A group is
looked at when it gets a leader here, when its assignment changes or when a node comes up, and again
every now and then only while something is left to do; groups that are as they should be cost
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Final

from rakit.multiraft.effects import RoleChange
from rakit.multiraft.errors import GroupRefusedError
from rakit.multiraft.machine import GroupKind, GroupMeta
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.registry import METADATA_GROUP_ID, Change, PartitionInfo, Registry
from rakit.node.metadata.tending import Tended, Wanted, tend
from rakit.raft import ConfState

_log = logging.getLogger(__name__)

#: Replicas made or removed between two turns that other tasks get.
_BATCH_COUNT_MAX: Final = 32
#: Groups whose members change at one time; each change may copy a whole partition.
_TENDED_COUNT_MAX: Final = 8
_LOOK_AGAIN_SECONDS: Final = 0.2


class LocalReplicas:
    """Makes and removes the replicas of this node."""

    def __init__(self, host: HostPort, registry: Registry, store_uuid: str) -> None:
        self._host = host
        self._registry = registry
        self._store_uuid = store_uuid
        # Groups to look at; a dict because it keeps the order. Bounded by the partitions there are.
        self._changed: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._unsubscribe = registry.subscribe(self._registry_changed)

    def close(self) -> None:
        """Ends the subscription."""
        self._unsubscribe()

    async def run(self) -> None:
        """Works until it is cancelled; begin it after a first linearizable read."""
        self._note_everything()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed and self._store_is_known():
                for group_id in tuple(islice(self._changed, _BATCH_COUNT_MAX)):
                    del self._changed[group_id]
                    self._settle(group_id)
                await asyncio.sleep(0)

    def _store_is_known(self) -> bool:
        node = self._registry.nodes.get(self._host.node_id)
        return node is not None and node.store_uuid == self._store_uuid

    def _settle(self, group_id: int) -> None:
        """Makes this node's part of one group what it should be."""
        here = self._host.group(group_id)
        if self._registry.is_dead_group(group_id):
            if here is not None or group_id in self._host.quarantined:
                _log.info("group %d is deleted; its replica is removed", group_id)
                self._host.remove_group(group_id)
            return
        partition = self._registry.partition(group_id)
        replica = None if partition is None else partition.on_node(self._host.node_id)
        if partition is None or replica is None:
            return
        if here is not None:
            if here.meta.replica_id >= replica:
                return
            _log.warning(
                "group %d: replica %d is replaced by %d, and removed with its data",
                group_id,
                here.meta.replica_id,
                replica,
            )
            self._host.remove_group(group_id)
        internal = self._registry.is_internal(partition)
        kind = GroupKind.CONSUMERS if internal else GroupKind.PARTITION
        meta = GroupMeta(group_id, replica, kind)
        try:
            # The preferred leader stands first, so that nothing need be moved afterwards.
            preferred = partition.replica_ids[0]
            self._host.create_group(meta, _birth_conf(partition, replica), preferred)
        except GroupRefusedError as error:
            _log.warning("replica %d of group %d is not made: %s", replica, group_id, error)

    def _registry_changed(self, change: Change) -> None:
        if change.everything:
            self._note_everything()
        elif change.group_ids or change.dead_group_ids or (change.nodes and self._changed):
            self._note((*change.group_ids, *change.dead_group_ids))

    def _note_everything(self) -> None:
        mine = self._host.node_id
        self._note(one.group_id for one in self._registry.partitions() if one.on_node(mine))
        here = (*self._host.groups, *self._host.quarantined)
        self._note(one for one in here if one != METADATA_GROUP_ID)

    def _note(self, group_ids: Iterable[int]) -> None:
        self._changed.update(dict.fromkeys(group_ids))
        self._wake.set()


def _birth_conf(partition: PartitionInfo, replica: int) -> ConfState | None:
    """The first configuration, for a replica that belongs to it."""
    born = partition.born_replica_ids
    return ConfState(voters=tuple(sorted(born))) if replica in born else None


class LedGroups:
    """Brings the members of the partitions that this node leads to what the registry says."""

    def __init__(self, host: HostPort, registry: Registry) -> None:
        self._host = host
        self._registry = registry
        # Groups to look at, in order. Bounded by the partitions there are.
        self._open: dict[int, None] = {}
        self._wake = asyncio.Event()
        self._unsubscribe = [
            host.on_role(self._role_changed),
            registry.subscribe(self._registry_changed),
        ]
        self._note(host.leaders.led_here())

    def close(self) -> None:
        """Ends the subscriptions."""
        while self._unsubscribe:
            self._unsubscribe.pop()()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._open:
                if not await self._tend_some():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                            await self._wake.wait()
                    self._wake.clear()

    async def _tend_some(self) -> bool:
        """Looks at the groups that have waited longest; False when no step could be taken."""
        chosen = tuple(islice(self._open, _TENDED_COUNT_MAX))
        for group_id in chosen:
            del self._open[group_id]
        results = await asyncio.gather(*(self._tend(group_id) for group_id in chosen))
        for group_id, tended in zip(chosen, results, strict=True):
            if tended is not Tended.DONE:
                self._open[group_id] = None
        return any(one is not Tended.WAITING for one in results)

    async def _tend(self, group_id: int) -> Tended:
        partition = self._registry.partition(group_id)
        if partition is None:
            return Tended.DONE
        wanted = Wanted(partition.replica_ids, len(partition.replica_ids))
        return await tend(self._host, group_id, wanted)

    def _role_changed(self, change: RoleChange) -> None:
        if change.ready and change.group_id != METADATA_GROUP_ID:
            self._note([change.group_id])

    def _registry_changed(self, change: Change) -> None:
        if change.everything:
            self._note(self._host.leaders.led_here())
        elif change.group_ids:
            led = self._host.leaders.led_here()
            self._note(one for one in change.group_ids if one in led)

    def _note(self, group_ids: Iterable[int]) -> None:
        self._open.update({one: None for one in group_ids if one != METADATA_GROUP_ID})
        if self._open:
            self._wake.set()
