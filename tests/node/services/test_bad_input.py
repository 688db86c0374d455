"""Bad input gets a clear error, and nothing of it is stored.

Every case states the code, the reason, the outcome and a part of the text that a person reads.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
import lz4.frame  # pyright: ignore[reportMissingTypeStubs] -- ships no types
import pytest
import zstandard
from google.protobuf.field_mask_pb2 import FieldMask

from rakit.api.v1 import cluster_service_pb2 as cluster
from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1 import record_pb2
from rakit.api.v1 import topic_service_pb2 as topics
from rakit.api.v1.log_service_pb2 import Position, ProduceRequest, ProducerStamp
from rakit.api.v1.record_pb2 import CompressedRecords, Header, Headers, Record, Records, Rows
from rakit.node.metadata.registry import Registry
from tests.node.services.served import TIMEOUT_S, Served, columns, refusal_of, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPIC = "known"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
MIB = 1 << 20


@dataclass(frozen=True)
class Expected:
    code: grpc.StatusCode
    reason: str
    text: str
    outcome: str = "NOT_APPLIED"


def produce(**fields: Any) -> ProduceRequest:
    request: dict[str, Any] = {"topic": TOPIC, **fields}
    if "routing_key" not in fields:
        request.setdefault("partition", 0)
    if not {"columns", "compressed"} & set(fields):
        request.setdefault("rows", rows(b"v"))
    return ProduceRequest(**request)


def packed(codec: int, data: bytes, count: int = 1, size: int | None = None) -> CompressedRecords:
    plain = columns(b"v").SerializeToString()
    return CompressedRecords(
        codec=record_pb2.Codec.ValueType(codec),
        record_count=count,
        uncompressed_bytes=len(plain) if size is None else size,
        data=data,
    )


def zstd(records: Records, **changes: int) -> CompressedRecords:
    plain = records.SerializeToString()
    data = zstandard.ZstdCompressor().compress(plain)
    message = packed(record_pb2.CODEC_ZSTD, data, len(records.values), len(plain))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def lz4_frame(data: bytes) -> bytes:
    return bytes(cast("Any", lz4.frame).compress(data))


def raw(served: Served, method: str, data: bytes) -> Awaitable[object]:
    """A call whose request is these bytes."""
    channel = cast("Any", served.channel)
    return cast("Awaitable[object]", channel.unary_unary(method)(data, timeout=TIMEOUT_S))


BOMB = zstd(columns(b"\0" * (9 * MIB)))
PLAIN = columns(b"v").SerializeToString()

PRODUCE = {
    "an unknown topic": (
        produce(topic="nowhere"),
        Expected(NOT_FOUND, "UNKNOWN_TOPIC", "nowhere"),
    ),
    "a bad topic name": (
        produce(topic="no/such"),
        Expected(INVALID, "INVALID_TOPIC_NAME", "no/such"),
    ),
    "an unknown partition": (
        produce(partition=5),
        Expected(NOT_FOUND, "UNKNOWN_PARTITION", "has no partition 5: it has 1"),
    ),
    "a negative partition": (
        produce(partition=-1),
        Expected(NOT_FOUND, "UNKNOWN_PARTITION", "has no partition -1"),
    ),
    "a partition count above the topic's": (
        produce(routing_key=b"k", partition_count=9),
        Expected(PRECONDITION, "PARTITION_COUNT_MISMATCH", "made for 9 partitions"),
    ),
    "no batch": (
        ProduceRequest(topic=TOPIC, partition=0),
        Expected(INVALID, "INVALID_REQUEST", "no batch"),
    ),
    "an empty batch": (
        produce(rows=Rows()),
        Expected(INVALID, "EMPTY_BATCH", "no record"),
    ),
    "empty columns": (
        produce(columns=Records()),
        Expected(INVALID, "EMPTY_BATCH", "no record"),
    ),
    "keys of another length": (
        produce(columns=Records(values=[b"a", b"b"], keys=[b"k"])),
        Expected(INVALID, "INVALID_BATCH", "keys"),
    ),
    "headers of another length": (
        produce(columns=Records(values=[b"a", b"b"], headers=[Headers(headers=[Header()])])),
        Expected(INVALID, "INVALID_BATCH", "headers"),
    ),
    "time stamps of another length": (
        produce(columns=Records(values=[b"a", b"b"], timestamp_deltas_ms=[1])),
        Expected(INVALID, "INVALID_BATCH", "timestamp"),
    ),
    "null positions out of range": (
        produce(columns=Records(values=[b""], null_values=[1])),
        Expected(INVALID, "INVALID_BATCH", "null_values"),
    ),
    "a stated count that is wrong": (
        produce(compressed=zstd(columns(b"a", b"b"), record_count=3)),
        Expected(INVALID, "BATCH_MISMATCH", "says that it holds 3 records, but it holds 2"),
    ),
    "a stated size that is wrong": (
        produce(compressed=zstd(columns(b"a", b"b"), uncompressed_bytes=5)),
        Expected(INVALID, "BATCH_MISMATCH", "5 bytes"),
    ),
    "a batch over the limit": (
        produce(columns=columns(b"x" * (2 * MIB))),
        Expected(INVALID, "BATCH_TOO_LARGE", "the limit is 2097152"),
    ),
    "rows over the limit": (
        produce(rows=rows(b"x" * (2 * MIB))),
        Expected(INVALID, "BATCH_TOO_LARGE", "the limit is 2097152"),
    ),
    "a batch that decompresses beyond the limit": (
        produce(compressed=BOMB),
        Expected(INVALID, "BATCH_TOO_LARGE", "the limit is 8388608"),
    ),
    "a bomb that lies about its size": (
        produce(compressed=packed(record_pb2.CODEC_ZSTD, BOMB.data, size=100)),
        Expected(INVALID, "BATCH_MISMATCH", "100 bytes"),
    ),
    "broken zstd": (
        produce(compressed=packed(record_pb2.CODEC_ZSTD, b"no frame")),
        Expected(INVALID, "CORRUPT_BATCH", "zstd"),
    ),
    "broken lz4": (
        produce(compressed=packed(record_pb2.CODEC_LZ4, b"no frame")),
        Expected(INVALID, "CORRUPT_BATCH", "lz4"),
    ),
    "broken gzip": (
        produce(compressed=packed(record_pb2.CODEC_GZIP, gzip.compress(PLAIN)[:-3])),
        Expected(INVALID, "CORRUPT_BATCH", "gzip"),
    ),
    "lz4 with bytes behind its end": (
        produce(compressed=packed(record_pb2.CODEC_LZ4, lz4_frame(PLAIN) + b"more")),
        Expected(INVALID, "CORRUPT_BATCH", "follow the end"),
    ),
    "an unknown codec": (
        produce(compressed=packed(77, b"data")),
        Expected(INVALID, "UNSUPPORTED_CODEC", "zstd, lz4 or gzip"),
    ),
    "a negative expected offset": (
        produce(expected_offset=-1),
        Expected(INVALID, "INVALID_REQUEST", "offsets begin at 0"),
    ),
    "an expected offset that is wrong": (
        produce(expected_offset=99),
        Expected(grpc.StatusCode.ABORTED, "OFFSET_MISMATCH", "99"),
    ),
    "a sequence of zero": (
        produce(producer=ProducerStamp(producer_id=1, epoch=1)),
        Expected(INVALID, "INVALID_REQUEST", "sequence"),
    ),
    "a producer id of zero": (
        produce(producer=ProducerStamp(epoch=1, sequence=1)),
        Expected(INVALID, "INVALID_REQUEST", "producer_id"),
    ),
}


@pytest.mark.parametrize("case", PRODUCE)
async def test_produce_refuses(served: Served, case: str) -> None:
    request, expected = PRODUCE[case]
    await known_topic(served)
    before = await latest(served)
    await expect(served.log.Produce(request, timeout=TIMEOUT_S), expected)
    assert await latest(served) == before, "nothing was stored"


async def known_topic(served: Served) -> None:
    if served.node.metadata.registry.topic(TOPIC) is None:
        await served.topic(name=TOPIC)
        await served.produce(TOPIC, b"first")


async def latest(served: Served) -> int:
    request = log.GetOffsetsRequest(topic=TOPIC)
    return (await served.log.GetOffsets(request, timeout=TIMEOUT_S)).partitions[0].latest


async def expect(call: Awaitable[object], expected: Expected) -> dict[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (expected.code, expected.reason), refusal.message
    assert refusal.outcome == expected.outcome
    assert expected.text in refusal.message
    return refusal.metadata


def stamped(producer_id: int, sequence: int, epoch: int = 1, **more: Any) -> ProduceRequest:
    stamp = ProducerStamp(
        producer_id=producer_id,
        epoch=epoch,
        sequence=sequence,
        **more,
    )
    return produce(producer=stamp, rows=rows(b"%d" % sequence))


async def test_s24_produce_refuses_what_breaks_a_producers_order(served: Served) -> None:
    await known_topic(served)
    request = log.InitProducerRequest(producer_name="ordered")
    number = (await served.log.InitProducer(request, timeout=TIMEOUT_S)).producer_id

    async def send(one: ProduceRequest) -> None:
        await served.log.Produce(one, timeout=TIMEOUT_S)

    await send(stamped(number, 10, epoch=2))
    await send(stamped(number, 20, epoch=2, previous_sequence=10))
    metadata = await expect(
        send(stamped(number, 40, epoch=2, previous_sequence=30)),
        Expected(PRECONDITION, "OUT_OF_ORDER_SEQUENCE", "30"),
    )
    assert metadata["expected_sequence"] == "20"
    reused = stamped(number, 20, epoch=2)
    reused.rows.records[0].value = b"other content"
    await expect(send(reused), Expected(PRECONDITION, "SEQUENCE_REUSED", "20"))
    await expect(
        send(stamped(number, 15, epoch=2)), Expected(PRECONDITION, "OUT_OF_ORDER_SEQUENCE", "15")
    )
    await expect(
        send(stamped(number, 5, epoch=2)),
        Expected(PRECONDITION, "SEQUENCE_TOO_OLD", "5", "UNKNOWN"),
    )
    metadata = await expect(
        send(stamped(number, 30, epoch=1)), Expected(PRECONDITION, "PRODUCER_FENCED", "epoch")
    )
    assert metadata["current_epoch"] == "2"
    await expect(
        send(stamped(number + 1, 3, previous_sequence=2)),
        Expected(PRECONDITION, "UNKNOWN_PRODUCER", str(number + 1), "UNKNOWN"),
    )


def fetch(*positions: Position, **fields: Any) -> log.FetchRequest:
    return log.FetchRequest(positions=positions, **fields)


HERE = Position(topic=TOPIC, partition=0)
FETCH = {
    "no position": (fetch(), Expected(INVALID, "INVALID_REQUEST", "no position")),
    "a partition twice": (fetch(HERE, HERE), Expected(INVALID, "INVALID_REQUEST", "twice")),
    "too many positions": (
        fetch(*(Position(topic=TOPIC, partition=number) for number in range(257))),
        Expected(INVALID, "INVALID_REQUEST", "the limit is 256"),
    ),
    "a wait beyond the limit": (
        fetch(HERE, max_wait_ms=60_001),
        Expected(INVALID, "INVALID_REQUEST", "60000"),
    ),
    "a negative size": (
        fetch(HERE, max_bytes=-1),
        Expected(INVALID, "INVALID_REQUEST", "must not be negative"),
    ),
    "an unknown topic": (
        fetch(Position(topic="nowhere")),
        Expected(NOT_FOUND, "UNKNOWN_TOPIC", "nowhere"),
    ),
    "an unknown partition": (
        fetch(Position(topic=TOPIC, partition=1)),
        Expected(NOT_FOUND, "UNKNOWN_PARTITION", "has no partition 1"),
    ),
    "an offset above the log": (
        fetch(Position(topic=TOPIC, offset=1000)),
        Expected(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", "1000", ""),
    ),
    "an offset below the log": (
        fetch(Position(topic=TOPIC, offset=-3)),
        Expected(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", "-3", ""),
    ),
    "a time before 1970": (
        fetch(Position(topic=TOPIC, time_ms=-3)),
        Expected(INVALID, "INVALID_REQUEST", "1970"),
    ),
    "an edge that does not exist": (
        fetch(Position(topic=TOPIC, edge=log.Edge.ValueType(9))),
        Expected(INVALID, "INVALID_REQUEST", "EDGE_EARLIEST"),
    ),
}


@pytest.mark.parametrize("case", FETCH)
async def test_fetch_refuses(served: Served, case: str) -> None:
    request, expected = FETCH[case]
    await known_topic(served)
    metadata = await expect(served.log.Fetch(request, timeout=TIMEOUT_S), expected)
    if expected.reason == "OFFSET_OUT_OF_RANGE":
        assert metadata["earliest"] == "0"
        assert int(metadata["latest"]) >= 1


@pytest.mark.parametrize("case", ["no position", "an unknown topic", "an offset above the log"])
async def test_read_refuses_the_same(served: Served, case: str) -> None:
    request, expected = FETCH[case]
    await known_topic(served)
    read = log.ReadRequest(positions=request.positions, follow=True)
    await expect(served.log.Read(read, timeout=TIMEOUT_S).read(), expected)


CREATE: dict[str, tuple[dict[str, Any], Expected]] = {
    "a bad name": ({"name": "a b"}, Expected(INVALID, "INVALID_TOPIC_NAME", "'a b'")),
    "an empty name": ({"name": ""}, Expected(INVALID, "INVALID_TOPIC_NAME", "1 to 249")),
    "two dots": ({"name": ".."}, Expected(INVALID, "INVALID_TOPIC_NAME", "'..'")),
    "a long name": ({"name": "x" * 250}, Expected(INVALID, "INVALID_TOPIC_NAME", "1 to 249")),
    # Percent-encoded, each of these is twelve bytes of the transport's headers.
    "a long name of emojis": (
        {"name": "😀" * 2000},
        Expected(INVALID, "INVALID_TOPIC_NAME", "😀"),
    ),
    "too many partitions": (
        {"partition_count": 10_001},
        Expected(INVALID, "INVALID_PARTITION_COUNT", "10,000"),
    ),
    "fewer than no partitions": (
        {"partition_count": -1},
        Expected(INVALID, "INVALID_PARTITION_COUNT", "-1"),
    ),
    "a replication factor out of bounds": (
        {"replication_factor": -1},
        Expected(INVALID, "INVALID_REPLICATION_FACTOR", "-1"),
    ),
    "more replicas than nodes": (
        {"replication_factor": 3},
        Expected(PRECONDITION, "REPLICATION_FACTOR_TOO_LARGE", "3"),
    ),
    "a setting out of bounds": (
        {"config": topics.TopicConfig(segment_bytes=1)},
        Expected(INVALID, "INVALID_CONFIG", "segment_bytes"),
    ),
    "a request id that is no UUID": (
        {"request_id": "again"},
        Expected(INVALID, "INVALID_REQUEST", "UUID"),
    ),
    "a name that is taken": (
        {"name": TOPIC},
        Expected(grpc.StatusCode.ALREADY_EXISTS, "TOPIC_EXISTS", TOPIC),
    ),
}


@pytest.mark.parametrize("case", CREATE)
async def test_create_topic_refuses(served: Served, case: str) -> None:
    fields, expected = CREATE[case]
    await known_topic(served)
    before = served.node.metadata.registry.topic_count
    named: dict[str, Any] = {"name": "fresh", **fields}
    request = topics.CreateTopicRequest(**named)
    await expect(served.topics.CreateTopic(request, timeout=TIMEOUT_S), expected)
    assert served.node.metadata.registry.topic_count == before


OTHERS: dict[str, tuple[Callable[[Served], Awaitable[object]], Expected]] = {
    "getting an unknown topic": (
        lambda it: it.topics.GetTopic(topics.GetTopicRequest(name="nowhere")),
        Expected(NOT_FOUND, "UNKNOWN_TOPIC", "nowhere"),
    ),
    "deleting an unknown topic": (
        lambda it: it.topics.DeleteTopic(topics.DeleteTopicRequest(name="nowhere")),
        Expected(NOT_FOUND, "UNKNOWN_TOPIC", "nowhere"),
    ),
    "updating an unknown setting": (
        lambda it: it.topics.UpdateTopic(
            topics.UpdateTopicRequest(name=TOPIC, update_mask=FieldMask(paths=["color"]))
        ),
        Expected(INVALID, "INVALID_CONFIG", "color"),
    ),
    "a page token of nobody": (
        lambda it: it.topics.ListTopics(topics.ListTopicsRequest(page_token="xyz")),
        Expected(INVALID, "INVALID_PAGE_TOKEN", "begin again"),
    ),
    "a negative page size": (
        lambda it: it.topics.ListTopics(topics.ListTopicsRequest(page_size=-1)),
        Expected(INVALID, "INVALID_REQUEST", "page_size"),
    ),
    "a bad producer name": (
        lambda it: it.log.InitProducer(log.InitProducerRequest(producer_name="new\nline")),
        Expected(INVALID, "INVALID_PRODUCER_NAME", "1 to 249"),
    ),
    "the state of no producer": (
        lambda it: it.log.GetProducerState(log.GetProducerStateRequest(topic=TOPIC)),
        Expected(INVALID, "INVALID_REQUEST", "producer_id"),
    ),
    "offsets of an unknown partition": (
        lambda it: it.log.GetOffsets(log.GetOffsetsRequest(topic=TOPIC, partitions=[3])),
        Expected(NOT_FOUND, "UNKNOWN_PARTITION", "no partition 3"),
    ),
    "offsets of a negative partition": (
        lambda it: it.log.GetOffsets(log.GetOffsetsRequest(topic=TOPIC, partitions=[0, -1])),
        Expected(NOT_FOUND, "UNKNOWN_PARTITION", "no partition -1"),
    ),
    "offsets of more partitions than a topic has": (
        lambda it: it.log.GetOffsets(log.GetOffsetsRequest(topic=TOPIC, partitions=range(10_001))),
        Expected(INVALID, "INVALID_REQUEST", "10001 partitions; a topic has at most 10000"),
    ),
    "mixed rows with a previous sequence": (
        lambda it: it.log.ProduceMixed(
            log.ProduceMixedRequest(
                topic=TOPIC,
                rows=Rows(records=[Record(value=b"v")]),
                producer=ProducerStamp(producer_id=1, epoch=1, sequence=2, previous_sequence=1),
            )
        ),
        Expected(INVALID, "INVALID_REQUEST", "must be absent"),
    ),
    "more mixed rows than a batch may hold": (
        lambda it: it.log.ProduceMixed(
            log.ProduceMixedRequest(topic=TOPIC, rows=Rows(records=[Record()] * 200_001))
        ),
        Expected(INVALID, "BATCH_TOO_LARGE", "200001 records or more; the limit is 200000"),
    ),
    "mixed rows that are none": (
        lambda it: raw(it, "/rakit.api.v1.LogService/ProduceMixed", b"\x12\x02\x0a\x05"),
        Expected(INVALID, "INVALID_REQUEST", "rows is no rakit.api.v1.Rows message"),
    ),
    "no mixed rows": (
        lambda it: it.log.ProduceMixed(log.ProduceMixedRequest(topic=TOPIC)),
        Expected(INVALID, "EMPTY_BATCH", "no record"),
    ),
    "a leadership to nobody": (
        lambda it: it.cluster.TransferLeadership(
            cluster.TransferLeadershipRequest(topic=TOPIC, to_node_id=77)
        ),
        Expected(NOT_FOUND, "UNKNOWN_NODE", "77"),
    ),
}


@pytest.mark.parametrize("case", OTHERS)
async def test_the_other_calls_refuse(served: Served, case: str) -> None:
    call, expected = OTHERS[case]
    await known_topic(served)
    await expect(call(served), expected)


async def test_many_unknown_partitions_are_one_question_to_the_metadata_group(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await known_topic(served)
    client = served.node.metadata.client
    ask, questions = client.barrier, 0

    async def counted(timeout_seconds: float) -> Registry:
        nonlocal questions
        questions += 1
        return await ask(timeout_seconds)

    monkeypatch.setattr(client, "barrier", counted)
    request = log.GetOffsetsRequest(topic=TOPIC, partitions=range(10_000))
    await expect(
        served.log.GetOffsets(request, timeout=TIMEOUT_S),
        Expected(NOT_FOUND, "UNKNOWN_PARTITION", "no partition 1"),
    )
    assert questions == 1


METHODS = {
    "/rakit.api.v1.LogService/Produce": "ProduceRequest",
    "/rakit.api.v1.LogService/Fetch": "FetchRequest",
    "/rakit.api.v1.TopicService/CreateTopic": "CreateTopicRequest",
    "/rakit.api.v1.ClusterService/GetDigest": "GetDigestRequest",
}


@pytest.mark.parametrize("method", METHODS)
async def test_s23_bytes_that_are_no_message_are_an_invalid_request(
    served: Served, method: str
) -> None:
    call = raw(served, method, b"\xff\xff\xff")
    await expect(call, Expected(INVALID, "INVALID_REQUEST", METHODS[method]))


async def test_s23_text_that_is_no_utf8_is_an_invalid_request(served: Served) -> None:
    # Field 1, a string of one byte that no UTF-8 text has.
    call = raw(served, "/rakit.api.v1.LogService/Produce", b"\x0a\x01\xff")
    await expect(call, Expected(INVALID, "INVALID_REQUEST", "ProduceRequest"))


async def test_s23_a_stream_of_nonsense_is_an_invalid_request(served: Served) -> None:
    channel = cast("Any", served.channel)
    call = channel.stream_stream("/rakit.api.v1.LogService/ProduceStream")()
    await call.write(b"\xff\xff")
    await expect(call.read(), Expected(INVALID, "INVALID_REQUEST", "ProduceStreamRequest"))
