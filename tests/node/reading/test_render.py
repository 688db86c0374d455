"""What an answer holds, and how large it gets on the wire (contract 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import zstandard

from rakit.api.v1 import record_pb2
from rakit.api.v1.log_service_pb2 import Position
from rakit.api.v1.record_pb2 import CompressedRecords, Records
from rakit.node.partition.reader import Chunk
from rakit.node.partition.stored import StoredBatch
from rakit.node.reading.local import Found
from rakit.node.reading.render import Form, render, rendered
from rakit.peer.v1.opaque_pb2 import OpaquePartitionData

#: What stands around the records of one position.
HEAD_BYTES = 100
#: So that every number has its full length.
FAR = 1 << 50


def compressed_batch(plain: StoredBatch) -> StoredBatch:
    outer = CompressedRecords(
        codec=record_pb2.CODEC_ZSTD,
        data=zstandard.ZstdCompressor().compress(plain.content),
        uncompressed_bytes=len(plain.content),
        record_count=plain.record_count,
    )
    return replace(plain, content=outer.SerializeToString(), compressed=True)


def found(count: int) -> Found:
    """Batches of one small record each."""
    content = Records(values=[b"v"]).SerializeToString()
    batches = tuple(
        StoredBatch(FAR + at, 1, FAR, FAR + at, content, compressed=False) for at in range(count)
    )
    return Found(FAR, Chunk(batches, FAR + count, FAR + count, 0))


@pytest.mark.parametrize("layout", [record_pb2.LAYOUT_ROWS, record_pb2.LAYOUT_COLUMNS])
@pytest.mark.parametrize("max_bytes", [1, 200, 100_000])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_in_pieces_is_the_message_to_the_byte(
    layout: record_pb2.Layout.ValueType, max_bytes: int, compressed: bool
) -> None:
    position = Position(topic="t", partition=3, offset=FAR)
    content = Records(values=[b"v" * size for size in (0, 1, 127, 128, 20_000)])
    plain = StoredBatch(FAR, 5, FAR, FAR, content.SerializeToString(), compressed=False)
    whole = compressed_batch(plain) if compressed else plain
    second = replace(whole, base_offset=FAR + 5, content=memoryview(whole.content))
    it = Found(FAR, Chunk((whole, second), FAR + 10, FAR + 10, 7))
    form = Form.of(layout, [record_pb2.CODEC_ZSTD])
    for at_least_one in (False, True):
        data = OpaquePartitionData()
        size = render(data, position, it, form, max_bytes, at_least_one=at_least_one)
        answer = rendered(position, it, form, max_bytes, at_least_one=at_least_one)
        assert b"".join(answer.pieces) == data.SerializeToString()
        assert (answer.size_bytes, answer.next_offset) == (size, data.next_offset)
        assert answer.is_empty is not bool(data.batches or data.records)


@pytest.mark.parametrize("layout", [record_pb2.LAYOUT_ROWS, record_pb2.LAYOUT_COLUMNS])
def test_contract_5_an_answer_of_small_batches_is_no_larger_than_it_may_be(
    layout: record_pb2.Layout.ValueType,
) -> None:
    """What stands beside the content of a batch is many times as large as this content."""
    position = Position(topic="t", partition=0, offset=FAR)
    data = OpaquePartitionData()
    form = Form.of(layout, [])
    size = render(data, position, found(10_000), form, 100_000, at_least_one=True)
    assert data.ByteSize() <= 100_000 + HEAD_BYTES
    assert data.ByteSize() <= size + HEAD_BYTES
    assert data.next_offset == FAR + len(data.batches or data.records)
    assert data.next_offset > FAR + 1000
