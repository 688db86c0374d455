"""Whatever may be stored can be read, in both layouts (contract 5)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest
import pytest_asyncio
import zstandard

from rakit.api.v1 import log_service_pb2_grpc, record_pb2
from rakit.api.v1.log_service_pb2 import (
    FetchRequest,
    Position,
    ProduceRequest,
    ReadRequest,
    ReadResponse,
)
from rakit.api.v1.record_pb2 import CompressedRecords, Header, Headers, Records
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, TopicConfig
from rakit.client.config import MESSAGE_BYTES_MAX
from rakit.node.metadata.topic_config import BOUNDS
from tests.node.services.served import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMEOUT_S = 30
#: As large as a topic can be set to take it, by the form in which it is sent.
LARGEST = {
    "columns": BOUNDS["batch_bytes_max"].maximum,
    "compressed": BOUNDS["batch_decompressed_bytes_max"].maximum,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(served: Served) -> AsyncIterator[log_service_pb2_grpc.LogServiceAsyncStub]:
    """A client that takes as much as the SDK does."""
    address = next(iter(served.node.listeners.advertised.values()))
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield log_service_pb2_grpc.LogServiceStub(channel)


def record_of(size_bytes: int) -> Records:
    """One record of everything that a record may have, with not one byte more to spare."""
    headers = Headers(headers=[Header(name="n" * 200, value=b"h" * 1000)] * 3)
    records = Records(
        keys=[b"k" * (4 << 20)],
        headers=[headers],
        timestamp_deltas_ms=[1],
        base_timestamp_ms=1 << 50,
    )
    # The value comes with a byte of key and four of length.
    records.values.append(bytes(size_bytes - records.ByteSize() - 5))
    assert records.ByteSize() == size_bytes
    return records


def packed(records: Records) -> CompressedRecords:
    plain = records.SerializeToString()
    return CompressedRecords(
        codec=record_pb2.CODEC_ZSTD,
        record_count=len(records.values),
        uncompressed_bytes=len(plain),
        data=zstandard.ZstdCompressor().compress(plain),
    )


@pytest.mark.parametrize("form", LARGEST)
async def test_contract_5_the_largest_batch_is_read_as_rows_and_as_columns(
    served: Served, log: log_service_pb2_grpc.LogServiceAsyncStub, form: str
) -> None:
    name = f"largest-{form}"
    config = TopicConfig(
        batch_bytes_max=LARGEST["columns"], batch_decompressed_bytes_max=LARGEST["compressed"]
    )
    create = CreateTopicRequest(name=name, partition_count=1, config=config)
    await served.topics.CreateTopic(create, timeout=TIMEOUT_S)
    records = record_of(LARGEST[form])
    request = ProduceRequest(topic=name, partition=0)
    if form == "columns":
        request.columns.CopyFrom(records)
    else:
        request.compressed.CopyFrom(packed(records))
    await log.Produce(request, timeout=TIMEOUT_S)
    position = Position(topic=name, partition=0)
    for layout in (record_pb2.LAYOUT_ROWS, record_pb2.LAYOUT_COLUMNS):
        fetch = FetchRequest(positions=[position], layout=layout)
        (data,) = (await log.Fetch(fetch, timeout=TIMEOUT_S)).partitions
        read = ReadRequest(positions=[position], layout=layout)
        first = await log.Read(read, timeout=TIMEOUT_S).read()
        assert isinstance(first, ReadResponse)
        for got in (data, first.data):
            if layout == record_pb2.LAYOUT_ROWS:
                (row,) = got.records
                assert (row.key, row.value) == (records.keys[0], records.values[0])
                assert list(row.headers) == list(records.headers[0].headers)
            else:
                assert got.batches[0].records == records
            assert got.next_offset == 1
