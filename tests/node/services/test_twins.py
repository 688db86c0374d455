"""The opaque twins are wire-identical to the public messages.

A node that reads a message as one and writes it as the other must not change its meaning. So each
field has the same number, the same wire type and the same label, down to the last sub-message; only
a sub-message may be `bytes` in the twin.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from rakit.api.v1 import error_pb2, group_service_pb2, log_service_pb2, record_pb2
from rakit.api.v1.log_service_pb2 import (
    GetOffsetsRequest,
    ProduceMixedRequest,
    ProduceRequest,
    ProducerStamp,
    ProduceStreamRequest,
    RestartPartition,
)
from rakit.api.v1.record_pb2 import Batch, CompressedRecords, Header, Records
from rakit.node.errors import RakitError
from rakit.node.services import twins
from rakit.peer.v1 import opaque_pb2
from rakit.peer.v1.opaque_pb2 import (
    OpaqueBatch,
    OpaqueProduceRequest,
    OpaqueProduceStreamRequest,
)
from tests.node.services.served import TIMEOUT_S, refusal_of, rows, serve

LENGTH_DELIMITED = {
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_MESSAGE,
}
TWINS = sorted(
    name for name in opaque_pb2.DESCRIPTOR.message_types_by_name if name.startswith("Opaque")
)


def public(name: str) -> Descriptor:
    for module in (log_service_pb2, group_service_pb2, record_pb2):
        found: dict[str, Descriptor] = dict(module.DESCRIPTOR.message_types_by_name)
        if name.removeprefix("Opaque") in found:
            return found[name.removeprefix("Opaque")]
    raise AssertionError(f"{name} has no public message")


def shape(field: FieldDescriptor, *, opaque: bool) -> tuple[object, ...]:
    """What of a field is visible on the wire, and in which oneof it stands."""
    kind = "bytes" if opaque and field.type in LENGTH_DELIMITED else field.type
    oneof = field.containing_oneof.name if field.containing_oneof else ""
    # What `optional` is made of, which bytes need to have presence and a sub-message does not.
    oneof = "" if oneof == f"_{field.name}" else oneof
    return (field.name, kind, field.is_repeated, field.is_packed, field.has_presence, oneof)


def differences(twin: Descriptor, original: Descriptor) -> list[str]:
    found: list[str] = []
    theirs = dict(original.fields_by_number)
    ours = dict(twin.fields_by_number)
    found += [f"{twin.name}: field {number}" for number in theirs.keys() ^ ours.keys()]
    for number in theirs.keys() & ours.keys():
        mine, its = ours[number], theirs[number]
        opaque = mine.type == FieldDescriptor.TYPE_BYTES and its.message_type is not None
        if shape(mine, opaque=opaque) != shape(its, opaque=opaque):
            found.append(f"{twin.name}.{mine.name}: {mine.type} is not {its.type}")
        elif mine.message_type and its.message_type and mine.message_type != its.message_type:
            found += differences(mine.message_type, its.message_type)
    return found


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_identical_on_the_wire(name: str) -> None:
    twin = opaque_pb2.DESCRIPTOR.message_types_by_name[name]
    assert differences(twin, public(name)) == []


def test_all_hot_messages_have_a_twin() -> None:
    assert {
        "OpaqueProduceRequest",
        "OpaqueProduceMixedRequest",
        "OpaqueFetchResponse",
        "OpaqueReadResponse",
        "OpaqueSubscribeResponse",
        "OpaquePollGroupResponse",
    } <= set(TWINS)


def test_the_comparison_sees_another_type_and_a_missing_field() -> None:
    assert differences(Header.DESCRIPTOR, Records.DESCRIPTOR) != []
    assert differences(OpaqueBatch.DESCRIPTOR, Header.DESCRIPTOR) != []


def test_a_batch_survives_the_way_through_its_twin() -> None:
    batch = Batch(base_offset=5, record_count=1, records=Records(values=[b"v"], keys=[b"k"]))
    twin = OpaqueBatch.FromString(batch.SerializeToString())
    assert Records.FromString(twin.records) == batch.records
    assert Batch.FromString(twin.SerializeToString()) == batch


def produce(size: int = 1) -> bytes:
    return ProduceRequest(topic="t", columns=Records(values=[b"a" * size])).SerializeToString()


def mixed(size: int = 1) -> bytes:
    return ProduceMixedRequest(topic="t", rows=rows(b"a" * size)).SerializeToString()


def streamed(size: int = 1) -> bytes:
    request = ProduceRequest.FromString(produce(size))
    return ProduceStreamRequest(tag=7, produce=request).SerializeToString()


def whole(found: twins.Produced) -> OpaqueProduceRequest:
    """The request with its columns in place."""
    request = OpaqueProduceRequest()
    request.CopyFrom(found.message)
    if found.columns is not None:
        assert request.columns == b"", "columns that were taken out are not there any more"
        request.columns = bytes(found.columns)
    return request


def read_produce(data: bytes) -> Message:
    return whole(twins.produce_request(data))


def read_streamed(data: bytes) -> Message:
    found = twins.stream_request(data)
    assert found.produce is not None
    return OpaqueProduceStreamRequest(tag=found.tag, produce=whole(found.produce))


READERS: dict[str, tuple[Callable[[bytes], Message], Callable[[int], bytes]]] = {
    "Produce": (read_produce, produce),
    "ProduceMixed": (twins.mixed_request, mixed),
    "ProduceStream": (read_streamed, streamed),
}
LARGE = 2 * twins.LIFTED_BYTES_MIN


@pytest.mark.parametrize("method", READERS)
@pytest.mark.parametrize("size", [1, 2 * twins.SUMMED_BYTES_MAX, LARGE])
def test_a_batch_in_two_pieces_is_refused(method: str, size: int) -> None:
    """The public message merges them; half of it would be stored, and acknowledged."""
    read, make = READERS[method]
    assert read(make(size)).SerializeToString() == make(size)
    for first, second in ((size, 1), (1, size)):
        with pytest.raises(RakitError) as caught:
            read(make(first) + make(second))
        assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
        assert "more than one batch, or one in several pieces" in caught.value.message


def test_two_batches_of_different_kinds_are_refused() -> None:
    packed = ProduceRequest(compressed=CompressedRecords(data=b"x")).SerializeToString()
    with pytest.raises(RakitError, match="more than one batch"):
        twins.produce_request(produce() + packed)


def test_what_repeats_outside_of_the_batch_is_merged_as_ever() -> None:
    stamp = ProduceRequest(topic="u", producer=ProducerStamp(epoch=3)).SerializeToString()
    data = ProduceRequest(producer=ProducerStamp(producer_id=5)).SerializeToString() + stamp
    for size in (1, LARGE):
        for order in (data + produce(size), produce(size) + data):
            merged = twins.produce_request(order).message
            assert merged.producer == ProducerStamp(producer_id=5, epoch=3)
        assert twins.produce_request(data + produce(size)).message.topic == "t"


def test_an_encoder_that_is_not_canonical_is_understood() -> None:
    """Some write the length of what follows with five bytes, before they know it."""
    for size in (1, LARGE):
        columns = Records(values=[b"a" * size]).SerializeToString()
        padded = b"\x32" + five_bytes(len(columns)) + columns
        false = b"\x50\x00"  # leader_only, which nobody needs to say
        inner = padded + false
        assert whole(twins.produce_request(inner)).columns == columns
        found = twins.stream_request(b"\x12" + five_bytes(len(inner)) + inner)
        assert found.produce is not None
        assert whole(found.produce).columns == columns


def test_a_length_that_protobuf_does_not_read_is_refused_whatever_the_size() -> None:
    for size in (1, LARGE):
        columns = Records(values=[b"a" * size]).SerializeToString()
        for more in (1, 4):
            padded = five_bytes(len(columns))[:-1] + b"\x80" * more + b"\0"
            with pytest.raises(RakitError):
                twins.produce_request(b"\x32" + padded + columns)
            inner = produce(size)
            padded = five_bytes(len(inner))[:-1] + b"\x80" * more + b"\0"
            with pytest.raises(RakitError):
                twins.stream_request(b"\x12" + padded + inner)


def five_bytes(number: int) -> bytes:
    return bytes([number >> 7 * place & 0x7F | 0x80 for place in range(4)]) + b"\0"


def test_large_columns_are_taken_out_and_nothing_else_is() -> None:
    columns = Records(values=[b"a" * LARGE]).SerializeToString()
    for found in (twins.produce_request(produce(LARGE)), produce_of(streamed(LARGE))):
        assert found.columns == columns
        assert found.message == OpaqueProduceRequest(topic="t", columns=b"")
        assert found.message.WhichOneof("batch") == "columns"
    rows_of = ProduceRequest(topic="t", rows=rows(b"a" * LARGE)).SerializeToString()
    for data in (produce(), rows_of):
        assert twins.produce_request(data).columns is None


def produce_of(data: bytes) -> twins.Produced:
    found = twins.stream_request(data).produce
    assert found is not None
    return found


def test_what_comes_behind_a_large_request_counts_as_ever() -> None:
    """The later of the two kinds is the one that was meant."""
    restart = ProduceStreamRequest(tag=9, restart=RestartPartition(topic="t")).SerializeToString()
    found = twins.stream_request(streamed(LARGE) + restart)
    assert found == twins.StreamRequest(9, None, RestartPartition(topic="t"))
    both = twins.stream_request(restart + streamed(LARGE))
    assert both.tag == 7
    assert both.produce is not None


def test_a_large_request_that_is_broken_off_is_refused() -> None:
    for read, data in ((read_produce, produce(LARGE)), (read_streamed, streamed(LARGE))):
        for end in (4, 5, LARGE // 2, len(data) - 1):
            with pytest.raises(RakitError):
                read(data[:end])
        with pytest.raises(RakitError):
            read(data + b"\x0b")


def test_what_this_version_does_not_know_is_let_through() -> None:
    unknown = b"\xa0\x06\x01" + b"\xa9\x06" + bytes(8) + b"\xb5\x06" + bytes(4) + b"\xba\x06\x01x"
    for size in (1, 2 * twins.SUMMED_BYTES_MAX, LARGE):
        request = twins.produce_request(produce(size) + unknown)
        assert request.message.topic == "t"


def test_a_message_of_countless_fields_is_not_looked_at_for_long() -> None:
    with pytest.raises(RakitError, match="too many fields"):
        twins.produce_request(b"\x50\x00" * 100_000)


async def test_a_batch_in_two_pieces_is_refused_on_the_wire(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        topic = await served.topic()
        head = ProduceRequest(topic=topic.name, partition=0, columns=Records(values=[b"a"]))
        tail = ProduceRequest(columns=Records(values=[b"b"]))
        data = head.SerializeToString() + tail.SerializeToString()
        channel = cast("Any", served.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/rakit.api.v1.LogService/Produce")(data, timeout=TIMEOUT_S)
        assert refusal_of(caught.value).reason == "INVALID_REQUEST"
        request = GetOffsetsRequest(topic=topic.name)
        assert (await served.log.GetOffsets(request)).partitions[0].latest == 0
