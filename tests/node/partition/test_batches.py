"""The gate for batches: what passes is stored unchanged, what does not is refused with a reason."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from rakit.api.v1 import error_pb2, record_pb2
from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.api.v1.record_pb2 import Codec, CompressedRecords, Headers, Record, Records, Rows
from rakit.multiraft.checksum import crc32c
from rakit.node.errors import RakitError
from rakit.node.partition import batches
from rakit.node.partition.batches import Batch, BatchLimits, admit
from rakit.peer.v1.opaque_pb2 import OpaqueProduceRequest
from tests.node.partition.fakes import lz4_frame

LIMITS = BatchLimits(encoded_bytes_max=64 * 1024, decompressed_bytes_max=256 * 1024)
COLUMNS = Records(values=[b"one", b"two", b"three"], keys=[b"a", b"", b"c"], null_keys=[1])


def request_of(public: ProduceRequest) -> OpaqueProduceRequest:
    """The request as a handler gets it: the bytes that a client's stub sent."""
    return OpaqueProduceRequest.FromString(public.SerializeToString())


def admitted(public: ProduceRequest, limits: BatchLimits = LIMITS) -> Batch:
    return admit(request_of(public), limits)


def refused(public: ProduceRequest, limits: BatchLimits = LIMITS) -> RakitError:
    with pytest.raises(RakitError) as caught:
        admitted(public, limits)
    assert not caught.value.may_be_applied, "what the gate refuses is never stored"
    return caught.value


def compress(codec: Codec.ValueType, plain: bytes) -> bytes:
    if codec == record_pb2.CODEC_ZSTD:
        return zstandard.ZstdCompressor().compress(plain)
    if codec == record_pb2.CODEC_LZ4:
        return lz4_frame(plain)
    return gzip.compress(plain)


def packed(
    codec: Codec.ValueType,
    plain: bytes,
    count: int = 3,
    *,
    size: int | None = None,
    data: bytes | None = None,
) -> ProduceRequest:
    compressed = CompressedRecords(
        codec=codec,
        record_count=count,
        uncompressed_bytes=len(plain) if size is None else size,
        data=compress(codec, plain) if data is None else data,
    )
    return ProduceRequest(compressed=compressed)


CODECS = [record_pb2.CODEC_ZSTD, record_pb2.CODEC_LZ4, record_pb2.CODEC_GZIP]
every_codec = pytest.mark.parametrize("codec", CODECS, ids=["zstd", "lz4", "gzip"])


def test_columns_are_stored_byte_for_byte_with_fields_of_the_future() -> None:
    future = COLUMNS.SerializeToString() + b"\xfa\x01\x03new"
    request = OpaqueProduceRequest(columns=future)
    batch = admit(request, LIMITS)
    assert batch.content == future
    assert not batch.compressed
    assert batch.record_count == 3
    assert batch.crc32c == crc32c(future)


@every_codec
def test_compressed_batches_are_stored_byte_for_byte(codec: Codec.ValueType) -> None:
    public = packed(codec, COLUMNS.SerializeToString())
    batch = admitted(public)
    assert batch.content == public.compressed.SerializeToString()
    assert batch.compressed
    assert batch.record_count == 3


def test_s24_the_checksum_is_the_same_however_the_columns_were_compressed() -> None:
    plain = COLUMNS.SerializeToString()
    sums = {admitted(packed(codec, plain)).crc32c for codec in CODECS}
    assert sums == {admitted(ProduceRequest(columns=COLUMNS)).crc32c}


def test_columns_of_large_values_are_stored_as_they_lie_in_the_request() -> None:
    columns = Records(values=[b"v" * 20_000, b""], keys=[b"k", b""], null_values=[1])
    data = columns.SerializeToString()
    batch = admit(request_of(ProduceRequest(columns=Records())), LIMITS, memoryview(data))
    assert isinstance(batch.content, memoryview)
    assert batch.content.obj is data
    assert batch == Batch(data, compressed=False, record_count=2, crc32c=crc32c(data))
    assert batch == admit(request_of(ProduceRequest(columns=columns)), LIMITS)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (Records(values=[b"v" * 20_000], keys=[b"a", b"b"]), "Column keys has 2 elements"),
        (Records(values=[b"v" * 20_000], null_values=[0]), "values holds 20000 bytes there"),
        (Records(values=[b"v" * 20_000], base_timestamp_ms=-1), "has the timestamp -1"),
        (Records(values=[b"v" * 70_000]), "the limit is 65536"),
    ],
)
def test_columns_of_large_values_that_do_not_fit_together_are_refused(
    columns: Records, text: str
) -> None:
    empty = request_of(ProduceRequest(columns=Records()))
    with pytest.raises(RakitError, match=text):
        admit(empty, LIMITS, memoryview(columns.SerializeToString()))


