"""ProduceStream and Read on one real node, through stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1 import record_pb2
from rakit.api.v1.log_service_pb2 import (
    Position,
    ProduceRequest,
    ProduceStreamRequest,
    ProduceStreamResponse,
    ReadRequest,
    ReadResponse,
    RestartPartition,
)
from rakit.api.v1.record_pb2 import Rows
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, TopicConfig
from rakit.node.produce import InFlight
from rakit.node.services import produce_stream
from tests.node.services.served import (
    TIMEOUT_S,
    Served,
    columns,
    refusal_in,
    refusal_of,
    rows,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def request(tag: int, topic: str, partition: int = 0, value: bytes = b"v") -> ProduceStreamRequest:
    produce = ProduceRequest(topic=topic, partition=partition, rows=rows(value))
    return ProduceStreamRequest(tag=tag, produce=produce)


def bad(tag: int, topic: str, partition: int = 0) -> ProduceStreamRequest:
    produce = ProduceRequest(topic=topic, partition=partition, rows=Rows())
    return ProduceStreamRequest(tag=tag, produce=produce)


async def answers(served: Served, *requests: ProduceStreamRequest) -> list[ProduceStreamResponse]:
    async def send() -> AsyncIterator[ProduceStreamRequest]:
        for one in requests:
            yield one

    call = served.log.ProduceStream(send(), timeout=TIMEOUT_S)
    return [answer async for answer in call]


def outcome(answer: ProduceStreamResponse) -> str:
    kind = answer.WhichOneof("outcome")
    return refusal_in(answer.error).reason if kind == "error" else str(kind)


async def test_a_pipelined_stream_keeps_the_order_of_each_partition(served: Served) -> None:
    topic = await served.topic(partition_count=3)
    sent = [request(tag, topic.name, tag % 3, b"%d" % tag) for tag in range(300)]
    got = await answers(served, *sent)
    assert sorted(answer.tag for answer in got) == list(range(300))
    for partition in range(3):
        mine = [answer for answer in got if answer.result.partition == partition]
        assert [answer.tag for answer in mine] == list(range(partition, 300, 3))
        assert [answer.result.base_offset for answer in mine] == list(range(100))


async def test_after_a_failure_a_partition_waits_for_its_restart(served: Served) -> None:
    topic = await served.topic(partition_count=2)
    restart = RestartPartition(topic=topic.name, partition=0)
    got = await answers(
        served,
        request(1, topic.name),
        bad(2, topic.name),
        request(3, topic.name),
        request(4, topic.name, partition=1),
        ProduceStreamRequest(tag=5, restart=restart),
        request(6, topic.name),
    )
    by_tag = {answer.tag: outcome(answer) for answer in got}
    assert by_tag == {
        1: "result",
        2: "EMPTY_BATCH",
        3: "EARLIER_REQUEST_FAILED",
        4: "result",
        5: "restarted",
        6: "result",
    }
    mine = [answer for answer in got if answer.tag != 4]
    assert [answer.tag for answer in mine] == [1, 2, 3, 5, 6]
    assert mine[-1].result.base_offset == 1, "the refused ones were not stored"
    assert (mine[3].restarted.topic, mine[3].restarted.partition) == (topic.name, 0)


async def test_contract_10_a_refused_condition_lets_nothing_pass(served: Served) -> None:
    """The refusal rests on a batch that is still being committed; what follows must not slip by."""
    topic = await served.topic()
    wrong = request(2, topic.name)
    wrong.produce.expected_offset = 0
    got = await answers(
        served, request(1, topic.name), wrong, *(request(n, topic.name) for n in (3, 4))
    )
    assert [(answer.tag, outcome(answer)) for answer in got] == [
        (1, "result"),
        (2, "OFFSET_MISMATCH"),
        (3, "EARLIER_REQUEST_FAILED"),
        (4, "EARLIER_REQUEST_FAILED"),
    ]
    assert values(await read(served, Position(topic=topic.name))) == [b"v"]


async def test_contract_10_the_loser_of_a_race_stores_no_second_half(served: Served) -> None:
    topic = await served.topic()

    async def contend(who: bytes, base: int) -> list[str]:
        head = request(1, topic.name, value=who + b" head")
        head.produce.expected_offset = base
        got = await answers(served, head, request(2, topic.name, value=who + b" tail"))
        return [outcome(answer) for answer in got]

    for turn in range(20):
        pairs = await asyncio.gather(contend(b"one", 2 * turn), contend(b"two", 2 * turn))
        assert sorted(pairs) == [
            ["OFFSET_MISMATCH", "EARLIER_REQUEST_FAILED"],
            ["result", "result"],
        ]


async def test_an_error_in_a_stream_says_what_it_is_about(served: Served) -> None:
    topic = await served.topic()
    (answer,) = await answers(served, bad(9, topic.name))
    refusal = refusal_in(answer.error)
    assert (refusal.reason, refusal.outcome) == ("EMPTY_BATCH", "NOT_APPLIED")
    assert refusal.metadata == {"topic": topic.name, "partition": "0"}


async def test_requests_for_unknown_places_fail_by_themselves(served: Served) -> None:
    topic = await served.topic()
    got = await answers(
        served,
        request(1, "nowhere"),
        request(2, topic.name, partition=7),
        request(3, topic.name),
        ProduceStreamRequest(tag=4),
        ProduceStreamRequest(tag=5, restart=RestartPartition(topic="nowhere")),
    )
    assert {answer.tag: outcome(answer) for answer in got} == {
        1: "UNKNOWN_TOPIC",
        2: "UNKNOWN_PARTITION",
        3: "result",
        4: "INVALID_REQUEST",
        5: "restarted",
    }


async def test_more_than_a_stream_may_hold_is_still_taken(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its limit the node reads no further, which the client does not notice."""
    monkeypatch.setattr(produce_stream, "IN_FLIGHT_BYTES_MAX", 2 << 20)
    take, held = InFlight.take, list[int]()

    def noted(self: InFlight, size_bytes: int) -> None:
        take(self, size_bytes)
        held.append(self.size_bytes)

    monkeypatch.setattr(InFlight, "take", noted)
    topic = await served.topic()
    value = b"x" * (1 << 20)
    sent = [request(tag, topic.name, value=value) for tag in range(40)]
    got = await answers(served, *sent)
    assert [answer.result.base_offset for answer in got] == list(range(40))
    assert served.node.host.node_id == got[0].result.header.node_id
    assert 2 << 20 <= max(held) <= (2 << 20) + sent[0].ByteSize()


