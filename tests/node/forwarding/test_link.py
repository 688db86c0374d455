"""The stream of forwarded batches: both ends of it, joined by a wire that the test cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from rakit.api.v1 import error_pb2
from rakit.multiraft.config import LinkConfig
from rakit.node.errors import RakitError
from rakit.node.forwarding.intact import sent_crc32c
from rakit.node.forwarding.link import ForwardLink
from rakit.node.forwarding.receiver import ForwardReceiver
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.peer.v1.node_service_pb2 import (
    Destination,
    ForwardedBatch,
    ForwardProduceRequest,
    ForwardProduceResponse,
)
from tests.node.forwarding.world import TAKEN, appended
from tests.node.forwarding.world import batch as checked


class Leader:
    """The far node: takes batches, and answers them when the test says so."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, asyncio.Future[Appended]]] = []
        self.refuse: error_pb2.ErrorReason.ValueType | None = None
        self.doomed: DoomedAnswer | None = None
        #: Whether each of them may wait for others.
        self.gather: list[bool] = []
        self.changed = asyncio.Event()

    def append(
        self,
        group_id: int,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        gather: bool,
    ) -> asyncio.Future[Appended]:
        del group_id, stamp, expected_offset
        self.gather.append(gather)
        if self.refuse is not None:
            raise RakitError(self.refuse, "refused")
        answer: asyncio.Future[Appended] = self.doomed or asyncio.Future()
        self.doomed = None
        self.taken.append((bytes(batch.content), answer))
        self.changed.set()
        return answer

    def doom(self) -> DoomedAnswer:
        """The next batch is going to fail; returns its answer."""
        self.doomed = DoomedAnswer(TAKEN)
        return self.doomed


class Wire:
    """A stream between a link and a receiver, as the transport makes it."""

    def __init__(self, leader: Leader) -> None:
        self.requests: list[ForwardProduceRequest] = []
        self.is_cut = False
        self._receiver = ForwardReceiver(leader)
        self._answers: asyncio.Queue[object] = asyncio.Queue()
        self._answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        while True:
            self._answers.put_nowait(await self._receiver.answer())

    async def write(self, request: ForwardProduceRequest) -> None:
        if not self.requests:
            self._answers.put_nowait(ForwardProduceResponse())
        self.requests.append(request)
        if request.number:
            copy = ForwardProduceRequest.FromString(request.SerializeToString())
            self._receiver.take(copy)

    async def read(self) -> object:
        return await self._answers.get()

    def cut(self) -> None:
        self._answers.put_nowait(grpc.aio.EOF)

    def cancel(self) -> bool:
        self._answering.cancel()
        return True


class Joined:
    """A link whose streams go to one leader."""

    def __init__(self) -> None:
        self.leader = Leader()
        self.wires: list[Wire] = []
        self.is_there = True
        config = LinkConfig(data_queue_bytes_max=4 << 20, request_bytes_max=1 << 20)
        self.link = ForwardLink(Destination(cluster_id="c", node_id=2), self._open, config)

    def _open(self) -> Wire:
        if not self.is_there:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()
            )
        self.wires.append(Wire(self.leader))
        return self.wires[-1]

    def send(
        self, content: bytes = b"b", lane: int = 0, *, restart: bool = False
    ) -> asyncio.Future[Appended]:
        batch = ForwardedBatch(group_id=7, record_count=1, content=content, lane=lane)
        batch.sent_crc32c = sent_crc32c(7, checked(content))
        batch.restart = restart
        return self.link.send(batch)

    async def taken(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.leader.taken) < count:
                self.leader.changed.clear()
                await self.leader.changed.wait()


@asynccontextmanager
async def joined() -> AsyncGenerator[Joined]:
    world = Joined()
    try:
        yield world
    finally:
        await world.link.close()


async def reason(answer: asyncio.Future[Appended]) -> str:
    with pytest.raises(RakitError) as caught:
        await asyncio.wait_for(answer, 5)
    return error_pb2.ErrorReason.Name(caught.value.reason).removeprefix("ERROR_REASON_")


async def test_an_answer_comes_back_as_the_leader_gave_it() -> None:
    async with joined() as world:
        answer = world.send(b"content")
        await world.taken(1)
        assert world.leader.taken[0][0] == b"content"
        world.leader.taken[0][1].set_result(appended(41))
        assert await asyncio.wait_for(answer, 5) == appended(41)


async def test_a_refusal_keeps_its_reason() -> None:
    async with joined() as world:
        world.leader.refuse = error_pb2.ERROR_REASON_OFFSET_MISMATCH
        assert await reason(world.send()) == "OFFSET_MISMATCH"


