"""Rows to columns and back: nothing is lost, and equal rows are equal bytes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence, Sized

import pytest
import zstandard
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2, record_pb2
from rakit.api.v1.record_pb2 import CompressedRecords, Header, Record, Records, Rows
from rakit.node.errors import RakitError
from rakit.node.partition import columns as columns_module
from rakit.node.partition.batches import BatchLimits, admit_rows
from rakit.node.partition.columns import check, large_values, to_columns
from rakit.node.partition.steps import at_once
from rakit.node.partition.stored import StoredBatch, recode, to_rows
from rakit.peer.v1.opaque_pb2 import OpaqueBatch
from tests.node.partition.fakes import lz4_frame

LIMITS = BatchLimits(1 << 20, 1 << 20)
APPENDED_MS = 1_700_000_000_000


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """So that a few rows are several steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(columns_module, "STEP_ROWS", 3)
        yield


headers = st.builds(Header, name=st.text(max_size=4), value=st.binary(max_size=4))
records = st.builds(
    Record,
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=8),
    headers=st.lists(headers, max_size=3),
    timestamp_ms=st.sampled_from([0, 0, 1, 77, APPENDED_MS, (1 << 53) - 1]),
)
rows_of_records = st.lists(records, min_size=1, max_size=20)


def stored(rows: Rows, base_offset: int = 40) -> StoredBatch:
    batch = at_once(admit_rows(rows.records, LIMITS))
    return StoredBatch(
        base_offset, batch.record_count, APPENDED_MS, 9, batch.content, batch.compressed
    )


def answered(record: Record, offset: int) -> Record:
    """The row as a reader must see it."""
    expected = Record()
    expected.CopyFrom(record)
    expected.offset = offset
    expected.append_time_ms = APPENDED_MS
    expected.timestamp_ms = record.timestamp_ms or APPENDED_MS
    return expected


@given(rows_of_records)
def test_rows_come_back_as_they_went_in(written: list[Record]) -> None:
    read = to_rows(stored(Rows(records=written)))
    assert read == [answered(record, 40 + at) for at, record in enumerate(written)]


@given(rows_of_records, st.integers(0, 60), st.integers(0, 60))
def test_rows_are_cut_to_the_asked_range(written: list[Record], lo: int, hi: int) -> None:
    read = to_rows(stored(Rows(records=written)), lo, hi)
    whole = range(40, 40 + len(written))
    assert [record.offset for record in read] == [at for at in whole if lo <= at < hi]


@given(rows_of_records)
def test_equal_rows_are_equal_bytes(written: list[Record]) -> None:
    parsed = Rows.FromString(Rows(records=written).SerializeToString())
    again = at_once(admit_rows(written, LIMITS))
    assert at_once(admit_rows(parsed.records, LIMITS)) == again


def test_columns_that_say_nothing_are_left_out() -> None:
    columns = at_once(to_columns([Record(value=b"a", timestamp_ms=5)] * 3))
    assert columns == Records(values=[b"a"] * 3, base_timestamp_ms=5)


def test_null_differs_from_empty() -> None:
    rows = Rows(records=[Record(key=b"", value=b""), Record(), Record(key=b"k")])
    first, second, third = to_rows(stored(rows))
    assert (first.HasField("key"), first.HasField("value")) == (True, True)
    assert (second.HasField("key"), second.HasField("value")) == (False, False)
    assert (third.HasField("key"), third.HasField("value")) == (True, False)


def test_a_time_of_zero_shows_the_append_time_also_between_others() -> None:
    rows = Rows(records=[Record(timestamp_ms=at) for at in (7, 0, 9)])
    assert [row.timestamp_ms for row in to_rows(stored(rows))] == [7, APPENDED_MS, 9]


COLUMNS = Records(values=[b"one", b"two"])
PLAIN = COLUMNS.SerializeToString()


def compressed(codec: record_pb2.Codec.ValueType, data: bytes) -> StoredBatch:
    outer = CompressedRecords(codec=codec, record_count=2, uncompressed_bytes=len(PLAIN), data=data)
    return StoredBatch(10, 2, APPENDED_MS, 5, outer.SerializeToString(), compressed=True)


COMPRESSED = [
    compressed(record_pb2.CODEC_ZSTD, zstandard.ZstdCompressor().compress(PLAIN)),
    compressed(record_pb2.CODEC_LZ4, lz4_frame(PLAIN)),
    compressed(record_pb2.CODEC_GZIP, gzip.compress(PLAIN)),
]


def opaque(batch: StoredBatch) -> OpaqueBatch:
    message = OpaqueBatch()
    batch.fill(message)
    return message


