"""Every way in which Subscribe and PollGroup refuse: code, reason, outcome, and the text."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from rakit.api.v1 import group_service_pb2 as api
from rakit.api.v1.group_service_pb2 import JoinGroup, OffsetCommit, PollGroupRequest
from rakit.api.v1.log_service_pb2 import Position
from rakit.node.groups.tokens import resume_token
from tests.node.groups.consumer import Stream
from tests.node.services.served import TIMEOUT_S, Refusal, Served, refusal_in, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOPIC = "known"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_names = itertools.count()


@pytest_asyncio.fixture(autouse=True, scope="module", loop_scope="module")
async def known_topic(served: Served) -> None:
    await served.topic(2, TOPIC)
    await served.produce(TOPIC, b"a", b"b")


@dataclass(frozen=True)
class Expected:
    code: grpc.StatusCode
    reason: str
    text: str
    outcome: str = "NOT_APPLIED"

    def check(self, refusal: Refusal) -> None:
        got = (refusal.code, refusal.reason, refusal.outcome)
        assert got == (self.code, self.reason, self.outcome)
        assert self.text in refusal.message


def join(**fields: Any) -> JoinGroup:
    usual: dict[str, Any] = {"group": "refused", "topics": [TOPIC]}
    return JoinGroup(**(usual | fields))


def invalid(text: str) -> Expected:
    return Expected(INVALID, "INVALID_REQUEST", text)


JOINS = {
    "no group": (join(group=""), Expected(INVALID, "INVALID_GROUP_NAME", "1 to 249 printable")),
    "a group that cannot be printed": (
        join(group="a\nb"),
        Expected(INVALID, "INVALID_GROUP_NAME", "printable"),
    ),
    "a group that is too long": (
        join(group="x" * 250),
        Expected(INVALID, "INVALID_GROUP_NAME", "250"),
    ),
    "no topics": (join(topics=[]), invalid("neither topics nor topic_patterns")),
    "a bad topic": (
        join(topics=["no/such"]),
        Expected(INVALID, "INVALID_TOPIC_NAME", "no/such"),
    ),
    "too many topics": (
        join(topics=[f"t{at}" for at in range(257)]),
        invalid("257 topics; the limit is 256"),
    ),
    "a malformed pattern": (
        join(topic_patterns=["ok-*", "[a-z]"]),
        Expected(INVALID, "INVALID_TOPIC_PATTERN", "[a-z]"),
    ),
    "too many patterns": (
        join(topic_patterns=[f"p{at}*" for at in range(17)]),
        invalid("17 topic_patterns; the limit is 16"),
    ),
    "an instance that cannot be printed": (
        join(instance_id="a\x00"),
        invalid("instance_id has at most 249"),
    ),
    "a client that is too long": (join(client_id="x" * 250), invalid("client_id")),
    "a start that is none": (join(start=7), invalid("start is 7")),
    "a processing time that is too short": (
        join(max_processing_ms=999),
        invalid("max_processing_ms is 999; it may be 1,000 to 86,400,000"),
    ),
    "a grace that is too long": (
        join(session_grace_ms=1_800_001),
        invalid("session_grace_ms is 1,800,001"),
    ),
    "a token that is none": (join(resume_token=b"x"), invalid("not one that a `joined` answer")),
    "a token of another group": (
        join(resume_token=resume_token("other", "m")),
        invalid("of another group than 'refused'"),
    ),
    "a session that is over": (
        join(resume_token=resume_token("refused", "m")),
        Expected(PRECONDITION, "MEMBER_FENCED", "Join again, without a resume token"),
    ),
}
CREDITS = {
    "a negative credit": (join(credit_bytes=-1), invalid("credit_bytes is -1")),
    "too much credit": (
        join(credit_bytes=(64 << 20) + 1),
        Expected(INVALID, "CREDIT_EXCEEDED", "a stream may have 67,108,864"),
    ),
}


@pytest.mark.parametrize("case", JOINS | CREDITS)
async def test_a_stream_is_not_joined_with(served: Served, case: str) -> None:
    request, expected = (JOINS | CREDITS)[case]
    stream = Stream(served.groups)
    stream.send(join=request)
    try:
        expected.check(await stream.refused())
        assert stream.events == []
    finally:
        await stream.close()


@pytest.mark.parametrize("case", JOINS)
async def test_a_poll_does_not_join_with(served: Served, case: str) -> None:
    request, expected = JOINS[case]
    expected.check(await poll_refused(served, PollGroupRequest(join=request)))


async def poll_refused(served: Served, request: PollGroupRequest) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.groups.PollGroup(request, timeout=TIMEOUT_S)
    return refusal_of(caught.value)


FIRST: dict[str, dict[str, Any]] = {
    "a commit": {"commit": api.CommitRequest(tag=1)},
    "a grant": {"grant": api.GrantCredit(bytes=1)},
    "leave": {"leave": api.LeaveRequest()},
    "nothing": {},
}


@pytest.mark.parametrize("case", FIRST)
async def test_a_stream_does_not_begin_with(served: Served, case: str) -> None:
    stream = Stream(served.groups)
    stream.send(**FIRST[case])
    try:
        invalid("The first request must be `join`").check(await stream.refused())
    finally:
        await stream.close()


async def test_a_stream_that_says_nothing_is_refused(served: Served) -> None:
    stream = Stream(served.groups)
    stream.finish()
    try:
        invalid("ended before a join came").check(await stream.refused())
    finally:
        await stream.close()


async def test_a_stream_that_waits_with_its_join_is_not_kept(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rakit.node.services.subscribe.FIRST_REQUEST_S", 0.1)
    stream = Stream(served.groups)
    try:
        invalid("No join came within").check(await stream.refused())
    finally:
        await stream.close()


LATER: dict[str, tuple[dict[str, Any], Expected]] = {
    "a second join": ({"join": join()}, invalid("A stream has one join")),
    "nothing": ({}, invalid("holds nothing that this version knows")),
    "a grant without a credit": (
        {"grant": api.GrantCredit(bytes=5)},
        invalid("refilled by commits"),
    ),
}


@pytest.mark.parametrize("case", LATER)
async def test_a_stream_ends_with(served: Served, case: str) -> None:
    request, expected = LATER[case]
    stream = Stream(served.groups, group=f"later-{next(_names)}", topics=[TOPIC])
    try:
        await stream.until(lambda told: any(each.startswith("assigned") for each in told))
        stream.send(**request)
        expected.check(await stream.refused())
    finally:
        await stream.close()


async def test_a_stream_ends_with_bytes_that_are_no_request(served: Served) -> None:
    channel = cast("Any", served.channel)
    call = channel.stream_stream("/rakit.api.v1.GroupService/Subscribe")(iter([b"\xff\xff"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    invalid("not a valid SubscribeRequest").check(refusal_of(caught.value))


async def test_grants_beyond_the_limit_end_the_stream(served: Served) -> None:
    stream = Stream(
        served.groups, group=f"credit-{next(_names)}", topics=[TOPIC], credit_bytes=64 << 20
    )
    try:
        await stream.hears("joined")
        stream.send(grant=api.GrantCredit(bytes=64 << 20))
        refusal = await stream.refused()
        Expected(INVALID, "CREDIT_EXCEEDED", "would be granted and not used").check(refusal)
        assert refusal.metadata["limit"] == "67108864"
    finally:
        await stream.close()


def commit(partition: int, offset: int, topic: str = TOPIC, metadata: str = "") -> OffsetCommit:
    return OffsetCommit(topic=topic, partition=partition, offset=offset, metadata=metadata)


WHOLE_COMMITS = {
    "a partition twice": ([commit(0, 1), commit(0, 2)], "is committed twice"),
    "a negative offset": ([commit(0, -1)], "-1 is no offset"),
    "too much metadata": ([commit(0, 1, metadata="x" * 4097)], "4,097 bytes; the limit is 4,096"),
    "too many partitions": ([commit(at, 0) for at in range(1025)], "names 1025 partitions"),
}
PART_COMMITS = {
    "an offset above the log": (
        commit(0, 99),
        Expected(grpc.StatusCode.OUT_OF_RANGE, "COMMIT_OUT_OF_RANGE", "Offset 99 lies outside"),
    ),
    "a partition that is not there": (
        commit(7, 0),
        Expected(PRECONDITION, "PARTITION_NOT_OWNED", "does not own partition 7"),
    ),
    "a topic that is not there": (
        commit(0, 0, "nowhere"),
        Expected(grpc.StatusCode.NOT_FOUND, "UNKNOWN_TOPIC", "nowhere"),
    ),
}


def last_begins(text: str, told: list[str]) -> bool:
    return told[-1].startswith(text)


async def test_commits_on_a_stream_that_are_refused(served: Served) -> None:
    stream = Stream(served.groups, group=f"commits-{next(_names)}", topics=[TOPIC])
    try:
        await stream.hears("0: 0-2")
        for tag, (offsets, text) in enumerate(WHOLE_COMMITS.values()):
            stream.send(commit=api.CommitRequest(tag=tag, offsets=offsets))
            await stream.hears(f"committed {tag} INVALID_REQUEST")
            invalid(text).check(refusal_in(stream.events[-1].committed.error))
        for tag, (one, expected) in enumerate(PART_COMMITS.values(), 100):
            stream.send(commit=api.CommitRequest(tag=tag, offsets=[one]))
            await stream.until(partial(last_begins, f"committed {tag} "))
            (error,) = stream.events[-1].committed.errors
            expected.check(refusal_in(error.error))
            assert (error.topic, error.partition) == (one.topic, one.partition)
        for tag, position, expected in (
            (
                200,
                Position(topic=TOPIC, partition=9),
                Expected(PRECONDITION, "PARTITION_NOT_OWNED", "does not own partition 9"),
            ),
            (
                201,
                Position(topic=TOPIC, partition=0, offset=99),
                Expected(
                    grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", "Offset 99", outcome=""
                ),
            ),
            (202, Position(topic=TOPIC, partition=0, time_ms=-5), invalid("is no time")),
        ):
            stream.send(seek=api.SeekPartition(tag=tag, position=position))
            await stream.until(partial(last_begins, f"sought {tag} "))
            expected.check(refusal_in(stream.events[-1].sought.error))
    finally:
        await stream.close()


POLLS = {
    "neither join nor member": (
        PollGroupRequest(group="g"),
        invalid("neither a join nor a member_id"),
    ),
    "two groups": (
        PollGroupRequest(group="g", join=join()),
        invalid("is for group 'g', its join for 'refused'"),
    ),
    "no group": (
        PollGroupRequest(member_id="m"),
        Expected(INVALID, "INVALID_GROUP_NAME", "1 to 249 printable"),
    ),
    "a member that is not there": (
        PollGroupRequest(group="refused", member_id="m"),
        Expected(PRECONDITION, "MEMBER_FENCED", "no such member"),
    ),
    "a member that is none": (
        PollGroupRequest(group="refused", member_id="m" * 300),
        invalid("member_id is not one"),
    ),
    "commits of nobody": (
        PollGroupRequest(join=join(), commits=[commit(0, 0)]),
        invalid("commits is for a member"),
    ),
    "nobody leaves": (PollGroupRequest(join=join(), leave=True), invalid("leave is for a member")),
    "a long wait": (
        PollGroupRequest(join=join(), max_wait_ms=60_001),
        invalid("max_wait_ms is 60001"),
    ),
    "a negative size": (PollGroupRequest(join=join(), max_bytes=-1), invalid("max_bytes")),
    "a place of nobody's list": (
        PollGroupRequest(join=join(), owned_from=2),
        invalid("owned_from is for a member"),
    ),
    "a negative place": (
        PollGroupRequest(group="refused", member_id="m", owned_from=-1),
        invalid("owned_from is not"),
    ),
    "a negative position": (
        PollGroupRequest(
            group="refused",
            member_id="m",
            positions=[api.PollPosition(topic=TOPIC, partition=0, offset=-1)],
        ),
        invalid("-1 is no offset"),
    ),
    "a partition committed twice": (
        PollGroupRequest(group="refused", member_id="m", commits=[commit(0, 1), commit(0, 1)]),
        invalid("is committed twice"),
    ),
}


@pytest.mark.parametrize("case", POLLS)
async def test_a_poll_is_refused_with(served: Served, case: str) -> None:
    request, expected = POLLS[case]
    expected.check(await poll_refused(served, request))


async def test_what_was_refused_left_no_group_behind(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.groups.GetGroup(api.GetGroupRequest(group="refused"), timeout=TIMEOUT_S)
    assert refusal_of(caught.value).reason == "UNKNOWN_GROUP"