async def test_what_arrives_while_a_message_is_in_flight_goes_out_together() -> None:
    async with joined() as world:
        answers = [world.send(b"%d" % number) for number in range(50)]
        await world.taken(50)
        assert [content for content, _ in world.leader.taken] == [b"%d" % n for n in range(50)]
        assert len(world.wires[0].requests) <= 4, "one hello, then few messages"
        for _, answer in world.leader.taken:
            answer.set_result(appended())
        await asyncio.wait_for(asyncio.gather(*answers), 5)


async def test_a_batch_without_a_commit_does_not_close_the_window() -> None:
    async with joined() as world:
        stuck = world.send(b"no quorum")
        await world.taken(1)
        other = world.send(b"other")
        await world.taken(2)
        world.leader.taken[1][1].set_result(appended(1))
        assert (await asyncio.wait_for(other, 5)).stored.base_offset == 1
        assert not stuck.done()


async def test_s22_what_was_sent_when_the_stream_broke_is_unknown() -> None:
    async with joined() as world:
        answer = world.send()
        await world.taken(1)
        world.wires[0].cut()
        assert await reason(answer) == "OUTCOME_UNKNOWN"


async def test_s22_what_was_never_sent_is_not_applied() -> None:
    async with joined() as world:
        world.is_there = False
        with pytest.raises(RakitError) as caught:
            await asyncio.wait_for(world.send(), 5)
        assert not caught.value.may_be_applied
        world.is_there = True
        answer = world.send()
        await world.taken(1)
        world.leader.taken[0][1].set_result(appended())
        await asyncio.wait_for(answer, 5)


async def test_in_a_lane_nothing_passes_a_failure() -> None:
    async with joined() as world:
        world.leader.refuse = error_pb2.ERROR_REASON_NOT_LEADER
        first, second = world.send(lane=3, restart=True), world.send(lane=3)
        assert await reason(first) == "NOT_LEADER"
        assert await reason(second) == "EARLIER_REQUEST_FAILED"
        world.leader.refuse = None
        assert await reason(world.send(lane=3)) == "EARLIER_REQUEST_FAILED"
        answer = world.send(b"on", lane=3, restart=True)
        other = world.send(b"else", lane=4, restart=True)
        await world.taken(2)
        assert [content for content, _ in world.leader.taken] == [b"on", b"else"]
        for _, given in world.leader.taken:
            given.set_result(appended())
        await asyncio.wait_for(asyncio.gather(answer, other), 5)


async def test_a_lane_ends_with_its_last_batch_and_not_before() -> None:
    async with joined() as world:
        # Two messages: the second batch does not fit into the first.
        world.send(b"x" * (1 << 20), lane=3, restart=True)
        world.send(b"last", lane=3)
        world.link.end_lane(3)
        await world.taken(2)
        messages = [each for each in world.wires[0].requests if each.number]
        assert [(len(each.batches), list(each.ended_lanes)) for each in messages] == [
            (1, []),
            (1, [3]),
        ]


async def test_a_failure_that_comes_after_the_restart_concerns_nobody() -> None:
    async with joined() as world:
        lost = world.send(b"lost", lane=3, restart=True)
        await world.taken(1)
        world.send(b"on", lane=3, restart=True)
        await world.taken(2)
        error = RakitError(error_pb2.ERROR_REASON_OUTCOME_UNKNOWN, "its leader is gone")
        world.leader.taken[0][1].set_exception(error)
        assert await reason(lost) == "OUTCOME_UNKNOWN"
        world.send(b"and on", lane=3)
        await world.taken(3)
        assert [content for content, _ in world.leader.taken] == [b"lost", b"on", b"and on"]


async def test_a_full_queue_refuses_and_says_so() -> None:
    async with joined() as world:
        answers = [world.send(b"x" * (1 << 20)) for _ in range(3)]
        with pytest.raises(RakitError) as caught:
            world.send(b"x" * (2 << 20))
        assert caught.value.reason == error_pb2.ERROR_REASON_THROTTLED
        await world.taken(3)
        for _, answer in world.leader.taken:
            answer.set_result(appended())
        await asyncio.wait_for(asyncio.gather(*answers), 5)


async def test_a_closed_link_leaves_nobody_waiting() -> None:
    async with joined() as world:
        answer = world.send()
        await world.taken(1)
        await world.link.close()
        assert await reason(answer) == "OUTCOME_UNKNOWN"
