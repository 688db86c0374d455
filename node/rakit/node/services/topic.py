"""TopicService: topics as clients see them.

Changes are commands of the metadata group; what they may be is decided there. Reads are
linearizable: each begins with a barrier (P6), so what one client was told has happened is what the
next one sees, on whichever node.

CreateTopic answers when every partition has a leader that this node knows of, or after
`LEADERS_WAIT_S`: the first produce after it should not meet an election.

Once a command is applied nothing fails any more: what came of it is certain, and every error that
this node could meet afterwards says NOT_APPLIED. So the answer to a change is the command's own
result; the registry only adds where the partitions are, as far as this node knows it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
    GetTopicRequest,
    GetTopicResponse,
    ListTopicsRequest,
    ListTopicsResponse,
    Partition,
    Topic,
    UpdateTopicRequest,
    UpdateTopicResponse,
)
from rakit.node.errors import RakitError
from rakit.node.metadata import commands
from rakit.node.metadata.registry import TopicInfo
from rakit.node.metadata.topics import check_topic_name
from rakit.node.routing import ANSWER_RESERVE_S, Router, answer_by, give_up_at, patience_s
from rakit.node.services.describe import Describe
from rakit.node.services.handlers import Call, Methods
from rakit.peer.v1.metadata_command_pb2 import TopicChanged

#: How long CreateTopic waits for leaders; it then answers without them.
LEADERS_WAIT_S: Final = 10.0
#: What one partition takes in an answer, on a node that is busy with electing all of them.
PARTITION_ANSWER_S: Final = 0.0002
PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 500
#: Partitions on one page, however few topics that are: about 100 bytes each on the wire.
PAGE_PARTITIONS_MAX: Final = 10_000
#: Fewer replicas than this do not survive one failure without losing the majority.
REPLICATION_FACTOR_SAFE: Final = 3
_PAGE_MARK: Final = "after:"


class TopicService:
    """rakit.api.v1.TopicService on one node."""

    NAME: Final = "rakit.api.v1.TopicService"

    def __init__(self, router: Router, describe: Describe) -> None:
        self._router = router
        self._describe = describe
        self._metadata = router.metadata
        self._header = describe.header

    def register(self, methods: Methods) -> None:
        """Adds the methods."""
        methods.unary("CreateTopic", CreateTopicRequest, self.create_topic)
        methods.unary("GetTopic", GetTopicRequest, self.get_topic)
        methods.unary("ListTopics", ListTopicsRequest, self.list_topics)
        methods.unary("UpdateTopic", UpdateTopicRequest, self.update_topic)
        methods.unary("DeleteTopic", DeleteTopicRequest, self.delete_topic)

    async def create_topic(self, call: Call, request: CreateTopicRequest) -> CreateTopicResponse:
        """Creates a topic and waits until it can be used."""
        command = commands.create_topic(request)
        result = await self._metadata.submit(command, timeout_seconds=patience_s(call.deadline))
        changed = result.topic_changed
        topic = self._metadata.registry.topic_by_id(changed.topic_id)
        if topic is not None:
            await self._leaders_known(topic, call)
        return CreateTopicResponse(
            header=self._header,
            topic=self._changed(changed, call.listener),
            warnings=warnings_for(changed.name, changed.replication_factor),
        )

    async def _leaders_known(self, topic: TopicInfo, call: Call) -> None:
        loop = asyncio.get_running_loop()
        reserve_s = ANSWER_RESERVE_S + PARTITION_ANSWER_S * len(topic.partitions)
        give_up = min(loop.time() + LEADERS_WAIT_S, answer_by(call.deadline, reserve_s))
        try:
            for place in topic.partitions:
                await self._router.leader(topic.name, place, give_up)
        except RakitError:
            # The topic is there all the same, and produce waits for a leader by itself.
            return

    async def get_topic(self, call: Call, request: GetTopicRequest) -> GetTopicResponse:
        """Returns a topic, linearizable."""
        topic = await self._router.confirmed_topic(request.name, give_up_at(call.deadline))
        return GetTopicResponse(
            header=self._header, topic=self._describe.topic(topic, call.listener)
        )

    async def list_topics(self, call: Call, request: ListTopicsRequest) -> ListTopicsResponse:
        """Returns a page of topics, by name."""
        if request.page_size < 0:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"page_size is {request.page_size}; it must not be negative.",
            )
        size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        after = _after(request.page_token)
        registry = await self._metadata.barrier(patience_s(call.deadline))
        topics = registry.topics_after(after, size + 1)
        page = _page(topics[:size])
        return ListTopicsResponse(
            header=self._header,
            topics=[self._describe.topic(topic, call.listener) for topic in page],
            next_page_token=_PAGE_MARK + page[-1].name if len(topics) > len(page) else "",
        )

    async def update_topic(self, call: Call, request: UpdateTopicRequest) -> UpdateTopicResponse:
        """Changes settings of a topic."""
        command = commands.update_topic(request)
        result = await self._metadata.submit(command, timeout_seconds=patience_s(call.deadline))
        topic = self._changed(result.topic_changed, call.listener)
        return UpdateTopicResponse(header=self._header, topic=topic)

    async def delete_topic(self, call: Call, request: DeleteTopicRequest) -> DeleteTopicResponse:
        """Deletes a topic and its records."""
        command = commands.delete_topic(request)
        await self._metadata.submit(command, timeout_seconds=patience_s(call.deadline))
        return DeleteTopicResponse(header=self._header)

    def _changed(self, changed: TopicChanged, listener: str) -> Topic:
        """The topic as of a command, with its partitions where this node knows them."""
        topic = Topic(
            name=changed.name,
            topic_id=changed.topic_id,
            replication_factor=changed.replication_factor,
            config=changed.config,
            create_time_ms=changed.create_time_ms,
        )
        known = self._metadata.registry.topic_by_id(changed.topic_id)
        if known is not None:
            topic.partitions.extend(
                self._describe.partition(one, listener) for one in known.partitions
            )
        else:
            topic.partitions.extend(Partition(partition=n) for n in range(changed.partition_count))
        return topic


def _page(topics: list[TopicInfo]) -> list[TopicInfo]:
    """The topics that fit into one answer, at least one."""
    left = PAGE_PARTITIONS_MAX
    for count, topic in enumerate(topics):
        left -= len(topic.partitions)
        if left < 0 and count:
            return topics[:count]
    return topics


def _after(token: str) -> str:
    if not token:
        return ""
    name = token.removeprefix(_PAGE_MARK)
    try:
        check_topic_name(name)
    except RakitError:
        name = ""
    if name == token or not name:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN,
            "The page token is not one that ListTopics gave; begin again without one.",
        )
    return name


def warnings_for(name: str, factor: int) -> list[str]:
    """What a person should know about a new topic."""
    if factor >= REPLICATION_FACTOR_SAFE:
        return []
    replicas = "1 replica" if factor == 1 else f"{factor} replicas"
    loss = "and loses their records with its disk" if factor == 1 else "until it is back"
    warning = (
        f"Topic {name!r} has {replicas} of each partition: the loss of one node makes"
        f" partitions unavailable, {loss}. Use a replication factor of {REPLICATION_FACTOR_SAFE}."
    )
    return [warning]
