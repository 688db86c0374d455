"""Contract 10 from end to end: a lane, the link to another node, and the receiver there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rakit.api.v1 import error_pb2
from rakit.multiraft.checksum import crc32c
from rakit.node.errors import RakitError, from_status
from rakit.node.forwarding.intact import sent_crc32c
from rakit.node.forwarding.lanes import Lane
from rakit.node.forwarding.receiver import ForwardReceiver
from rakit.node.partition.batches import Batch
from rakit.node.produce import Dispatch
from rakit.peer.v1.node_service_pb2 import ForwardedBatch, ForwardProduceRequest
from tests.node.forwarding.test_link import Joined, Leader
from tests.node.forwarding.world import ME, OTHER, World, appended
from tests.node.forwarding.world import batch as checked


class Way:
    """A lane to a leader on another node."""

    def __init__(self) -> None:
        self.far = Joined()
        self.world = World()
        self.world.dispatch = Dispatch(ME, self.world, lambda _node: self.far.link)
        self.world.lead(OTHER)
        self.lane: Lane = self.world.lane()

    @property
    def stored(self) -> list[bytes]:
        return [content for content, _ in self.far.leader.taken]

    def submit(self, *tags: int) -> None:
        for tag in tags:
            self.lane.submit(self.world.request(tag))

    def succeed(self) -> None:
        for _, answer in self.far.leader.taken:
            if not answer.done():
                answer.set_result(appended())


@asynccontextmanager
async def way() -> AsyncGenerator[Way]:
    made = Way()
    try:
        yield made
    finally:
        made.lane.close()
        await made.far.link.close()
        await asyncio.gather(*made.world.tasks)


async def test_nothing_passes_what_failed_when_the_stream_broke() -> None:
    """A client that goes on sending at the moment of the break; each turn of the loop is tried."""
    async with way() as it:
        it.submit(1, 2)
        await it.far.taken(2)
        it.far.wires[0].cut()
        for tag in range(3, 40):
            it.submit(tag)
            await asyncio.sleep(0)
        await it.world.until_answered(39)
        assert it.stored == [b"1", b"2"]
        assert it.world.outcomes[:2] == [(1, "OUTCOME_UNKNOWN"), (2, "OUTCOME_UNKNOWN")]
        assert {outcome for _, outcome in it.world.outcomes[2:]} <= {
            "NO_LEADER",
            "EARLIER_REQUEST_FAILED",
        }
        it.lane.restart(it.world.request(40))
        it.submit(41)
        await it.far.taken(3)
        it.succeed()
        await it.world.until_answered(41)
        assert it.world.outcomes[-2:] == [(40, "restarted"), (41, "ok")]


async def test_what_was_never_sent_goes_out_again_in_its_order() -> None:
    async with way() as it:
        it.far.is_there = False
        it.submit(1, 2)
        for tag in range(3, 8):
            await asyncio.sleep(0)
            it.submit(tag)
        it.far.is_there = True
        await it.far.taken(7)
        assert it.stored == [b"%d" % tag for tag in range(1, 8)]
        it.succeed()
        await it.world.until_answered(7)
        assert it.world.outcomes == [(tag, "ok") for tag in range(1, 8)]


async def test_a_leadership_that_comes_back_from_elsewhere_takes_the_lane_up_again() -> None:
    async with way() as it:
        it.far.leader.refuse = error_pb2.ERROR_REASON_NOT_LEADER
        it.submit(1)
        await it.world.settle()
        it.far.leader.refuse = None
        it.world.lead(ME)
        await it.world.until_sent(1)
        it.world.sent[0].succeed()
        await it.world.until_answered(1)
        it.world.lead(OTHER)
        it.submit(2)
        await it.far.taken(1)
        it.succeed()
        await it.world.until_answered(2)
        assert it.world.outcomes == [(1, "ok"), (2, "ok")]


async def test_a_doomed_request_at_the_far_leader_lets_nothing_pass() -> None:
    async with way() as it:
        doomed = it.far.leader.doom()
        it.submit(1, 2, 3)
        await it.far.taken(1)
        await it.world.settle()
        assert it.stored == [b"1"]
        doomed.set_exception(RakitError(error_pb2.ERROR_REASON_OFFSET_MISMATCH, "not there"))
        await it.world.until_answered(3)
        assert it.world.outcomes == [
            (1, "OFFSET_MISMATCH"),
            (2, "EARLIER_REQUEST_FAILED"),
            (3, "EARLIER_REQUEST_FAILED"),
        ]


async def test_what_follows_a_doomed_request_goes_to_the_new_leader_with_it() -> None:
    async with way() as it:
        doomed = it.far.leader.doom()
        it.submit(1, 2)
        await it.far.taken(1)
        await it.world.settle()
        it.world.lead(ME)
        doomed.set_exception(RakitError(error_pb2.ERROR_REASON_NO_LEADER, "it was none"))
        await it.world.until_sent(2)
        for each in it.world.sent:
            each.succeed()
        await it.world.until_answered(2)
        assert it.world.outcomes == [(1, "ok"), (2, "ok")]
        assert [each.content for each in it.world.sent] == [b"1", b"2"]


def batch(tag: int, *, restart: bool = False) -> ForwardedBatch:
    content = b"%d" % tag
    return ForwardedBatch(
        tag=tag,
        lane=5,
        restart=restart,
        group_id=7,
        record_count=1,
        content=content,
        sent_crc32c=sent_crc32c(7, checked(content)),
    )


async def test_a_receiver_takes_nothing_of_a_lane_that_it_does_not_know() -> None:
    """It followed something, on a stream that broke."""
    leader = Leader()
    receiver = ForwardReceiver(leader)
    receiver.take(ForwardProduceRequest(number=1, batches=[batch(1), batch(2)]))
    assert leader.taken == []
    outcomes = (await receiver.answer()).outcomes
    assert ["EARLIER_REQUEST_FAILED" in str(each.error) for each in outcomes] == [True, True]


async def test_the_last_batches_of_a_lane_do_not_pass_its_failure() -> None:
    leader = Leader()
    receiver = ForwardReceiver(leader)
    leader.refuse = error_pb2.ERROR_REASON_THROTTLED
    receiver.take(ForwardProduceRequest(number=1, batches=[batch(1, restart=True)]))
    leader.refuse = None
    last = ForwardProduceRequest(number=2, batches=[batch(2), batch(3)], ended_lanes=[5])
    receiver.take(last)
    assert leader.taken == []
    assert receiver.lane_count == 0, "and is forgotten after them"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        {"content": b"0123456788"},
        {"group_id": 8},
        {"record_count": 2},
        {"compressed": None},
        {"sent_crc32c": 0},
    ],
    ids=lambda damage: next(iter(damage)),
)
async def test_p1_what_was_damaged_on_its_way_to_the_leader_is_not_appended(
    damage: dict[str, Any], compressed: bool
) -> None:
    """The leader would give it a good checksum, and every replica would store it."""
    leader = Leader()
    receiver = ForwardReceiver(leader)
    content = b"0123456789"
    plain = b"plain" if compressed else content
    sent = sent_crc32c(7, Batch(content, compressed, 1, crc32c(plain)))
    whole = ForwardedBatch(
        tag=1,
        group_id=7,
        record_count=1,
        content=content,
        compressed=compressed,
        sent_crc32c=sent,
    )
    damaged = ForwardedBatch()
    damaged.CopyFrom(whole)
    for name, value in damage.items():
        setattr(damaged, name, not compressed if value is None else value)
    receiver.take(ForwardProduceRequest(number=1, batches=[damaged]))
    assert leader.taken == []
    (outcome,) = (await receiver.answer()).outcomes
    assert from_status(outcome.error).reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE
    receiver.take(ForwardProduceRequest(number=2, batches=[whole]))
    assert [taken for taken, _ in leader.taken] == [content]


async def test_only_what_stands_in_no_order_waits_for_others() -> None:
    """In a lane the next one must not be taken before it is known that this one is."""
    world = World()
    world.dispatch.send(ME, 7, checked(b"v"), None, None)
    world.dispatch.send(ME, 7, checked(b"v"), None, None, lane=5, restart=True)
    assert world.gather == [True, False]
    leader = Leader()
    receiver = ForwardReceiver(leader)
    alone = batch(1)
    alone.lane = 0
    receiver.take(ForwardProduceRequest(number=1, batches=[alone, batch(2, restart=True)]))
    assert leader.gather == [True, False]
