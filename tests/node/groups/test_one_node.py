"""Groups on one real node: what administers them, through stubs, and every bad input."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest

from rakit.api.v1 import group_service_pb2 as api
from rakit.api.v1.cluster_service_pb2 import GetClusterRequest
from rakit.api.v1.log_service_pb2 import EDGE_EARLIEST, EDGE_LATEST, FetchRequest, Position
from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    DeleteTopicRequest,
    GetTopicRequest,
    ListTopicsRequest,
)
from rakit.node.errors import RakitError, reason_name
from rakit.peer.v1 import coordinator_service_pb2 as wire
from tests.node.services.served import TIMEOUT_S, Refusal, Served, refusal_in, refusal_of, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")
_names = itertools.count()


def group_name() -> str:
    """A group that no other test uses."""
    return f"group-{next(_names)}"


def soon() -> float:
    """Until when a call of the node's own is tried."""
    return asyncio.get_running_loop().time() + TIMEOUT_S


async def join(
    served: Served, group: str, *topics: str, instance: str = "", member_id: str = ""
) -> tuple[wire.MemberAnswer, str]:
    """A member as a gateway has it, and its session."""
    session = uuid.uuid4().hex
    asked = api.JoinGroup(group=group, topics=topics, instance_id=instance)
    request = wire.JoinMember(
        gateway_node_id=1, member_id=member_id, join=asked, session_id=session
    )
    return await served.node.groups.join(request, soon()), session


async def leave(served: Served, group: str, member_id: str, session: str) -> None:
    request = wire.LeaveMember(group=group, member_id=member_id, session_id=session)
    await served.node.groups.leave(request, soon())


async def commit(
    served: Served, group: str, topic: str, *offsets: int, member_id: str = "", epoch: int = 0
) -> api.CommitOffsetsResponse:
    """Commits offsets of partitions 0 and on."""
    request = api.CommitOffsetsRequest(
        group=group,
        member_id=member_id,
        member_epoch=epoch,
        offsets=[
            api.OffsetCommit(topic=topic, partition=at, offset=offset, metadata="m")
            for at, offset in enumerate(offsets)
        ],
    )
    return await served.groups.CommitOffsets(request, timeout=TIMEOUT_S)


async def group_of(served: Served, group: str) -> api.Group:
    answer = await served.groups.GetGroup(api.GetGroupRequest(group=group), timeout=TIMEOUT_S)
    return answer.group


async def refused(call: Awaitable[Any]) -> Refusal:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


async def test_a_cluster_without_groups_says_so_and_pays_nothing(served: Served) -> None:
    """First in this module: nobody has asked for a group yet."""
    listed = await served.groups.ListGroups(api.ListGroupsRequest(), timeout=TIMEOUT_S)
    assert not listed.groups
    for call in (
        served.groups.GetGroup(api.GetGroupRequest(group="none"), timeout=TIMEOUT_S),
        served.groups.DeleteGroup(api.DeleteGroupRequest(group="none"), timeout=TIMEOUT_S),
    ):
        assert (await refused(call)).reason == "UNKNOWN_GROUP"
    topic = await served.topic()
    fenced = await refused(commit(served, "none", topic.name, 0, member_id="nobody", epoch=1))
    assert fenced.reason == "MEMBER_FENCED"
    assert served.node.metadata.registry.internal_topic("__groups") is None
    await commit(served, "none", topic.name, 0)
    internal = served.node.metadata.registry.internal_topic("__groups")
    assert internal is not None
    assert len(internal.partitions) == 16


async def test_the_internal_topic_is_hidden_from_clients(served: Served) -> None:
    topic = await served.topic(2)
    await commit(served, group_name(), topic.name, 0)
    listed = await served.topics.ListTopics(ListTopicsRequest(page_size=500), timeout=TIMEOUT_S)
    assert not [each.name for each in listed.topics if each.name.startswith("__")]
    cluster = await served.cluster.GetCluster(GetClusterRequest(), timeout=TIMEOUT_S)
    assert cluster.topic_count == len(listed.topics)
    assert cluster.partition_count == sum(len(each.partitions) for each in listed.topics)
    name = "__groups"
    calls: list[Awaitable[Any]] = [
        served.topics.GetTopic(GetTopicRequest(name=name), timeout=TIMEOUT_S),
        served.topics.DeleteTopic(DeleteTopicRequest(name=name), timeout=TIMEOUT_S),
        served.produce(name, b"x"),
        served.log.Fetch(
            FetchRequest(positions=[Position(topic=name, edge=EDGE_EARLIEST)]), timeout=TIMEOUT_S
        ),
    ]
    for call in calls:
        assert (await refused(call)).reason == "UNKNOWN_TOPIC"