def test_rows_become_the_same_bytes_each_time() -> None:
    rows = Rows(records=[Record(key=b"k", value=b"v", timestamp_ms=5), Record(value=b"w")])
    first, second = admitted(ProduceRequest(rows=rows)), admitted(ProduceRequest(rows=rows))
    assert first == second
    assert first.record_count == 2


def test_a_request_without_a_batch_is_refused() -> None:
    error = refused(ProduceRequest())
    assert error.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert error.message == "The request holds no batch: set rows, columns or compressed."


@pytest.mark.parametrize(
    "public",
    [
        ProduceRequest(rows=Rows()),
        ProduceRequest(columns=Records()),
        packed(record_pb2.CODEC_ZSTD, b"", count=0),
        packed(record_pb2.CODEC_GZIP, b"", count=3),
    ],
    ids=["rows", "columns", "compressed", "compressed with a count"],
)
def test_an_empty_batch_is_refused(public: ProduceRequest) -> None:
    error = refused(public)
    assert error.reason == error_pb2.ERROR_REASON_EMPTY_BATCH
    assert error.message == "The batch holds no record; a request appends at least one."


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            Records(values=[b"1", b"2"], keys=[b"k"]),
            "Column keys has 1 elements but values has 2; a column is either empty or as long",
        ),
        (
            Records(values=[b"1"], timestamp_deltas_ms=[1, 2]),
            "Column timestamp_deltas_ms has 2 elements but values has 1",
        ),
        (
            Records(values=[b"1"], headers=[Headers(), Headers(), Headers()]),
            "Column headers has 3 elements but values has 1",
        ),
        (Records(keys=[b"k"]), "Column keys has 1 elements but values has 0"),
        (
            Records(values=[b"1"], null_keys=[0]),
            "null_keys must be empty when the column keys is empty",
        ),
        (
            Records(values=[b"", b"", b""], null_values=[2, 1]),
            "null_values must ascend, without repeats.",
        ),
        (
            Records(values=[b"", b""], null_values=[1, 1]),
            "null_values must ascend, without repeats.",
        ),
        (
            Records(values=[b"", b""], null_values=[0, 2]),
            "null_values names position 2, but the batch has positions 0 to 1.",
        ),
        (
            Records(values=[b"1"], keys=[b""], null_keys=[-1]),
            "null_keys names position -1, but the batch has positions 0 to 0.",
        ),
        (
            Records(values=[b"1", b"2"], keys=[b"", b"full"], null_keys=[1]),
            "null_keys names position 1, but keys holds 4 bytes there; a null is an empty element.",
        ),
        (
            Records(values=[b"1"], base_timestamp_ms=-1),
            "A record has the timestamp -1; timestamps are milliseconds since the epoch",
        ),
        (
            Records(values=[b"1", b"2"], timestamp_deltas_ms=[0, -9], base_timestamp_ms=5),
            "A record has the timestamp -4;",
        ),
        (
            Records(values=[b"1"], timestamp_deltas_ms=[1], base_timestamp_ms=(1 << 53) - 1),
            f"A record has the timestamp {1 << 53};",
        ),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(columns: Records, text: str) -> None:
    error = refused(ProduceRequest(columns=columns))
    assert error.reason == error_pb2.ERROR_REASON_INVALID_BATCH
    assert text in error.message


@every_codec
def test_bad_columns_are_refused_inside_compressed_batches_too(codec: Codec.ValueType) -> None:
    plain = Records(values=[b"1", b"2"], keys=[b"k"]).SerializeToString()
    assert refused(packed(codec, plain, 2)).reason == error_pb2.ERROR_REASON_INVALID_BATCH


def test_a_row_with_an_impossible_time_is_refused() -> None:
    error = refused(ProduceRequest(rows=Rows(records=[Record(value=b"v", timestamp_ms=-5)])))
    assert error.reason == error_pb2.ERROR_REASON_INVALID_BATCH
    assert "A record has the timestamp -5;" in error.message


def test_bytes_that_are_no_columns_are_refused() -> None:
    with pytest.raises(RakitError) as caught:
        admit(OpaqueProduceRequest(columns=b"\xff\xff\xff"), LIMITS)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert "is no rakit.api.v1.Records message" in caught.value.message
    with pytest.raises(RakitError) as caught:
        admit(OpaqueProduceRequest(compressed=b"\x22\x7f"), LIMITS)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert "is no rakit.api.v1.CompressedRecords message" in caught.value.message


