"""The runner's own hand and eye in the cluster: it seeds topics and reads what became of them.

It also changes what programs watch: leaders and topics. Independent of the programs and of the
SDK: plain stubs, whichever node is alive.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rakit.api.v1.cluster_service_pb2 import GetClusterRequest, TransferLeadershipRequest
from rakit.api.v1.log_service_pb2 import Position, ProduceRequest, ReadRequest
from rakit.api.v1.record_pb2 import Header, Record, Rows
from rakit.api.v1.topic_service_pb2 import DeleteTopicRequest, GetTopicRequest
from tests.cluster.harness import LIMIT_S, Cluster, NodeProcess, until


@dataclass(frozen=True)
class Stored:
    """A record as it stands in the log."""

    offset: int
    append_time_ms: int
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str], ...]

    def fields(self) -> dict[str, Any]:
        """As a scenario writes it: null is absent."""
        named = {"key": self.key, "value": self.value}
        present = {name: text for name, text in named.items() if text is not None}
        return {**present, "headers": [list(header) for header in self.headers]}


def living(cluster: Cluster) -> NodeProcess:
    """A node that runs."""
    return next(node for node in cluster.nodes.values() if node.process is not None)


async def append(cluster: Cluster, topic: str, partition: int, values: Sequence[str]) -> int:
    """Appends one batch; returns its append time."""
    records = [Record(value=value.encode()) for value in values]
    request = ProduceRequest(topic=topic, partition=partition, rows=Rows(records=records))
    answer = await living(cluster).log.Produce(request, timeout=LIMIT_S)
    return answer.append_time_ms


async def move_leadership(cluster: Cluster, topic: str, partition: int) -> str:
    """Gives a partition another leader; returns that one's address."""
    node = living(cluster)

    async def attempt() -> str | None:
        described = await node.topics.GetTopic(GetTopicRequest(name=topic), timeout=LIMIT_S)
        place = described.topic.partitions[partition]
        others = [each.node_id for each in place.replicas if each.node_id != place.leader_node_id]
        if not place.leader_node_id:
            return None
        request = TransferLeadershipRequest(topic=topic, partition=partition, to_node_id=others[0])
        leader = (await node.cluster.TransferLeadership(request, timeout=LIMIT_S)).leader_node_id
        nodes = (await node.cluster.GetCluster(GetClusterRequest(), timeout=LIMIT_S)).nodes
        (address,) = [each.addresses[0].address for each in nodes if each.node_id == leader]
        return address

    return await until(f"the leadership of {topic}/{partition} moves", attempt)


async def delete(cluster: Cluster, topic: str) -> None:
    """Deletes a topic."""
    request = DeleteTopicRequest(name=topic, request_id=str(uuid.uuid4()))

    async def attempt() -> bool:
        await living(cluster).topics.DeleteTopic(request, timeout=LIMIT_S)
        return True

    await until(f"{topic} is deleted", attempt)


async def read(cluster: Cluster, topic: str, partition: int) -> list[Stored]:
    """Everything in a partition."""
    position = Position(topic=topic, partition=partition)

    async def attempt() -> list[Stored]:
        found: list[Stored] = []
        call = living(cluster).log.Read(ReadRequest(positions=[position]), timeout=LIMIT_S)
        async for response in call:
            found += [_stored(record) for record in response.data.records]
        return found

    # A partition whose leader was just killed has none for a moment; an empty list is an answer.
    wrapped = await until(f"{topic}/{partition} is read", lambda: _boxed(attempt()))
    return wrapped[0]


async def _boxed(reading: Any) -> tuple[list[Stored]]:
    return (await reading,)


def _stored(record: Record) -> Stored:
    return Stored(
        record.offset,
        record.append_time_ms,
        record.key.decode() if record.HasField("key") else None,
        record.value.decode() if record.HasField("value") else None,
        tuple(_text(header) for header in record.headers),
    )


def _text(header: Header) -> tuple[str, str]:
    return header.name, header.value.decode()
