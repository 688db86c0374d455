"""PollGroup on one real node: a client that only repeats what it was told is right."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest

from rakit.api.v1 import record_pb2
from rakit.api.v1.group_service_pb2 import (
    JoinGroup,
    OffsetCommit,
    PollGroupRequest,
    PollGroupResponse,
    PollPosition,
)
from rakit.api.v1.log_service_pb2 import EDGE_LATEST
from rakit.api.v1.topic_service_pb2 import DeleteTopicRequest, Topic
from tests.node.groups.consumer import Stream
from tests.node.services.served import TIMEOUT_S, Refusal, Served, refusal_in, refusal_of, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")
_names = itertools.count()


@dataclass
class Poller:
    """The thinnest client that there is: version, positions and commits, each as it was told."""

    served: Served
    topic: Topic
    group: str = ""
    join: dict[str, Any] = field(default_factory=dict[str, Any])
    last: PollGroupResponse = field(default_factory=PollGroupResponse)
    values: list[bytes] = field(default_factory=list[bytes])
    commits: bool = True
    positions: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        self.group = self.group or f"polled-{next(_names)}"

    def request(self, **fields: Any) -> PollGroupRequest:
        request = PollGroupRequest(
            group=self.group,
            member_id=self.last.member_id,
            assignment_version=self.last.assignment_version,
            **fields,
        )
        if not self.last.member_id:
            usual: dict[str, Any] = {"group": self.group, "topics": [self.topic.name]}
            request.join.CopyFrom(JoinGroup(**(usual | self.join)))
        for partition, offset in self.positions.items():
            request.positions.append(
                PollPosition(topic=self.topic.name, partition=partition, offset=offset)
            )
            if self.commits and offset:
                request.commits.append(
                    OffsetCommit(topic=self.topic.name, partition=partition, offset=offset)
                )
        return request

    async def poll(self, wait_ms: int = 0, **fields: Any) -> PollGroupResponse:
        request = self.request(max_wait_ms=wait_ms, **fields)
        response = await self.served.groups.PollGroup(request, timeout=TIMEOUT_S)
        self.last = response
        owned = {each.partition for each in response.owned}
        self.positions = {at: offset for at, offset in self.positions.items() if at in owned}
        for data in response.data:
            self.positions[data.partition] = data.next_offset
            self.values += [each.value for each in data.records]
        return response

    async def until_owned(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.last.owned) != count or self.last.revoking:
                await self.poll(50)

    async def refused(self, request: PollGroupRequest | None = None) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.served.groups.PollGroup(request or self.request(), timeout=TIMEOUT_S)
        return refusal_of(caught.value)


async def test_a_client_that_repeats_what_it_was_told_gets_everything_once(served: Served) -> None:
    topic = await served.topic(2)
    poller = Poller(served, topic)
    first = await poller.poll()
    assert first.member_id
    assert [each.partition for each in first.owned] == [0, 1]
    assert [each.next_offset for each in first.data] == [0, 0]
    for at in range(10):
        await served.produce(topic.name, b"%d" % at, partition=at % 2)
        await poller.poll(1000)
    await poller.poll()
    assert sorted(poller.values) == sorted(b"%d" % at for at in range(10))
    assert poller.last.commit_errors == []
    assert {each.partition: each.offset for each in poller.last.owned} == {0: 5, 1: 5}
    assert all(each.committed for each in poller.last.owned)


async def test_what_is_owned_is_told_in_portions(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rakit.node.services.poll.PORTION_COUNT", 2)
    poller = Poller(served, await served.topic(5))
    while len((await poller.poll(50)).owned) < 2:
        pass
    portions = [poller.last]
    while portions[-1].owned_next:
        portions.append(await poller.poll(owned_from=portions[-1].owned_next))
    assert [[each.partition for each in one.owned] for one in portions] == [[0, 1], [2, 3], [4]]
    assert {one.assignment_version for one in portions} == {portions[0].assignment_version}
    # Of another assignment the list begins anew, and so it does for whoever says nothing.
    poller.last.assignment_version -= 1
    assert [each.partition for each in (await poller.poll(owned_from=4)).owned] == [0, 1]
    assert [each.partition for each in (await poller.poll()).owned] == [0, 1]


async def test_p5_what_is_revoked_in_portions_is_let_go_of_as_it_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await served.topic(6)
    first = Poller(served, topic)
    await first.until_owned(6)
    monkeypatch.setattr("rakit.node.services.poll.PORTION_COUNT", 1)
    second = Poller(served, topic, first.group)
    told: set[int] = set()
    given: set[int] = set()
    async with asyncio.timeout(10):
        while len(given) < 3:
            revoking = [each.partition for each in (await first.poll(20)).revoking]
            assert len(revoking) <= 1
            told.update(revoking)
            response = await second.poll(20)
            given.update(each.partition for each in response.data)
            assert given <= told, "nobody owns what its owner was not asked for"
    assert given == told


async def test_a_poll_waits_for_records_and_no_longer(served: Served) -> None:
    topic = await served.topic()
    poller = Poller(served, topic)
    await poller.poll()
    waiting = asyncio.create_task(poller.poll(5000))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    began = asyncio.get_running_loop().time()
    await served.produce(topic.name, b"v")
    await waiting
    assert poller.values == [b"v"]
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_poll_answers_before_its_deadline(served: Served) -> None:
    topic = await served.topic()
    poller = Poller(served, topic)
    await poller.poll()
    began = asyncio.get_running_loop().time()
    request = poller.request(max_wait_ms=60_000)
    await served.groups.PollGroup(request, timeout=1.0)
    assert 0.6 < asyncio.get_running_loop().time() - began < 1.0


async def test_news_of_the_member_end_the_wait(served: Served) -> None:
    topic = await served.topic(2)
    first = Poller(served, topic)
    await first.poll()
    waiting = asyncio.create_task(first.poll(8000))
    await asyncio.sleep(0.2)
    second = Poller(served, topic, first.group)
    await second.poll()
    response = await asyncio.wait_for(waiting, 3)
    assert len(response.revoking) == 1


async def test_partitions_move_when_the_client_has_seen_that_they_are_to(served: Served) -> None:
    topic = await served.topic(4)
    first = Poller(served, topic)
    await first.until_owned(4)
    second = Poller(served, topic, first.group)
    await second.poll()
    assert list(second.last.owned) == []
    seen = first.last.assignment_version
    # Told, and told again to a client that has not seen it.
    await first.poll()
    assert len(first.last.revoking) == 2
    first.last.assignment_version = seen
    await first.poll()
    assert len(first.last.revoking) == 2
    await first.poll()
    assert (len(first.last.owned), len(first.last.revoking)) == (2, 0)
    await second.until_owned(2)
    owned = {each.partition for poller in (first, second) for each in poller.last.owned}
    assert owned == {0, 1, 2, 3}


async def test_what_is_revoked_is_committed_in_the_call_that_lets_go_of_it(served: Served) -> None:
    topic = await served.topic(2)
    for at in range(2):
        await served.produce(topic.name, b"a%d" % at, partition=at)
    first = Poller(served, topic)
    await first.poll()
    second = Poller(served, topic, first.group)
    await second.poll()
    await first.poll()
    lost = first.last.revoking[0].partition
    await first.poll()
    assert first.last.commit_errors == []
    await second.until_owned(1)
    (one,) = second.last.owned
    assert (one.partition, one.offset, one.committed) == (lost, 1, True)
    assert second.values == []


async def test_p5_a_commit_in_an_epoch_before_the_partition_was_known_is_refused(
    served: Served,
) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"v")
    poller = Poller(served, topic)
    await poller.poll()
    poller.last.assignment_version = 0
    await poller.poll()
    (error,) = poller.last.commit_errors
    assert refusal_in(error.error).reason == "STALE_MEMBER_EPOCH"
    await poller.poll()
    assert poller.last.commit_errors == []


async def test_commits_that_are_wrong_are_told_one_by_one(served: Served) -> None:
    topic = await served.topic(2)
    await served.produce(topic.name, b"v")
    first = Poller(served, topic)
    await first.until_owned(2)
    second = Poller(served, topic, first.group, commits=False)
    await second.poll()
    await first.until_owned(1)
    await second.until_owned(1)
    (mine,) = (each.partition for each in second.last.owned)
    made = [
        OffsetCommit(topic=topic.name, partition=1 - mine, offset=0),
        OffsetCommit(topic=topic.name, partition=mine, offset=99),
        OffsetCommit(topic="no-such", partition=0, offset=0),
    ]
    response = await second.poll(0, commits=made)
    reasons = {(each.topic, each.partition): each.error for each in response.commit_errors}
    assert refusal_in(reasons[topic.name, 1 - mine]).reason == "PARTITION_NOT_OWNED"
    out = refusal_in(reasons[topic.name, mine])
    assert (out.reason, out.code) == ("COMMIT_OUT_OF_RANGE", grpc.StatusCode.OUT_OF_RANGE)
    assert {"earliest", "latest"} <= set(out.metadata)
    assert refusal_in(reasons["no-such", 0]).reason == "UNKNOWN_TOPIC"


async def test_without_positions_a_member_goes_on_at_its_commits(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a", b"b", b"c")
    poller = Poller(served, topic)
    await poller.poll()
    poller.positions = {0: 1}
    await poller.poll()
    poller.positions = {}
    poller.values = []
    await poller.poll()
    assert poller.values == [b"b", b"c"]


async def test_a_position_of_an_earlier_ownership_does_not_count(served: Served) -> None:
    topic = await served.topic(1)
    await served.produce(topic.name, b"a", b"b", b"c")
    first = Poller(served, topic, commits=False)
    await first.poll()
    assert first.positions == {0: 3}
    stale = dict(first.positions)
    await first.poll(0, leave=True)
    again = Poller(served, topic, first.group, commits=False)
    await again.poll()
    again.last.assignment_version = 0
    again.positions = stale
    again.values = []
    await again.poll()
    assert again.values == [b"a", b"b", b"c"]


async def test_a_start_at_the_end_stays_where_it_was_when_first_asked(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a")
    poller = Poller(served, topic, join={"start": EDGE_LATEST}, commits=False)
    await poller.poll()
    assert poller.positions == {0: 1}
    await served.produce(topic.name, b"b")
    await poller.poll()
    assert poller.values == [b"b"]
    assert poller.last.owned[0].offset == 2, "without a position it would begin at the end"


async def test_how_a_member_wants_its_records_is_known_to_every_node(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a", b"b")
    poller = Poller(served, topic, join={"layout": record_pb2.LAYOUT_COLUMNS})
    first = await poller.poll()
    assert len(first.data[0].batches) == 1
    poller.positions = {0: 0}
    second = await poller.poll()
    assert len(second.data[0].batches) == 1
    assert list(second.data[0].records) == []


async def test_an_answer_is_not_larger_than_asked_for_but_for_one_record(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, *(b"x" * 1000 for _ in range(20)))
    poller = Poller(served, topic)
    response = await poller.poll(0, max_bytes=5000)
    assert 3 <= len(response.data[0].records) <= 5
    response = await poller.poll(0, max_bytes=1)
    assert len(response.data[0].records) == 1


async def test_leaving_gives_the_partitions_away_at_once(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a")
    first = Poller(served, topic)
    await first.poll()
    last = await first.poll(0, leave=True)
    assert (list(last.owned), list(last.commit_errors)) == ([], [])
    second = Poller(served, topic, first.group)
    await second.until_owned(1)
    assert second.last.owned[0].offset == 1
    fenced = await first.refused()
    assert (fenced.reason, fenced.outcome) == ("MEMBER_FENCED", "NOT_APPLIED")
    assert fenced.metadata["fence_reason"] == "LEFT"


async def test_a_client_that_does_not_call_again_is_given_up(served: Served) -> None:
    topic = await served.topic()
    limits = {"session_grace_ms": 1000, "max_processing_ms": 1000}
    first = Poller(served, topic, join=limits)
    response = await first.poll()
    assert response.session_ms == 1000
    second = Poller(served, topic, first.group)
    await second.poll()
    await second.until_owned(1)
    fenced = await first.refused()
    assert fenced.metadata["fence_reason"] in {"SESSION_EXPIRED", "REVOKE_TOO_LONG"}


async def test_a_session_goes_over_from_calls_to_a_stream_and_back(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"a", b"b")
    poller = Poller(served, topic)
    await poller.poll()
    poller.positions = {0: 1}
    response = await poller.poll()
    stream = Stream(
        served.groups,
        group=poller.group,
        topics=[topic.name],
        resume_token=response.resume_token,
    )
    await stream.hears("resumed", "assigned 0@1c", "0: 1-2")
    await stream.close()
    request = PollGroupRequest(group=poller.group)
    request.join.resume_token = stream.token
    back = await served.groups.PollGroup(request, timeout=TIMEOUT_S)
    assert back.member_id == response.member_id
    assert [each.value for each in back.data[0].records] == [b"b"]


async def test_a_deleted_topic_is_let_go_of(served: Served) -> None:
    topic = await served.topic()
    poller = Poller(served, topic)
    await poller.poll()
    await served.topics.DeleteTopic(DeleteTopicRequest(name=topic.name), timeout=TIMEOUT_S)
    await poller.until_owned(0)


async def test_a_draining_node_answers_a_poll_that_waits(tmp_path_factory: Any) -> None:
    async with serve(tmp_path_factory.mktemp("draining")) as one:
        topic = await one.topic()
        poller = Poller(one, topic)
        await poller.poll()
        waiting = asyncio.create_task(poller.poll(8000))
        await asyncio.sleep(0.3)
        one.node.stop()
        response = await asyncio.wait_for(waiting, 2)
        assert [each.partition for each in response.owned] == [0]


async def test_a_first_call_that_was_given_up_leaves_no_member_behind(served: Served) -> None:
    topic = await served.topic(2)
    poller = Poller(served, topic)
    call = served.groups.PollGroup(poller.request(max_wait_ms=8000), timeout=TIMEOUT_S)
    await asyncio.sleep(0.3)
    call.cancel()
    second = Poller(served, topic, poller.group)
    # Its session would last for the 300 s of its max_processing_ms.
    await second.until_owned(2)
