"""A single request whose answer does not come in time: what is known of it is told all the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.batches import Batch
from rakit.node.produce import answered
from tests.node.forwarding.world import GROUP, OTHER, TAKEN, World

NO_LEADER = error_pb2.ERROR_REASON_NO_LEADER
UNKNOWN = error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
TOO_OLD = RakitError(error_pb2.ERROR_REASON_SEQUENCE_TOO_OLD, "stored long ago, perhaps")


@pytest.mark.parametrize(
    ("doom", "reason", "may_be_applied"),
    [(TAKEN, NO_LEADER, False), (TOO_OLD, NO_LEADER, True), (None, UNKNOWN, True)],
    ids=["refused", "refused, and nobody knows", "not refused"],
)
async def test_a_request_without_an_answer_is_told_what_is_known(
    doom: RakitError | None, reason: error_pb2.ErrorReason.ValueType, may_be_applied: bool
) -> None:
    answer: asyncio.Future[Appended] = asyncio.Future() if doom is None else DoomedAnswer(doom)
    with pytest.raises(RakitError) as caught:
        await answered(answer, asyncio.get_running_loop().time())
    assert caught.value.reason == reason
    assert caught.value.may_be_applied is may_be_applied


async def test_time_that_is_up_leaves_nothing_to_the_collector() -> None:
    """It seldom runs in a node, and calls whose time is up may be many."""
    answer: asyncio.Future[Appended] = asyncio.Future()
    gone = weakref.ref(answer)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(RakitError):
            await answered(answer, asyncio.get_running_loop().time())
        del answer
        await asyncio.sleep(0)  # what woke this test holds it until its turn is over
        assert gone() is None
    finally:
        gc.enable()


async def test_a_batch_that_lies_in_its_request_travels_as_bytes_to_another_node() -> None:
    world, data = World(), b"before" + b"c" * 100_000
    lying = Batch(memoryview(data)[6:], compressed=False, record_count=1, crc32c=5)
    with suppress(TypeError):  # of protobuf, which takes nothing but bytes
        world.dispatch.send(OTHER, GROUP, lying, None, None).cancel()
    assert [each.content for each in world.sent] == [data[6:]]
