"""Rows to columns and back: nothing is lost, and equal rows are equal bytes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2, record_pb2
from rakit.api.v1.record_pb2 import CompressedRecords, Header, Record, Records, Rows
from rakit.node.errors import RakitError
from rakit.node.partition import columns as columns_module
from rakit.node.partition.batches import BatchLimits, admit_rows
from rakit.node.partition.columns import to_columns
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
