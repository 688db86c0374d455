"""Stored batches in the form that a client asked for (contract 3).

An answer for one position alone is written in pieces (`rendered`), so that a batch is copied once
between the log and the network; where several share a message protobuf puts them there (`render`).

COLUMNS: whole batches, passed on as bytes, decompressed only where the client does not know the
codec. ROWS: records from exactly the asked position, cut where the answer is full, also in the
middle of a batch.

The size of an answer is judged after decompression and after the turn into rows, since the client's
own limit is on what it receives: a megabyte of zstd may be ten of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import record_pb2
from rakit.api.v1.log_service_pb2 import Position
from rakit.api.v1.record_pb2 import Codec
from rakit.node.partition.commands import Content
from rakit.node.partition.stored import StoredBatch, recode, to_rows
from rakit.node.partition.wire import heading
from rakit.node.reading.local import Found, end_offset
from rakit.peer.v1.opaque_pb2 import OpaquePartitionData

#: Tag and length of a record in its list.
_ROW_FRAME_BYTES = 4
#: Of a batch in its list, with the numbers that stand beside its content.
_BATCH_FRAME_BYTES = 48
_BATCHES: Final = OpaquePartitionData.BATCHES_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class Form:
    """How a client wants its records."""

    columns: bool
    accept_codecs: Collection[Codec.ValueType]

    @staticmethod
    def of(layout: record_pb2.Layout.ValueType, codecs: Collection[Codec.ValueType]) -> Form:
        """The form that a request asks for."""
        return Form(layout == record_pb2.LAYOUT_COLUMNS, frozenset(codecs))


def render(
    data: OpaquePartitionData,
    position: Position,
    found: Found,
    form: Form,
    max_bytes: int,
    *,
    at_least_one: bool,
) -> int:
    """Fills in the answer for one position, returns its size. `next_offset` says how far it got.

    It is filled where it stands: protobuf puts a message into another one by serialising and
    parsing it, which for a megabyte costs more than all else.
    """
    size, batches = _filled(data, position, found, form, (max_bytes, at_least_one))
    for batch in batches:
        batch.fill(data.batches.add())
    return size


@dataclass(frozen=True, slots=True)
class Rendered:
    """The answer for one position, serialised."""

    #: Together they are an `OpaquePartitionData`.
    pieces: Sequence[Content]
    #: As `render` counts it.
    size_bytes: int
    next_offset: int
    is_empty: bool


def rendered(
    position: Position, found: Found, form: Form, max_bytes: int, *, at_least_one: bool
) -> Rendered:
    """Returns what `render` would fill in."""
    data = OpaquePartitionData()
    size, batches = _filled(data, position, found, form, (max_bytes, at_least_one))
    pieces: list[Content] = [data.SerializeToString()]
    for batch in batches:
        framed = batch.pieces()
        pieces += (heading(_BATCHES, sum(map(len, framed))), *framed)
    return Rendered(pieces, size, data.next_offset, not (batches or data.records))


def _filled(
    data: OpaquePartitionData,
    position: Position,
    found: Found,
    form: Form,
    limit: tuple[int, bool],
) -> tuple[int, list[StoredBatch]]:
    """Fills in all but whole batches, which are returned, and before them the size of all."""
    data.topic = position.topic
    data.partition = position.partition
    data.next_offset = found.chunk.next_offset
    data.high_watermark = found.chunk.high_watermark
    data.log_start_offset = found.chunk.log_start_offset
    if form.columns:
        return _columns(data, found, form, *limit)
    return _fill_rows(data, position, found, *limit), []


def _columns(
    data: OpaquePartitionData, found: Found, form: Form, max_bytes: int, at_least_one: bool
) -> tuple[int, list[StoredBatch]]:
    batches: list[StoredBatch] = []
    size, reached = 0, found.from_offset
    for stored in found.chunk.batches:
        batch = recode(stored, form.accept_codecs)
        framed = len(batch.content) + _BATCH_FRAME_BYTES
        if size + framed > max_bytes and (size or not at_least_one):
            data.next_offset = reached
            break
        size += framed
        reached = batch.end_offset
        batches.append(batch)
    return size, batches


def _fill_rows(
    data: OpaquePartitionData,
    position: Position,
    found: Found,
    max_bytes: int,
    at_least_one: bool,
) -> int:
    size, reached = 0, found.from_offset
    for stored in found.chunk.batches:
        for record in to_rows(stored, reached, end_offset(position)):
            row = record.ByteSize() + _ROW_FRAME_BYTES
            if size + row > max_bytes and (size or not at_least_one):
                data.next_offset = reached
                return size
            size += row
            reached = record.offset + 1
            data.records.append(record)
    end = end_offset(position)
    if end is not None:
        data.next_offset = min(data.next_offset, max(end, found.from_offset))
    return size
