"""Damage that the cluster goes on without, as this node knows of it.

A replica that is shut out, a member that lost what it had acknowledged, a store that went back in
time: each costs a copy of the data, and nothing else shows it, since the other copies serve. The
log says each once, when it happens; here it can be asked for as long as it lasts. Replicas of
partitions are replaced without anybody's help where that is safe (`metadata.evictions`), so they
are shown for a moment only; what stays is for a person, and the message says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from rakit.api.v1 import cluster_service_pb2 as api
from rakit.multiraft.hello import Rollback
from rakit.multiraft.machine import node_of
from rakit.multiraft.quarantine import REMEDY_FOR_GOOD, Quarantined
from rakit.node.metadata.registry import Registry

#: A damaged disk may hold thousands of replicas, and an answer has a size.
SHOWN_COUNT_MAX: Final = 1_000

_UNCOMPACTED: Final = (
    "The node serves, but rewrites no tables, so what is deleted keeps its room. Before its disk is"
    " full, and while all other nodes are well, start it with an empty data directory; its replicas"
    " are made anew."
)


class DamageHost(Protocol):
    """The part of the host that knows of damage."""

    node_id: int

    @property
    def quarantined(self) -> Mapping[int, Quarantined]:
        """The replicas of this node that are shut out, by group."""
        ...

    @property
    def damaged_store(self) -> str:
        """The damage for which this node rewrites no tables; empty: none."""
        ...

    @property
    def lost_logs(self) -> list[tuple[int, int]]:
        """Groups and their members elsewhere that lost what they had acknowledged."""
        ...

    @property
    def rolled_back_stores(self) -> list[Rollback]:
        """Stores of other nodes that went back in time."""
        ...

    def quarantined_count(self, node_id: int) -> int:
        """How many replicas a node has shut out, as it said last."""
        ...


def damages(host: DamageHost, registry: Registry) -> Iterator[api.Damage]:
    """What this node knows of that is not in order."""
    for store in host.rolled_back_stores:
        node = registry.nodes.get(store.node_id)
        if node is not None and node.store_uuid == store.store_uuid:
            yield api.Damage(
                kind=api.DAMAGE_KIND_STORE_WENT_BACK,
                node_id=store.node_id,
                store_uuid=store.store_uuid,
                message=str(store),
            )
    if host.damaged_store:
        node = registry.nodes.get(host.node_id)
        yield api.Damage(
            kind=api.DAMAGE_KIND_STORE_UNCOMPACTED,
            node_id=host.node_id,
            store_uuid="" if node is None else node.store_uuid,
            message=f"RocksDB cannot read a table: {host.damaged_store}. {_UNCOMPACTED}",
        )
    for group_id, replica in host.lost_logs:
        yield _of_replica(
            registry,
            api.DAMAGE_KIND_LOG_LOST,
            node_of(replica),
            group_id,
            "It came back without entries that it had acknowledged, and counts no more: its disk"
            f" went back or lies about its syncs. {REMEDY_FOR_GOOD}",
        )
    for group_id, shut_out in sorted(host.quarantined.items())[:SHOWN_COUNT_MAX]:
        yield _of_replica(
            registry,
            api.DAMAGE_KIND_REPLICA_SHUT_OUT,
            host.node_id,
            group_id,
            f"It takes no part any more: {shut_out.reason}. {shut_out.remedy}",
        )


def _of_replica(
    registry: Registry, kind: api.DamageKind.ValueType, node_id: int, group_id: int, message: str
) -> api.Damage:
    place = registry.partition(group_id)
    topic = None if place is None else registry.topic_by_id(place.topic_id)
    return api.Damage(
        kind=kind,
        node_id=node_id,
        group_id=group_id,
        topic="" if topic is None else topic.name,
        partition=0 if place is None else place.partition,
        message=message,
    )
