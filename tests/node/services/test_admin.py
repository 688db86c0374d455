"""Topics, the cluster, health and reflection on one real node, through stubs."""

from __future__ import annotations

import uuid
from typing import Any, cast

import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rakit.api.v1 import error_pb2
from rakit.api.v1.cluster_service_pb2 import (
    DAMAGE_KIND_REPLICA_SHUT_OUT,
    NODE_STATE_UP,
    GetClusterRequest,
    GetDigestRequest,
    TransferLeadershipRequest,
)
from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    DeleteTopicRequest,
    GetTopicRequest,
    ListTopicsRequest,
    TopicConfig,
    UpdateTopicRequest,
)
from rakit.multiraft.machine import replica_id
from rakit.node.errors import RakitError
from rakit.node.metadata.registry import Registry
from rakit.node.partition.answers import not_leading
from rakit.node.services import cluster as cluster_service
from rakit.node.services.leadership import TransferHost
from tests.multiraft.host.support import until
from tests.node.services.served import TIMEOUT_S, Served, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
# Their generated code has no types.
HEALTH, HEALTH_GRPC = cast("Any", health_pb2), cast("Any", health_pb2_grpc)
REFLECTION, REFLECTION_GRPC = cast("Any", reflection_pb2), cast("Any", reflection_pb2_grpc)


async def test_a_new_topic_can_be_used_and_warns_of_few_replicas(served: Served) -> None:
    request = CreateTopicRequest(name="fresh", partition_count=3)
    answer = await served.topics.CreateTopic(request, timeout=TIMEOUT_S)
    topic = answer.topic
    assert (topic.replication_factor, len(topic.partitions)) == (1, 3)
    address = next(iter(served.node.listeners.advertised.values()))
    for partition in topic.partitions:
        assert partition.leader_node_id == served.node.host.node_id
        assert partition.leader_address == address
    assert len(answer.warnings) == 1
    assert "1 replica" in answer.warnings[0]
    await served.produce("fresh", b"v", partition=2)


async def test_a_repeated_request_gets_the_first_answer(served: Served) -> None:
    request = CreateTopicRequest(name="once", request_id=str(uuid.uuid4()))
    first = await served.topics.CreateTopic(request, timeout=TIMEOUT_S)
    second = await served.topics.CreateTopic(request, timeout=TIMEOUT_S)
    assert first.topic.topic_id == second.topic.topic_id
    request.partition_count = 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.topics.CreateTopic(request, timeout=TIMEOUT_S)
    assert refusal_of(caught.value).reason == "REQUEST_ID_REUSED"


