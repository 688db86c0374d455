"""What users have compiled into their programs (contract 1, 2, 12): read from the descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from rakit.api.v1 import (
    cluster_service_pb2,
    error_pb2,
    group_service_pb2,
    header_pb2,
    log_service_pb2,
    record_pb2,
    topic_service_pb2,
)
from rakit.peer.v1 import opaque_pb2

FILES: list[FileDescriptor] = [
    each.DESCRIPTOR
    for each in (
        cluster_service_pb2,
        error_pb2,
        group_service_pb2,
        header_pb2,
        log_service_pb2,
        record_pb2,
        topic_service_pb2,
    )
]
SERVICES = [service for file in FILES for service in file.services_by_name.values()]
AS_STRING = descriptor_pb2.FieldOptions.JS_STRING
# Differences of neighbours may be negative and are small: zigzag.
SIGNED = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64}
UNSIGNED = {
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_FIXED64,
}


def test_every_file_of_the_contract_is_looked_at() -> None:
    folder = Path(cluster_service_pb2.__file__).parent
    assert {each.name for each in FILES} == {
        f"rakit/api/v1/{path.name}" for path in folder.glob("*.proto")
    }


def messages(file: FileDescriptor) -> Iterator[Descriptor]:
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        yield message


def fields() -> Iterator[FieldDescriptor]:
    for file in FILES:
        for message in messages(file):
            yield from message.fields


def test_every_method_has_messages_of_its_own_named_after_it() -> None:
    methods = [method for service in SERVICES for method in service.methods]
    assert len(methods) >= 16
    for method in methods:
        named = (method.input_type.name, method.output_type.name)
        assert named == (f"{method.name}Request", f"{method.name}Response")


def test_64_bit_numbers_are_signed_and_strings_in_json() -> None:
    wide = [field for field in fields() if field.type in SIGNED]
    assert len(wide) > 40
    plain = [field.full_name for field in wide if field.GetOptions().jstype != AS_STRING]
    assert not plain
    assert not [field.full_name for field in fields() if field.type in UNSIGNED]


def test_header_names_are_text_and_values_bytes() -> None:
    named = record_pb2.Header.DESCRIPTOR.fields_by_name
    assert named["name"].type == FieldDescriptor.TYPE_STRING
    assert named["value"].type == FieldDescriptor.TYPE_BYTES


@pytest.mark.parametrize("name", ["key", "value"])
def test_keys_and_values_can_be_null(name: str) -> None:
    assert record_pb2.Record.DESCRIPTOR.fields_by_name[name].has_presence


def test_every_enumeration_has_a_zero_that_says_nothing() -> None:
    for file in FILES:
        for enumeration in file.enum_types_by_name.values():
            zero = enumeration.values_by_number[0].name
            assert zero.endswith(("_UNSPECIFIED", "_NONE")), f"{enumeration.name}: {zero}"


def test_reasons_carry_their_prefix() -> None:
    names = error_pb2.ErrorReason.keys()
    assert all(name.startswith("ERROR_REASON_") for name in names)


def test_nothing_of_the_peers_is_needed_to_speak_to_a_node() -> None:
    needed = {each.name for file in FILES for each in file.dependencies}
    assert not [name for name in needed if name.startswith("rakit/peer/")]
    assert opaque_pb2.DESCRIPTOR.package == "rakit.peer.v1"
