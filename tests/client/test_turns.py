"""Calls of `send()` that have to wait are served in their order, and never wait in vain."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rakit.client import Client, ClosedError, NotFoundError, ProducerConfig, ProducerFencedError
from rakit.client.producing.room import YIELD_EVERY_BYTES

from .fake_cluster import FakeCluster

CONFIG = ProducerConfig(delivery_timeout_ms=20_000)
SOON_S = 8.0


async def test_nobody_passes_a_call_that_has_got_room_and_has_not_run_yet(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(replace(CONFIG, unacknowledged_count_max=2)) as producer:
        first, _ = [await producer.send("t", b"%d" % n, partition=0) for n in range(2)]

        async def when_acknowledged() -> None:
            # The acknowledgement wakes this task before it makes room for the one that waits.
            await first
            await producer.send("t", b"3", partition=0)

        waiting = asyncio.create_task(producer.send("t", b"2", partition=0))
        later = asyncio.create_task(when_acknowledged())
        await fake.until_seen()
        assert len(fake.seen[0][1].columns.values) == 2
        assert not waiting.done()
        fake.may_answer.set()
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(waiting, later)
    assert fake.topics["t"][0].values() == [b"0", b"1", b"2", b"3"]


async def test_nobody_passes_those_who_wait_for_the_topic(
    fake: FakeCluster, client: Client
) -> None:
    async with client.producer(CONFIG) as producer:
        waiting = [
            asyncio.create_task(producer.send("t", b"%d" % n, partition=0)) for n in range(5)
        ]
        for _ in range(100_000):
            await asyncio.sleep(0)
            if producer._engine.lanes:
                # The topic has become known in this turn of the loop.
                break
        assert not all(task.done() for task in waiting)
        await producer.send("t", b"5", partition=0)
        await asyncio.gather(*waiting)
    assert fake.topics["t"][0].values() == [b"%d" % n for n in range(6)]


async def test_an_unknown_topic_is_asked_for_once_for_all_who_wait(
    fake: FakeCluster, client: Client
) -> None:
    async with client.producer(CONFIG) as producer:
        waiting = [asyncio.create_task(producer.send("nowhere", b"v")) for _ in range(20)]
        for task in waiting:
            with pytest.raises(NotFoundError):
                await task
        assert sum(node.topic_questions for node in fake.nodes.values()) == 1
        fake.create("nowhere", [1])
        await (await producer.send("nowhere", b"v"))


async def test_one_that_gives_up_takes_the_topic_away_from_nobody(
    fake: FakeCluster, client: Client
) -> None:
    for node in fake.nodes.values():
        node.is_hung = True
    async with client.producer(CONFIG) as producer:
        first, second = [asyncio.create_task(producer.send("t", b"v")) for _ in range(2)]
        await fake.is_asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        for node in fake.nodes.values():
            node.is_hung = False
        async with asyncio.timeout(SOON_S):
            await (await second)


async def test_a_call_that_waits_for_its_topic_hears_of_the_end(
    fake: FakeCluster, client: Client
) -> None:
    for node in fake.nodes.values():
        node.is_hung = True
    async with client.producer(CONFIG) as producer:
        waiting = [asyncio.create_task(producer.send("t", b"v")) for _ in range(3)]
        await fake.is_asked.wait()
        await producer.abort()
        # Without waiting for the answer, which takes as long as the request may.
        async with asyncio.timeout(client._config.request_timeout_ms / 2000):
            for task in waiting:
                with pytest.raises(ClosedError):
                    await task


async def test_calls_that_wait_for_room_hear_that_the_producer_was_fenced(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(replace(CONFIG, unacknowledged_count_max=2)) as producer:
        first = await producer.send("t", b"0", partition=0)
        await fake.until_seen()
        second = await producer.send("t", b"1", partition=1)
        waiting = [asyncio.create_task(producer.send("t", b"v", partition=2)) for _ in range(8)]
        await asyncio.sleep(0)
        fake.topics["t"][0].producers[1] = (9, 0, {})
        fake.topics["t"][1].producers[1] = (9, 0, {})
        fake.may_answer.set()
        async with asyncio.timeout(SOON_S):
            for delivery in (first, second):
                with pytest.raises(ProducerFencedError):
                    await delivery
            for task in waiting:
                with pytest.raises(ProducerFencedError):
                    await task
        assert producer._room.used_bytes == producer._room.count == 0


async def test_no_more_records_are_unacknowledged_than_the_setting_says(
    fake: FakeCluster, client: Client
) -> None:
    fake.may_answer.clear()
    async with client.producer(replace(CONFIG, unacknowledged_count_max=3)) as producer:
        for n in range(3):
            await producer.send("t", b"%d" % n, partition=0)
        waiting = asyncio.create_task(producer.send("t", b"3", partition=0))
        await fake.until_seen()
        assert not waiting.done()
        fake.may_answer.set()
        async with asyncio.timeout(SOON_S):
            await waiting
    assert fake.topics["t"][0].values() == [b"%d" % n for n in range(4)]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after it has waited for room"])
async def test_one_that_sends_without_a_pause_lets_others_run(
    fake: FakeCluster, client: Client, *, waits: bool
) -> None:
    config = replace(CONFIG, batch_bytes_max=1 << 20, unacknowledged_bytes_max=1 << 20)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with client.producer(config) as producer:
        await (await producer.send("t", b"the topic is known"))
        if waits:
            fake.may_answer.clear()
            full = [await producer.send("t", bytes(1 << 18)) for _ in range(3)]
            waiting = asyncio.create_task(producer.send("t", bytes(1 << 19)))
            await fake.until_seen()
            assert not waiting.done()
            fake.may_answer.set()
            await asyncio.gather(*full)
            await (await waiting)
        task = asyncio.create_task(others())
        # Half of the room: nobody waits for an acknowledgement.
        for _ in range((1 << 19) // YIELD_EVERY_BYTES):
            await producer.send("t", bytes(YIELD_EVERY_BYTES - 8))
        task.cancel()
    assert turns >= (1 << 19) // YIELD_EVERY_BYTES - 1
