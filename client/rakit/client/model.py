"""What the cluster says about itself, as plain frozen values.

Messages of the wire stay inside the package: a user holds values that compare, print and
type-check, and that do not change when a field is added to the protocol. Fields mean what the
message of the same name says in `protos/rakit/api/v1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rakit.api.v1 import cluster_service_pb2 as cluster
from rakit.api.v1 import topic_service_pb2 as topics
from rakit.api.v1.log_service_pb2 import PartitionOffsets, ProduceResponse


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Settings of a topic; None stands for the default, -1 for no limit where that makes sense."""

    retention_bytes: int | None = None
    retention_ms: int | None = None
    batch_bytes_max: int | None = None
    batch_decompressed_bytes_max: int | None = None
    segment_bytes: int | None = None
    segment_ms: int | None = None

    def to_message(self) -> topics.TopicConfig:
        """Returns the message with the fields that are set."""
        return topics.TopicConfig(
            retention_bytes=self.retention_bytes,
            retention_ms=self.retention_ms,
            batch_bytes_max=self.batch_bytes_max,
            batch_decompressed_bytes_max=self.batch_decompressed_bytes_max,
            segment_bytes=self.segment_bytes,
            segment_ms=self.segment_ms,
        )

    @classmethod
    def from_message(cls, message: topics.TopicConfig) -> TopicConfig:
        """Returns the settings that are set in the message."""
        present = {field.name: value for field, value in message.ListFields()}
        return cls(**{name: present.get(name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a partition."""

    node_id: int
    replica_id: int
    is_voter: bool


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as the node that answered knows it."""

    partition: int
    group_id: int
    replicas: tuple[Replica, ...]
    # 0 and empty while no leader is known.
    leader_node_id: int
    leader_term: int
    leader_address: str

    @classmethod
    def from_message(cls, message: topics.Partition) -> Partition:
        """Returns the partition of a message."""
        replicas = tuple(
            Replica(each.node_id, each.replica_id, each.role == topics.REPLICA_ROLE_VOTER)
            for each in message.replicas
        )
        return cls(
            message.partition,
            message.group_id,
            replicas,
            message.leader_node_id,
            message.leader_term,
            message.leader_address,
        )


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic with its partitions, in the order of their numbers."""

    name: str
    topic_id: int
    replication_factor: int
    config: TopicConfig
    partitions: tuple[Partition, ...]
    create_time_ms: int

    @classmethod
    def from_message(cls, message: topics.Topic) -> Topic:
        """Returns the topic of a message."""
        return cls(
            message.name,
            message.topic_id,
            message.replication_factor,
            TopicConfig.from_message(message.config),
            tuple(Partition.from_message(each) for each in message.partitions),
            message.create_time_ms,
        )


@dataclass(frozen=True, slots=True)
class CreatedTopic:
    """A new topic, and what a person should know about it."""

    topic: Topic
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster."""

    node_id: int
    name: str
    rack: str
    is_up: bool
    # Client addresses by the name of the listener.
    addresses: tuple[tuple[str, str], ...]
    peer_address: str
    store_uuid: str
    leader_count: int
    replica_count: int
    # Of the replicas, those that the node has shut out for damage.
    shut_out_replica_count: int = 0

    @classmethod
    def from_message(cls, message: cluster.Node) -> Node:
        """Returns the node of a message."""
        return cls(
            message.node_id,
            message.name,
            message.rack,
            message.state == cluster.NODE_STATE_UP,
            tuple((each.listener, each.address) for each in message.addresses),
            message.peer_address,
            message.store_uuid,
            message.leader_count,
            message.replica_count,
            message.shut_out_replica_count,
        )


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not in order before a person has acted."""

    # REPLICA_SHUT_OUT, LOG_LOST or STORE_WENT_BACK.
    kind: str
    node_id: int
    group_id: int
    topic: str
    partition: int
    store_uuid: str
    # What happened, and what to do about it.
    message: str

    @classmethod
    def from_message(cls, message: cluster.Damage) -> Damage:
        """Returns the damage of a message."""
        return cls(
            cluster.DamageKind.Name(message.kind).removeprefix("DAMAGE_KIND_"),
            message.node_id,
            message.group_id,
            message.topic,
            message.partition,
            message.store_uuid,
            message.message,
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster as the node that answered sees it."""

    cluster_id: str
    nodes: tuple[Node, ...]
    metadata_leader_node_id: int
    topic_count: int
    partition_count: int
    leaderless_partition_count: int
    damages: tuple[Damage, ...] = ()

    @classmethod
    def from_message(cls, message: cluster.GetClusterResponse) -> Cluster:
        """Returns the cluster of an answer."""
        return cls(
            message.cluster_id,
            tuple(Node.from_message(each) for each in message.nodes),
            message.metadata_leader_node_id,
            message.topic_count,
            message.partition_count,
            message.leaderless_partition_count,
            tuple(Damage.from_message(each) for each in message.damages),
        )


@dataclass(frozen=True, slots=True)
class ReplicaDigest:
    """The hash of one replica, or why there is none."""

    node_id: int
    digest: str
    error: str


@dataclass(frozen=True, slots=True)
class Digest:
    """Hashes of all replicas of a partition over one range of its log."""

    first_index: int
    last_index: int
    end_offset: int
    replicas: tuple[ReplicaDigest, ...]

    @property
    def agrees(self) -> bool:
        """Every replica answered, and all hashes are the same."""
        return len({each.digest for each in self.replicas}) == 1 and not any(
            each.error for each in self.replicas
        )

    @classmethod
    def from_message(cls, message: cluster.GetDigestResponse) -> Digest:
        """Returns the digest of an answer."""
        replicas = tuple(
            ReplicaDigest(each.node_id, each.digest, each.error) for each in message.replicas
        )
        return cls(message.first_index, message.last_index, message.end_offset, replicas)


@dataclass(frozen=True, slots=True)
class Offsets:
    """The readable range of one partition."""

    partition: int
    earliest: int
    # One past the last committed record.
    latest: int
    # The first offset appended at or after the asked time; None when no time was asked for.
    at_time: int | None
    size_bytes: int

    @classmethod
    def from_message(cls, message: PartitionOffsets) -> Offsets:
        """Returns the range of a message."""
        at_time = message.at_time if message.HasField("at_time") else None
        return cls(message.partition, message.earliest, message.latest, at_time, message.size_bytes)


class Receipt(NamedTuple):
    """The proof that records are stored: fsynced by a majority of the partition's replicas."""

    topic: str
    partition: int
    # Of the record, or of the first record of a batch.
    offset: int
    # One past the last.
    end_offset: int
    append_time_ms: int
    # The Raft entry that holds them: `term` and `index` of the message (a tuple has an `index()`).
    term: int
    log_index: int
    # How many replicas were known to have synced it.
    replicas: int
    # False only on a test cluster that runs without fsync.
    fsynced: bool
    # They had been stored by an earlier attempt.
    duplicate: bool

    def of_record(self, index: int) -> Receipt:
        """Returns the receipt of one record of the batch."""
        offset = self.offset + index
        assert offset < self.end_offset, "the record is one of the batch"
        # Once for each record that somebody awaits: a dataclass takes three times as long.
        return Receipt(self.topic, self.partition, offset, offset + 1, *self[4:])

    @classmethod
    def from_message(cls, topic: str, message: ProduceResponse) -> Receipt:
        """Returns the receipt of a whole batch."""
        return cls(
            topic,
            message.partition,
            message.base_offset,
            message.end_offset,
            message.append_time_ms,
            message.term,
            message.index,
            message.replicas,
            message.fsynced,
            message.duplicate,
        )
