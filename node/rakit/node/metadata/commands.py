"""Requests of clients as commands of the metadata group.

What a request alone can tell is checked here, before anything is sent or proposed; the rest (does
the name exist, are there enough nodes) the state machine decides. The state machine checks all of
it again, because it must not depend on which version of this module proposed the entry.

Every change of a topic is marked with a request id: the client's, or a fresh one. So the node can
repeat a command whose outcome it does not know, and the topic is still changed once. The state
keeps the id, so it is kept in its shortest spelling.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import xxhash

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.metadata import topics
from rakit.node.metadata.topic_config import TopicConfig, check_names
from rakit.peer.v1 import metadata_command_pb2 as pb

if TYPE_CHECKING:
    from rakit.api.v1 import topic_service_pb2

    _TopicRequest = (
        topic_service_pb2.CreateTopicRequest
        | topic_service_pb2.UpdateTopicRequest
        | topic_service_pb2.DeleteTopicRequest
    )


def create_topic(request: topic_service_pb2.CreateTopicRequest) -> pb.MetadataCommand:
    """The command that creates the topic; raises `RakitError` for what is wrong by itself."""
    topics.check_new_topic_name(request.name)
    if request.partition_count:
        topics.check_partition_count(request.partition_count)
    if request.replication_factor:
        topics.check_replication_factor(request.replication_factor)
    config = TopicConfig.from_proto(request.config)
    config.check()
    return pb.MetadataCommand(
        create_topic=pb.CreateTopic(
            mark=_mark(request),
            name=request.name,
            partition_count=request.partition_count,
            replication_factor=request.replication_factor,
            # Rebuilt, so that nothing which this version does not know gets into the log.
            config=config.to_proto(),
        )
    )


def update_topic(request: topic_service_pb2.UpdateTopicRequest) -> pb.MetadataCommand:
    """The command that changes the topic's settings; raises `RakitError` likewise."""
    topics.check_topic_name(request.name)
    names = list(request.update_mask.paths)
    if not names:
        names = [field.name for field, _ in request.config.ListFields()]
    check_names(names)
    if not names:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            "nothing to update: set a field of config, or name one in update_mask to reset it",
        )
    config = TopicConfig.from_proto(request.config)
    TopicConfig().updated(names, config).check()
    return pb.MetadataCommand(
        update_topic=pb.UpdateTopic(
            mark=_mark(request),
            name=request.name,
            config=config.to_proto(),
            fields=sorted(set(names)),
        )
    )


def delete_topic(request: topic_service_pb2.DeleteTopicRequest) -> pb.MetadataCommand:
    """The command that deletes the topic; raises `RakitError` likewise."""
    topics.check_topic_name(request.name)
    return pb.MetadataCommand(delete_topic=pb.DeleteTopic(mark=_mark(request), name=request.name))


def init_producer(name: str) -> pb.MetadataCommand:
    """The command that gives out a producer id, for a name or, if it is empty, for none."""
    if name:
        topics.check_producer_name(name)
    return pb.MetadataCommand(init_producer=pb.InitProducer(name=name))


def _mark(request: _TopicRequest) -> pb.RequestMark:
    """The request's id in its one spelling, and a hash of everything else in the request."""
    copy = type(request).FromString(request.SerializeToString())
    copy.request_id = ""
    # The kind is hashed too: the same bytes may be a deletion and an update.
    content = request.DESCRIPTOR.name.encode() + copy.SerializeToString(deterministic=True)
    request_id = _uuid(request.request_id) if request.request_id else uuid.uuid4()
    return pb.RequestMark(request_id=str(request_id), fingerprint=xxhash.xxh3_64_intdigest(content))


def _uuid(request_id: str) -> uuid.UUID:
    # The parser skips dashes, however many: the state must never keep the text that it was given.
    if len(request_id) <= topics.REQUEST_ID_CHARS_MAX:
        try:
            return uuid.UUID(request_id)
        except ValueError:
            pass  # the error below is for both
    raise RakitError(
        error_pb2.ERROR_REASON_INVALID_REQUEST,
        f"request_id {request_id!r} is not a UUID; make a new one for each request, or leave it"
        " out",
    )
