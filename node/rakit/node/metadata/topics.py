"""Commands about topics, their replicas, and producers.

Placement is computed here, when the command is applied, and not by the proposer: it then sees the
state as of exactly this entry, so it can be neither stale nor invalid, two topics created at the
same time stay even, and the entry is small however many partitions there are. The proposer adds
only what the state cannot know: which nodes it takes for dead. The price is that `placement` is
part of the replicated state machine and may change only with a feature level.

The repeat of a request gets the first answer; a request id that comes again with other content is
refused. Refusals are not remembered: the same request may succeed later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.multiraft.machine import node_of, replica_id
from rakit.node.errors import RakitError
from rakit.node.metadata.placement import Candidate, place
from rakit.node.metadata.registry import (
    PARTITIONS_COUNT_MAX,
    Change,
    PartitionInfo,
    Registry,
    TopicInfo,
)
from rakit.node.metadata.tables import Producer
from rakit.node.metadata.topic_config import TopicConfig, check_names
from rakit.peer.v1.metadata_command_pb2 import (
    CreateGroupPartitions,
    CreateTopic,
    DeleteTopic,
    InitProducer,
    MetadataResult,
    ProducerReady,
    ReplaceReplica,
    ReplicaReplaced,
    RequestMark,
    TopicChanged,
    UpdateTopic,
)

TOPIC_PARTITIONS_COUNT_MAX: Final = 10_000
#: The internal topic that consumer groups live in. Its number of partitions is part of the format.
GROUPS_TOPIC: Final = "__groups"
GROUP_PARTITIONS_COUNT: Final = 16
#: Names that begin so are the cluster's own.
RESERVED_PREFIX: Final = "__"
REPLICATION_FACTOR_DEFAULT: Final = 3
#: More replicas cost writes and protect against nothing that nine do not.
REPLICATION_FACTOR_MAX: Final = 9
#: Of the marks that the state keeps; the longest way to write a UUID: "urn:uuid:" and 36 more.
REQUEST_ID_CHARS_MAX: Final = 45
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_PRODUCER_NAME_CHARS_MAX: Final = 249


def check_topic_name(name: str) -> None:
    """Raises `RakitError` INVALID_TOPIC_NAME unless the name is a good one."""
    if _NAME.fullmatch(name) and name not in {".", ".."}:
        return
    raise RakitError(
        error_pb2.ERROR_REASON_INVALID_TOPIC_NAME,
        f"{name!r} is no topic name; use 1 to 249 of the characters a-z A-Z 0-9 . _ - (and not only"
        " '.' or '..')",
        {"topic": name},
    )


def check_new_topic_name(name: str) -> None:
    """Raises `RakitError` INVALID_TOPIC_NAME also for a name that clients may not create.

    The state machine does not ask: a log may hold such a name from before it was reserved.
    """
    check_topic_name(name)
    if name.startswith(RESERVED_PREFIX):
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_TOPIC_NAME,
            f"{name!r} is reserved: names that begin with {RESERVED_PREFIX} are the cluster's own",
            {"topic": name},
        )


def check_partition_count(count: int) -> None:
    """Raises `RakitError` INVALID_PARTITION_COUNT unless the count is within its bounds."""
    if not 1 <= count <= TOPIC_PARTITIONS_COUNT_MAX:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_PARTITION_COUNT,
            f"a topic cannot have {count:,} partitions; ask for 1 to"
            f" {TOPIC_PARTITIONS_COUNT_MAX:,}",
            {"limit": str(TOPIC_PARTITIONS_COUNT_MAX), "actual": str(count)},
        )


def check_replication_factor(factor: int) -> None:
    """Raises `RakitError` INVALID_REPLICATION_FACTOR unless the factor is within its bounds."""
    if not 1 <= factor <= REPLICATION_FACTOR_MAX:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REPLICATION_FACTOR,
            f"a replication factor of {factor:,} is out of bounds; ask for 1 to"
            f" {REPLICATION_FACTOR_MAX}, or leave it out for the default",
            {"limit": str(REPLICATION_FACTOR_MAX), "actual": str(factor)},
        )


def check_producer_name(name: str) -> None:
    """Raises `RakitError` INVALID_PRODUCER_NAME unless the name is a good one."""
    if 1 <= len(name) <= _PRODUCER_NAME_CHARS_MAX and name.isprintable():
        return
    raise RakitError(
        error_pb2.ERROR_REASON_INVALID_PRODUCER_NAME,
        f"a producer name has 1 to {_PRODUCER_NAME_CHARS_MAX} printable characters; this one has"
        f" {len(name):,}, printable or not",
    )


def create_topic(registry: Registry, command: CreateTopic, time_ms: int) -> MetadataResult:
    """Creates the topic and places its partitions."""
    if (answer := _answered(registry, command.mark)) is not None:
        return answer
    check_topic_name(command.name)
    partition_count = command.partition_count or 1
    check_partition_count(partition_count)
    nodes = len(registry.nodes)
    factor = command.replication_factor or min(REPLICATION_FACTOR_DEFAULT, nodes)
    check_replication_factor(factor)
    config = TopicConfig.from_proto(command.config)
    config.check()
    if registry.topic(command.name) is not None:
        raise RakitError(
            error_pb2.ERROR_REASON_TOPIC_EXISTS,
            f"there is a topic {command.name!r} already",
            {"topic": command.name},
        )
    if factor > nodes:
        raise RakitError(
            error_pb2.ERROR_REASON_REPLICATION_FACTOR_TOO_LARGE,
            f"the cluster has {nodes} {'node' if nodes == 1 else 'nodes'}, too few for a"
            f" replication factor of {factor}; add nodes, or ask for at most {nodes}",
            {"limit": str(nodes), "actual": str(factor)},
        )
    _check_room(registry, partition_count)
    topic = TopicInfo(
        topic_id=registry.counters.topic_id,
        name=command.name,
        replication_factor=factor,
        config=config,
        create_time_ms=time_ms,
        partitions=_placed(registry, command.avoid_node_ids, partition_count, factor),
    )
    _add(registry, topic)
    return _remembered(registry, command.mark, _changed(topic))


def create_group_partitions(
    registry: Registry, command: CreateGroupPartitions, time_ms: int
) -> MetadataResult:
    """Creates the internal topic of consumer groups; nothing is to be done where it exists."""
    topic = registry.internal_topic(GROUPS_TOPIC)
    if topic is None:
        factor = min(REPLICATION_FACTOR_DEFAULT, len(registry.nodes))
        topic = TopicInfo(
            topic_id=registry.counters.topic_id,
            name=GROUPS_TOPIC,
            replication_factor=factor,
            config=TopicConfig(),
            create_time_ms=time_ms,
            partitions=_placed(registry, command.avoid_node_ids, GROUP_PARTITIONS_COUNT, factor),
            internal=True,
        )
        _add(registry, topic)
    return _changed(topic)


def _add(registry: Registry, topic: TopicInfo) -> None:
    registry.counters.topic_id += 1
    registry.counters.group_id += len(topic.partitions)
    registry.put_topic(topic)
    groups = tuple(one.group_id for one in topic.partitions)
    registry.changed(Change(0, topic_ids=(topic.topic_id,), group_ids=groups))


def update_topic(registry: Registry, command: UpdateTopic) -> MetadataResult:
    """Sets or resets settings of the topic."""
    if (answer := _answered(registry, command.mark)) is not None:
        return answer
    topic = _existing(registry, command.name)
    check_names(command.fields)
    config = topic.config.updated(command.fields, TopicConfig.from_proto(command.config))
    config.check()
    updated = replace(topic, config=config)
    if updated != topic:
        registry.put_topic(updated)
        registry.changed(Change(0, topic_ids=(topic.topic_id,)))
    return _remembered(registry, command.mark, _changed(updated))


def delete_topic(registry: Registry, command: DeleteTopic) -> MetadataResult:
    """Deletes the topic with everything in it."""
    if (answer := _answered(registry, command.mark)) is not None:
        return answer
    topic = _existing(registry, command.name)
    registry.drop_topic(topic)
    groups = tuple(one.group_id for one in topic.partitions)
    registry.changed(Change(0, topic_ids=(topic.topic_id,), dead_group_ids=groups))
    return _remembered(registry, command.mark, _changed(topic))


def replace_replica(registry: Registry, command: ReplaceReplica) -> MetadataResult:
    """Gives a partition a fresh replica in the place of a damaged one, on the same node (S8).

    Nothing is to be done where that one or another has a successor already, or the topic is gone.
    """
    node_id = node_of(command.replica_id)
    place = registry.partition(command.group_id)
    topic = None if place is None else registry.topic_by_id(place.topic_id)
    seen = tuple(command.seen_replica_ids)
    if (
        place is not None
        and topic is not None
        and place.replica_ids == seen
        and command.replica_id in seen
    ):
        fresh = place.with_new_replica(node_id)
        partitions = tuple(fresh if one is place else one for one in topic.partitions)
        registry.put_topic(replace(topic, partitions=partitions))
        registry.changed(Change(0, group_ids=(place.group_id,)))
        place = fresh
    present = None if place is None else place.on_node(node_id)
    return MetadataResult(replica_replaced=ReplicaReplaced(replica_id=present or 0))


def init_producer(registry: Registry, command: InitProducer) -> MetadataResult:
    """Registers the producer, or fences its older instances by a new epoch (S24).

    Without a name it gets an id that nobody had and nobody will have: there is nothing to remember.
    """
    known = None
    if command.name:
        check_producer_name(command.name)
        known = registry.producers.get(command.name)
    if known is not None:
        producer = replace(known, epoch=known.epoch + 1)
    else:
        if command.name and registry.producers.is_full:
            raise _no_more_names(registry.producers.count_max)
        producer = Producer(registry.counters.producer_id, 1)
        registry.counters.producer_id += 1
    if command.name:
        registry.producers.put(command.name, producer)
    return MetadataResult(
        producer_ready=ProducerReady(producer_id=producer.producer_id, epoch=producer.epoch)
    )


def _no_more_names(limit: int) -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_PRODUCER_NAMES_EXHAUSTED,
        f"the cluster knows {limit:,} producer names, which is its limit, and none is ever"
        " forgotten; use a name that exists, or none: a producer that need not fence an earlier"
        " instance of itself gets an id without a name",
        {"limit": str(limit)},
    )


def _placed(
    registry: Registry, avoid_node_ids: Iterable[int], partition_count: int, factor: int
) -> tuple[PartitionInfo, ...]:
    avoided = set(avoid_node_ids)
    candidates = [
        Candidate(
            node_id=node.node_id,
            rack=node.rack,
            replica_count=registry.replica_count(node.node_id),
            preferred_count=registry.preferred_count(node.node_id),
            avoided=node.node_id in avoided,
        )
        for node in registry.nodes.values()
    ]
    first_group = registry.counters.group_id
    partitions: list[PartitionInfo] = []
    for number, nodes in enumerate(place(candidates, partition_count, factor)):
        replicas = tuple(replica_id(node_id, at) for at, node_id in enumerate(nodes, start=1))
        partitions.append(
            PartitionInfo(
                topic_id=registry.counters.topic_id,
                partition=number,
                group_id=first_group + number,
                replica_ids=replicas,
                born_replica_ids=replicas,
                next_replica_sequence=factor + 1,
            )
        )
    return tuple(partitions)


def _check_room(registry: Registry, partition_count: int) -> None:
    total = registry.partition_count + partition_count
    if total > PARTITIONS_COUNT_MAX:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_PARTITION_COUNT,
            f"{partition_count:,} more partitions would make {total:,} in the cluster, above its"
            f" limit of {PARTITIONS_COUNT_MAX:,}; delete topics, or ask for fewer partitions",
            {"limit": str(PARTITIONS_COUNT_MAX), "actual": str(total)},
        )


def _existing(registry: Registry, name: str) -> TopicInfo:
    topic = registry.topic(name)
    if topic is None:
        raise unknown_topic(name)
    return topic


def unknown_topic(name: str) -> RakitError:
    """What a caller gets who names a topic that does not exist."""
    return RakitError(
        error_pb2.ERROR_REASON_UNKNOWN_TOPIC, f"there is no topic {name!r}", {"topic": name}
    )


def _changed(topic: TopicInfo) -> MetadataResult:
    return MetadataResult(
        topic_changed=TopicChanged(
            topic_id=topic.topic_id,
            name=topic.name,
            partition_count=len(topic.partitions),
            replication_factor=topic.replication_factor,
            config=topic.config.to_proto(),
            create_time_ms=topic.create_time_ms,
        )
    )


def _answered(registry: Registry, mark: RequestMark) -> MetadataResult | None:
    """The first answer, if this request was made before."""
    if not 0 < len(mark.request_id) <= REQUEST_ID_CHARS_MAX:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            "a change of a topic is marked with a UUID by the node that proposes it",
        )
    known = registry.answered.get(mark.request_id)
    if known is None:
        return None
    fingerprint, result = known
    if fingerprint != mark.fingerprint:
        raise RakitError(
            error_pb2.ERROR_REASON_REQUEST_ID_REUSED,
            f"request_id {mark.request_id!r} was used for another request; use a new UUID for each",
        )
    return result


def _remembered(registry: Registry, mark: RequestMark, result: MetadataResult) -> MetadataResult:
    registry.answered.put(mark, result)
    return result
