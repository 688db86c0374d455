"""Commands about nodes: the founding of the cluster, admission, new addresses, new stores.

Rules:

- Founders get their node ids by the order of their store uuids; every founder may propose the
  founding, the first one counts, and a second one says the same (S26).
- A name belongs to one node, a store to one name and id. Who comes back with the same store is the
  same node, wherever it is now.
- A new store under a known name is admitted only with the name of the store that it replaces: the
  leader has found that one not alive, and it must still be the node's store when this is applied
  (S11). In the same step every partition with a replica on the node gets a fresh replica id there,
  so that the old store's replicas are no part of anything any more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.multiraft.hello import FEATURE_LEVEL
from rakit.multiraft.machine import replica_id
from rakit.node.errors import RakitError
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import NODES_COUNT_MAX, Change, NodeInfo, Registry
from rakit.peer.v1.metadata_command_pb2 import (
    NODE_REFUSAL_IDENTITY_MISMATCH,
    NODE_REFUSAL_NAME_TAKEN,
    NODE_REFUSAL_STORE_REPLACED,
    ClusterFounded,
    FoundCluster,
    Founding,
    MetadataResult,
    NodeDescription,
    NodeRegistered,
    RaiseFeatureLevel,
    RegisterNode,
)

#: The registry keeps it: names, racks and the addresses of some dozens of listeners.
DESCRIPTION_BYTES_MAX: Final = 16 << 10


def found_cluster(registry: Registry, command: FoundCluster, time_ms: int) -> MetadataResult:
    """Makes the founders the first nodes."""
    cluster_id = command.founding.cluster_id
    result = MetadataResult(cluster_founded=ClusterFounded(cluster_id=cluster_id))
    _check_founding(registry, command.founding)
    if registry.cluster_id:
        return result
    registry.cluster_id = cluster_id
    registry.feature_level = command.feature_level
    for member in command.founding.members:
        _admit_new(registry, member, time_ms)
    registry.changed(Change(0, nodes=True))
    return result


def check_level(feature_level: int) -> None:
    """Stops a replica that cannot read what others write from now on, before it is counted on."""
    assert feature_level <= FEATURE_LEVEL, (
        f"the cluster's feature level is {feature_level} and this version reads {FEATURE_LEVEL}:"
        " run the version that the other nodes run"
    )


def raise_feature_level(registry: Registry, command: RaiseFeatureLevel) -> MetadataResult:
    """Has nodes write what every node reads; the level never falls."""
    check_level(command.feature_level)
    if command.feature_level > registry.feature_level:
        registry.feature_level = command.feature_level
        registry.changed(Change(0, nodes=True))
    return MetadataResult()


def _check_founding(registry: Registry, founding: Founding) -> None:
    """Refuses what is no founding, and that of another cluster: one log belongs to one."""
    if founding.cluster_id != (registry.cluster_id or founding.cluster_id):
        raise _invalid(
            f"this is cluster {registry.cluster_id}, not {founding.cluster_id}, which is to be"
            " founded"
        )
    for member in founding.members:
        _check_description(member)
    uuids = [member.store_uuid for member in founding.members]
    names = {member.name for member in founding.members}
    if not (founding.cluster_id and uuids) or uuids != sorted(set(uuids)):
        raise _invalid("a founding has an id, and members in the order of their store uuids")
    if len(names) < len(uuids):
        raise _invalid("two members of a founding have one name")


def _check_description(node: NodeDescription) -> None:
    if not node.name or not node.store_uuid or node.ByteSize() > DESCRIPTION_BYTES_MAX:
        raise _invalid(
            f"a node is described by its name and store at least, and in {DESCRIPTION_BYTES_MAX:,}"
            f" bytes at most; these are {node.ByteSize():,}"
        )


def _invalid(message: str) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, message)


def register_node(registry: Registry, command: RegisterNode, time_ms: int) -> MetadataResult:
    """Admits a node, takes note of its new address, or refuses it."""
    node = command.node
    _check_description(node)
    known = registry.node_by_name(node.name)
    _check_identity(registry, command, known)
    if known is None:
        if len(registry.nodes) >= NODES_COUNT_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_THROTTLED,
                f"the cluster has {NODES_COUNT_MAX:,} nodes, which is its limit",
            )
        admitted = _admit_new(registry, node, time_ms)
        registry.changed(Change(0, nodes=True))
        return _registered(admitted)
    if known.store_uuid == node.store_uuid:
        moved = known.moved(node)
        if moved != known:
            registry.put_node(moved)
            registry.changed(Change(0, nodes=True))
        return _registered(moved)
    if command.replaces_store_uuid != known.store_uuid:
        raise NodeRefusedError(NODE_REFUSAL_NAME_TAKEN, name_taken_text(known))
    return _registered(_replace_store(registry, known, node, time_ms))


def name_taken_text(known: NodeInfo) -> str:
    """What a person reads when two living nodes have one name."""
    return (
        f"two living nodes with one name: node {known.node_id} is called {known.name!r}, lives at"
        f" {known.peer_address} and has store {known.store_uuid}; start this node with another"
        " --name, or stop that one first if this node is to take its place"
    )


def _check_identity(registry: Registry, command: RegisterNode, known: NodeInfo | None) -> None:
    """Refuses a store that was replaced, or that was admitted as somebody else."""
    node = command.node
    for other in registry.nodes.values():
        if node.store_uuid in other.former_store_uuids:
            raise _replaced(other, node)
        if other.store_uuid == node.store_uuid and other.name != node.name:
            raise NodeRefusedError(
                NODE_REFUSAL_IDENTITY_MISMATCH,
                f"this data directory belongs to node {other.node_id}, called {other.name!r}; start"
                f" it under that name instead of {node.name!r}, or with an empty directory",
            )
    if not command.node_id:
        return
    if known is None or known.node_id != command.node_id:
        raise NodeRefusedError(
            NODE_REFUSAL_IDENTITY_MISMATCH,
            f"this data directory says that {node.name!r} is node {command.node_id}, but the"
            " cluster knows no such node; it may be the directory of another cluster",
        )
    if known.store_uuid != node.store_uuid:
        raise _replaced(known, node)


def _replaced(known: NodeInfo, node: NodeDescription) -> NodeRefusedError:
    return NodeRefusedError(
        NODE_REFUSAL_STORE_REPLACED,
        f"this data directory (store {node.store_uuid}) was given up when node {known.node_id},"
        f" {known.name!r}, came back with store {known.store_uuid}; its replicas are dead for good:"
        " move the directory away and start with an empty one",
    )


def _registered(node: NodeInfo) -> MetadataResult:
    return MetadataResult(
        node_registered=NodeRegistered(
            node_id=node.node_id, metadata_replica_id=node.metadata_replica_id
        )
    )


def _next_metadata_replica(registry: Registry, node_id: int) -> int:
    counters = registry.counters
    fresh = replica_id(node_id, counters.metadata_replica_sequence)
    counters.metadata_replica_sequence += 1
    return fresh


def _admit_new(registry: Registry, node: NodeDescription, time_ms: int) -> NodeInfo:
    node_id = registry.counters.node_id
    registry.counters.node_id += 1
    replica = _next_metadata_replica(registry, node_id)
    admitted = NodeInfo.described(node, node_id, replica, time_ms)
    registry.put_node(admitted)
    return admitted


def _replace_store(
    registry: Registry, known: NodeInfo, node: NodeDescription, time_ms: int
) -> NodeInfo:
    replica = _next_metadata_replica(registry, known.node_id)
    fresh = known.with_store(node, replica, time_ms)
    registry.put_node(fresh)
    moved: list[int] = []
    for topic in tuple(registry.topics()):
        hit = [one.group_id for one in topic.partitions if one.on_node(known.node_id) is not None]
        if not hit:
            continue
        moved += hit
        groups = set(hit)
        partitions = tuple(
            one.with_new_replica(known.node_id) if one.group_id in groups else one
            for one in topic.partitions
        )
        registry.put_topic(replace(topic, partitions=partitions))
    registry.changed(Change(0, nodes=True, group_ids=tuple(moved)))
    return fresh
