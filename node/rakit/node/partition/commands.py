"""What the entries of a partition's Raft log hold: plain values here, protobuf on the disk.

One entry holds one command, and a command one batch, or several small ones. The values leave a
batch's content out: the state machine needs its checksum and size only, so content is joined when a
command is encoded and read back only where records are served (`stored`).

Rules:

- A command holds everything that its effect depends on, so that every replica gets the same state
  from it: times are the leader's (S3), and whether a checkpoint is due is the leader's word.
- Equal commands encode to equal bytes (P9 compares replicas by them).
- What cannot be decoded is a bug or damage that the checksum missed: the replica must stop rather
  than skip it, so `decode` raises `MalformedCommandError` and nobody catches it here.
- A large content goes past protobuf, on the way in and on the way out: each replica applies each
  entry, and needs nothing of it but its head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from rakit.node.partition.producers import Stamp
from rakit.node.partition.wire import fields, heading
from rakit.peer.v1 import partition_command_pb2 as pb
from rakit.raft import Payload

_APPEND: Final = pb.PartitionCommand.APPEND_FIELD_NUMBER
#: From this feature level on a node reads `Appends`.
RUNS_LEVEL: Final = 2
_APPENDS: Final = pb.PartitionCommand.APPENDS_FIELD_NUMBER
_BATCHES: Final = pb.AppendBatches.BATCHES_FIELD_NUMBER
_CONTENT: Final = pb.AppendBatch.CONTENT_FIELD_NUMBER
#: How a payload begins that holds one batch, and one that holds any; fields are length-delimited.
_APPEND_TAG: Final = bytes([_APPEND << 3 | 2])
_BATCH_TAGS: Final = frozenset({_APPEND_TAG, bytes([_APPENDS << 3 | 2])})
#: From this size on a payload is taken apart by hand: below, protobuf is faster.
_SPLIT_BYTES_MIN: Final = 4096


class MalformedCommandError(Exception):
    """An entry's payload is no command: this version did not write it, or it is damaged."""


@dataclass(frozen=True, slots=True)
class Append:
    """Appends one batch. `base_offset` is the leader's word, and every replica checks it (S14)."""

    base_offset: int
    record_count: int
    append_time_ms: int
    #: None: not idempotent.
    stamp: Stamp | None
    #: Of the uncompressed columns.
    content_crc32c: int
    compressed: bool
    #: A checkpoint is due as of this entry.
    checkpoint: bool


@dataclass(frozen=True, slots=True)
class Trim:
    """Cuts the log at a checkpoint (S1)."""

    start_offset: int
    checkpoint_index: int
    append_time_ms: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Raises a producer's epoch without a batch (S21)."""

    producer_id: int
    epoch: int
    append_time_ms: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Forgets producers."""

    producer_ids: tuple[int, ...]
    append_time_ms: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Takes a checkpoint as of this entry, for a log that has gone quiet."""

    append_time_ms: int


@dataclass(frozen=True, slots=True)
class Appends:
    """Appends batches in a row, at one time and of producers that differ, as one entry."""

    batches: tuple[Append, ...]

    @property
    def base_offset(self) -> int:
        """The offset of the first record."""
        return self.batches[0].base_offset

    @property
    def append_time_ms(self) -> int:
        """When they are appended."""
        return self.batches[-1].append_time_ms

    @property
    def checkpoint(self) -> bool:
        """A checkpoint is due as of this entry."""
        return self.batches[-1].checkpoint


#: What has no content.
Maintenance: TypeAlias = Trim | Fence | Expire | Checkpoint
Command: TypeAlias = Append | Appends | Maintenance
#: A batch's content: by itself, or in its place within a payload, where it is large.
Content: TypeAlias = Payload


def append_pieces(append: Append, content: Content) -> tuple[bytes, Content]:
    """Returns the two pieces of the entry payload that holds the batch: a head, and its content.

    The two outer layers are written by hand, so that a large content is not copied for each message
    that it is nested in.
    """
    head = _head(append, len(content))
    return heading(_APPEND, len(head) + len(content)) + head, content


def encode_appends(appends: Appends, contents: Sequence[Content]) -> bytes:
    """Returns the payload of the entry that holds these batches."""
    pieces: list[Content] = []
    for append, content in zip(appends.batches, contents, strict=True):
        head = _head(append, len(content))
        pieces += heading(_BATCHES, len(head) + len(content)), head, content
    body = b"".join(pieces)
    return heading(_APPENDS, len(body)) + body


