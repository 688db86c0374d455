"""What must hold for a produce request before it goes anywhere: target, batch, stamp.

Shared by Produce, ProduceMixed and ProduceStream, so that the same bad input gets the same error
by all three ways. The batch itself is judged by `partition.batches`, once, on the node that the
client talks to; from here on it is bytes.

The partition of a request without one (contract 7): by its routing key, else by a hash of the
producer id, which keeps a producer's batches together, else in turn.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProducerStamp
from rakit.node.errors import RakitError
from rakit.node.metadata.registry import TopicInfo
from rakit.node.partition.batches import Batch, admit
from rakit.node.partition.hashing import partition_for
from rakit.node.partition.producers import Stamp, checked_stamp
from rakit.node.partitions import settings_of
from rakit.node.routing import unknown_partition
from rakit.node.services.twins import Produced
from rakit.peer.v1.opaque_pb2 import OpaqueProduceRequest


@dataclass(frozen=True, slots=True)
class Admitted:
    """A produce request whose content is in order."""

    batch: Batch
    stamp: Stamp | None
    expected_offset: int | None


def admitted(produced: Produced, topic: TopicInfo) -> Admitted:
    """The request's content, checked. Raises RakitError."""
    request = produced.message
    expected = request.expected_offset if request.HasField("expected_offset") else None
    if expected is not None and expected < 0:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"expected_offset is {expected}; offsets begin at 0.",
            {"topic": topic.name},
        )
    stamp = stamp_of(request.producer) if request.HasField("producer") else None
    limits = settings_of(topic.config).batch_limits
    return Admitted(admit(request, limits, produced.columns), stamp, expected)


def stamp_of(stamp: ProducerStamp) -> Stamp:
    """The producer's stamp, checked. Raises INVALID_REQUEST."""
    return checked_stamp(stamp)


class Targeting:
    """Picks partitions. Its only state is whose turn it is."""

    def __init__(self) -> None:
        self._turns = itertools.count()

    def partition_of(self, request: OpaqueProduceRequest, topic: TopicInfo) -> int:
        """The partition that the request is for. Raises for one that is not there."""
        count = None
        if request.HasField("partition_count"):
            count = request.partition_count
        count = partition_count(topic, count)
        match request.WhichOneof("target"):
            case "partition":
                if not 0 <= request.partition < len(topic.partitions):
                    raise unknown_partition(topic, request.partition)
                return request.partition
            case "routing_key":
                return partition_for(request.routing_key, count)
            case None:
                producer = request.producer.producer_id if request.HasField("producer") else None
                return self.unkeyed(producer, count)

    def unkeyed(self, producer_id: int | None, count: int) -> int:
        """The partition of what has no key."""
        if producer_id is not None:
            return partition_for(str(producer_id).encode(), count)
        return next(self._turns) % count


def stated_partition(request: OpaqueProduceRequest) -> int | None:
    """The partition that the request is for, where it says so without knowing the topic."""
    match request.WhichOneof("target"):
        case "partition":
            return request.partition
        case "routing_key" if request.partition_count > 0:
            return partition_for(request.routing_key, request.partition_count)
        case _:
            return None


def partition_count(topic: TopicInfo, stated: int | None) -> int:
    """The count that keys are spread over: the one that the request was made for, else today's."""
    count = len(topic.partitions)
    if stated is None:
        return count
    if not 1 <= stated <= count:
        raise RakitError(
            error_pb2.ERROR_REASON_PARTITION_COUNT_MISMATCH,
            f"The request was made for {stated} partitions of topic {topic.name!r}, which has"
            f" {count}.",
            {"topic": topic.name, "partition_count": str(count), "actual": str(stated)},
        )
    return stated
