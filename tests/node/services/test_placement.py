"""Contract 10 at the edge: whatever is refused keeps its place, and nothing passes it."""

from __future__ import annotations

import pytest

from rakit.api.v1 import error_pb2
from rakit.api.v1.record_pb2 import Rows
from rakit.node.services import placement
from tests.node.forwarding.world import TOPIC
from tests.node.services.scripted import Scripted, scripted

NO_QUORUM = error_pb2.ERROR_REASON_NO_QUORUM


def stored(it: Scripted) -> int:
    return len(it.world.sent)


async def test_a_refusal_is_answered_in_its_place() -> None:
    async with scripted() as it:
        it.send(1)
        it.send(2, partition_count=9)
        it.send(3)
        await it.settle()
        assert it.client.answers == [], "the first one has no answer yet"
        it.world.sent[0].succeed()
        assert await it.answered(3) == [
            (1, "result"),
            (2, "PARTITION_COUNT_MISMATCH"),
            (3, "EARLIER_REQUEST_FAILED"),
        ]
        assert stored(it) == 1


async def test_a_drain_answers_in_order_and_loses_no_acknowledgement() -> None:
    async with scripted() as it:
        it.send(1)
        it.send(2)
        await it.settle()
        it.closing.set()
        it.send(3)
        await it.settle()
        for each in it.world.sent:
            each.succeed()
        assert await it.answered(3) == [
            (1, "result"),
            (2, "result"),
            (3, "NODE_UNAVAILABLE"),
        ]
        with pytest.raises(ExceptionGroup):
            await it.running


async def test_a_drain_asks_nobody_about_topics() -> None:
    async with scripted() as it:
        it.closing.set()
        it.registry.known = None
        it.registry.answers.clear()
        it.send(1)
        it.send(2, topic="nowhere")
        assert await it.answered(2) == [(1, "NODE_UNAVAILABLE"), (2, "NODE_UNAVAILABLE")]


async def test_a_failed_look_up_breaks_the_lane() -> None:
    async with scripted() as it:
        it.registry.known, it.registry.failure = None, NO_QUORUM
        it.send(1)
        it.send(2)
        assert await it.answered(2) == [(1, "NO_QUORUM"), (2, "EARLIER_REQUEST_FAILED")]
        it.registry.failure = None
        it.send(3)
        assert (await it.answered(3))[-1] == (3, "EARLIER_REQUEST_FAILED")
        it.restart(4)
        it.send(5)
        await it.settle()
        it.world.sent[0].succeed()
        assert (await it.answered(5))[-2:] == [(4, "restarted"), (5, "result")]
        assert stored(it) == 1


async def test_a_failed_look_up_of_one_partition_does_not_fail_the_others() -> None:
    async with scripted() as it:
        it.registry.failure = NO_QUORUM
        it.send(1, partition=7)
        it.send(2)
        await it.settle()
        it.world.sent[0].succeed()
        assert await it.answered(2) == [(1, "NO_QUORUM"), (2, "result")]


@pytest.mark.parametrize("partition_count", [0, 1])
async def test_a_failed_look_up_for_a_key_breaks_the_lane_that_the_key_has(
    partition_count: int,
) -> None:
    """Told at once where the request says how many there are, and when the topic is known else."""
    fields = {"partition_count": partition_count} if partition_count else {}
    async with scripted() as it:
        it.registry.known, it.registry.failure = None, NO_QUORUM
        it.send(1, routing_key=b"k", **fields)
        await it.answered(1)
        it.registry.failure = None
        it.send(2, routing_key=b"k", **fields)
        assert await it.answered(2) == [(1, "NO_QUORUM"), (2, "EARLIER_REQUEST_FAILED")]
        it.restart(3)
        it.send(4, routing_key=b"k", **fields)
        await it.settle()
        it.world.sent[0].succeed()
        assert (await it.answered(4))[-1] == (4, "result")


async def test_a_restart_before_the_lane_is_there_holds() -> None:
    async with scripted() as it:
        it.registry.known, it.registry.failure = None, NO_QUORUM
        it.send(1, routing_key=b"k")
        await it.answered(1)
        it.registry.failure = None
        it.restart(2)
        it.send(3, routing_key=b"k")
        await it.settle()
        it.world.sent[0].succeed()
        assert (await it.answered(3))[1:] == [(2, "restarted"), (3, "result")]


async def test_what_names_no_place_fails_by_itself() -> None:
    async with scripted() as it:
        it.send(1, partition=7)
        it.send(2, partition=-1)
        it.send(3, topic="nowhere")
        it.send(4, topic="no/such")
        it.send(5, partition=7)
        it.send(6)
        await it.settle()
        it.world.sent[0].succeed()
        assert sorted(await it.answered(6)) == [
            (1, "UNKNOWN_PARTITION"),
            (2, "UNKNOWN_PARTITION"),
            (3, "UNKNOWN_TOPIC"),
            (4, "INVALID_TOPIC_NAME"),
            (5, "UNKNOWN_PARTITION"),
            (6, "result"),
        ]


async def test_a_partition_that_has_gone_is_told_behind_what_was_sent_to_it() -> None:
    """The topic was deleted: a request for it waits for the answers before it."""
    async with scripted() as it:
        it.send(1)
        await it.settle()
        it.registry.known = it.registry.confirmed = None
        it.send(2)
        await it.settle()
        assert it.client.answers == []
        it.world.sent[0].succeed()
        assert await it.answered(2) == [(1, "result"), (2, "UNKNOWN_TOPIC")]


async def test_s22_what_comes_during_a_question_is_not_answered_by_it() -> None:
    """The topic is made meanwhile, and acknowledged to a client that then sends to it."""
    async with scripted() as it:
        it.registry.known = it.registry.confirmed = None
        it.registry.answers.clear()
        it.send(1)
        await it.settle()
        it.registry.confirmed = TOPIC
        it.send(2)
        await it.settle()
        it.registry.answers.set()
        assert await it.answered(1) == [(1, "UNKNOWN_TOPIC")]
        await it.settle()
        it.world.sent[0].succeed()
        assert (await it.answered(2))[-1] == (2, "result")


async def test_one_stream_names_so_many_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "LANES_COUNT_MAX", 1)
    async with scripted() as it:
        it.registry.known, it.registry.failure = None, NO_QUORUM
        it.send(1, topic="other")
        await it.answered(1)
        it.registry.known, it.registry.failure = TOPIC, None
        for tag in (2, 3):
            it.send(tag)
        assert (await it.answered(3))[1:] == [(2, "THROTTLED"), (3, "THROTTLED")]
        assert stored(it) == 0


async def test_a_bad_batch_breaks_the_lane_as_ever() -> None:
    async with scripted() as it:
        it.send(1, rows=Rows())
        it.send(2)
        assert await it.answered(2) == [(1, "EMPTY_BATCH"), (2, "EARLIER_REQUEST_FAILED")]
