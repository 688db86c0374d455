"""The opaque twins are wire-identical to the public messages.

A node that reads a message as one and writes it as the other must not change its meaning. So each
field has the same number, the same wire type and the same label, down to the last sub-message; only
a sub-message may be `bytes` in the twin.
"""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from rakit.api.v1 import log_service_pb2, record_pb2
from rakit.api.v1.record_pb2 import Batch, Header, Records
from rakit.peer.v1 import opaque_pb2
from rakit.peer.v1.opaque_pb2 import OpaqueBatch

LENGTH_DELIMITED = {
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_MESSAGE,
}
TWINS = sorted(
    name for name in opaque_pb2.DESCRIPTOR.message_types_by_name if name.startswith("Opaque")
)


def public(name: str) -> Descriptor:
    for module in (log_service_pb2, record_pb2):
        found: dict[str, Descriptor] = dict(module.DESCRIPTOR.message_types_by_name)
        if name.removeprefix("Opaque") in found:
            return found[name.removeprefix("Opaque")]
    raise AssertionError(f"{name} has no public message")


def shape(field: FieldDescriptor, *, opaque: bool) -> tuple[object, ...]:
    """What of a field is visible on the wire, and in which oneof it stands."""
    kind = "bytes" if opaque and field.type in LENGTH_DELIMITED else field.type
    oneof = field.containing_oneof.name if field.containing_oneof else ""
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
    assert {"OpaqueProduceRequest", "OpaqueFetchResponse", "OpaqueReadResponse"} <= set(TWINS)


def test_the_comparison_sees_another_type_and_a_missing_field() -> None:
    assert differences(Header.DESCRIPTOR, Records.DESCRIPTOR) != []
    assert differences(OpaqueBatch.DESCRIPTOR, Header.DESCRIPTOR) != []


def test_a_batch_survives_the_way_through_its_twin() -> None:
    batch = Batch(base_offset=5, record_count=1, records=Records(values=[b"v"], keys=[b"k"]))
    twin = OpaqueBatch.FromString(batch.SerializeToString())
    assert Records.FromString(twin.records) == batch.records
    assert Batch.FromString(twin.SerializeToString()) == batch