def _head(append: Append, content_bytes: int) -> bytes:
    """Returns a serialised `AppendBatch` up to where its content begins."""
    head = pb.AppendBatch(
        base_offset=append.base_offset,
        record_count=append.record_count,
        append_time_ms=append.append_time_ms,
        content_crc32c=append.content_crc32c,
        compressed=append.compressed,
        checkpoint=append.checkpoint,
    )
    if append.stamp is not None:
        head.producer_id = append.stamp.producer_id
        head.producer_epoch = append.stamp.epoch
        head.sequence = append.stamp.sequence
        if append.stamp.previous_sequence is not None:
            head.previous_sequence = append.stamp.previous_sequence
    return head.SerializeToString(deterministic=True) + heading(_CONTENT, content_bytes)


def encode(command: Maintenance) -> bytes:
    """Returns the entry payload of a command without content."""
    message = pb.PartitionCommand()
    match command:
        case Trim():
            message.trim.start_offset = command.start_offset
            message.trim.checkpoint_index = command.checkpoint_index
            message.trim.append_time_ms = command.append_time_ms
        case Fence():
            message.fence.producer_id = command.producer_id
            message.fence.epoch = command.epoch
            message.fence.append_time_ms = command.append_time_ms
        case Expire():
            message.expire.producer_ids.extend(command.producer_ids)
            message.expire.append_time_ms = command.append_time_ms
        case Checkpoint():
            message.checkpoint.append_time_ms = command.append_time_ms
    return message.SerializeToString(deterministic=True)


def parse(payload: Payload) -> pb.PartitionCommand:
    """Reads an entry's payload; raises `MalformedCommandError`."""
    try:
        return pb.PartitionCommand.FromString(bytes(payload))
    except DecodeError as error:
        raise MalformedCommandError(f"{len(payload)} bytes hold no command: {error}") from error


def batches_in(payload: Payload) -> list[tuple[pb.AppendBatch, Content]]:
    """Returns the batches that a payload holds, and the content of each; of a large one uncopied.

    The message of a batch need not have its content. None at all: the payload holds something else.
    Raises `MalformedCommandError`.
    """
    if (found := _split(payload)) is not None:
        head, start, end = found
        return [(head, memoryview(payload)[start:end])]
    command = parse(payload)
    if command.HasField("append"):
        return [(command.append, command.append.content)]
    return [(each, each.content) for each in command.appends.batches]


def _split(payload: Payload) -> tuple[pb.AppendBatch, int, int] | None:
    """Returns the head of an append, and where its content lies.

    None: the payload is small, holds something else, or is not laid out to the byte as
    `append_pieces` does; then protobuf has the say, also about what is malformed.
    """
    if len(payload) < _SPLIT_BYTES_MIN or payload[:1] != _APPEND_TAG:
        return None
    try:
        _number, start, end = next(fields(payload))
        head_end = start
        for number, at, to in fields(payload, start, end):
            if number == _CONTENT:
                as_written = (
                    to == len(payload)
                    and payload[:start] == heading(_APPEND, to - start)
                    and payload[head_end:at] == heading(_CONTENT, to - at)
                )
                head = bytes(payload[start:head_end])
                return (pb.AppendBatch.FromString(head), at, to) if as_written else None
            head_end = to
    except DecodeError:
        return None
    return None


def holds_batches(payload: Payload) -> bool:
    """Tells whether a payload that this version wrote holds a batch, without reading it."""
    return bytes(payload[:1]) in _BATCH_TAGS


def decode(payload: Payload) -> Command:
    """Returns the command of an entry; raises `MalformedCommandError`."""
    if (found := _split(payload)) is not None:
        return _append_of(found[0])
    message = parse(payload)
    match message.WhichOneof("command"):
        case "append":
            return _append_of(message.append)
        case "appends" if not message.appends.batches:
            raise MalformedCommandError(f"{len(payload)} bytes append nothing")
        case "appends":
            return Appends(tuple(map(_append_of, message.appends.batches)))
        case "trim":
            trim = message.trim
            return Trim(trim.start_offset, trim.checkpoint_index, trim.append_time_ms)
        case "fence":
            fence = message.fence
            return Fence(fence.producer_id, fence.epoch, fence.append_time_ms)
        case "expire":
            expire = message.expire
            return Expire(tuple(expire.producer_ids), expire.append_time_ms)
        case "checkpoint":
            return Checkpoint(message.checkpoint.append_time_ms)
        case None:
            raise MalformedCommandError(
                f"{len(payload)} bytes hold a command that this version does not know"
            )


def _append_of(append: pb.AppendBatch) -> Append:
    stamp = None
    if append.producer_id:
        previous = append.previous_sequence if append.HasField("previous_sequence") else None
        stamp = Stamp(append.producer_id, append.producer_epoch, append.sequence, previous)
    return Append(
        base_offset=append.base_offset,
        record_count=append.record_count,
        append_time_ms=append.append_time_ms,
        stamp=stamp,
        content_crc32c=append.content_crc32c,
        compressed=append.compressed,
        checkpoint=append.checkpoint,
    )
