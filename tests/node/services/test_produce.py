"""Produce and ProduceMixed on one real node, through stubs."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from rakit.api.v1 import record_pb2
from rakit.api.v1.log_service_pb2 import (
    BATCH_STATE_NOT_SEEN,
    FetchRequest,
    GetProducerStateRequest,
    InitProducerRequest,
    Position,
    ProduceMixedRequest,
    ProduceRequest,
    ProducerStamp,
)
from rakit.api.v1.record_pb2 import Record, Rows
from rakit.multiraft.hello import FEATURE_LEVEL
from tests.node.metadata.machines import until
from tests.node.services.served import TIMEOUT_S, Served, columns, refusal_of, rows

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_answer_says_where_and_how_durable(served: Served) -> None:
    topic = await served.topic(partition_count=2)
    first = await served.produce(topic.name, b"a", b"b", partition=1)
    second = await served.produce(topic.name, b"c", partition=1)
    assert (first.partition, first.base_offset, first.end_offset) == (1, 0, 2)
    assert (second.base_offset, second.end_offset) == (2, 3)
    assert second.index > first.index
    assert second.append_time_ms >= first.append_time_ms > 0
    assert (first.replicas, first.fsynced, first.duplicate) == (1, True, False)
    assert first.header.node_id == served.node.host.node_id
    assert first.header.cluster_id == served.node.metadata.registry.cluster_id


async def test_a_routing_key_decides_the_partition(served: Served) -> None:
    topic = await served.topic(partition_count=6)
    seen: set[int] = set()
    for number in range(20):
        request = ProduceRequest(
            topic=topic.name, routing_key=b"key %d" % number, columns=columns(b"v")
        )
        one = await served.log.Produce(request, timeout=TIMEOUT_S)
        again = await served.log.Produce(request, timeout=TIMEOUT_S)
        assert one.partition == again.partition
        seen.add(one.partition)
    assert len(seen) > 3


async def test_without_a_target_batches_take_turns(served: Served) -> None:
    topic = await served.topic(partition_count=3)
    answers = [
        await served.log.Produce(ProduceRequest(topic=topic.name, rows=rows(b"v"))) for _ in "123"
    ]
    assert {answer.partition for answer in answers} == {0, 1, 2}


async def test_without_a_target_a_producer_stays_in_its_partition(served: Served) -> None:
    topic = await served.topic(partition_count=3)
    producer = await served.log.InitProducer(InitProducerRequest(producer_name="stays"))
    partitions: set[int] = set()
    for sequence in (1, 2, 3):
        stamp = ProducerStamp(
            producer_id=producer.producer_id, epoch=producer.epoch, sequence=sequence
        )
        request = ProduceRequest(topic=topic.name, rows=rows(b"v"), producer=stamp)
        partitions.add((await served.log.Produce(request, timeout=TIMEOUT_S)).partition)
    assert len(partitions) == 1


async def test_s24_a_repeated_batch_gets_its_first_answer(served: Served) -> None:
    topic = await served.topic()
    producer = await served.log.InitProducer(InitProducerRequest(producer_name="repeats"))
    stamp = ProducerStamp(producer_id=producer.producer_id, epoch=producer.epoch, sequence=7)
    request = ProduceRequest(topic=topic.name, partition=0, rows=rows(b"v"), producer=stamp)
    first = await served.log.Produce(request, timeout=TIMEOUT_S)
    await served.produce(topic.name, b"another")
    second = await served.log.Produce(request, timeout=TIMEOUT_S)
    assert (second.base_offset, second.index, second.duplicate) == (0, first.index, True)
    state = await served.log.GetProducerState(
        GetProducerStateRequest(topic=topic.name, producer_id=producer.producer_id, sequence=7),
        timeout=TIMEOUT_S,
    )
    assert (state.result.base_offset, state.result.end_offset) == (0, 1)
    assert (state.last_sequence, state.epoch, state.final) == (7, producer.epoch, True)


async def test_s21_only_an_epoch_above_the_batchs_own_makes_not_seen_final(served: Served) -> None:
    topic = await served.topic()
    producer = await served.log.InitProducer(InitProducerRequest(producer_name="settles"))

    async def final(**fields: int) -> bool:
        request = GetProducerStateRequest(
            topic=topic.name, producer_id=producer.producer_id, sequence=2
        )
        for name, value in fields.items():
            setattr(request, name, value)
        state = await served.log.GetProducerState(request, timeout=TIMEOUT_S)
        assert state.state == BATCH_STATE_NOT_SEEN
        return state.final

    epoch = producer.epoch
    stamp = ProducerStamp(producer_id=producer.producer_id, epoch=epoch, sequence=1)
    await served.log.Produce(
        ProduceRequest(topic=topic.name, partition=0, rows=rows(b"v"), producer=stamp)
    )
    assert not await final(fence_epoch=epoch)
    assert not await final(epoch=epoch)
    assert await final(epoch=epoch, fence_epoch=epoch + 1)
    assert await final(epoch=epoch)


async def test_a_producer_name_keeps_its_id_and_gets_a_new_epoch(served: Served) -> None:
    first = await served.log.InitProducer(InitProducerRequest(producer_name="stable"))
    second = await served.log.InitProducer(InitProducerRequest(producer_name="stable"))
    other = await served.log.InitProducer(InitProducerRequest(producer_name="other"))
    assert second.producer_id == first.producer_id != other.producer_id
    assert second.epoch == first.epoch + 1


async def test_a_producer_without_a_name_gets_an_id_that_nobody_else_has(served: Served) -> None:
    topic = await served.topic()
    ids: set[int] = set()
    for count in (1, 2):
        producer = await served.log.InitProducer(InitProducerRequest(), timeout=TIMEOUT_S)
        ids.add(producer.producer_id)
        assert (len(ids), producer.epoch) == (count, 1)
        stamp = ProducerStamp(producer_id=producer.producer_id, epoch=1, sequence=1)
        request = ProduceRequest(topic=topic.name, partition=0, rows=rows(b"v"), producer=stamp)
        answers = [await served.log.Produce(request, timeout=TIMEOUT_S) for _ in range(2)]
        assert [(one.base_offset, one.duplicate) for one in answers] == [
            (count - 1, False),
            (count - 1, True),
        ]


async def test_mixed_rows_go_where_their_keys_belong(served: Served) -> None:
    topic = await served.topic(partition_count=4)
    records = [Record(key=b"%d" % (number % 7), value=b"%d" % number) for number in range(40)]
    records += [Record(value=b"no key"), Record(value=b"none either")]
    response = await served.log.ProduceMixed(
        ProduceMixedRequest(topic=topic.name, rows=Rows(records=records)), timeout=TIMEOUT_S
    )
    assert sorted(at for outcome in response.outcomes for at in outcome.rows) == list(range(42))
    unkeyed = [o.partition for o in response.outcomes if 40 in o.rows or 41 in o.rows]
    assert len(unkeyed) == 1, "rows without a key stay together"
    for outcome in response.outcomes:
        fetched = await served.log.Fetch(
            FetchRequest(positions=[Position(topic=topic.name, partition=outcome.partition)])
        )
        values = [record.value for record in fetched.partitions[0].records]
        assert values == [records[at].value for at in outcome.rows]
        key = records[outcome.rows[0]]
        if key.HasField("key"):
            request = ProduceRequest(topic=topic.name, routing_key=key.key, rows=rows(b"x"))
            assert (await served.log.Produce(request)).partition == outcome.partition


async def test_a_conditional_append_wins_once(served: Served) -> None:
    topic = await served.topic()
    request = ProduceRequest(topic=topic.name, partition=0, rows=rows(b"v"), expected_offset=0)
    assert (await served.log.Produce(request, timeout=TIMEOUT_S)).base_offset == 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.log.Produce(request, timeout=TIMEOUT_S)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OFFSET_MISMATCH")
    assert refusal.outcome == "NOT_APPLIED"
    assert refusal.metadata["expected_offset"] == "0"
    assert refusal.metadata["next_offset"] == "1"
    request.expected_offset = 1
    assert (await served.log.Produce(request, timeout=TIMEOUT_S)).base_offset == 1


async def test_s14_a_conditional_append_that_is_repeated_has_won_already(served: Served) -> None:
    topic = await served.topic()
    producer = await served.log.InitProducer(InitProducerRequest(producer_name="conditional"))
    stamp = ProducerStamp(producer_id=producer.producer_id, epoch=producer.epoch, sequence=1)
    request = ProduceRequest(
        topic=topic.name, partition=0, rows=rows(b"v"), expected_offset=0, producer=stamp
    )
    first = await served.log.Produce(request, timeout=TIMEOUT_S)
    await served.produce(topic.name, b"another")
    again = await served.log.Produce(request, timeout=TIMEOUT_S)
    assert (again.base_offset, again.index, again.duplicate) == (0, first.index, True)
    stamp.sequence = 2
    request.producer.CopyFrom(stamp)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.log.Produce(request, timeout=TIMEOUT_S)
    assert refusal_of(caught.value).metadata["next_offset"] == "2"


async def test_columns_come_back_as_they_were_sent(served: Served) -> None:
    topic = await served.topic()
    sent = columns(b"one", b"", b"three")
    sent.keys.extend([b"k", b"", b""])
    sent.null_keys.append(2)
    sent.null_values.append(1)
    await served.log.Produce(ProduceRequest(topic=topic.name, partition=0, columns=sent))
    request = FetchRequest(positions=[Position(topic=topic.name)], layout=record_pb2.LAYOUT_COLUMNS)
    fetched = await served.log.Fetch(request, timeout=TIMEOUT_S)
    assert fetched.partitions[0].batches[0].records == sent
    request.layout = record_pb2.LAYOUT_ROWS
    as_rows = (await served.log.Fetch(request, timeout=TIMEOUT_S)).partitions[0].records
    assert [row.value for row in as_rows] == [b"one", b"", b"three"]
    assert [row.HasField("value") for row in as_rows] == [True, False, True]
    assert [row.HasField("key") for row in as_rows] == [True, True, False]


async def test_calls_that_come_together_share_entries(served: Served) -> None:
    topic = await served.topic()
    registry = served.node.metadata.registry
    await until(lambda: registry.feature_level == FEATURE_LEVEL)
    values = [b"value %d" % number for number in range(64)]
    answers = await asyncio.gather(*(served.produce(topic.name, each) for each in values))
    assert len({answer.index for answer in answers}) < len(values)
    offsets = {answer.base_offset: each for answer, each in zip(answers, values, strict=True)}
    assert sorted(offsets) == list(range(64))
    for start in (0, 1, 31, 63):
        position = Position(topic=topic.name, partition=0, offset=start)
        request = FetchRequest(positions=[position], layout=record_pb2.LAYOUT_ROWS)
        found = (await served.log.Fetch(request, timeout=TIMEOUT_S)).partitions[0]
        read = {each.offset: each.value for each in found.records}
        assert read == {at: value for at, value in offsets.items() if at >= start}
