"""The registry as bytes and back: the data of the metadata group's checkpoints.

Equal registries give equal bytes on every replica: nodes by id, topics by id, partitions in
columns (a hundred times fewer objects than one message each), producers and answered requests in
the order in which the state keeps them. Protobuf's own deterministic mode covers the maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import MappingProxyType
from typing import Final

from rakit.node.metadata.registry import Counters, NodeInfo, PartitionInfo, Registry, TopicInfo
from rakit.node.metadata.tables import DeadGroups, ProducerTable
from rakit.node.metadata.topic_config import TopicConfig
from rakit.peer.v1 import metadata_command_pb2 as pb

#: Producer names in one section.
NAMES_COUNT: Final = 1_000


class Encoder:
    """Turns one registry into bytes, again and again.

    What does not change between two checkpoints is encoded once: topics, answered requests, and
    producer names with their ids, a thousand at a time. Messages that follow each other in protobuf
    merge, so a state is its sections one after the other; which they are depends on the registry
    alone, never on what was kept.
    """

    def __init__(self) -> None:
        self._topics: dict[int, tuple[TopicInfo, bytes]] = {}
        self._answered: dict[str, tuple[object, bytes]] = {}
        self._names: list[bytes] = []

    def encode(self, registry: Registry, checkpoint_index: int, previous_index: int) -> bytes:
        """The whole state, and the two checkpoints between which the log is kept."""
        counters = registry.counters
        head = pb.MetadataState(
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
            dead_groups=registry.dead_groups.bounds,
            checkpoint_index=checkpoint_index,
            previous_checkpoint_index=previous_index,
        )
        sections = [bytes_of(head), *self._topic_sections(registry)]
        sections += self._producer_sections(registry.producers)
        sections += self._answered_sections(registry)
        return b"".join(sections)

    def _topic_sections(self, registry: Registry) -> list[bytes]:
        known, self._topics = self._topics, {}
        for topic in sorted(registry.topics(), key=lambda each: each.topic_id):
            kept = known.get(topic.topic_id)
            if kept is None or kept[0] is not topic:
                kept = topic, bytes_of(pb.MetadataState(topics=[_topic_record(topic)]))
            self._topics[topic.topic_id] = kept
        return [encoded for _, encoded in self._topics.values()]

    def _producer_sections(self, table: ProducerTable) -> list[bytes]:
        whole, names = len(table) // NAMES_COUNT, self._names
        for number in range(len(names), whole):
            names.append(_names_section(table, number))
        rest = _names_section(table, whole)
        epochs = pb.MetadataState(producers=pb.ProducerTable(epochs=table.epochs))
        return [*names, rest, bytes_of(epochs)]

    def _answered_sections(self, registry: Registry) -> list[bytes]:
        known, self._answered = self._answered, {}
        for request_id in registry.answered.ids():
            kept = known.get(request_id)
            stored = registry.answered.get(request_id)
            # An id that gave way to later ones may come again, with another request.
            if kept is None or kept[0] is not stored:
                record = registry.answered.record(request_id)
                kept = stored, bytes_of(pb.MetadataState(answered=[record]))
            self._answered[request_id] = kept
        return [encoded for _, encoded in self._answered.values()]


def _names_section(table: ProducerTable, number: int) -> bytes:
    lo, hi = number * NAMES_COUNT, (number + 1) * NAMES_COUNT
    columns = pb.ProducerTable(names=table.names[lo:hi], ids=table.ids[lo:hi])
    return bytes_of(pb.MetadataState(producers=columns))


def bytes_of(state: pb.MetadataState) -> bytes:
    """A section, the same bytes for the same content."""
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
    registry.producers.load(table.names, table.ids, table.epochs)
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
