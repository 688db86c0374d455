"""A batch as it comes out of the log, in the forms in which it is answered.

`StoredBatch` is an entry's batch with its place. It goes out as a whole (`fill`, `pieces`), whole
but decompressed for a reader that does not know its codec (`recode`), or as rows (`to_rows`). The
first form copies bytes and decodes nothing; in pieces it does not even copy.

What is in the log has passed the gate (`batches`), so that a batch which does not decode here is
damage that a checksum missed: CORRUPT_RECORD, never a guess and never a shorter answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from rakit.api.v1 import error_pb2
from rakit.api.v1.record_pb2 import Codec, CompressedRecords, Record, Records
from rakit.node.errors import RakitError
from rakit.node.partition import codecs, columns
from rakit.node.partition.commands import Content, batches_in
from rakit.node.partition.wire import heading
from rakit.peer.v1.opaque_pb2 import OpaqueBatch
from rakit.raft import Entry, EntryType

_RECORDS: Final = OpaqueBatch.RECORDS_FIELD_NUMBER
_COMPRESSED: Final = OpaqueBatch.COMPRESSED_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """One batch of the log."""

    base_offset: int
    record_count: int
    append_time_ms: int
    index: int
    #: A serialised `Records`, or `CompressedRecords` when `compressed` is set.
    content: Content
    compressed: bool

    @property
    def end_offset(self) -> int:
        """One past the offset of its last record."""
        return self.base_offset + self.record_count

    def pieces(self) -> tuple[bytes, bytes, Content]:
        """Returns the batch in pieces that together are the serialised message."""
        head = OpaqueBatch(
            base_offset=self.base_offset,
            record_count=self.record_count,
            append_time_ms=self.append_time_ms,
        )
        number = _COMPRESSED if self.compressed else _RECORDS
        return head.SerializeToString(), heading(number, len(self.content)), self.content

    def fill(self, batch: OpaqueBatch) -> None:
        """Makes an empty message the batch as it is sent with LAYOUT_COLUMNS.

        In its place within an answer: protobuf puts a message into another one by serialising and
        parsing it.
        """
        batch.base_offset = self.base_offset
        batch.record_count = self.record_count
        batch.append_time_ms = self.append_time_ms
        if self.compressed:
            batch.compressed = bytes(self.content)
        else:
            batch.records = bytes(self.content)


def batches_of(entry: Entry) -> list[StoredBatch]:
    """Returns the batches that an entry holds, in a row; none when it holds something else."""
    if entry.type is not EntryType.NORMAL or not entry.data:
        return []
    return [
        StoredBatch(
            append.base_offset,
            append.record_count,
            append.append_time_ms,
            entry.index,
            content,
            append.compressed,
        )
        for append, content in batches_in(entry.data)
    ]


def recode(batch: StoredBatch, accept_codecs: Collection[Codec.ValueType]) -> StoredBatch:
    """Returns the batch in a form that the reader accepts: as it is, or decompressed."""
    if not batch.compressed:
        return batch
    outer = _outer(batch)
    if outer.codec in accept_codecs:
        return batch
    return StoredBatch(
        batch.base_offset,
        batch.record_count,
        batch.append_time_ms,
        batch.index,
        _inner(batch, outer),
        compressed=False,
    )


def to_rows(
    batch: StoredBatch, from_offset: int = 0, end_offset: int | None = None
) -> list[Record]:
    """Returns the batch's records in [from_offset, end_offset) as rows."""
    plain = _inner(batch, _outer(batch)) if batch.compressed else bytes(batch.content)
    try:
        parsed = Records.FromString(plain)
    except DecodeError as error:
        raise _corrupt(batch, str(error)) from error
    if len(parsed.values) != batch.record_count:
        raise _corrupt(batch, f"it holds {len(parsed.values)} records, not {batch.record_count}")
    end = batch.end_offset if end_offset is None else min(end_offset, batch.end_offset)
    wanted = range(max(from_offset - batch.base_offset, 0), end - batch.base_offset)
    return list(columns.to_rows(parsed, batch.base_offset, batch.append_time_ms, wanted))


def _outer(batch: StoredBatch) -> CompressedRecords:
    try:
        return CompressedRecords.FromString(bytes(batch.content))
    except DecodeError as error:
        raise _corrupt(batch, str(error)) from error


def _inner(batch: StoredBatch, outer: CompressedRecords) -> bytes:
    try:
        return codecs.decompress(outer.codec, outer.data, outer.uncompressed_bytes)
    except (
        codecs.CorruptDataError,
        codecs.SizeMismatchError,
        codecs.UnsupportedCodecError,
    ) as error:
        raise _corrupt(batch, str(error)) from error


def _corrupt(batch: StoredBatch, why: str) -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_CORRUPT_RECORD,
        f"The batch at offset {batch.base_offset} cannot be read on this replica: {why}.",
    )
