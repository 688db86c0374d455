"""What one produce stream may hold, and that it holds up nobody else."""

from __future__ import annotations

import pytest

from rakit.node.services import produce_stream
from tests.node.services.scripted import scripted


async def test_a_stream_reads_no_further_than_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce_stream, "IN_FLIGHT_COUNT_MAX", 3)
    async with scripted() as it:
        for tag in range(1, 9):
            it.send(tag)
        await it.settle()
        assert len(it.world.sent) == 3
        it.world.sent[0].succeed()
        await it.answered(1)
        await it.settle()
        assert len(it.world.sent) == 4, "one for one"
        for at in range(1, 8):
            await it.world.until_sent(at + 1)
            it.world.sent[at].succeed()
        assert await it.answered(8) == [(tag, "result") for tag in range(1, 9)]
        await it.finish()


async def test_a_stream_reads_no_further_than_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce_stream, "IN_FLIGHT_BYTES_MAX", 1000)
    async with scripted() as it:
        for tag in range(1, 6):
            it.send(tag, routing_key=b"k" * 450)
        await it.settle()
        assert len(it.world.sent) == 3, "the one that reaches the limit is the last"
        for each in it.world.sent:
            each.succeed()
        await it.world.until_sent(5)


async def test_a_client_that_does_not_read_holds_up_itself_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(produce_stream, "IN_FLIGHT_COUNT_MAX", 3)
    async with scripted() as it:
        it.client.reads.clear()
        for tag in range(1, 9):
            it.send(tag)
        await it.settle()
        assert it.in_flight.count == 3
        for each in it.world.sent:
            each.succeed()
        await it.settle()
        assert (it.in_flight.count, it.in_flight.size_bytes) == (0, 0), "all have their answer"
        assert len(it.world.sent) == 3, "and nothing more is read before it is taken"
        it.client.reads.set()
        await it.answered(3)
        await it.world.until_sent(6)
        assert it.in_flight.count == 3


async def test_a_stream_that_breaks_gives_back_what_it_held_and_no_more() -> None:
    async with scripted() as it:
        for tag in (1, 2):
            it.send(tag)
        await it.settle()
        it.world.sent[0].succeed()
        await it.answered(1)
        assert it.in_flight.count == 1
        it.running.cancel()
        await it.settle()
        assert (it.in_flight.count, it.in_flight.size_bytes) == (0, 0)
        it.world.sent[1].succeed()
        await it.settle()
        assert (it.in_flight.count, it.in_flight.size_bytes) == (0, 0), "a late answer is nobody's"