@pytest.mark.parametrize("batch", COMPRESSED, ids=["zstd", "lz4", "gzip"])
def test_compressed_batches_are_read_in_every_form(batch: StoredBatch) -> None:
    assert [row.value for row in to_rows(batch)] == [b"one", b"two"]
    every = [record_pb2.CODEC_ZSTD, record_pb2.CODEC_LZ4, record_pb2.CODEC_GZIP]
    assert recode(batch, every) is batch
    plain = recode(batch, [])
    assert opaque(plain).records == PLAIN
    assert opaque(plain).base_offset == 10
    assert recode(plain, []) is plain
    assert opaque(batch).compressed == batch.content


@pytest.mark.parametrize(
    "batch",
    [
        compressed(record_pb2.CODEC_ZSTD, b"damaged"),
        StoredBatch(10, 2, APPENDED_MS, 5, b"\xff", compressed=True),
        StoredBatch(10, 2, APPENDED_MS, 5, b"\xff", compressed=False),
        StoredBatch(10, 3, APPENDED_MS, 5, PLAIN, compressed=False),
    ],
    ids=["frame", "outer message", "columns", "count"],
)
def test_a_stored_batch_that_does_not_decode_is_reported_never_shortened(
    batch: StoredBatch,
) -> None:
    with pytest.raises(RakitError) as caught:
        to_rows(batch)
    assert caught.value.reason == error_pb2.ERROR_REASON_CORRUPT_RECORD
    assert "The batch at offset 10 cannot be read on this replica" in caught.value.message


@pytest.fixture
def every_value_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "LARGE_VALUE_BYTES_MIN", 1)


def verdict(columns: Records, values: Sequence[Sized]) -> str:
    try:
        check(columns, values)
    except RakitError as error:
        return f"{error.reason} {error}"
    return "in order"


indexes = st.lists(st.integers(-1, 5), max_size=3)
any_columns = st.builds(
    Records,
    values=st.lists(st.sampled_from([b"", b"a", b"b" * 130, b"c" * 70_000]), max_size=4),
    keys=st.lists(st.binary(max_size=2), max_size=4),
    timestamp_deltas_ms=st.lists(st.integers(-3, 3), max_size=4),
    headers=st.lists(
        st.builds(record_pb2.Headers, headers=st.lists(headers, max_size=1)), max_size=3
    ),
    null_keys=indexes,
    null_values=indexes,
    base_timestamp_ms=st.integers(0, 3),
)


@pytest.mark.usefixtures("every_value_is_large")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_columns, st.binary(max_size=6), st.integers(0, 8), st.booleans())
def test_columns_of_large_values_are_what_protobuf_says_they_are(
    written: Records, tail: bytes, cut: int, in_view: bool
) -> None:
    """As a client wrote them, cut short, with something behind."""
    data = written.SerializeToString()
    data = data[: len(data) - cut] + tail
    found = large_values(memoryview(b"before" + data)[6:] if in_view else data)
    if found is None:
        # It leaves to protobuf what is amiss and what has no value in front, nothing else.
        try:
            parsed = Records.FromString(data)
        except DecodeError:
            return
        assert not written.values or cut or tail or not parsed.values
        return
    others, values = found
    parsed = Records.FromString(data)
    assert [len(value) for value in values] == [len(value) for value in parsed.values]
    assert verdict(others, values) == verdict(parsed, parsed.values)
    parsed.ClearField("values")
    assert others == parsed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x12\x01k\x0a\x01v",
        b"\x0a\x01v\x12\x01k\x0a\x01w",
        b"\x0a\x05v",
        b"\x0a\x80\x80\x80\x80\x00",
        b"\x0a\x80",
        b"\x0a\x01v\x12\x09k",
        b"\x0a",
    ],
)
@pytest.mark.usefixtures("every_value_is_large")
def test_what_no_encoder_writes_is_left_to_protobuf(data: bytes) -> None:
    assert large_values(data) is None


def test_small_values_are_left_to_protobuf() -> None:
    least = columns_module.LARGE_VALUE_BYTES_MIN
    large = Records(values=[b"v" * least] * 4)
    assert large_values(large.SerializeToString()) is not None
    small = Records(values=[b"v" * (least - 10)] * 5000)
    assert large_values(small.SerializeToString()) is None
    assert large_values(Records(values=[b"v"]).SerializeToString()) is None


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_look_at_small_values_ends_soon(*, looked_at: bool) -> None:
    # What stands behind the small values makes them large by the mean.
    least = columns_module.LARGE_VALUE_BYTES_MIN
    values = [b"v"] * (8 if looked_at else 9) + [b"v" * 20 * least]
    found = large_values(Records(values=values).SerializeToString())
    assert (found is not None) is looked_at
