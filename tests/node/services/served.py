"""One real node in this process, and stubs for it, as a client in any language has them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rakit.api.v1 import (
    cluster_service_pb2_grpc,
    group_service_pb2_grpc,
    log_service_pb2_grpc,
    topic_service_pb2_grpc,
)
from rakit.api.v1.log_service_pb2 import ProduceRequest, ProduceResponse
from rakit.api.v1.record_pb2 import Record, Records, Rows
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, Topic
from rakit.node.app import Node
from rakit.node.config import load

TIMEOUT_S = 10
#: By default every store takes a gigabyte of a large disk as its ballast.
SMALL_RESERVE = f"--disk-reserve-bytes={1 << 20}"
_names = itertools.count()


@dataclass(frozen=True)
class Refusal:
    """An error as a client sees it."""

    code: grpc.StatusCode
    reason: str
    outcome: str
    message: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Served:
    """A node and the stubs of all of its services."""

    node: Node
    channel: grpc.aio.Channel

    @property
    def log(self) -> log_service_pb2_grpc.LogServiceAsyncStub:
        return log_service_pb2_grpc.LogServiceStub(self.channel)

    @property
    def topics(self) -> topic_service_pb2_grpc.TopicServiceAsyncStub:
        return topic_service_pb2_grpc.TopicServiceStub(self.channel)

    @property
    def cluster(self) -> cluster_service_pb2_grpc.ClusterServiceAsyncStub:
        return cluster_service_pb2_grpc.ClusterServiceStub(self.channel)

    @property
    def groups(self) -> group_service_pb2_grpc.GroupServiceAsyncStub:
        return group_service_pb2_grpc.GroupServiceStub(self.channel)

    async def topic(self, partition_count: int = 1, name: str = "") -> Topic:
        """A topic that no other test uses."""
        request = CreateTopicRequest(
            name=name or f"topic-{next(_names)}", partition_count=partition_count
        )
        response = await self.topics.CreateTopic(request, timeout=TIMEOUT_S)
        return response.topic

    async def produce(
        self, topic: str, *values: bytes, partition: int = 0, key: bytes | None = None
    ) -> ProduceResponse:
        request = ProduceRequest(topic=topic, partition=partition, rows=rows(*values, key=key))
        return await self.log.Produce(request, timeout=TIMEOUT_S)


def rows(*values: bytes, key: bytes | None = None) -> Rows:
    return Rows(records=[Record(key=key, value=value) for value in values])


def columns(*values: bytes) -> Records:
    return Records(values=values)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Checks the form that every error has (contract 12) and returns what it says."""
    trailers = dict(error.trailing_metadata() or ())
    details = trailers["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    refusal = refusal_in(status)
    assert trailers["rakit-reason"] == refusal.reason
    assert trailers.get("rakit-outcome", "") == refusal.outcome
    return refusal


def refusal_in(status: Status) -> Refusal:
    """What a Status says, also one inside of an answer."""
    assert len(status.details) == 1, "exactly one detail"
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "rakit"
    metadata = dict(info.metadata)
    outcome = metadata.pop("outcome", "")
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    return Refusal(code, info.reason, outcome, status.message, metadata)


@asynccontextmanager
async def serve(data_dir: Path, *more: str) -> AsyncGenerator[Served]:
    """Runs a cluster of one node in this process."""
    argv = ["--name=one", f"--data-dir={data_dir}", "--listen=127.0.0.1:0"]
    argv += ["--peer-listen=127.0.0.1:0", "--bootstrap-expect=1", SMALL_RESERVE, *more]
    node = Node(load(argv, {}))
    running = asyncio.create_task(node.run())
    ready = asyncio.create_task(node.ready.wait())
    await asyncio.wait({running, ready}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert node.ready.is_set(), running.result() if running.done() else "it does not get ready"
    channel = grpc.aio.insecure_channel(next(iter(node.listeners.advertised.values())))
    try:
        yield Served(node, channel)
    finally:
        await channel.close()
        node.stop()
        end = await running
        assert end.code == 0, end