async def read(served: Served, *positions: Position, **fields: bool) -> list[ReadResponse]:
    call = served.log.Read(
        ReadRequest(positions=positions, follow=fields.get("follow", False)), timeout=TIMEOUT_S
    )
    return [answer async for answer in call]


def values(answers: list[ReadResponse]) -> list[bytes]:
    return [record.value for answer in answers for record in answer.data.records]


async def filled(served: Served, *contents: bytes) -> str:
    """A topic with one batch for each value."""
    topic = await served.topic()
    for content in contents:
        await served.produce(topic.name, content)
    return topic.name


async def test_a_read_ends_at_the_end_that_the_log_had(served: Served) -> None:
    topic = await filled(served, b"a", b"b", b"c")
    got = await read(served, Position(topic=topic))
    assert values(got) == [b"a", b"b", b"c"]
    assert got[-1].end == log.PartitionEnd(topic=topic, partition=0, next_offset=3)


async def test_a_read_of_an_empty_partition_ends_at_once(served: Served) -> None:
    topic = await served.topic(partition_count=2)
    got = await read(served, *(Position(topic=topic.name, partition=each) for each in (0, 1)))
    assert [each.WhichOneof("event") for each in got] == ["end", "end"]


async def test_a_read_begins_and_ends_where_it_is_told(served: Served) -> None:
    topic = await served.topic()
    await served.produce(topic.name, b"0", b"1", b"2", b"3", b"4")
    got = await read(served, Position(topic=topic.name, offset=1, end_offset=4))
    assert values(got) == [b"1", b"2", b"3"], "rows begin and end inside of a batch"
    assert got[-1].end.next_offset == 4
    assert [record.offset for record in got[0].data.records] == [1, 2, 3]


async def test_a_read_begins_at_a_time(served: Served) -> None:
    topic = await filled(served, b"a")
    first = (await read(served, Position(topic=topic)))[0].data.records[0]
    await asyncio.sleep(0.005)
    second = await served.produce(topic, b"b")
    assert second.append_time_ms > first.append_time_ms
    got = await read(served, Position(topic=topic, time_ms=first.append_time_ms + 1))
    assert values(got) == [b"b"]


