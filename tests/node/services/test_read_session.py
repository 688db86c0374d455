"""Read without a transport: heartbeats, room for answers, and clients that do not read."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from google.protobuf.message import Message

from rakit.api.v1 import error_pb2, log_service_pb2, record_pb2
from rakit.api.v1.log_service_pb2 import Position, ReadRequest
from rakit.node.errors import RakitError
from rakit.node.partition.stored import StoredBatch
from rakit.node.reading.budget import ReadBudget
from rakit.node.services import read_stream
from rakit.node.services.handlers import Stream
from rakit.node.services.offsets import OffsetLookup
from rakit.node.services.read_stream import ReadSession
from rakit.peer.v1.opaque_pb2 import OpaqueReadResponse
from tests.node.reading.test_fetcher import ME, World, at


class Reader:
    """The client's end of a stream. It takes answers while `reads` is set."""

    def __init__(self) -> None:
        self.answers: list[OpaqueReadResponse] = []
        self.ends: list[Callable[[], None]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.has_begun = asyncio.Event()
        self.is_written_to = asyncio.Event()
        self.changed = asyncio.Event()

    async def begin(self) -> None:
        self.has_begun.set()

    async def write(self, message: Message) -> None:
        await self.write_bytes(message.SerializeToString())

    async def write_bytes(self, data: bytes) -> None:
        self.is_written_to.set()
        await self.reads.wait()
        self.answers.append(OpaqueReadResponse.FromString(data))
        self.changed.set()

    def on_end(self, callback: Callable[[], None]) -> None:
        self.ends.append(callback)

    async def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """What was read, once it is what the test waits for."""
        async with asyncio.timeout(5):
            while not holds(self.told):
                self.changed.clear()
                await self.changed.wait()
        return self.told

    @property
    def told(self) -> list[str]:
        """The answers, in short."""
        short: list[str] = []
        for each in self.answers:
            if each.HasField("data"):
                data = each.data
                short.append(f"{data.partition}: {data.batches[0].base_offset}-{data.next_offset}")
            else:
                short.append(str(each.WhichOneof("event")))
        return short


class Node:
    """Streams on one node; the records are in `world`, ten bytes each."""

    def __init__(self, budget: ReadBudget) -> None:
        self.world = World()
        self.world.lead(ME, 10, 11)
        self.budget = budget
        self.sessions: list[asyncio.Task[None]] = []

    def read(self, *positions: Position, reads: bool = True, follow: bool = True) -> Reader:
        reader = Reader()
        if not reads:
            reader.reads.clear()
        request = ReadRequest(positions=positions, follow=follow, layout=record_pb2.LAYOUT_COLUMNS)
        stream = cast("Stream", reader)
        session = ReadSession(request, stream, self.world.fetcher, self.budget)
        running = asyncio.create_task(session.run(cast("OffsetLookup", None)))
        running.add_done_callback(lambda _: [end() for end in reader.ends])
        self.sessions.append(running)
        return reader


def stored_batches() -> list[StoredBatch]:
    """All that are alive."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, StoredBatch)]


@asynccontextmanager
async def node(budget: ReadBudget | None = None) -> AsyncGenerator[Node]:
    made = Node(budget or ReadBudget())
    try:
        yield made
    finally:
        for session in made.sessions:
            session.cancel()
        await asyncio.gather(*made.sessions, return_exceptions=True)
        await asyncio.sleep(0)
        assert made.budget.held_bytes == made.budget.stalled_bytes == 0


async def test_what_is_there_comes_first_and_then_what_is_appended() -> None:
    async with node() as it:
        it.world.put(10, 3)
        reader = it.read(at(0))
        assert await reader.until(lambda told: len(told) == 1) == ["0: 0-3"]
        it.world.put(10, 2)
        assert await reader.until(lambda told: len(told) == 2) == ["0: 0-3", "0: 3-5"]


async def test_contract_17_a_stream_with_nothing_to_say_shows_that_it_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_stream, "HEARTBEAT_S", 0.05)
    async with node() as it:
        reader = it.read(at(0))
        await reader.until(lambda told: told == ["heartbeat"] * 2)
        it.world.put(10)
        told = await reader.until(lambda told: len(told) >= 4)
        assert told[:2] == ["heartbeat"] * 2
        assert "0: 0-1" in told
        assert reader.answers[0].heartbeat.time_ms > 0


async def test_contract_17_a_stream_that_waits_for_room_shows_that_it_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_stream, "HEARTBEAT_S", 0.05)
    budget = ReadBudget(1000, stalled_s=60)
    async with node(budget) as it:
        it.world.put(10, 3)
        with budget.ask():
            reader = it.read(at(0))
            await reader.until(lambda told: told == ["heartbeat"] * 2)
        told = await reader.until(lambda told: told[-1] != "heartbeat")
        assert told[-1] == "0: 0-3"


async def test_a_call_begins_as_soon_as_its_last_leader_is_there() -> None:
    """It used to begin with the next heartbeat, seconds later."""
    async with node() as it:
        reader = it.read(*(Position(topic="t", partition=each) for each in (0, 2)))
        await asyncio.sleep(0)
        it.world.lead(ME, 12)
        async with asyncio.timeout(read_stream.HEARTBEAT_S / 2):
            await reader.has_begun.wait()
        assert reader.told == []


async def test_whoever_waits_for_records_or_for_room_holds_none() -> None:
    budget = ReadBudget(1000, stalled_s=60)
    async with node(budget) as it:
        idle = [it.read(at(0)) for _ in range(50)]
        for each in idle:
            await asyncio.wait_for(each.has_begun.wait(), 5)
        assert budget.held_bytes == 0
        it.world.put(10)
        for each in idle:
            await each.until(lambda told: told == ["0: 0-1"])
        assert budget.held_bytes == 0


async def test_clients_that_do_not_read_hold_no_more_than_the_budget() -> None:
    """A hundred of them used to hold a gigabyte and a half."""
    budget = ReadBudget(1000, stalled_s=60)
    before = stored_batches()
    async with node(budget) as it:
        it.world.put(10, 10)
        readers = [it.read(at(0), reads=False) for _ in range(50)]
        await asyncio.wait_for(readers[0].is_written_to.wait(), 5)
        for _ in range(200):
            await asyncio.sleep(0)
        written_to = [each for each in readers if each.is_written_to.is_set()]
        assert 0 < len(written_to) < 5
        assert budget.held_bytes <= 1000
        kept = [each for each in stored_batches() if not any(each is one for one in before)]
        assert kept == [], "while it is written there are the bytes of an answer and nothing else"


async def test_a_client_that_reads_gets_by_those_that_do_not() -> None:
    budget = ReadBudget(1000, stalled_s=0.05)
    async with node(budget) as it:
        it.world.put(10, 10)
        for _ in range(3):
            await asyncio.wait_for(it.read(at(0), reads=False).is_written_to.wait(), 5)
        reader = it.read(at(0))
        await reader.until(lambda told: told[-1:] == ["0: 0-10"])
        ended = [each for each in it.sessions if each.done()]
        assert ended, "it was worth somebody's stream"
        for session in ended:
            error = session.exception()
            assert isinstance(error, RakitError)
            assert error.reason == error_pb2.ERROR_REASON_THROTTLED


async def test_a_batch_that_is_larger_than_the_room_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rakit.node.reading.budget.ANSWER_BYTES_MIN", 20)
    monkeypatch.setattr("rakit.node.reading.budget.ANSWER_BYTES_MAX", 20)
    async with node(ReadBudget(10_000)) as it:
        it.world.put(10, 2)
        reader = it.read(at(0))
        # With what stands beside it, each batch takes more than twenty bytes.
        assert await reader.until(lambda told: len(told) == 2) == ["0: 0-1", "0: 1-2"]


async def test_positions_take_turns_where_an_answer_has_room_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rakit.node.reading.budget.ANSWER_BYTES_MIN", 60)
    monkeypatch.setattr("rakit.node.reading.budget.ANSWER_BYTES_MAX", 60)
    async with node(ReadBudget(10_000)) as it:
        it.world.put(10, 3)
        it.world.put(11, 3)
        reader = it.read(at(0), at(1))
        told = await reader.until(lambda told: len(told) == 6)
        assert sorted(told) == [f"{p}: {n}-{n + 1}" for p in (0, 1) for n in range(3)]
        assert {each[0] for each in told[:2]} == {"0", "1"}


async def test_a_follower_of_the_end_misses_nothing_while_it_waits_for_room() -> None:
    """What it found was dropped, not forgotten."""
    budget = ReadBudget(1000, stalled_s=60)
    async with node(budget) as it:
        it.world.put(10, 5)
        latest = Position(topic="t", partition=0, edge=log_service_pb2.EDGE_LATEST)
        reader = it.read(latest)
        await asyncio.wait_for(reader.has_begun.wait(), 5)
        with budget.ask():
            it.world.put(10)
            for _ in range(20):
                await asyncio.sleep(0)
            it.world.put(10)
        told = await reader.until(lambda told: told[-1:] != [] and told[-1].endswith("-7"))
        assert told[0].startswith("0: 5-")