def test_a_header_name_that_is_not_utf8_is_refused() -> None:
    name = b"\x0a\x02\xc3\x28"  # A field 1 of two bytes that begin but do not end a character.
    header = b"\x0a" + bytes([len(name)]) + name
    columns = b"\x0a\x01v" + b"\x22" + bytes([len(header)]) + header
    with pytest.raises(RakitError) as caught:
        admit(OpaqueProduceRequest(columns=columns), LIMITS)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert "not valid UTF-8" in caught.value.message


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (2, "The batch says that it holds 2 records, but it holds 3."),
        (4, "The batch says that it holds 4 records, but it holds 3."),
        (-1, "record_count and uncompressed_bytes must not be negative."),
    ],
)
def test_a_count_that_does_not_match_is_refused(count: int, text: str) -> None:
    error = refused(packed(record_pb2.CODEC_ZSTD, COLUMNS.SerializeToString(), count))
    assert error.reason == error_pb2.ERROR_REASON_BATCH_MISMATCH
    assert error.message == text


@every_codec
@pytest.mark.parametrize("change", [-1, 1, -20, 1000])
def test_a_size_that_does_not_match_is_refused(codec: Codec.ValueType, change: int) -> None:
    plain = COLUMNS.SerializeToString()
    error = refused(packed(codec, plain, size=len(plain) + change))
    assert error.reason == error_pb2.ERROR_REASON_BATCH_MISMATCH
    said = f"The batch says that it holds {len(plain) + change} bytes uncompressed, but the frame"
    assert error.message.startswith(said)


def test_a_zstd_frame_that_hides_its_size_is_measured() -> None:
    plain = COLUMNS.SerializeToString()
    data = zstandard.ZstdCompressor(write_content_size=False).compress(plain)
    assert admitted(packed(record_pb2.CODEC_ZSTD, plain, data=data)).record_count == 3
    for size in (len(plain) - 1, len(plain) + 1):
        error = refused(packed(record_pb2.CODEC_ZSTD, plain, data=data, size=size))
        assert error.reason == error_pb2.ERROR_REASON_BATCH_MISMATCH


@every_codec
@pytest.mark.parametrize("damage", ["cut", "garbage behind", "second frame", "flipped", "junk"])
def test_damaged_frames_are_refused(codec: Codec.ValueType, damage: str) -> None:
    plain = COLUMNS.SerializeToString()
    frame = compress(codec, plain)
    data = {
        "cut": frame[:-1],
        "garbage behind": frame + b"x",
        "second frame": frame + frame,
        "flipped": bytes([frame[0] ^ 0xFF]) + frame[1:],
        "junk": b"no frame at all",
    }[damage]
    error = refused(packed(codec, plain, data=data))
    assert error.reason == error_pb2.ERROR_REASON_CORRUPT_BATCH
    assert "The data is not one complete " in error.message


def test_a_frame_that_holds_no_columns_is_refused() -> None:
    error = refused(packed(record_pb2.CODEC_LZ4, b"\xff\xff\xff"))
    assert error.reason == error_pb2.ERROR_REASON_CORRUPT_BATCH
    assert "The lz4 data decompresses, but not to a rakit.api.v1.Records message" in error.message


@pytest.mark.parametrize("number", [0, 4, 77])
def test_an_unknown_codec_is_refused(number: int) -> None:
    public = packed(record_pb2.CODEC_ZSTD, COLUMNS.SerializeToString())
    public.compressed.codec = number  # type: ignore[assignment] # a number of a later version
    error = refused(public)
    assert error.reason == error_pb2.ERROR_REASON_UNSUPPORTED_CODEC
    assert error.message.startswith(f"Codec {number} is not supported; use zstd, lz4 or gzip")


def too_large(error: RakitError, limit: int, actual: int) -> None:
    assert error.reason == error_pb2.ERROR_REASON_BATCH_TOO_LARGE
    assert error.metadata == {"limit": str(limit), "actual": str(actual)}
    assert str(actual) in error.message
    assert f"the limit is {limit}. Send fewer records in one batch." in error.message


def test_a_batch_over_the_encoded_limit_is_refused() -> None:
    columns = Records(values=[bytes(70_000)])
    size = columns.ByteSize()
    too_large(refused(ProduceRequest(columns=columns)), LIMITS.encoded_bytes_max, size)
    rows = Rows(records=[Record(value=bytes(70_000))])
    # The column of null keys costs nothing: the size is that of the columns alone.
    too_large(refused(ProduceRequest(rows=rows)), LIMITS.encoded_bytes_max, size)
    public = ProduceRequest(compressed=CompressedRecords(data=bytes(70_000)))
    too_large(refused(public), LIMITS.encoded_bytes_max, public.compressed.ByteSize())


