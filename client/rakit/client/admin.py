"""Administration: topics, the cluster, offsets and digests.

Each method is one request to any node, repeated on others while it can succeed. Requests that
change topics carry a request id, so a repetition gets the answer of the first one. Moving a
leadership has none, because a repetition does no harm: it asks for the same leader again, or for
the fittest, which may then be another one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from rakit.api.v1 import cluster_service_pb2 as cluster
from rakit.api.v1 import topic_service_pb2 as topics
from rakit.api.v1.log_service_pb2 import GetOffsetsRequest
from rakit.client.connections import Connections
from rakit.client.metadata import Metadata
from rakit.client.model import Cluster, CreatedTopic, Digest, Offsets, Topic, TopicConfig

_PAGE_SIZE: Final = 500


class Admin:
    """What `Client.admin` offers."""

    def __init__(self, connections: Connections, metadata: Metadata) -> None:
        self._connections = connections
        self._metadata = metadata

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int | None = None,
        config: TopicConfig | None = None,
    ) -> CreatedTopic:
        """Creates a topic. Without a replication factor it gets the smaller of 3 and the nodes.

        Raises AlreadyExistsError and InvalidRequestError.
        """
        request = topics.CreateTopicRequest(
            name=name,
            partition_count=partitions,
            replication_factor=replication_factor or 0,
            config=(config or TopicConfig()).to_message(),
            request_id=str(uuid.uuid4()),
        )
        answer = await self._connections.call(lambda stubs: stubs.topic.CreateTopic, request)
        return CreatedTopic(Topic.from_message(answer.topic), tuple(answer.warnings))

    async def get_topic(self, name: str) -> Topic:
        """Returns a topic as the cluster has it now. Raises NotFoundError."""
        return await self._metadata.refresh(name)

    async def list_topics(self) -> list[Topic]:
        """Returns all topics, by name."""
        found: list[Topic] = []
        token = ""
        while True:
            request = topics.ListTopicsRequest(page_size=_PAGE_SIZE, page_token=token)
            answer = await self._connections.call(lambda stubs: stubs.topic.ListTopics, request)
            found.extend(Topic.from_message(each) for each in answer.topics)
            token = answer.next_page_token
            if not token:
                return found

    async def update_topic(
        self, name: str, config: TopicConfig, reset: Sequence[str] = ()
    ) -> Topic:
        """Changes the settings that are not None; those named in `reset` get their default back."""
        message = config.to_message()
        paths = [field.name for field, _ in message.ListFields()]
        request = topics.UpdateTopicRequest(
            name=name,
            config=message,
            update_mask=FieldMask(paths=[*paths, *reset]),
            request_id=str(uuid.uuid4()),
        )
        answer = await self._connections.call(lambda stubs: stubs.topic.UpdateTopic, request)
        return Topic.from_message(answer.topic)

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic with its records. Raises NotFoundError."""
        request = topics.DeleteTopicRequest(name=name, request_id=str(uuid.uuid4()))
        await self._connections.call(lambda stubs: stubs.topic.DeleteTopic, request)

    async def get_cluster(self) -> Cluster:
        """Returns the cluster as the node that answers sees it."""
        return await self._metadata.refresh_nodes()

    async def get_offsets(
        self, topic: str, partitions: Sequence[int] = (), time_ms: int | None = None
    ) -> list[Offsets]:
        """Returns the readable ranges of partitions (default: all), and the offsets of a time."""
        request = GetOffsetsRequest(topic=topic, partitions=partitions, time_ms=time_ms)
        answer = await self._connections.call(lambda stubs: stubs.log.GetOffsets, request)
        return [Offsets.from_message(each) for each in answer.partitions]

    async def get_digest(self, topic: str, partition: int) -> Digest:
        """Hashes a partition on each of its replicas up to one common point."""
        request = cluster.GetDigestRequest(topic=topic, partition=partition)
        answer = await self._connections.call(lambda stubs: stubs.cluster.GetDigest, request)
        return Digest.from_message(answer)

    async def transfer_leadership(self, topic: str, partition: int, to_node_id: int = 0) -> int:
        """Moves a partition's leadership, by default to the fittest replica; returns the leader."""
        request = cluster.TransferLeadershipRequest(
            topic=topic, partition=partition, to_node_id=to_node_id
        )
        answer = await self._connections.call(
            lambda stubs: stubs.cluster.TransferLeadership, request
        )
        return answer.leader_node_id