async def test_names_of_the_clusters_own_cannot_be_created(served: Served) -> None:
    for name in ("__groups", "__mine"):
        refusal = await refused(
            served.topics.CreateTopic(CreateTopicRequest(name=name), timeout=TIMEOUT_S)
        )
        assert (refusal.reason, refusal.outcome) == ("INVALID_TOPIC_NAME", "NOT_APPLIED")
        assert "reserved" in refusal.message


async def test_offsets_without_members_and_the_lag_in_records_and_time(served: Served) -> None:
    topic, group = (await served.topic(2)).name, group_name()
    for value in (b"a", b"b", b"c"):
        await served.produce(topic, value)
    await asyncio.sleep(0.05)
    await commit(served, group, topic, 1)
    found = await group_of(served, group)
    assert found.state == api.GROUP_STATE_EMPTY
    assert found.coordinator_node_id == served.node.host.node_id
    (row,) = found.partitions
    assert (row.topic, row.partition, row.committed_offset, row.metadata) == (topic, 0, 1, "m")
    assert (row.earliest, row.latest, row.lag_records) == (0, 3, 2)
    assert 50 <= row.lag_ms < 60_000, "the age of record 1"
    assert row.commit_time_ms > 1_700_000_000_000
    await commit(served, group, topic, 3)
    (row,) = (await group_of(served, group)).partitions
    assert (row.lag_records, row.lag_ms) == (0, 0)


async def test_a_member_owns_commits_and_leaves(served: Served) -> None:
    topic, group = (await served.topic(3)).name, group_name()
    await served.produce(topic, b"a", b"b")
    answer, session = await join(served, group, topic)
    assert [each.topic for each in answer.owned] == [topic] * 3
    assert not [each for each in answer.owned if each.HasField("committed_offset")]
    await commit(served, group, topic, 2, member_id=answer.member_id, epoch=answer.member_epoch)
    found = await group_of(served, group)
    assert found.state == api.GROUP_STATE_STABLE
    assert [each.member_id for each in found.members] == [answer.member_id]
    assert found.members[0].gateway_node_id == 1
    assert [each.partition for each in found.members[0].owned] == [0, 1, 2]
    assert [each.lag_records for each in found.partitions] == [0, 0, 0]
    assert [each.HasField("committed_offset") for each in found.partitions] == [True, False, False]
    listed = await served.groups.ListGroups(api.ListGroupsRequest(page_size=500), timeout=TIMEOUT_S)
    (summary,) = [each for each in listed.groups if each.name == group]
    assert (summary.member_count, summary.state) == (1, api.GROUP_STATE_STABLE)
    again, session = await join(served, group, topic, member_id=answer.member_id)
    assert again.resumed
    assert (again.member_id, again.member_epoch) == (answer.member_id, answer.member_epoch)
    assert again.owned[0].committed_offset == 2
    await leave(served, group, answer.member_id, session)
    assert (await group_of(served, group)).state == api.GROUP_STATE_EMPTY


async def test_a_group_is_told_page_by_page(served: Served) -> None:
    topic, group = (await served.topic(5)).name, group_name()
    answer, session = await join(served, group, topic)
    request = api.GetGroupRequest(group=group, page_size=2)
    pages: list[api.GetGroupResponse] = []
    while request.page_token or not pages:
        pages.append(await served.groups.GetGroup(request, timeout=TIMEOUT_S))
        request.page_token = pages[-1].next_page_token
    rows = [[each.partition for each in page.group.partitions] for page in pages]
    assert rows == [[0], [1, 2], [3, 4]], "the member comes first"
    owned = [[each.partition for each in page.group.members[0].owned] for page in pages]
    assert owned == rows
    assert {page.group.members[0].member_id for page in pages} == {answer.member_id}
    assert [list(page.group.members[0].topics) for page in pages] == [[topic], [], []]
    assert {page.header.node_id for page in pages} == {served.node.host.node_id}
    await leave(served, group, answer.member_id, session)


