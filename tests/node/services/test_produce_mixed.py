"""ProduceMixed: one request, several partitions, an outcome for each (contract 7)."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from rakit.api.v1.log_service_pb2 import (
    GetOffsetsRequest,
    InitProducerRequest,
    PartitionOutcome,
    ProduceMixedRequest,
    ProducerStamp,
)
from rakit.api.v1.record_pb2 import Record, Rows
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, TopicConfig
from rakit.node.partition import columns, hashing
from rakit.node.partition.hashing import partition_for
from rakit.node.partition.steps import Steps, in_turns
from rakit.node.services import log
from tests.node.services.served import TIMEOUT_S, Served, refusal_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTITIONS = 4


def keyed(count: int, size_bytes: int = 1) -> Rows:
    return Rows(records=[Record(key=b"%d" % at, value=b"v" * size_bytes) for at in range(count)])


async def send(served: Served, request: ProduceMixedRequest) -> dict[int, PartitionOutcome]:
    response = await served.log.ProduceMixed(request, timeout=TIMEOUT_S)
    numbers = [each.partition for each in response.outcomes]
    assert numbers == sorted(set(numbers)), "one for each partition, in their order"
    return {each.partition: each for each in response.outcomes}


async def stamp(served: Served, name: str, sequence: int = 1) -> ProducerStamp:
    producer = await served.log.InitProducer(InitProducerRequest(producer_name=name))
    return ProducerStamp(producer_id=producer.producer_id, epoch=producer.epoch, sequence=sequence)


async def ends(served: Served, topic: str) -> dict[int, int]:
    response = await served.log.GetOffsets(GetOffsetsRequest(topic=topic), timeout=TIMEOUT_S)
    return {each.partition: each.latest for each in response.partitions}


async def test_many_rows_are_turned_around_in_steps(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await served.topic(PARTITIONS)
    for module in (hashing, columns):
        monkeypatch.setattr(module, "STEP_ROWS", 10)
    turns = 0

    def counted(work: Steps[object]) -> Steps[object]:
        nonlocal turns
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            turns += 1
            yield

    def counting(work: Steps[object]) -> Awaitable[object]:
        return in_turns(counted(work))

    monkeypatch.setattr(log, "in_turns", counting)
    await send(served, ProduceMixedRequest(topic=topic.name, rows=keyed(1000)))
    assert turns >= 100 + 2 * 100, "split, values, keys"


async def test_one_sequence_serves_every_partition_and_a_retry_changes_nothing(
    served: Served,
) -> None:
    topic = await served.topic(PARTITIONS)
    request = ProduceMixedRequest(topic=topic.name, rows=keyed(40))
    request.producer.CopyFrom(await stamp(served, "mixed"))
    first = await send(served, request)
    assert len(first) == PARTITIONS
    stored = await ends(served, topic.name)
    assert sum(stored.values()) == 40
    again = await send(served, request)
    assert await ends(served, topic.name) == stored
    for partition, outcome in first.items():
        repeated = again[partition].result
        assert (outcome.result.duplicate, repeated.duplicate) == (False, True)
        assert repeated.base_offset == outcome.result.base_offset
        assert repeated.index == outcome.result.index
        assert again[partition].rows == outcome.rows
    request.producer.sequence = 2
    third = await send(served, request)
    assert not any(each.result.duplicate for each in third.values())
    assert sum((await ends(served, topic.name)).values()) == 80


async def test_the_count_that_a_request_was_made_for_decides_where_rows_go(
    served: Served,
) -> None:
    topic = await served.topic(PARTITIONS)
    request = ProduceMixedRequest(topic=topic.name, rows=keyed(40), partition_count=2)
    outcomes = await send(served, request)
    assert set(outcomes) == {0, 1}
    for partition, outcome in outcomes.items():
        keys = [request.rows.records[at].key for at in outcome.rows]
        assert {partition_for(key, 2) for key in keys} == {partition}


async def test_a_part_that_fails_does_not_take_the_others_along(served: Served) -> None:
    name = "mixed-small-batches"
    create = CreateTopicRequest(
        name=name, partition_count=PARTITIONS, config=TopicConfig(batch_bytes_max=1000)
    )
    await served.topics.CreateTopic(create, timeout=TIMEOUT_S)
    large = partition_for(b"large", PARTITIONS)
    rows = keyed(12)
    rows.records.append(Record(key=b"large", value=bytes(2000)))
    request = ProduceMixedRequest(topic=name, rows=rows)
    request.producer.CopyFrom(await stamp(served, "mixed in part"))
    for is_retry in (False, True):
        outcomes = await send(served, request)
        refusal = refusal_in(outcomes[large].error)
        assert (refusal.reason, refusal.outcome) == ("BATCH_TOO_LARGE", "NOT_APPLIED")
        assert refusal.metadata["partition"] == str(large)
        assert 12 in outcomes[large].rows
        others = [each for partition, each in outcomes.items() if partition != large]
        assert others
        assert all(each.result.duplicate is is_retry for each in others)
    stored = await ends(served, name)
    assert stored[large] == 0, "all of its rows or none"
    assert sum(stored.values()) == sum(len(each.rows) for each in others)


async def test_a_fenced_producer_is_fenced_in_every_partition(served: Served) -> None:
    topic = await served.topic(PARTITIONS)
    old = await stamp(served, "mixed and fenced")
    new = await stamp(served, "mixed and fenced")
    request = ProduceMixedRequest(topic=topic.name, rows=keyed(40), producer=new)
    await send(served, request)
    old.sequence = 2
    request.producer.CopyFrom(old)
    outcomes = await send(served, request)
    assert {refusal_in(each.error).reason for each in outcomes.values()} == {"PRODUCER_FENCED"}
    assert sum((await ends(served, topic.name)).values()) == 40
