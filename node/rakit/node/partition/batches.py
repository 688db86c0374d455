"""The gate for batches: what passes here is stored as it is, for ever.

Every batch is parsed once as the public type, and decompressed within bounds, on the node that the
client talks to; of large values only the lengths are looked at (`columns`). So a bad column, a
wrong count or a decompression bomb is refused with a reason and never gets into a log, where each
reader would stumble over it again (contract 4). The bytes that the client sent are then passed on
unchanged: nothing is encoded again, and fields that this version does not know survive.

The checksum is taken over the uncompressed columns, so that a retry is recognised also when it was
compressed anew (S24). It covers nothing that the server adds.

Limits: the topic's two byte limits (contract 5) and `RECORD_COUNT_MAX`. No size that a batch states
about itself is believed before it is compared with a limit, and no row is made before they are
counted: two bytes of a request are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from rakit.api.v1 import error_pb2
from rakit.api.v1.record_pb2 import CompressedRecords, Record, Records, Rows
from rakit.multiraft.checksum import crc32c, crc32c_extend_payload
from rakit.node.errors import RakitError
from rakit.node.partition import codecs
from rakit.node.partition.columns import check, empty_batch, large_values, to_columns
from rakit.node.partition.steps import Steps, at_once
from rakit.node.partition.wire import count_fields
from rakit.peer.v1.opaque_pb2 import OpaqueProduceRequest
from rakit.raft import Payload

#: Records of two bytes would otherwise make four million of one batch, and turning those into rows
#: would hold the event loop, and with it every heartbeat of the node, for seconds.
RECORD_COUNT_MAX: Final = 200_000
_ROW_KEY: Final = bytes([Rows.RECORDS_FIELD_NUMBER << 3 | 2])


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The topic's limits for one batch."""

    #: As it is sent and stored.
    encoded_bytes_max: int
    #: Its columns, decompressed.
    decompressed_bytes_max: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was checked and may be stored."""

    #: A serialised `Records`, or `CompressedRecords` when `compressed` is set. A view keeps the
    #: whole request in which it lies.
    content: Payload
    compressed: bool
    record_count: int
    #: Of the uncompressed columns.
    crc32c: int


def admit(
    request: OpaqueProduceRequest, limits: BatchLimits, columns: Payload | None = None
) -> Batch:
    """Returns the request's batch, checked; raises `RakitError` with what is wrong with it.

    Columns that were taken out of the request are given beside it.
    """
    match request.WhichOneof("batch"):
        case "rows":
            return at_once(admit_rows(parse_rows(request.rows).records, limits))
        case "columns":
            return _admit_columns(request.columns if columns is None else columns, limits)
        case "compressed":
            return _admit_compressed(request.compressed, limits)
        case None:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                "The request holds no batch: set rows, columns or compressed.",
            )


def parse_rows(data: bytes) -> Rows:
    """Returns the rows of a request, which are counted before any is made."""
    try:
        # Every row begins with its key: no more of that byte, no more rows.
        if data.count(_ROW_KEY) > RECORD_COUNT_MAX:
            count = count_fields(data, RECORD_COUNT_MAX)
            _within("The request holds {} records or more", count, RECORD_COUNT_MAX)
        return Rows.FromString(data)
    except DecodeError as error:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            "The field rows is no rakit.api.v1.Rows message (or a header's name in it is not valid"
            " UTF-8).",
        ) from error


def admit_rows(records: Sequence[Record], limits: BatchLimits) -> Steps[Batch]:
    """Converts rows to the columns that are stored."""
    if not records:
        raise empty_batch()
    _within("The batch holds {} records", len(records), RECORD_COUNT_MAX)
    columns = yield from to_columns(list(records))
    content = columns.SerializeToString(deterministic=True)
    _check_plain_size(content, limits)
    return Batch(content, False, len(records), crc32c(content))


def _admit_columns(content: Payload, limits: BatchLimits) -> Batch:
    _check_plain_size(content, limits)
    if (found := large_values(content)) is not None:
        others, values = found
        _within("The batch holds {} records", len(values), RECORD_COUNT_MAX)
        check(others, values)
        return Batch(content, False, len(values), crc32c_extend_payload(0, content))
    content = bytes(content)
    try:
        columns = Records.FromString(content)
    except DecodeError as error:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            "The field columns is no rakit.api.v1.Records message (or a header's name in it is not"
            " valid UTF-8).",
        ) from error
    _within("The batch holds {} records", len(columns.values), RECORD_COUNT_MAX)
    check(columns, columns.values)
    return Batch(content, False, len(columns.values), crc32c(content))


def _admit_compressed(content: bytes, limits: BatchLimits) -> Batch:
    _within("The batch is {} bytes long", len(content), limits.encoded_bytes_max)
    try:
        outer = CompressedRecords.FromString(content)
    except DecodeError as error:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            "The field compressed is no rakit.api.v1.CompressedRecords message.",
        ) from error
    if outer.record_count == 0 or outer.uncompressed_bytes == 0:
        raise empty_batch()
    if outer.record_count < 0 or outer.uncompressed_bytes < 0:
        raise _mismatch("record_count and uncompressed_bytes must not be negative.")
    _within("The batch says that it holds {} records", outer.record_count, RECORD_COUNT_MAX)
    _within(
        "The batch says that it holds {} bytes uncompressed",
        outer.uncompressed_bytes,
        limits.decompressed_bytes_max,
    )
    plain = _decompressed(outer)
    try:
        columns = Records.FromString(plain)
    except DecodeError as error:
        raise _corrupt(
            f"The {codecs.codec_name(outer.codec)} data decompresses, but not to a"
            " rakit.api.v1.Records message (or a header's name in it is not valid UTF-8)."
        ) from error
    check(columns, columns.values)
    if len(columns.values) != outer.record_count:
        raise _mismatch(
            f"The batch says that it holds {outer.record_count} records, but it holds"
            f" {len(columns.values)}."
        )
    return Batch(content, True, outer.record_count, crc32c(plain))


def _decompressed(outer: CompressedRecords) -> bytes:
    """The columns inside; every error of the codec becomes one that a client understands."""
    name = codecs.codec_name(outer.codec)
    try:
        return codecs.decompress(outer.codec, outer.data, outer.uncompressed_bytes)
    except codecs.UnsupportedCodecError as error:
        raise RakitError(
            error_pb2.ERROR_REASON_UNSUPPORTED_CODEC,
            f"Codec {name} is not supported; use zstd, lz4 or gzip, or send the batch as columns.",
            {"actual": name},
        ) from error
    except codecs.SizeMismatchError as error:
        raise _mismatch(
            f"The batch says that it holds {outer.uncompressed_bytes} bytes uncompressed, but"
            f" {error}."
        ) from error
    except codecs.CorruptDataError as error:
        raise _corrupt(f"The data is not one complete {name} frame: {error}.") from error


def _check_plain_size(content: Payload, limits: BatchLimits) -> None:
    limit = min(limits.encoded_bytes_max, limits.decompressed_bytes_max)
    _within("The batch is {} bytes long", len(content), limit)


def _within(text: str, actual: int, limit: int) -> None:
    if actual > limit:
        raise RakitError(
            error_pb2.ERROR_REASON_BATCH_TOO_LARGE,
            f"{text.format(actual)}; the limit is {limit}. Send fewer records in one batch.",
            {"limit": str(limit), "actual": str(actual)},
        )


def _mismatch(message: str) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_BATCH_MISMATCH, message)


def _corrupt(message: str) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_CORRUPT_BATCH, message)