async def test_groups_are_listed_page_by_page_over_all_partitions(served: Served) -> None:
    topic = (await served.topic()).name
    mine = [f"page-{at:02}" for at in range(40)]
    for name in mine:
        await commit(served, name, topic, 0)
    found: list[str] = []
    request = api.ListGroupsRequest(page_size=7)
    while True:
        answer = await served.groups.ListGroups(request, timeout=TIMEOUT_S)
        assert len(answer.groups) <= 7
        found += [each.name for each in answer.groups]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert found == sorted(found)
    assert [name for name in found if name.startswith("page-")] == mine


async def test_reset_moves_offsets_and_a_dry_run_only_says_so(served: Served) -> None:
    topic, group = (await served.topic(2)).name, group_name()
    for value in (b"a", b"b", b"c"):
        await served.produce(topic, value)
    await commit(served, group, topic, 2)

    async def reset(dry_run: bool, **to: Any) -> list[tuple[int, int]]:
        request = api.ResetOffsetsRequest(
            group=group, targets=[api.ResetTarget(topic=topic, **to)], dry_run=dry_run
        )
        answer = await served.groups.ResetOffsets(request, timeout=TIMEOUT_S)
        return [(each.partition, each.after) for each in answer.changes]

    async def committed() -> list[int]:
        return [each.committed_offset for each in (await group_of(served, group)).partitions]

    assert await reset(True, edge=EDGE_LATEST) == [(0, 3), (1, 0)]
    assert await committed() == [2]
    assert await reset(False, edge=EDGE_LATEST) == [(0, 3), (1, 0)]
    assert await committed() == [3, 0]
    assert await reset(False, partition=0, shift=-2) == [(0, 1)]
    assert await reset(False, shift=-9) == [(0, 0), (1, 0)]
    assert await reset(False, partition=0, offset=2) == [(0, 2)]
    assert await reset(False, partition=0, time_ms=0) == [(0, 0)]
    assert await reset(False, partition=0, time_ms=1 << 50) == [(0, 3)]
    assert await committed() == [3, 0]


async def test_a_deleted_group_is_gone_with_its_offsets(served: Served) -> None:
    topic, group = (await served.topic()).name, group_name()
    await commit(served, group, topic, 0)
    request = api.DeleteGroupRequest(group=group)
    await served.groups.DeleteGroup(request, timeout=TIMEOUT_S)
    refusal = await refused(served.groups.DeleteGroup(request, timeout=TIMEOUT_S))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_GROUP")
    assert refusal.message == f"There is no group {group!r}."
    assert refusal.metadata == {"group": group}


async def test_bad_names_and_counts_are_refused_in_words(served: Served) -> None:
    groups, topic = served.groups, (await served.topic()).name
    cases: list[tuple[Awaitable[Any], str, str]] = [
        (groups.GetGroup(api.GetGroupRequest(group="")), "INVALID_GROUP_NAME", "this one has 0"),
        (groups.GetGroup(api.GetGroupRequest(group="a\nb")), "INVALID_GROUP_NAME", "printable"),
        (groups.DeleteGroup(api.DeleteGroupRequest(group="x" * 250)), "INVALID_GROUP_NAME", "250"),
        (
            groups.ListGroups(api.ListGroupsRequest(page_size=-1)),
            "INVALID_REQUEST",
            "page_size is -1",
        ),
        (
            groups.GetGroup(api.GetGroupRequest(group="g", page_size=-1)),
            "INVALID_REQUEST",
            "page_size is -1; it must not be negative",
        ),
        (
            groups.ListGroups(api.ListGroupsRequest(page_token="after:")),
            "INVALID_PAGE_TOKEN",
            "begin again without one",
        ),
        (commit(served, "g", topic, -1), "INVALID_REQUEST", "-1 is no offset"),
        (
            groups.ResetOffsets(api.ResetOffsetsRequest(group="none")),
            "INVALID_REQUEST",
            "names no target",
        ),
        (
            groups.ResetOffsets(
                api.ResetOffsetsRequest(group="none", targets=[api.ResetTarget(topic=topic)])
            ),
            "INVALID_REQUEST",
            "says where to",
        ),
        (
            groups.ResetOffsets(
                api.ResetOffsetsRequest(
                    group="no-such", targets=[api.ResetTarget(topic=topic, shift=1)]
                )
            ),
            "UNKNOWN_GROUP",
            "There is no group 'no-such'.",
        ),
    ]
    for call, reason, text in cases:
        refusal = await refused(call)
        assert (refusal.reason, refusal.outcome) == (reason, "NOT_APPLIED")
        assert text in refusal.message


