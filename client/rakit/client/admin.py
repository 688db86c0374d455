"""Administration: topics, groups, the cluster, offsets and digests.

Each method is one request to any node, repeated on others while it can succeed. Requests that
change topics carry a request id, so a repetition gets the answer of the first one. Moving a
leadership has none, because a repetition does no harm: it asks for the same leader again, or for
the fittest, which may then be another one. Neither have changes of a group's offsets, which say
where the offsets are to be.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from rakit.api.v1 import cluster_service_pb2 as cluster
from rakit.api.v1 import group_service_pb2 as wire
from rakit.api.v1 import topic_service_pb2 as topics
from rakit.api.v1.log_service_pb2 import GetOffsetsRequest
from rakit.client.connections import Connections
from rakit.client.groups import (
    Group,
    GroupSummary,
    OffsetChange,
    ResetTo,
    refusals,
    reset_target,
)
from rakit.client.metadata import Metadata
from rakit.client.model import Cluster, CreatedTopic, Digest, Offsets, Topic, TopicConfig

_PAGE_SIZE: Final = 500
#: Members and partitions of a group.
_GROUP_PAGE_SIZE: Final = 10_000
#: Of one request.
_RESET_TARGETS_COUNT_MAX: Final = 1_024
_OFFSETS_COUNT_MAX: Final = 1_024


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

    async def list_groups(self) -> list[GroupSummary]:
        """Returns all consumer groups, by name."""
        found: list[GroupSummary] = []
        token = ""
        while True:
            request = wire.ListGroupsRequest(page_size=_PAGE_SIZE, page_token=token)
            answer = await self._connections.call(lambda stubs: stubs.group.ListGroups, request)
            found.extend(GroupSummary.from_message(each) for each in answer.groups)
            token = answer.next_page_token
            if not token:
                return found

    async def get_group(self, name: str) -> Group:
        """Returns a group's members, what they own, and its lag. Raises NotFoundError."""
        request = wire.GetGroupRequest(group=name, page_size=_GROUP_PAGE_SIZE)
        pages: list[wire.Group] = []
        while True:
            answer = await self._connections.call(lambda stubs: stubs.group.GetGroup, request)
            pages.append(answer.group)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return Group.from_pages(pages)

    async def delete_group(self, name: str) -> None:
        """Forgets a group and its offsets. Raises NotFoundError and GroupActiveError."""
        request = wire.DeleteGroupRequest(group=name)
        await self._connections.call(lambda stubs: stubs.group.DeleteGroup, request)

    async def commit_offsets(self, name: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Sets the offsets of a group without members: the next one of each (topic, partition).

        Raises GroupActiveError, OffsetOutOfRangeError for an offset outside of the log, and
        NotFoundError; the offsets of other partitions are then set all the same, or, of more than
        1,024 partitions, some of them.
        """
        places = list(offsets.items())
        for at in range(0, len(places), _OFFSETS_COUNT_MAX):
            request = wire.CommitOffsetsRequest(group=name)
            for (topic, partition), offset in places[at : at + _OFFSETS_COUNT_MAX]:
                request.offsets.add(topic=topic, partition=partition, offset=offset)
            answer = await self._connections.call(lambda stubs: stubs.group.CommitOffsets, request)
            for error in refusals(answer.errors).values():
                raise error

    async def reset_offsets(
        self,
        name: str,
        topic: str,
        partition: int | None = None,
        *,
        to: ResetTo | None = None,
        shift: int | None = None,
        dry_run: bool = False,
    ) -> list[OffsetChange]:
        """Moves a group's offsets in a partition, or in all of a topic's; returns what changed.

        `to` is an edge, an offset or a time; `shift` counts from what is committed. Raises
        GroupActiveError, OffsetOutOfRangeError and NotFoundError; a shift of more than 1,024
        partitions may then have moved some of them.
        """
        target = reset_target(topic, partition, to, shift)
        if shift is None or dry_run:
            return await self._reset(name, [target], dry_run=dry_run)
        # A repetition must not shift twice: first it is seen where to, and then that is asked for.
        seen = await self._reset(name, [target], dry_run=True)
        targets = [reset_target(each.topic, each.partition, each.after, None) for each in seen]
        changes: list[OffsetChange] = []
        for at in range(0, len(targets), _RESET_TARGETS_COUNT_MAX):
            portion = targets[at : at + _RESET_TARGETS_COUNT_MAX]
            changes += await self._reset(name, portion, dry_run=False)
        return changes

    async def _reset(
        self, name: str, targets: Sequence[wire.ResetTarget], *, dry_run: bool
    ) -> list[OffsetChange]:
        request = wire.ResetOffsetsRequest(group=name, targets=targets, dry_run=dry_run)
        answer = await self._connections.call(lambda stubs: stubs.group.ResetOffsets, request)
        return [OffsetChange.from_message(each) for each in answer.changes]
