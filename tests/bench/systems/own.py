"""rakit: three nodes as `rakit serve` runs them, driven by its SDK, with its promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import grpc.aio

from rakit.api.v1 import log_service_pb2 as log
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.client.bench.meter import Meter
from rakit.client.bench.produce import WATCH_EVERY, WINDOW_BATCHES, ProduceSettings
from rakit.client.bench.target import LOGGING
from rakit.client.client import Client as Sdk
from rakit.client.config import ClientConfig, ProducerConfig
from rakit.client.demo.processes import LocalCluster
from rakit.client.producing.producer import Producer
from rakit.client.records import Record
from tests.bench.systems.base import (
    LOOK_S,
    NODES_COUNT,
    READY_S_MAX,
    Call,
    Client,
    Cluster,
    Ended,
    MeasurementError,
    Single,
    System,
    Tally,
    contents,
)
from tests.bench.works import Interface, Kind, Work

TOPIC = "bench"
#: What a batch takes, where bytes and not records are what costs: larger ones are stored for less
#: and acknowledged later.
BATCHES = {"1 MiB": 1 << 20, "3 MiB": (3 << 20) + (64 << 10)}
BULK_RECORD_BYTES = 1 << 10
#: Creating a thousand partitions waits for a thousand leaders.
CREATE_MS_MAX = 120_000


class RakitCluster(Cluster):
    """Three nodes."""

    async def start(self) -> None:
        self._cluster = LocalCluster(self.directory, NODES_COUNT, LOGGING)
        await self._cluster.__aenter__()

    def pids(self) -> list[int]:
        return [node.pid for node in self._cluster.nodes]

    async def stop(self) -> None:
        await self._cluster.__aexit__(None, None, None)

    @property
    def addresses(self) -> list[str]:
        """Of the nodes, by number."""
        return [node.address for node in self._cluster.nodes]


class RakitClient(Client):
    """One topic."""

    def __init__(self, cluster: RakitCluster, batch_bytes: int) -> None:
        self._cluster = cluster
        self._batch_bytes = batch_bytes
        self._closing = AsyncExitStack()
        config = ClientConfig(
            tuple(cluster.addresses),
            request_timeout_ms=CREATE_MS_MAX,
            attempt_timeout_ms=CREATE_MS_MAX // 2,
        )
        self._sdk = Sdk(config)

    async def close(self) -> None:
        await self._sdk.close()

    async def create(self, partitions: int) -> None:
        # Large enough for the largest work; what a topic takes costs nothing that it does not get.
        config = ProduceSettings(1 << 20, self._batch_bytes).topic_config
        await self._sdk.admin.create_topic(TOPIC, partitions, config=config)
        deadline_s = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline_s:
            found = await self._sdk.admin.get_topic(TOPIC)
            if all(each.leader_node_id for each in found.partitions):
                return
            await asyncio.sleep(LOOK_S)
        raise MeasurementError("not every partition had a leader in time")

    async def pump(self, work: Work, tally: Tally) -> None:
        batches = max(2, WINDOW_BATCHES // work.clients)
        # A single record may be as large as a batch, or a little larger with what is its own.
        window = max(batches * (max(self._batch_bytes, work.size_bytes) + (1 << 10)), 4 << 20)
        config = ProducerConfig(batch_bytes_max=self._batch_bytes, unacknowledged_bytes_max=window)
        async with AsyncExitStack() as stack:
            producers = [
                await stack.enter_async_context(self._sdk.producer(config))
                for _ in range(work.clients)
            ]
            await asyncio.gather(
                *(_produce(each, work, self._batch_bytes, tally) for each in producers)
            )

    @asynccontextmanager
    async def _single(self) -> AsyncGenerator[Single]:
        async with self._sdk.producer() as producer:
            yield _RakitSingle(producer)

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        del retrying  # It tries again by itself.
        return self._single()

    async def stored(self) -> int:
        found = await self._sdk.admin.get_offsets(TOPIC)
        return sum(each.latest - each.earliest for each in found)

    async def read(self, count: int, interface: Interface) -> int:
        size_bytes = got = 0
        async with self._sdk.reader(TOPIC, [0]) as reader:
            if interface is Interface.BATCH:
                async with aclosing(reader.batches()) as batches:
                    async for batch in batches:
                        got += len(batch)
                        size_bytes += sum(map(len, filter(None, batch.values)))
                        if got >= count:
                            break
            else:
                async with aclosing(cast("AsyncGenerator[Record]", aiter(reader))) as records:
                    async for record in records:
                        got += 1
                        size_bytes += len(record.value or b"")
                        if got == count:
                            break
        if got < count:
            raise MeasurementError(f"{got} of {count} records were read")
        return size_bytes

    @asynccontextmanager
    async def _tail(self, got: Callable[[bytes], None]) -> AsyncGenerator[None]:
        async with self._sdk.reader(TOPIC, [0], "latest", follow=True) as reader:

            async def take() -> None:
                async for record in reader:
                    got(record.value or b"")

            task = asyncio.create_task(take())
            try:
                yield
                if task.done():
                    task.result()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def tail(self, got: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        return self._tail(got)

    @asynccontextmanager
    async def _calling(self, size_bytes: int) -> AsyncGenerator[Call]:
        value = contents(size_bytes)[0]
        request = log.ProduceRequest(topic=TOPIC, partition=0)
        request.rows.records.add(value=value)
        address = self._cluster.addresses[await self.leader()]
        async with grpc.aio.insecure_channel(address) as channel:
            stub = LogServiceStub(channel)

            async def call() -> None:
                answer = await stub.Produce(request)
                if not answer.fsynced:
                    raise MeasurementError("a record was acknowledged without fsync")

            yield call

    def calling(self, size_bytes: int) -> AbstractAsyncContextManager[Call]:
        return self._calling(size_bytes)

    async def leader(self) -> int:
        found = await self._sdk.admin.get_topic(TOPIC)
        return self._cluster.addresses.index(found.partitions[0].leader_address)


async def _produce(producer: Producer, work: Work, batch_bytes: int, tally: Tally) -> None:
    meter, count = Meter(), 0
    values = contents(work.size_bytes)
    records = ProduceSettings(work.size_bytes, batch_bytes).batch_records
    batches = [[values[(at + n) % len(values)] for n in range(records)] for at in range(4)]
    while not tally.is_over:
        meter.check()
        batch = batches[count % len(batches)]
        if work.interface is Interface.BATCH:
            delivery = await producer.send_batch(TOPIC, batch)
            meter.then(delivery, partial(tally.add, len(batch)))
            count += 1
            continue
        *before, last = batch[:WATCH_EVERY]
        for value in before:
            await producer.send(TOPIC, value)
        # One call back for all of them: one for each would be a load that no user has.
        delivery = await producer.send(TOPIC, last)
        meter.then(delivery, partial(tally.add, len(before) + 1))
        count += 1
    await producer.flush()
    await meter.until(count)


class _RakitSingle:
    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._meter = Meter()
        self._count = 0

    async def send(self, value: bytes, ended: Ended) -> None:
        self._meter.then(await self._producer.send(TOPIC, value), ended)
        self._count += 1

    async def drain(self) -> None:
        await self._producer.flush()
        await self._meter.until(self._count)


class Rakit(System):
    """rakit as it ships."""

    fsyncs = True
    kinds = frozenset(Kind)

    def settings(self, work: Work) -> Sequence[str]:
        bulk = work.kind is Kind.PRODUCE and work.size_bytes >= BULK_RECORD_BYTES
        return tuple(BATCHES) if bulk and work.interface is Interface.BATCH else ("",)

    def cluster(self, directory: Path) -> Cluster:
        return RakitCluster(directory)

    def client(self, cluster: Cluster, setting: str) -> Client:
        assert isinstance(cluster, RakitCluster), "its own nodes"
        return RakitClient(cluster, BATCHES[setting or "1 MiB"])