async def test_s25_bad_commits_of_members_are_refused_each_for_its_reason(served: Served) -> None:
    topic, group = (await served.topic(2)).name, group_name()
    await served.produce(topic, b"a")
    mine, session = await join(served, group, topic)
    epoch = mine.member_epoch

    async def reason(offset: int, member_id: str, at_epoch: int) -> tuple[str, str]:
        found = await refused(
            commit(served, group, topic, offset, member_id=member_id, epoch=at_epoch)
        )
        assert found.outcome == "NOT_APPLIED"
        return found.reason, found.message

    name, text = await reason(2, mine.member_id, epoch)
    assert name == "COMMIT_OUT_OF_RANGE"
    assert "which holds 0 up to, not including, 1" in text
    assert (await reason(1, mine.member_id, epoch + 5))[0] == "STALE_MEMBER_EPOCH"
    assert (await reason(1, mine.member_id, epoch - 1))[0] == "STALE_MEMBER_EPOCH"
    assert (await reason(1, "stranger", epoch))[0] == "MEMBER_FENCED"
    name, text = await reason(1, "", 0)
    assert name == "GROUP_ACTIVE"
    assert "only they may commit" in text
    other, other_session = await join(served, group, topic)
    name, text = await reason(1, other.member_id, other.member_epoch)
    assert name == "PARTITION_NOT_OWNED"
    assert f"does not own partition 0 of topic {topic!r}" in text
    for call in (
        served.groups.DeleteGroup(api.DeleteGroupRequest(group=group), timeout=TIMEOUT_S),
        served.groups.ResetOffsets(
            api.ResetOffsetsRequest(group=group, targets=[api.ResetTarget(topic=topic, shift=0)]),
            timeout=TIMEOUT_S,
        ),
    ):
        assert (await refused(call)).reason == "GROUP_ACTIVE"
    await leave(served, group, other.member_id, other_session)
    await leave(served, group, mine.member_id, session)
    assert (await reason(1, mine.member_id, epoch))[0] == "MEMBER_FENCED"


async def test_parts_of_a_commit_fail_each_for_itself(served: Served) -> None:
    topic, group = (await served.topic(1)).name, group_name()
    answer = await commit(served, group, topic, 0, 0)
    (error,) = answer.errors
    assert (error.topic, error.partition) == (topic, 1)
    assert refusal_in(error.error).reason == "UNKNOWN_PARTITION"
    assert (await group_of(served, group)).partitions[0].committed_offset == 0
    refusal = await refused(commit(served, group, "nowhere", 0))
    assert refusal.reason == "UNKNOWN_TOPIC"


async def test_two_processes_with_one_instance_name(served: Served) -> None:
    topic, group = (await served.topic(2)).name, group_name()
    first, session = await join(served, group, topic, instance="pod-1")
    with pytest.raises(RakitError, match="Another process is instance 'pod-1'") as caught:
        await join(served, group, topic, instance="pod-1")
    assert reason_name(caught.value.reason) == "INSTANCE_IN_USE"
    detach = wire.LeaveMember(
        group=group, member_id=first.member_id, session_id=session, detach=True
    )
    await served.node.groups.leave(detach, soon())
    second, _ = await join(served, group, topic, instance="pod-1")
    assert second.member_id != first.member_id
    assert len(second.owned) == 2
    late = await refused(
        commit(served, group, topic, 0, member_id=first.member_id, epoch=first.member_epoch)
    )
    assert late.reason == "MEMBER_FENCED"


async def test_offsets_and_members_outlive_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("restarts")
    async with serve(path) as one:
        topic = (await one.topic(2, "kept")).name
        await one.produce(topic, b"a")
        await commit(one, "offsets", topic, 1)
        before, _ = await join(one, "members", topic)
    async with serve(path) as one:
        assert (await group_of(one, "offsets")).partitions[0].committed_offset == 1
        after, _ = await join(one, "members", topic, member_id=before.member_id)
        assert after.resumed
        assert [each.partition for each in after.owned] == [each.partition for each in before.owned]
        assert after.member_epoch == before.member_epoch
