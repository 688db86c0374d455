"""The partitions whose replicas live on this node, by group.

A `Partition` is made when its replica first leads or is first asked for, and closed when the
replica is gone. A topic's settings come from the registry each time they are needed, so that an
update holds from the next batch on.

Rules:

- A leadership has one `Partition`, which knows what is pending; when that is gone nothing more is
  taken.
- A group that the registry does not have is not served, whatever its replica thinks, because its
  topic was deleted; neither is an internal one, which holds no records.

Upkeep is for every replica that leads, whether anybody uses it or not, and for farewells to those
that are gone. It costs nothing for partitions at rest, of which there may be thousands beside a
busy one: looked at is what was stirred (its log grew, its role, its settings or its place in the
registry changed), and what has come to the time that its last look named (`partition.turns`). So
whatever becomes due is acted on within `UPKEEP_INTERVAL_S`, and the time that it takes to look at
those which are due with it, some of them between two turns of the node's other tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Protocol

from rakit.api.v1 import error_pb2
from rakit.multiraft.effects import RoleChange
from rakit.node.errors import RakitError
from rakit.node.metadata.registry import Change, Registry
from rakit.node.metadata.topic_config import TopicConfig
from rakit.node.partition.answers import Appended
from rakit.node.partition.batches import Batch
from rakit.node.partition.partition import Partition, PartitionContext, ReplicaHost
from rakit.node.partition.producers import Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import Stored
from rakit.node.partition.turns import Turns

#: Between two rounds of upkeep: retention works in steps that are much longer.
UPKEEP_INTERVAL_S: Final = 1.0
#: Partitions that are looked at between two turns that other tasks get: a few milliseconds.
_LOOKED_AT_COUNT_MAX: Final = 128


class LedGroups(Protocol):
    """What this node leads."""

    def led_here(self) -> dict[int, int]:
        """The groups that this node leads and may serve, with their terms."""
        ...


class PartitionHost(ReplicaHost, Protocol):
    """What a partition needs of the host, and the role changes of all groups."""

    @property
    def leaders(self) -> LedGroups:
        """The routing table."""
        ...

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        """Has every role change told; returns what ends that."""
        ...


@lru_cache(maxsize=1024)
def settings_of(config: TopicConfig) -> TopicSettings:
    """A topic's settings as a partition uses them."""
    effective = config.effective
    return TopicSettings(
        retention_bytes=None if effective.retention_bytes < 0 else effective.retention_bytes,
        retention_ms=None if effective.retention_ms < 0 else effective.retention_ms,
        batch_bytes_max=effective.batch_bytes_max,
        batch_decompressed_bytes_max=effective.batch_decompressed_bytes_max,
        segment_bytes=effective.segment_bytes,
        segment_ms=effective.segment_ms,
    )


class Partitions:
    """Group id to partition, for one node."""

    def __init__(
        self,
        host: PartitionHost,
        registry: Registry,
        context: PartitionContext,
        lacks_room: Callable[[int], bool],
        leaves: Callable[[int], bool],
    ) -> None:
        self._host = host
        self._lacks_room = lacks_room
        self._leaves = leaves
        self._registry = registry
        self._context = context
        self._partitions: dict[int, Partition] = {}
        self._turns = Turns()
        self._is_closed = False
        self._unsubscribe = [
            host.on_role(self._role_changed),
            registry.subscribe(self._registry_changed),
        ]

    def get(self, group_id: int) -> Partition:
        """The partition. Raises NODE_UNAVAILABLE where this node has no working replica of it."""
        partition = self._find(group_id)
        if partition is None:
            raise RakitError(
                error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                "This node holds no working replica of the partition.",
            )
        return partition

    def _find(self, group_id: int) -> Partition | None:
        """The partition, made if need be; None where there is no working replica of it.

        The table of leaders may name a group that was shut out for damage a moment ago.
        """
        place = self._registry.partition(group_id)
        if place is None or self._registry.is_internal(place) or self._is_closed:
            return None
        held = self._partitions.get(group_id)
        if held is not None or self._host.group(group_id) is None:
            return held
        made = Partition(
            self._host,
            group_id,
            lambda: self._settings(group_id),
            self._context,
            self._turns.stir,
        )
        self._partitions[group_id] = made
        return made

    def append(
        self,
        group_id: int,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        gather: bool = False,
    ) -> asyncio.Future[Appended]:
        """Appends to a partition that this node leads; raises RakitError otherwise."""
        if self._lacks_room(group_id):
            if self._leaves(group_id):
                raise RakitError(
                    error_pb2.ERROR_REASON_NO_LEADER,
                    "The disk of the partition's leader is nearly full; another replica is about to"
                    " lead.",
                    {"retry_delay_ms": "100"},
                )
            raise RakitError(
                error_pb2.ERROR_REASON_NO_SPACE,
                "The disks of the partition's leader or of most of its replicas are nearly full:"
                " free some room, or shorten the retention of topics. Reads go on.",
            )
        return self.get(group_id).append(batch, stamp, expected_offset, gather=gather)

    def stored_before(self, group_id: int, stored: Stored) -> Appended:
        """What Produce answers for a batch that is known to be committed."""
        replica = self._host.group(group_id)
        voters = 0 if replica is None else len(replica.conf_state.voters)
        return Appended(stored, voters // 2 + 1, self._context.fsynced, duplicate=True)

    def _settings(self, group_id: int) -> TopicSettings:
        place = self._registry.partition(group_id)
        topic = None if place is None else self._registry.topic_by_id(place.topic_id)
        return settings_of(TopicConfig() if topic is None else topic.config)

    def _role_changed(self, change: RoleChange) -> None:
        held = self._partitions.get(change.group_id)
        if held is not None:
            held.wake()
        elif change.ready:
            self._turns.stir(change.group_id)

    def _registry_changed(self, change: Change) -> None:
        turns = self._turns
        if change.everything:
            turns.stir_all((*self._partitions, *self._host.leaders.led_here()))
        turns.stir_all(change.dead_group_ids)
        for topic_id in change.topic_ids:
            topic = self._registry.topic_by_id(topic_id)
            if topic is not None:
                turns.stir_all(each.group_id for each in topic.partitions)

    def upkeep(self) -> Iterator[None]:
        """One round: what is due now, in steps of milliseconds."""
        due = self._turns.take(self._context.clock_ms())
        for at in range(0, len(due), _LOOKED_AT_COUNT_MAX):
            for group_id in due[at : at + _LOOKED_AT_COUNT_MAX]:
                self._look_after(group_id)
            yield

    def _look_after(self, group_id: int) -> None:
        """Retention if it is led here, and farewell if it is gone."""
        replica, held = self._host.group(group_id), self._partitions.get(group_id)
        if replica is None or self._registry.partition(group_id) is None:
            if held is not None:
                del self._partitions[group_id]
                held.close()
            self._turns.forget(group_id)
        elif held is not None or replica.ready:
            partition = self._find(group_id)
            due_ms = None if partition is None else partition.look_after()
            if due_ms is not None:
                self._turns.plan(group_id, due_ms)

    async def run_upkeep(self) -> None:
        """Looks after the partitions until it is cancelled."""
        while True:
            await asyncio.sleep(UPKEEP_INTERVAL_S)
            for _ in self.upkeep():
                await asyncio.sleep(0)

    def close(self) -> None:
        """Lets go of host and registry; nothing is served from now on.

        Others may still ask. A partition that was made anew for them would know nothing of what the
        one before it has pending.
        """
        self._is_closed = True
        while self._unsubscribe:
            self._unsubscribe.pop()()
        for partition in self._partitions.values():
            partition.close()
        self._partitions.clear()
