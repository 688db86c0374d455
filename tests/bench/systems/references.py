"""What the machine allows: no systems that anybody would use, but what one can be held against.

- `pipeline`: the bare leader and two followers of `rakit.client.bench.pipeline`, fsync included.
  Its batches are messages of a MiB; single records gather.
- `echo`: gRPC alone, the same messages there and back between two processes.
- `disk`: three writers that make every MiB durable; the figure is the mean of one.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import grpc.aio

from rakit.api.v1 import log_service_pb2 as log
from rakit.client.bench.disk import measure_disk
from rakit.client.bench.echo import CALL, Echo, echo_process, measure_rate
from rakit.client.bench.pipeline import (
    Pipeline,
    PipelineClient,
    pipeline_client,
    pipeline_processes,
)
from rakit.client.bench.produce import WINDOW_BATCHES, ProduceSettings
from tests.bench.systems.base import (
    NODES_COUNT,
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


class PipelineCluster(Cluster):
    """Its three processes."""

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        processes = pipeline_processes(self.directory)
        self.running: Pipeline = await self._stack.enter_async_context(processes)

    def pids(self) -> list[int]:
        return list(self.running.pids)

    async def stop(self) -> None:
        await self._stack.aclose()


class _PipelineLoad(Client):
    def __init__(self, cluster: PipelineCluster) -> None:
        self._cluster = cluster

    async def create(self, partitions: int) -> None:
        assert partitions == 1, "it is one log"

    async def pump(self, work: Work, tally: Tally) -> None:
        async with AsyncExitStack() as stack:
            address = self._cluster.running.address
            clients = [
                await stack.enter_async_context(pipeline_client(address))
                for _ in range(work.clients)
            ]
            await asyncio.gather(*(_produce(each, work, tally) for each in clients))

    @asynccontextmanager
    async def _single(self) -> AsyncGenerator[Single]:
        async with pipeline_client(self._cluster.running.address) as client:
            yield _Gathering(client)

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        assert not retrying, "it does not outlive its leader"
        return self._single()

    async def stored(self) -> None:
        return None


async def _produce(client: PipelineClient, work: Work, tally: Tally) -> None:
    records = ProduceSettings(work.size_bytes).batch_records
    messages = [value * records for value in contents(work.size_bytes)]
    window = max(2, WINDOW_BATCHES // work.clients)
    room, sent = asyncio.Semaphore(window), 0

    def ended() -> None:
        tally.add(records)
        room.release()

    while not tally.is_over:
        await room.acquire()
        await client.write(messages[sent % len(messages)], (ended,))
        sent += 1
    for _ in range(window):
        await room.acquire()


class _Gathering:
    def __init__(self, client: PipelineClient) -> None:
        self._client = client
        self._waiting = 0
        self._empty = asyncio.Event()

    async def send(self, value: bytes, ended: Ended) -> None:
        def acknowledged() -> None:
            ended()
            self._waiting -= 1
            if not self._waiting:
                self._empty.set()

        self._waiting += 1
        self._empty.clear()
        self._client.send(value, acknowledged)

    async def drain(self) -> None:
        if self._waiting:
            await self._empty.wait()


class BarePipeline(System):
    """The pipeline."""

    is_reference = True
    fsyncs = True
    kinds = frozenset({Kind.PRODUCE, Kind.LATENCY})

    def can(self, work: Work) -> bool:
        is_batch = work.kind is Kind.LATENCY or work.interface is Interface.BATCH
        return work.kind in self.kinds and is_batch and work.partitions == 1

    def cluster(self, directory: Path) -> Cluster:
        return PipelineCluster(directory)

    def client(self, cluster: Cluster, setting: str) -> Client:
        del setting
        assert isinstance(cluster, PipelineCluster), "its own processes"
        return _PipelineLoad(cluster)


class Bare(System):
    """A reference that gives a rate of batches in MB/s, and nothing else."""

    is_reference = True
    kinds = frozenset({Kind.PRODUCE})
    interfaces = {Kind.PRODUCE: (Interface.BATCH,)}  # noqa: RUF012 - as the base class has it

    def can(self, work: Work) -> bool:
        return super().can(work) and work.partitions == 1 and work.clients == 1

    @abstractmethod
    async def mb_per_s(self, work: Work, directory: Path, seconds: float) -> float:
        """Measures it."""


class EchoCluster(Cluster):
    """Its one process."""

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.running: Echo = await self._stack.enter_async_context(echo_process())

    def pids(self) -> list[int]:
        return [self.running.pid]

    async def stop(self) -> None:
        await self._stack.aclose()


class _EchoCaller(Client):
    def __init__(self, cluster: EchoCluster) -> None:
        self._cluster = cluster

    async def create(self, partitions: int) -> None:
        """Nothing is kept."""

    async def pump(self, work: Work, tally: Tally) -> None:
        raise NotImplementedError

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        raise NotImplementedError

    async def stored(self) -> None:
        return None

    @asynccontextmanager
    async def _calling(self, size_bytes: int) -> AsyncGenerator[Call]:
        request = log.ProduceRequest(topic="bench", partition=0)
        request.rows.records.add(value=contents(size_bytes)[0])
        message = request.SerializeToString()
        async with grpc.aio.insecure_channel(self._cluster.running.address) as channel:
            method = cast("Callable[[bytes], Awaitable[bytes]]", channel.unary_unary(CALL))

            async def call() -> None:
                if await method(message) != message:
                    raise MeasurementError("an echo was another message")

            yield call

    def calling(self, size_bytes: int) -> AbstractAsyncContextManager[Call]:
        return self._calling(size_bytes)


class BareEcho(Bare):
    """gRPC alone: a stream of batches, or a unary call for each record."""

    kinds = frozenset({Kind.PRODUCE, Kind.UNARY})

    def can(self, work: Work) -> bool:
        return super().can(work) or work.kind is Kind.UNARY

    def cluster(self, directory: Path) -> Cluster:
        return EchoCluster(directory)

    def client(self, cluster: Cluster, setting: str) -> Client:
        del setting
        assert isinstance(cluster, EchoCluster), "its own process"
        return _EchoCaller(cluster)

    async def mb_per_s(self, work: Work, directory: Path, seconds: float) -> float:
        del directory
        size_bytes = ProduceSettings(work.size_bytes).batch_records * work.size_bytes
        return await measure_rate(size_bytes, WINDOW_BATCHES, seconds)


class BareDisk(Bare):
    """The disk alone."""

    fsyncs = True

    def cluster(self, directory: Path) -> Cluster:
        raise MeasurementError(f"the disk has no nodes in {directory}")

    def client(self, cluster: Cluster, setting: str) -> Client:
        del cluster, setting
        raise MeasurementError("the disk has no client")

    async def mb_per_s(self, work: Work, directory: Path, seconds: float) -> float:
        del work
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        return await measure_disk(directory, NODES_COUNT, seconds)
