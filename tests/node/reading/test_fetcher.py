"""One answer from several leaders: what is asked, how often, and when it is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from google.protobuf.message import Message

from rakit.api.v1 import error_pb2, log_service_pb2
from rakit.api.v1.log_service_pb2 import Position
from rakit.multiraft.leaders import Leaders
from rakit.multiraft.machine import replica_id
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.registry import PartitionInfo, TopicInfo
from rakit.node.metadata.topic_config import TopicConfig
from rakit.node.partition.answers import not_leading
from rakit.node.partition.reader import Chunk
from rakit.node.partition.stored import StoredBatch
from rakit.node.peers import Peers, unreachable
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import Finding, Found, LocalReads, ReadLimits, Wanted
from rakit.node.routing import Router
from rakit.peer.v1.node_service_pb2 import Destination, ForwardFetchRequest, ForwardFetchResponse

ME, OTHER = 1, 2
TOPIC = TopicInfo(
    1, "t", 1, TopicConfig(), 0, tuple(PartitionInfo(1, at, 10 + at, (), (), 1) for at in range(3))
)


class World:
    """Two nodes with partitions whose content the test sets; counts the questions."""

    def __init__(self) -> None:
        self.ends = {10: 0, 11: 0, 12: 0}
        self.asked: list[tuple[int, list[int]]] = []
        self.is_other_there = True
        #: The other node takes calls and does not answer; this one waits for a majority.
        self.is_other_frozen = False
        self.is_cut_off = False
        self.leads_no_more = False
        self.changed = asyncio.Event()
        self.leaders = Leaders(ME, lambda _node: True)
        router = Router(ME, cast("MetadataClient", self), self.leaders)
        self.fetcher = Fetcher(router, cast("LocalReads", self), cast("Peers", self))

    @property
    def registry(self) -> World:
        return self

    def topic(self, name: str) -> TopicInfo | None:
        return TOPIC if name == "t" else None

    async def barrier(self, _timeout_seconds: float) -> World:
        return self

    def lead(self, node_id: int, *groups: int, term: int = 1) -> None:
        self.leaders.announced(node_id, [(each, term) for each in groups], [], complete=False)

    def put(self, group_id: int, count: int = 1) -> None:
        """Records of ten bytes, one in a batch."""
        self.ends[group_id] += count
        self.changed.set()

    def destination(self, node_id: int) -> Destination:
        return Destination(node_id=node_id)

    async def call(
        self, node_id: int, _method: str, request: Message, _type: object, *, timeout_s: float
    ) -> ForwardFetchResponse:
        assert timeout_s > 0
        assert isinstance(request, ForwardFetchRequest)
        if self.is_other_frozen:
            await asyncio.sleep(timeout_s)
        if not self.is_other_there or self.is_other_frozen:
            raise unreachable(node_id)
        wanted = [Wanted(each.group_id, each.position) for each in request.positions]
        wait_until = asyncio.get_running_loop().time() + request.wait_ms / 1000
        limits = ReadLimits(request.min_bytes, request.max_bytes, wait_until, not request.strict)
        response = ForwardFetchResponse()
        for finding in await self._read(node_id, wanted, limits):
            assert isinstance(finding, Found)
            one = response.positions.add(from_offset=finding.from_offset)
            one.data.next_offset = finding.chunk.next_offset
            one.data.high_watermark = finding.chunk.high_watermark
            for batch in finding.chunk.batches:
                batch.fill(one.data.batches.add())
        return response

    async def fetch(self, wanted: Sequence[Wanted], limits: ReadLimits) -> list[Finding]:
        if self.is_cut_off:
            await asyncio.Event().wait()
        if self.leads_no_more:
            return [not_leading(replica_id(OTHER, 1), 2) for _ in wanted]
        return await self._read(ME, wanted, limits)

    async def _read(
        self, node_id: int, wanted: Sequence[Wanted], limits: ReadLimits
    ) -> list[Finding]:
        self.asked.append((node_id, [each.group_id for each in wanted]))
        while True:
            findings = [self._found(each, limits) for each in wanted]
            size = sum(each.chunk.size_bytes for each in findings)
            left = limits.wait_until - asyncio.get_running_loop().time()
            if size >= limits.min_bytes or left <= 0:
                return list(findings)
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except TimeoutError:
                return list(findings)

    def _found(self, wanted: Wanted, limits: ReadLimits) -> Found:
        max_bytes = limits.max_bytes
        end = self.ends[wanted.group_id]
        at_latest = wanted.position.edge == log_service_pb2.EDGE_LATEST
        start = end if at_latest else wanted.position.offset
        fits = max_bytes // 10 or int(limits.at_least_one)
        reached = min(end, start + fits)
        batches = tuple(
            StoredBatch(at, 1, 0, at, b"0123456789", compressed=False)
            for at in range(start, reached)
        )
        return Found(start, Chunk(batches, reached, end, 0))

    async def read(
        self, *positions: Position, min_bytes: int = 1, max_bytes: int = 10_000, wait_s: float = 5
    ) -> list[str]:
        until = asyncio.get_running_loop().time() + wait_s
        limits = ReadLimits(min_bytes, max_bytes, until)
        findings = await self.fetcher.fetch(positions, limits, until, until, until + 0.1)
        return [_described(each) for each in findings]


def _described(finding: Finding) -> str:
    if isinstance(finding, RakitError):
        return error_pb2.ErrorReason.Name(finding.reason).removeprefix("ERROR_REASON_")
    return f"{finding.from_offset}-{finding.chunk.next_offset}"


def at(partition: int, offset: int = 0) -> Position:
    return Position(topic="t", partition=partition, offset=offset)


async def test_each_leader_is_asked_once_for_what_it_has() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11, 12)
    for group in (10, 11, 12):
        world.put(group, 2)
    assert await world.read(at(2), at(0), at(1, offset=1)) == ["0-2", "0-2", "1-2"]
    assert sorted(world.asked) == [(ME, [10]), (OTHER, [12, 11])]


async def test_a_leader_that_has_just_moved_is_not_the_fault_of_the_caller() -> None:
    world = World()
    world.lead(ME, 10)
    world.leads_no_more = True
    assert await world.read(at(0), wait_s=0) == ["NO_LEADER"]


async def test_a_limit_without_exceptions_holds_on_every_node() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11)
    world.put(10)
    world.put(11)
    now = asyncio.get_running_loop().time()
    for at_least_one, expected in ((True, ["0-1", "0-1"]), (False, ["0-0", "0-0"])):
        limits = ReadLimits(1, 8, now + 60, at_least_one)
        findings = await world.fetcher.fetch([at(0), at(1)], limits, now + 60, now + 60)
        assert [_described(each) for each in findings] == expected


async def test_news_of_any_leader_ends_the_wait() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11)
    reading = asyncio.ensure_future(world.read(at(0), at(1)))
    await asyncio.sleep(0.02)
    assert not reading.done()
    world.put(11)
    assert await reading == ["0-0", "0-1"]


async def test_enough_is_counted_over_all_leaders() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11)
    world.put(10)
    reading = asyncio.ensure_future(world.read(at(0), at(1), min_bytes=20))
    await asyncio.sleep(0.02)
    assert not reading.done(), "ten bytes are too few"
    world.put(11)
    assert await reading == ["0-1", "0-1"]


async def test_latest_does_not_move_while_it_is_waited_for() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11)
    world.put(10, 5)
    latest = Position(topic="t", partition=0, edge=log_service_pb2.EDGE_LATEST)
    reading = asyncio.ensure_future(world.read(latest, at(1)))
    await asyncio.sleep(0.02)
    world.put(10)
    assert await reading == ["5-6", "0-0"]


async def test_a_leader_with_more_than_its_share_is_not_asked_in_a_loop() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11)
    world.put(10, 1000)
    assert await world.read(at(0), at(1), min_bytes=200, max_bytes=200) == ["0-10", "0-0"]
    assert len(world.asked) == 2


async def test_a_partition_without_a_leader_does_not_hold_up_the_others() -> None:
    world = World()
    world.lead(ME, 10)
    world.put(10)
    assert await world.read(at(0), at(1)) == ["0-1", "NO_LEADER"]


async def test_where_nothing_can_be_read_a_leader_is_waited_for() -> None:
    world = World()
    world.put(10)
    reading = asyncio.ensure_future(world.read(at(0)))
    await asyncio.sleep(0.02)
    assert not reading.done()
    world.lead(ME, 10)
    assert await reading == ["0-1"]


async def test_a_leader_that_cannot_be_reached_is_replaced() -> None:
    world = World()
    world.lead(OTHER, 10)
    world.put(10)
    world.is_other_there = False
    reading = asyncio.ensure_future(world.read(at(0)))
    await asyncio.sleep(0.05)
    assert not reading.done()
    world.lead(ME, 10, term=2)
    assert await reading == ["0-1"]


async def test_contract_17_a_frozen_leader_does_not_hold_the_answer_up() -> None:
    world = World()
    world.lead(OTHER, 10)
    world.is_other_frozen = True
    async with asyncio.timeout(1):
        assert await world.read(at(0), wait_s=0.2) == ["NO_LEADER"]
    world.lead(ME, 11)
    world.put(11, 3)
    async with asyncio.timeout(1):
        assert await world.read(at(0), at(1), wait_s=0.2) == ["NO_LEADER", "0-3"]


async def test_contract_17_a_majority_that_is_silent_does_not_hold_the_answer_up() -> None:
    world = World()
    world.lead(ME, 10)
    world.is_cut_off = True
    async with asyncio.timeout(1):
        assert await world.read(at(0), wait_s=0.2) == ["NO_QUORUM"]


async def test_a_wait_ends_in_time_also_where_a_leader_has_stopped_answering() -> None:
    world = World()
    world.lead(ME, 10)
    world.lead(OTHER, 11)
    reading = asyncio.ensure_future(world.read(at(0), at(1), min_bytes=1000, wait_s=0.3))
    await asyncio.sleep(0.05)
    world.is_other_frozen = True
    async with asyncio.timeout(1):
        assert await reading == ["0-0", "NO_LEADER"]


async def test_without_any_leader_the_wait_has_an_end() -> None:
    assert await World().read(at(0), wait_s=0.1) == ["NO_LEADER"]


async def test_an_unknown_place_is_told_at_once_beside_what_is_there() -> None:
    world = World()
    world.lead(ME, 10)
    positions = [at(0), at(9), Position(topic="nowhere")]
    expected = ["0-0", "UNKNOWN_PARTITION", "UNKNOWN_TOPIC"]
    assert await world.read(*positions) == expected
