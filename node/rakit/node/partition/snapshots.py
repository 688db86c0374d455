"""The state of a partition as bytes: the data of its checkpoints (S1).

Equal states encode to equal bytes, because replicas are compared byte for byte (P9): producers are
written in the order of the table, which is part of the state, and nothing is written that the
applied commands do not determine.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from rakit.node.partition.producers import Producer, Remembered
from rakit.node.partition.state import LogState, Mark
from rakit.peer.v1 import partition_command_pb2 as pb


class MalformedStateError(Exception):
    """A checkpoint's data is no state of a partition."""


def encode_state(state: LogState) -> bytes:
    """Returns the state as bytes."""
    message = pb.PartitionState(
        next_offset=state.next_offset,
        start=_mark_message(state.start),
        append_time_ms=state.append_time_ms,
        appended_bytes=state.appended_bytes,
        marks=[_mark_message(mark) for mark in state.marks],
        segment_time_ms=state.segment_time_ms,
        expired_producer_id_max=state.expired_producer_id_max,
    )
    for producer_id, producer in state.producers.items():
        row = message.producers.add(
            producer_id=producer_id,
            epoch=producer.epoch,
            last_append_time_ms=producer.last_append_time_ms,
        )
        row.batches.extend(_batch_message(batch) for batch in producer.batches)
    return message.SerializeToString(deterministic=True)


def decode_state(data: bytes) -> LogState:
    """Returns the state that `encode_state` wrote; b"" is the newborn one."""
    try:
        message = pb.PartitionState.FromString(data)
    except DecodeError as error:
        raise MalformedStateError(f"{len(data)} bytes hold no state: {error}") from error
    state = LogState()
    state.next_offset = message.next_offset
    state.start = _mark_of(message.start)
    state.append_time_ms = message.append_time_ms
    state.appended_bytes = message.appended_bytes
    state.marks = [_mark_of(mark) for mark in message.marks]
    state.segment_time_ms = message.segment_time_ms
    state.expired_producer_id_max = message.expired_producer_id_max
    for row in message.producers:
        batches = tuple(_batch_of(batch) for batch in row.batches)
        state.producers[row.producer_id] = Producer(row.epoch, row.last_append_time_ms, batches)
        state.remembered_count += len(batches)
    return state


def _mark_message(mark: Mark) -> pb.CheckpointMark:
    return pb.CheckpointMark(
        index=mark.index,
        next_offset=mark.next_offset,
        append_time_ms=mark.append_time_ms,
        appended_bytes=mark.appended_bytes,
    )


def _mark_of(message: pb.CheckpointMark) -> Mark:
    return Mark(message.index, message.next_offset, message.append_time_ms, message.appended_bytes)


def _batch_message(batch: Remembered) -> pb.ProducerBatch:
    return pb.ProducerBatch(
        sequence=batch.sequence,
        base_offset=batch.base_offset,
        record_count=batch.record_count,
        term=batch.term,
        index=batch.index,
        append_time_ms=batch.append_time_ms,
        content_crc32c=batch.content_crc32c,
    )


def _batch_of(message: pb.ProducerBatch) -> Remembered:
    return Remembered(
        sequence=message.sequence,
        base_offset=message.base_offset,
        record_count=message.record_count,
        term=message.term,
        index=message.index,
        append_time_ms=message.append_time_ms,
        content_crc32c=message.content_crc32c,
    )
