"""What an answer holds, and how large it gets on the wire (contract 5)."""

from __future__ import annotations

import pytest

from rakit.api.v1 import record_pb2
from rakit.api.v1.log_service_pb2 import Position
from rakit.api.v1.record_pb2 import Records
from rakit.node.partition.reader import Chunk
from rakit.node.partition.stored import StoredBatch
from rakit.node.reading.local import Found
from rakit.node.reading.render import Form, render
from rakit.peer.v1.opaque_pb2 import OpaquePartitionData

#: What stands around the records of one position.
HEAD_BYTES = 100
#: So that every number has its full length.
FAR = 1 << 50


def found(count: int) -> Found:
    """Batches of one small record each."""
    content = Records(values=[b"v"]).SerializeToString()
    batches = tuple(
        StoredBatch(FAR + at, 1, FAR, FAR + at, content, compressed=False) for at in range(count)
    )
    return Found(FAR, Chunk(batches, FAR + count, FAR + count, 0))


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
