"""The registry as bytes and back: the data of the metadata group's checkpoints.

Equal registries give equal bytes on every replica: nodes by id, topics by id, partitions in
columns (a hundred times fewer objects than one message each), producers and answered requests in
the order in which the state keeps them. Protobuf's own deterministic mode covers the maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import MappingProxyType

from rakit.node.metadata.registry import Counters, NodeInfo, PartitionInfo, Registry, TopicInfo
from rakit.node.metadata.tables import DeadGroups, Producer
from rakit.node.metadata.topic_config import TopicConfig
from rakit.peer.v1 import metadata_command_pb2 as pb


def encode(registry: Registry, checkpoint_index: int, previous_index: int) -> bytes:
    """The whole state, and the two checkpoints between which the log is kept."""
    counters = registry.counters
    state = pb.MetadataState(
        cluster_id=registry.cluster_id,
        feature_level=registry.feature_level,
        counters=pb.Counters(
            node_id=counters.node_id,
            topic_id=counters.topic_id,
            group_id=counters.group_id,
            producer_id=counters.producer_id,
            metadata_replica_sequence=counters.metadata_replica_sequence,
        ),
        nodes=[_node_record(registry.nodes[node_id]) for node_id in sorted(registry.nodes)],
        topics=[_topic_record(one) for one in sorted(registry.topics(), key=lambda t: t.topic_id)],
        answered=[pb.AnsweredRequest(mark=mark, result=got) for mark, got in registry.answered],
        dead_groups=registry.dead_groups.bounds,
        checkpoint_index=checkpoint_index,
        previous_checkpoint_index=previous_index,
    )
    producers = registry.producers.items()
    state.producers.names.extend([name for name, _ in producers])
    state.producers.ids.extend([one.producer_id for _, one in producers])
    state.producers.epochs.extend([one.epoch for _, one in producers])
    return state.SerializeToString(deterministic=True)


def decode(data: bytes, registry: Registry) -> tuple[int, int]:
    """Fills an empty registry; returns the indexes of the last two checkpoints."""
    state = pb.MetadataState.FromString(data)
    registry.cluster_id = state.cluster_id
    registry.feature_level = state.feature_level
    registry.counters = Counters(
        node_id=state.counters.node_id,
        topic_id=state.counters.topic_id,
        group_id=state.counters.group_id,
        producer_id=state.counters.producer_id,
        metadata_replica_sequence=state.counters.metadata_replica_sequence,
    )
    for node in state.nodes:
        registry.put_node(_node(node))
    for topic in state.topics:
        registry.put_topic(_topic(topic))
    table = state.producers
    for name, producer_id, epoch in zip(table.names, table.ids, table.epochs, strict=True):
        registry.producers.put(name, Producer(producer_id, epoch))
    for one in state.answered:
        registry.answered.put(one.mark, one.result)
    registry.dead_groups = DeadGroups(state.dead_groups)
    return state.checkpoint_index, state.previous_checkpoint_index


def _node_record(node: NodeInfo) -> pb.NodeRecord:
    return pb.NodeRecord(
        node_id=node.node_id,
        description=pb.NodeDescription(
            name=node.name,
            store_uuid=node.store_uuid,
            peer_address=node.peer_address,
            addresses=[
                pb.NamedAddress(listener=listener, address=address)
                for listener, address in sorted(node.addresses.items())
            ],
            rack=node.rack,
        ),
        metadata_replica_id=node.metadata_replica_id,
        admit_time_ms=node.admit_time_ms,
        former_store_uuids=node.former_store_uuids,
    )


def _node(record: pb.NodeRecord) -> NodeInfo:
    described = record.description
    return NodeInfo(
        node_id=record.node_id,
        name=described.name,
        rack=described.rack,
        store_uuid=described.store_uuid,
        peer_address=described.peer_address,
        addresses=MappingProxyType({one.listener: one.address for one in described.addresses}),
        metadata_replica_id=record.metadata_replica_id,
        admit_time_ms=record.admit_time_ms,
        former_store_uuids=tuple(record.former_store_uuids),
    )


def _topic_record(topic: TopicInfo) -> pb.TopicRecord:
    rows = topic.partitions
    return pb.TopicRecord(
        topic_id=topic.topic_id,
        name=topic.name,
        replication_factor=topic.replication_factor,
        config=topic.config.to_proto(),
        create_time_ms=topic.create_time_ms,
        group_ids=[one.group_id for one in rows],
        replica_counts=[len(one.replica_ids) for one in rows],
        replica_ids=[each for one in rows for each in one.replica_ids],
        next_replica_sequences=[one.next_replica_sequence for one in rows],
        born_counts=[len(one.born_replica_ids) for one in rows],
        born_replica_ids=[each for one in rows for each in one.born_replica_ids],
        internal=topic.internal,
    )


def _topic(record: pb.TopicRecord) -> TopicInfo:
    return TopicInfo(
        topic_id=record.topic_id,
        name=record.name,
        replication_factor=record.replication_factor,
        config=TopicConfig.from_proto(record.config),
        create_time_ms=record.create_time_ms,
        partitions=tuple(_partitions(record)),
        internal=record.internal,
    )


def _partitions(record: pb.TopicRecord) -> Iterator[PartitionInfo]:
    replicas, born = iter(record.replica_ids), iter(record.born_replica_ids)
    rows = zip(
        record.group_ids,
        record.replica_counts,
        record.next_replica_sequences,
        record.born_counts,
        strict=True,
    )
    for partition, (group_id, replica_count, sequence, born_count) in enumerate(rows):
        yield PartitionInfo(
            topic_id=record.topic_id,
            partition=partition,
            group_id=group_id,
            replica_ids=tuple(islice(replicas, replica_count)),
            born_replica_ids=tuple(islice(born, born_count)),
            next_replica_sequence=sequence,
        )
