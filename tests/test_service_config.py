"""protos/service_config.json: what gRPC does of itself for clients that get it (contract 13)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from rakit.api.v1 import (
    cluster_service_pb2,
    group_service_pb2,
    log_service_pb2,
    topic_service_pb2,
)
from rakit.client.config import MESSAGE_BYTES_MAX

PATH = Path(__file__).resolve().parent.parent / "protos/service_config.json"
SERVICES: dict[str, ServiceDescriptor] = {
    service.full_name: service
    for module in (cluster_service_pb2, group_service_pb2, log_service_pb2, topic_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}


def entries() -> list[dict[str, Any]]:
    """What the file says, method by method."""
    return json.loads(PATH.read_text())["methodConfig"]  # type: ignore[no-any-return]


def named(entry: dict[str, Any]) -> Iterator[MethodDescriptor]:
    """The methods that an entry names; a service alone stands for all of its own."""
    for name in entry["name"]:
        service = SERVICES[name["service"]]
        if "method" in name:
            yield service.methods_by_name[name["method"]]
        else:
            yield from service.methods


def test_it_names_only_methods_that_exist_and_every_service() -> None:
    assert {
        method.containing_service.full_name for entry in entries() for method in named(entry)
    } == set(SERVICES)


@pytest.mark.parametrize("word", ["timeout", "retryPolicy"])
def test_13_only_reads_of_one_answer_are_repeated_or_end_by_themselves(word: str) -> None:
    methods = [method for entry in entries() if word in entry for method in named(entry)]
    assert methods
    assert all(method.name.startswith(("Get", "List", "Fetch")) for method in methods)
    assert not [m.full_name for m in methods if m.client_streaming or m.server_streaming]
    # With a fence_epoch it is no read.
    assert "GetProducerState" not in {method.name for method in methods}
    assert "Produce" not in {method.name for method in methods}


def test_13_reads_are_repeated_when_a_node_is_unavailable_and_for_nothing_else() -> None:
    codes = [
        entry["retryPolicy"]["retryableStatusCodes"]
        for entry in entries()
        if "retryPolicy" in entry
    ]
    assert codes == [["UNAVAILABLE"]]


def test_a_long_poll_is_not_cut_off() -> None:
    # max_wait_ms is at most 60,000.
    (fetch,) = [
        e
        for e in entries()
        if {"service": "rakit.api.v1.LogService", "method": "Fetch"} in e["name"]
    ]
    assert float(fetch["timeout"].rstrip("s")) > 60


def test_messages_may_be_as_large_as_nodes_take_them() -> None:
    for entry in entries():
        assert entry["maxRequestMessageBytes"] == MESSAGE_BYTES_MAX
        assert entry["maxResponseMessageBytes"] == MESSAGE_BYTES_MAX


def test_grpc_takes_it() -> None:
    with grpc.insecure_channel(
        "127.0.0.1:1", options=[("grpc.service_config", PATH.read_text())]
    ) as channel:
        untyped: Any = channel
        method = untyped.unary_unary("/rakit.api.v1.TopicService/GetTopic")
        with pytest.raises(grpc.RpcError) as refused:
            method(b"", timeout=5)
    # A config that gRPC cannot read fails every call with another text.
    assert "failed to connect" in str(refused.value.details())