async def test_a_follower_gets_records_as_they_are_committed(served: Served) -> None:
    topic = await filled(served, b"old")
    position = Position(topic=topic, edge=log.EDGE_LATEST)
    call = served.log.Read(ReadRequest(positions=[position], follow=True), timeout=TIMEOUT_S)
    reading = asyncio.ensure_future(call.read())
    await call.initial_metadata()
    for number in range(3):
        await served.produce(topic, b"%d" % number)
        answer = await asyncio.wait_for(reading, TIMEOUT_S)
        reading = asyncio.ensure_future(call.read())
        assert isinstance(answer, ReadResponse)
        assert [record.value for record in answer.data.records] == [b"%d" % number]
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_columns_are_whole_stored_batches(served: Served) -> None:
    topic = await served.topic()
    sent = columns(b"0", b"1", b"2")
    await served.log.Produce(ProduceRequest(topic=topic.name, partition=0, columns=sent))
    request = ReadRequest(
        positions=[Position(topic=topic.name, offset=2)], layout=record_pb2.LAYOUT_COLUMNS
    )
    got = [answer async for answer in served.log.Read(request, timeout=TIMEOUT_S)]
    (batch,) = got[0].data.batches
    assert (batch.base_offset, batch.records) == (0, sent), "the first may begin before the offset"


async def test_answers_stay_below_what_clients_take(served: Served) -> None:
    """3 MiB of small rows are several times as many bytes on the wire (contract 5)."""
    topic = await served.topic()
    for _ in range(4):
        many = columns(*(b"%05d" % number for number in range(60_000)))
        await served.log.Produce(ProduceRequest(topic=topic.name, partition=0, columns=many))
    got = await read(served, Position(topic=topic.name))
    assert max(answer.ByteSize() for answer in got) < 4 << 20
    assert values(got) == [b"%05d" % number for number in range(60_000)] * 4


async def test_one_bad_position_does_not_end_the_others(served: Served) -> None:
    topic = await filled(served, b"a")
    got = await read(served, Position(topic="nowhere"), Position(topic=topic))
    failed = next(each.data for each in got if each.data.HasField("error"))
    assert refusal_in(failed.error).reason == "UNKNOWN_TOPIC"
    assert values(got) == [b"a"]


async def test_fetch_waits_for_what_is_not_there_yet(served: Served) -> None:
    topic = await filled(served, b"old")
    request = log.FetchRequest(
        positions=[Position(topic=topic, offset=1)], max_wait_ms=5_000, min_bytes=1
    )
    waiting = asyncio.ensure_future(served.log.Fetch(request, timeout=TIMEOUT_S))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await served.produce(topic, b"new")
    answer = await waiting
    assert [record.value for record in answer.partitions[0].records] == [b"new"]
    assert answer.partitions[0].next_offset == 2


async def test_a_long_poll_answers_before_the_callers_deadline(served: Served) -> None:
    topic = await filled(served)
    request = log.FetchRequest(positions=[Position(topic=topic)], max_wait_ms=60_000)
    answer = await served.log.Fetch(request, timeout=0.5)
    assert answer.partitions[0].next_offset == 0


async def test_fetch_reports_one_bad_position_beside_a_good_one(served: Served) -> None:
    topic = await filled(served, b"a")
    positions = [Position(topic=topic, offset=0), Position(topic="nowhere")]
    answer = await served.log.Fetch(log.FetchRequest(positions=positions), timeout=TIMEOUT_S)
    assert answer.partitions[0].records[0].value == b"a"
    assert refusal_in(answer.partitions[1].error).reason == "UNKNOWN_TOPIC"


async def trimmed(served: Served, name: str) -> int:
    """A topic that keeps little, and of which something is cut off; returns where it begins."""
    config = TopicConfig(retention_bytes=1)
    create = CreateTopicRequest(name=name, partition_count=1, config=config)
    await served.topics.CreateTopic(create, timeout=TIMEOUT_S)
    for _ in range(3):
        await served.produce(name, bytes(100_000))
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            for _ in served.node.partitions.upkeep():
                pass
            offsets = await served.log.GetOffsets(log.GetOffsetsRequest(topic=name))
            if offsets.partitions[0].earliest:
                return offsets.partitions[0].earliest


async def test_a_read_below_what_retention_kept_is_told_where_the_log_begins(
    served: Served,
) -> None:
    earliest = await trimmed(served, "keeps-little")
    for offset in (0, earliest - 1):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(served, Position(topic="keeps-little", offset=offset))
        refusal = refusal_of(caught.value)
        assert refusal.reason == "OFFSET_OUT_OF_RANGE"
        assert refusal.metadata["earliest"] == str(earliest)
        assert refusal.metadata["latest"] == "3"
    got = await read(served, Position(topic="keeps-little", offset=earliest))
    assert len(values(got)) == 3 - earliest


async def test_a_read_above_the_log_is_told(served: Served) -> None:
    topic = await filled(served, b"a")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(served, Position(topic=topic, offset=2, end_offset=5))
    assert refusal_of(caught.value).reason == "OFFSET_OUT_OF_RANGE"