async def test_what_was_applied_is_never_called_not_applied(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The majority is lost, or this node falls behind, right after the change was made."""
    registry = served.node.metadata.registry

    async def no_majority(*_args: object) -> None:
        raise RakitError(error_pb2.ERROR_REASON_NO_QUORUM, "the test says so")

    def unknown(*_args: object) -> None:
        return None

    with monkeypatch.context() as alone:
        alone.setattr(served.node.metadata.client, "barrier", no_majority)
        alone.setattr(Registry, "topic_by_id", unknown)
        create = CreateTopicRequest(name="certain", partition_count=2)
        created = (await served.topics.CreateTopic(create, timeout=TIMEOUT_S)).topic
        update = UpdateTopicRequest(name="certain", config=TopicConfig(retention_ms=12_345))
        updated = (await served.topics.UpdateTopic(update, timeout=TIMEOUT_S)).topic
    topic = registry.topic("certain")
    assert topic is not None
    assert topic.config.retention_ms == 12_345
    for answer in (created, updated):
        assert (answer.topic_id, answer.replication_factor) == (topic.topic_id, 1)
        # Where its partitions are this node does not know; how many there are the command said.
        assert [(each.partition, each.group_id) for each in answer.partitions] == [(0, 0), (1, 0)]
    assert updated.config == TopicConfig(retention_ms=12_345)
    # A node that knows where they are says it, without asking anybody.
    monkeypatch.setattr(served.node.metadata.client, "barrier", no_majority)
    again = (await served.topics.UpdateTopic(update, timeout=TIMEOUT_S)).topic
    assert all(each.group_id for each in again.partitions)


async def test_settings_are_set_and_reset_by_mask(served: Served) -> None:
    topic = await served.topic()
    config = TopicConfig(retention_ms=60_000, retention_bytes=1 << 30)
    request = UpdateTopicRequest(name=topic.name, config=config)
    answer = await served.topics.UpdateTopic(request, timeout=TIMEOUT_S)
    assert answer.topic.config == config
    mask = FieldMask(paths=["retention_ms"])
    request = UpdateTopicRequest(name=topic.name, update_mask=mask)
    answer = await served.topics.UpdateTopic(request, timeout=TIMEOUT_S)
    assert answer.topic.config == TopicConfig(retention_bytes=1 << 30)


async def test_a_lower_batch_limit_holds_at_once(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"x" * 1000)
    request = UpdateTopicRequest(name=topic.name, config=TopicConfig(batch_bytes_max=500))
    await served.topics.UpdateTopic(request, timeout=TIMEOUT_S)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.produce(topic.name, b"x" * 1000)
    assert refusal_of(caught.value).reason == "BATCH_TOO_LARGE"


async def test_topics_are_listed_in_pages_by_name(served: Served) -> None:
    for name in ("page-b", "page-a", "page-c"):
        await served.topic(name=name)
    names: list[str] = []
    token = ""
    while True:
        request = ListTopicsRequest(page_size=2, page_token=token)
        page = await served.topics.ListTopics(request, timeout=TIMEOUT_S)
        assert len(page.topics) <= 2
        names += [topic.name for topic in page.topics]
        token = page.next_page_token
        if not token:
            break
    assert names == sorted(names)
    assert {"page-a", "page-b", "page-c"} <= set(names)


async def test_a_deleted_topic_is_gone_and_its_name_begins_anew(served: Served) -> None:
    topic = await served.topic(name="short-lived")
    await served.produce("short-lived", b"v")
    await served.topics.DeleteTopic(DeleteTopicRequest(name="short-lived"), timeout=TIMEOUT_S)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.produce("short-lived", b"v")
    assert refusal_of(caught.value).reason == "UNKNOWN_TOPIC"
    again = await served.topic(name="short-lived")
    assert again.topic_id > topic.topic_id
    assert again.partitions[0].group_id > topic.partitions[0].group_id
    assert (await served.produce("short-lived", b"v")).base_offset == 0


async def test_the_cluster_describes_itself(served: Served) -> None:
    topic = await served.topic(partition_count=2)
    await served.produce(topic.name, b"v")
    answer = await served.cluster.GetCluster(GetClusterRequest(), timeout=TIMEOUT_S)
    (node,) = answer.nodes
    assert (node.name, node.state) == ("one", NODE_STATE_UP)
    assert node.node_id == answer.metadata_leader_node_id == answer.header.node_id
    assert node.leader_count == node.replica_count == answer.partition_count
    assert answer.leaderless_partition_count == 0
    assert answer.limits.message_bytes_max > answer.limits.batch_bytes_max
    assert (await served.topics.GetTopic(GetTopicRequest(name=topic.name))).topic == topic


async def test_s9_a_replica_that_is_shut_out_is_shown_and_goes_with_its_topic(
    served: Served,
) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"v")
    group_id = topic.partitions[0].group_id
    host = served.node.host
    host.quarantine(group_id, "a reader met a bad checksum")
    answer = await served.cluster.GetCluster(GetClusterRequest(), timeout=TIMEOUT_S)
    (damage,) = answer.damages
    assert damage.kind == DAMAGE_KIND_REPLICA_SHUT_OUT
    assert (damage.node_id, damage.group_id) == (host.node_id, group_id)
    assert (damage.topic, damage.partition) == (topic.name, 0)
    assert "a reader met a bad checksum" in damage.message
    assert "Start that node with an empty data directory" in damage.message
    assert answer.nodes[0].shut_out_replica_count == 1
    await served.topics.DeleteTopic(DeleteTopicRequest(name=topic.name), timeout=TIMEOUT_S)
    await until(lambda: not host.quarantined)
    answer = await served.cluster.GetCluster(GetClusterRequest(), timeout=TIMEOUT_S)
    assert not answer.damages
    assert answer.nodes[0].shut_out_replica_count == 0


async def test_a_digest_covers_what_was_stored(served: Served) -> None:
    topic = await served.topic()
    first = await served.cluster.GetDigest(GetDigestRequest(topic=topic.name), timeout=TIMEOUT_S)
    await served.produce(topic.name, b"a", b"b")
    second = await served.cluster.GetDigest(GetDigestRequest(topic=topic.name), timeout=TIMEOUT_S)
    assert second.end_offset == 2
    assert second.last_index > first.last_index
    assert second.replicas[0].digest != first.replicas[0].digest
    assert not second.replicas[0].error


async def test_a_leadership_stays_when_there_is_nobody_else(served: Served) -> None:
    topic = await served.topic()
    request = TransferLeadershipRequest(topic=topic.name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.cluster.TransferLeadership(request, timeout=TIMEOUT_S)
    assert refusal_of(caught.value).reason == "NODE_UNAVAILABLE"
    request.to_node_id = served.node.host.node_id
    answer = await served.cluster.TransferLeadership(request, timeout=TIMEOUT_S)
    assert answer.leader_node_id == served.node.host.node_id


async def test_a_transfer_that_comes_when_the_leader_has_just_moved_may_be_tried_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked the wrong node: every node takes this request."""

    def moved(_host: TransferHost, _group_id: int, _to_node_id: int) -> None:
        raise not_leading(replica_id(2, 1), 3)

    monkeypatch.setattr(cluster_service, "transfer", moved)
    topic = await served.topic()
    request = TransferLeadershipRequest(topic=topic.name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.cluster.TransferLeadership(request, timeout=TIMEOUT_S)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert refusal_of(caught.value).reason == "NO_LEADER"


@pytest.mark.parametrize("name", ["", "liveness", "readiness", "rakit.api.v1.LogService"])
async def test_health_says_that_the_node_serves(served: Served, name: str) -> None:
    stub = HEALTH_GRPC.HealthStub(served.channel)
    answer = await stub.Check(HEALTH.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
    assert answer.status == HEALTH.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(served: Served) -> None:
    stub = REFLECTION_GRPC.ServerReflectionStub(served.channel)
    call = stub.ServerReflectionInfo(timeout=TIMEOUT_S)
    await call.write(REFLECTION.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    names = {each.name for each in answer.list_services_response.service}
    assert {"rakit.api.v1.LogService", "rakit.api.v1.TopicService"} <= names
    await call.write(
        REFLECTION.ServerReflectionRequest(file_containing_symbol="rakit.api.v1.LogService")
    )
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()


async def test_a_method_that_does_not_exist_is_unimplemented(served: Served) -> None:
    channel = cast("Any", served.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/rakit.api.v1.LogService/Forget")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
