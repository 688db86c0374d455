"""What a person reads when input is bad: whole sentences, at the edge of a real node.

`test_bad_input.py` holds every case with its code, reason, outcome and a part of the text. Here
each kind stands once, word for word: a text says what is wrong *and* what would be right, and a
part of it shows only one of them. What only a listener can get wrong (contract 5, 14 and 19) is
here as well.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from rakit.api.v1.cluster_service_pb2 import GetClusterRequest
from rakit.api.v1.cluster_service_pb2_grpc import ClusterServiceStub
from rakit.api.v1.log_service_pb2 import InitProducerRequest
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, GetTopicRequest
from rakit.api.v1.topic_service_pb2_grpc import TopicServiceStub
from tests.node.services.served import TIMEOUT_S, Refusal, Served, columns, refusal_of, serve
from tests.node.services.test_bad_input import (
    CREATE,
    FETCH,
    INVALID,
    MIB,
    PRODUCE,
    TOPIC,
    known_topic,
    latest,
    produce,
    stamped,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCE_TEXTS = {
    "an unknown topic": "there is no topic 'nowhere'",
    "an unknown partition": "Topic 'known' has no partition 5: it has 1, numbered from 0.",
    "an empty batch": "The batch holds no record; a request appends at least one.",
    "keys of another length": (
        "Column keys has 1 elements but values has 2; a column is either empty or as long as"
        " values."
    ),
    "a stated count that is wrong": "The batch says that it holds 3 records, but it holds 2.",
    "a batch over the limit": (
        "The batch is 2097157 bytes long; the limit is 2097152. Send fewer records in one batch."
    ),
    "a bomb that lies about its size": (
        "The batch says that it holds 100 bytes uncompressed, but the frame says that it holds"
        " 9437189 bytes."
    ),
    "lz4 with bytes behind its end": (
        "The data is not one complete lz4 frame: 4 bytes follow the end of the frame."
    ),
    "an expected offset that is wrong": (
        "The batch was to begin at offset 99, but the next record gets 1. Nothing was appended."
    ),
}
FETCH_TEXTS = {
    "an offset above the log": (
        "Offset 1000 is outside of the log, which holds 0 up to, not including, 1."
    ),
}
CREATE_TEXTS = {
    "a bad name": (
        "'a b' is no topic name; use 1 to 249 of the characters a-z A-Z 0-9 . _ - (and not only"
        " '.' or '..')"
    ),
    "more replicas than nodes": (
        "the cluster has 1 node, too few for a replication factor of 3; add nodes, or ask for at"
        " most 1"
    ),
    "a setting out of bounds": "segment_bytes = 1 is out of bounds; set it to 65,536 or more bytes",
}


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


@pytest.mark.parametrize("case", PRODUCE_TEXTS)
async def test_produce_says_what_is_wrong_and_what_would_be_right(
    served: Served, case: str
) -> None:
    await known_topic(served)
    refusal = await refused(served.log.Produce(PRODUCE[case][0], timeout=TIMEOUT_S))
    assert refusal.message == PRODUCE_TEXTS[case]


@pytest.mark.parametrize("case", FETCH_TEXTS)
async def test_fetch_says_what_the_log_holds(served: Served, case: str) -> None:
    await known_topic(served)
    refusal = await refused(served.log.Fetch(FETCH[case][0], timeout=TIMEOUT_S))
    assert refusal.message == FETCH_TEXTS[case]


@pytest.mark.parametrize("case", CREATE_TEXTS)
async def test_create_says_what_to_ask_for_instead(served: Served, case: str) -> None:
    named: dict[str, Any] = {"name": "fresh", **CREATE[case][0]}
    request = CreateTopicRequest(**named)
    refusal = await refused(served.topics.CreateTopic(request, timeout=TIMEOUT_S))
    assert refusal.message == CREATE_TEXTS[case]


async def test_s24_a_producer_is_told_what_became_of_its_batch(served: Served) -> None:
    await known_topic(served)
    request = InitProducerRequest(producer_name="told")
    number = (await served.log.InitProducer(request, timeout=TIMEOUT_S)).producer_id
    for good in (stamped(number, 10, 2), stamped(number, 20, 2, previous_sequence=10)):
        await served.log.Produce(good, timeout=TIMEOUT_S)
    end = await latest(served)
    reused = stamped(number, 20, 2)
    reused.rows.records[0].value = b"other content"
    texts = {
        f"Sequence 40 of producer {number} (after 30) does not follow 20, the last one that the"
        " partition stored. This batch was not stored.": stamped(
            number, 40, 2, previous_sequence=30
        ),
        f"Sequence 5 of producer {number} is older than the 2 batches that the partition"
        " remembers, which begin at 10: it may have been stored long ago.": stamped(number, 5, 2),
        f"Epoch 1 of producer {number} was replaced by epoch 2: a newer instance of this producer"
        " has started. This one must stop.": stamped(number, 30, 1),
        f"Sequence 20 of producer {number} was stored before with other content. A new batch needs"
        " a new sequence; a retry must repeat the batch unchanged.": reused,
    }
    for text, bad in texts.items():
        refusal = await refused(served.log.Produce(bad, timeout=TIMEOUT_S))
        assert refusal.message == text
    assert await latest(served) == end


async def test_a_message_above_every_batch_limit_still_gets_our_error(served: Served) -> None:
    """Contract 5: 17 MiB pass the transport, so that the refusal is ours and says the limit."""
    await known_topic(served)
    request = produce(columns=columns(b"x" * (17 * MIB)))
    refusal = await refused(served.log.Produce(request, timeout=TIMEOUT_S))
    assert (refusal.code, refusal.reason) == (INVALID, "BATCH_TOO_LARGE")
    assert refusal.outcome == "NOT_APPLIED"


async def test_without_fsync_every_answer_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, served: Served
) -> None:
    """Contract 14: no other way leads to a record that is not durable, and it is not silent."""
    await known_topic(served)
    assert (await served.produce(TOPIC, b"durable")).fsynced
    with caplog.at_level(logging.WARNING):
        async with serve(tmp_path / "unsafe", "--unsafe-no-fsync") as unsafe:
            await unsafe.topic(name="t")
            assert not (await unsafe.produce("t", b"volatile")).fsynced
    assert "a power cut may lose records that were acknowledged" in caplog.text


async def test_hints_name_the_listener_that_the_caller_used(tmp_path: Path) -> None:
    """Contract 19."""
    async with serve(tmp_path / "two", "--listen=outside=127.0.0.1:0") as two:
        topic = (await two.topic(name="t")).name
        advertised = two.node.listeners.advertised
        assert set(advertised) == {"default", "outside"}
        assert len(set(advertised.values())) == 2
        for address in advertised.values():
            async with grpc.aio.insecure_channel(address) as channel:
                stub = TopicServiceStub(channel)
                answer = await stub.GetTopic(GetTopicRequest(name=topic), timeout=TIMEOUT_S)
                assert answer.topic.partitions[0].leader_address == address
                cluster = await ClusterServiceStub(channel).GetCluster(
                    GetClusterRequest(), timeout=TIMEOUT_S
                )
                told = {each.listener: each.address for each in cluster.nodes[0].addresses}
                assert told == dict(advertised)
