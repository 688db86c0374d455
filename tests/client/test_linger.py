"""Lingering on real loops: their timers round, and a record must go out all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from rakit.client import Client, ProducerConfig

from .fake_cluster import FakeCluster

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
]


def run_on(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    work: Callable[[FakeCluster, Client], Awaitable[None]],
) -> None:
    async def with_cluster() -> None:
        fake = FakeCluster()
        await fake.start(1)
        fake.create("t", [1])
        async with Client(fake.bootstrap) as client:
            await work(fake, client)
        await fake.stop()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(with_cluster())


@pytest.mark.parametrize("make_loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("linger_ms", [0.4, 1, 1.4, 3, 7.3])
def test_what_lingers_goes_out_when_its_time_is_over(
    make_loop: Callable[[], asyncio.AbstractEventLoop], linger_ms: float
) -> None:
    async def work(_fake: FakeCluster, client: Client) -> None:
        async with client.producer(ProducerConfig(linger_ms=linger_ms)) as producer:
            # Each begins somewhere else within a millisecond. It takes a timer and a round trip.
            for _ in range(30):
                delivery = await producer.send("t", b"v")
                async with asyncio.timeout(5):
                    await delivery

    run_on(make_loop, work)


@pytest.mark.parametrize("make_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_what_comes_while_a_record_lingers_goes_with_it(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def work(fake: FakeCluster, client: Client) -> None:
        loop = asyncio.get_running_loop()
        async with client.producer(ProducerConfig(linger_ms=300)) as producer:
            began_s = loop.time()
            first = await producer.send("t", b"0")
            await asyncio.sleep(0.05)
            second = await producer.send("t", b"1")
            assert (await first).offset == 0
            assert (await second).offset == 1
            assert loop.time() - began_s >= 0.29
        assert [len(request.columns.values) for _, request in fake.seen] == [2]

    run_on(make_loop, work)