def test_a_batch_at_the_limit_passes() -> None:
    columns = Records(values=[bytes(1000)])
    assert admitted(ProduceRequest(columns=columns), BatchLimits(columns.ByteSize(), 1 << 20))
    with pytest.raises(RakitError):
        admitted(ProduceRequest(columns=columns), BatchLimits(columns.ByteSize() - 1, 1 << 20))


def test_a_batch_over_the_decompressed_limit_is_refused_before_it_is_decompressed() -> None:
    size = LIMITS.decompressed_bytes_max + 1
    error = refused(packed(record_pb2.CODEC_ZSTD, b"", size=size, data=b"not even a frame"))
    too_large(error, LIMITS.decompressed_bytes_max, size)
    assert "bytes uncompressed" in error.message


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "RECORD_COUNT_MAX", 2)
    too_large(refused(ProduceRequest(columns=COLUMNS)), 2, 3)
    too_large(refused(ProduceRequest(rows=Rows(records=[Record()] * 3))), 2, 3)
    too_large(refused(packed(record_pb2.CODEC_LZ4, COLUMNS.SerializeToString())), 2, 3)


def gzip_stream(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(bytes(size)) + packer.flush()


BOMB_BYTES = 200 * 1024 * 1024
BOMBS: dict[str, tuple[Codec.ValueType, Callable[[], bytes]]] = {
    "zstd": (record_pb2.CODEC_ZSTD, lambda: zstandard.ZstdCompressor().compress(bytes(BOMB_BYTES))),
    "zstd, size hidden": (
        record_pb2.CODEC_ZSTD,
        lambda: zstandard.ZstdCompressor(write_content_size=False).compress(bytes(BOMB_BYTES)),
    ),
    "lz4": (record_pb2.CODEC_LZ4, lambda: lz4_frame(bytes(BOMB_BYTES))),
    "gzip": (record_pb2.CODEC_GZIP, lambda: gzip_stream(BOMB_BYTES)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_bounded_memory(name: str) -> None:
    codec, make = BOMBS[name]
    claimed = 8 * 1024 * 1024
    limits = BatchLimits(2 * 1024 * 1024, claimed)
    public = packed(codec, b"", size=claimed, data=make())
    tracemalloc.start()
    try:
        error = refused(public, limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.reason == error_pb2.ERROR_REASON_BATCH_MISMATCH
    assert peak < 4 * claimed, f"{peak} bytes were taken for a batch of at most {claimed}"


def test_a_zstd_frame_that_needs_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    plain = COLUMNS.SerializeToString()
    data = packer.compress(plain) + packer.flush()
    error = refused(packed(record_pb2.CODEC_ZSTD, plain, data=data))
    assert error.reason == error_pb2.ERROR_REASON_CORRUPT_BATCH
    assert "too much memory" in error.message


def test_rows_are_counted_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes of a request make one: ten million in a message that the listener takes."""

    class Rows:
        @staticmethod
        def FromString(data: bytes) -> Rows:  # noqa: N802 -- the name that protobuf gave
            raise AssertionError(f"{len(data)} bytes were decoded")

    monkeypatch.setattr(batches, "Rows", Rows)
    for head in (b"", b"\x7d" + bytes(4), b"\x7a\x03\n\x00\n"):
        with pytest.raises(RakitError) as caught:
            batches.parse_rows(head + b"\n\x00" * 10_000_000)
        too_large(caught.value, batches.RECORD_COUNT_MAX, batches.RECORD_COUNT_MAX + 1)


def test_rows_whose_values_look_like_many_rows_are_counted_as_what_they_are() -> None:
    rows = Rows(records=[Record(value=b"\n" * 300_000), Record(value=b"v" * 300)])
    assert batches.parse_rows(rows.SerializeToString()) == rows


@pytest.mark.parametrize(
    "tail",
    [b"\n\x05", b"\x0b", b"\n\x80", b"\x80" * 11],
    ids=["cut off", "a group", "half a number", "a number without an end"],
)
def test_rows_that_are_none_are_refused_however_many_they_seem(tail: bytes) -> None:
    for head in (b"", b"\n\x00", b"\n\x80\x80\x40" + b"\n" * (1 << 20)):
        with pytest.raises(RakitError) as caught:
            batches.parse_rows(head + tail)
        assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
        assert "rows is no rakit.api.v1.Rows message" in caught.value.message
