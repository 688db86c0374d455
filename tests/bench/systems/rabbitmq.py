"""RabbitMQ: streams, which never fsync, and quorum queues, which always do. Debian's package.

Both live in the same three nodes; a run has one of them. A stream is driven by rstream, whose
`send_batch` is a batch of records and whose `send` gathers them for half a second, so single
records that are to be quick go as batches of one. A quorum queue is driven by aio-pika, a
publication awaited for each record.

Left out: failover, because the Python clients stay with the node that they know; and reading a
queue, which empties it.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.systems.base import (
    HOST,
    NODES_COUNT,
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

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
QUEUE_PORT, STREAM_PORT, EPMD_PORT, PEER_PORT = 16_672, 15_552, 14_369, 25_692
#: Publications of a queue that are awaited at once, over all producers.
PUBLISHERS_COUNT = 512
#: Bytes and records of one `send_batch`.
TOGETHER_BYTES, TOGETHER_MAX = 1 << 20, 1000


class RabbitCluster(Processes):
    """Three nodes that are both, and the name server of theirs."""

    async def start(self) -> None:
        home = self.directory / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text("RAKITBENCH")
        cookie.chmod(0o400)
        self._home = home
        for node in range(NODES_COUNT):
            self._configure(node)
        epmd = shutil.which("epmd")
        if epmd is None:
            raise MeasurementError("epmd is missing: apt-get install -y rabbitmq-server")
        self.spawn([epmd, "-port", str(EPMD_PORT), "-address", HOST])
        await self.listening(EPMD_PORT)
        for node in range(NODES_COUNT):
            # One after the other: the first makes the cluster that the others join.
            self.spawn([str(PROGRAMS / "rabbitmq-server")], self._environment(node))
            await self.listening(QUEUE_PORT + node)
            await self.listening(STREAM_PORT + node)

    def pids(self) -> list[int]:
        name_server, *nodes = super().pids()
        return [*nodes, name_server]

    def _configure(self, node: int) -> None:
        nodes = "".join(
            f"cluster_formation.classic_config.nodes.{each + 1} = r{each}@localhost\n"
            for each in range(NODES_COUNT)
        )
        (self.directory / f"{node}.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{QUEUE_PORT + node}\n"
            f"stream.listeners.tcp.1 = {HOST}:{STREAM_PORT + node}\n"
            f"stream.advertised_host = {HOST}\nstream.advertised_port = {STREAM_PORT + node}\n"
            f"cluster_formation.peer_discovery_backend = classic_config\n{nodes}"
            "log.file = false\nlog.console = true\nlog.console.level = warning\n"
            "loopback_users = none\nmax_message_size = 8388608\n"
            "vm_memory_high_watermark.absolute = 3GiB\n"
        )
        (self.directory / f"plugins-{node}").write_text("[rabbitmq_stream].\n")

    def _environment(self, node: int) -> dict[str, str]:
        return {
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(EPMD_PORT),
            "RABBITMQ_NODENAME": f"r{node}@localhost",
            "RABBITMQ_DIST_PORT": str(PEER_PORT + node),
            "RABBITMQ_CONFIG_FILE": str(self.directory / str(node)),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / f"plugins-{node}"),
            "RABBITMQ_PID_FILE": str(self.directory / f"pid-{node}"),
        }


class StreamClient(Client):
    """A stream for each partition."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("rstream")
        self._where = {
            "host": HOST,
            "port": STREAM_PORT,
            "username": "guest",
            "password": "guest",
        }
        self._streams: list[str] = []
        self._producer: Any = None
        self._closing = AsyncExitStack()

    async def open(self) -> None:
        self._producer = await self._new_producer()

    async def _new_producer(self) -> Any:
        producer: Any = self._library.Producer(**self._where)
        await producer.start()
        self._closing.push_async_callback(producer.close)
        return producer

    async def close(self) -> None:
        await self._closing.aclose()

    async def create(self, partitions: int) -> None:
        self._streams = [f"s{number}" for number in range(partitions)]
        for name in self._streams:
            await self._producer.create_stream(name)

    async def pump(self, work: Work, tally: Tally) -> None:
        producers = [await self._new_producer() for _ in range(work.clients)]
        await asyncio.gather(*(self._publish(each, work, tally) for each in producers))

    async def _publish(self, producer: Any, work: Work, tally: Tally) -> None:
        values, confirmed, sent = contents(work.size_bytes), 0, 0
        room, changed, refused = window(work), asyncio.Event(), list[object]()

        async def confirm(status: Any) -> None:
            nonlocal confirmed
            if not status.is_confirmed:
                refused.append(status)
            confirmed += 1
            tally.add(1)
            changed.set()

        count = 1
        if work.interface is Interface.BATCH:
            count = max(1, min(TOGETHER_MAX, TOGETHER_BYTES // work.size_bytes, room // 2))
        batch = [values[number % len(values)] for number in range(count)]
        streams = itertools.cycle(self._streams)
        while not tally.is_over:
            name = next(streams)
            if work.interface is Interface.BATCH:
                await producer.send_batch(name, batch, on_publish_confirm=confirm)
            else:
                await producer.send(name, batch[0], on_publish_confirm=confirm)
            sent += count
            while sent - confirmed + count > room and not tally.is_over:
                changed.clear()
                await changed.wait()
        while confirmed < sent:
            changed.clear()
            await changed.wait()
        if refused:
            raise MeasurementError(f"RabbitMQ did not store {len(refused)} records: {refused[0]}")

    @asynccontextmanager
    async def _single(self) -> AsyncGenerator[Single]:
        yield _StreamSingle(self._producer, self._streams[0])

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        assert not retrying, "its client stays with one node"
        return self._single()

    async def stored(self) -> int:
        return sum([await self._end(name) for name in self._streams])

    async def _end(self, name: str) -> int:
        """The offset after the last one, by appending one more and finding it."""
        mark, found = b"the end", asyncio.get_running_loop().create_future()

        def message(value: bytes, context: Any) -> None:
            if value == mark and not found.done():
                found.set_result(context.offset)

        await self._producer.send_wait(name, mark)
        async with self._consuming(name, message, "LAST"):
            return int(await asyncio.wait_for(found, 60))

    @asynccontextmanager
    async def _consuming(
        self, name: str, message: Callable[[bytes, Any], None], where: str
    ) -> AsyncGenerator[None]:
        library = self._library
        consumer: Any = library.Consumer(**self._where)
        await consumer.start()
        try:
            await consumer.subscribe(
                name,
                message,
                # The bytes as they are: nothing of another protocol is looked for in them.
                decoder=bytes,
                initial_credit=50,
                offset_specification=library.ConsumerOffsetSpecification(
                    library.OffsetType[where], None
                ),
            )
            yield
        finally:
            await consumer.close()

    async def read(self, count: int, interface: Interface) -> int:
        del interface
        size_bytes = got = 0
        done = asyncio.Event()

        def message(value: bytes, _context: Any) -> None:
            nonlocal size_bytes, got
            got += 1
            size_bytes += len(value)
            if got == count:
                done.set()

        async with self._consuming(self._streams[0], message, "FIRST"):
            await done.wait()
        return size_bytes

    @asynccontextmanager
    async def _tail(self, got: Callable[[bytes], None]) -> AsyncGenerator[None]:
        async with self._consuming(self._streams[0], lambda value, _: got(value), "NEXT"):
            yield

    def tail(self, got: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        return self._tail(got)


class _StreamSingle:
    """Sends each record as soon as the one before is on its way, with those that came meanwhile."""

    def __init__(self, producer: Any, stream: str) -> None:
        self._producer = producer
        self._stream = stream
        self._library: Any = importlib.import_module("rstream")
        self._sent = 0
        self._buffer: list[Any] = []
        self._waiting: dict[int, Ended] = {}
        self._sending: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def send(self, value: bytes, ended: Ended) -> None:
        self._sent += 1
        self._waiting[self._sent] = ended
        self._buffer.append(self._library.RawMessage(value, publishing_id=self._sent))
        if self._sending is not None and self._sending.done():
            self._sending.result()
            self._sending = None
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        while self._buffer:
            batch, self._buffer = self._buffer, []
            await self._producer.send_batch(self._stream, batch, on_publish_confirm=self._confirmed)

    async def _confirmed(self, status: Any) -> None:
        if not status.is_confirmed:
            raise MeasurementError(f"RabbitMQ did not store a record: {status}")
        self._waiting.pop(status.message_id)()
        self._changed.set()

    async def drain(self) -> None:
        while self._waiting:
            self._changed.clear()
            await self._changed.wait()


class QuorumClient(Client):
    """A queue for each partition."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("aio_pika")
        self._closing = AsyncExitStack()
        self._channel: Any = None
        self._queues: list[str] = []

    async def open(self) -> None:
        self._channel = await self._connected()

    async def _connected(self) -> Any:
        connection: Any = await self._library.connect(f"amqp://guest:guest@{HOST}:{QUEUE_PORT}/")
        self._closing.push_async_callback(connection.close)
        return await connection.channel(publisher_confirms=True)

    async def close(self) -> None:
        await self._closing.aclose()

    async def create(self, partitions: int) -> None:
        self._queues = [f"q{number}" for number in range(partitions)]
        arguments = {"x-queue-type": "quorum", "x-quorum-initial-group-size": NODES_COUNT}
        for name in self._queues:
            await self._channel.declare_queue(name, durable=True, arguments=arguments)

    async def pump(self, work: Work, tally: Tally) -> None:
        values = contents(work.size_bytes)
        publishers = max(1, min(PUBLISHERS_COUNT // work.clients, window(work)))

        async def publish(channel: Any) -> None:
            queues, number = itertools.cycle(self._queues), 0
            while not tally.is_over:
                number += 1
                message = self._message(values[number % len(values)])
                await channel.default_exchange.publish(message, next(queues))
                tally.add(1)

        channels = [await self._connected() for _ in range(work.clients)]
        await asyncio.gather(*(publish(each) for each in channels for _ in range(publishers)))

    def _message(self, value: bytes) -> Any:
        return self._library.Message(value, delivery_mode=self._library.DeliveryMode.PERSISTENT)

    @asynccontextmanager
    async def _single(self) -> AsyncGenerator[Single]:
        yield _QuorumSingle(self._channel, self._queues[0], self._message)

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        assert not retrying, "its client stays with one node"
        return self._single()

    async def stored(self) -> int:
        found = [await self._channel.declare_queue(name, passive=True) for name in self._queues]
        return sum(int(each.declaration_result.message_count) for each in found)


class _QuorumSingle:
    def __init__(self, channel: Any, queue: str, message: Callable[[bytes], Any]) -> None:
        self._channel = channel
        self._queue = queue
        self._message = message
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, value: bytes, ended: Ended) -> None:
        async def publish() -> None:
            exchange: Any = self._channel.default_exchange
            await exchange.publish(self._message(value), self._queue)
            ended()

        task = asyncio.create_task(publish())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        await asyncio.gather(*self._tasks)


class _Rabbit(System):
    def cluster(self, directory: Path) -> Cluster:
        if not PROGRAMS.is_dir():
            raise MeasurementError("RabbitMQ is missing: apt-get install -y rabbitmq-server")
        return RabbitCluster(directory)


class RabbitStream(_Rabbit):
    """Streams."""

    kinds = frozenset({Kind.PRODUCE, Kind.LATENCY, Kind.READ, Kind.TAIL})
    interfaces = {Kind.READ: (Interface.RECORD,)}  # noqa: RUF012 - as the base class has it

    def client(self, cluster: Cluster, setting: str) -> Client:
        del cluster, setting
        return StreamClient()


class RabbitQuorum(_Rabbit):
    """Quorum queues."""

    fsyncs = True
    kinds = frozenset({Kind.PRODUCE, Kind.LATENCY})
    interfaces = {Kind.PRODUCE: (Interface.RECORD,)}  # noqa: RUF012 - as the base class has it

    def client(self, cluster: Cluster, setting: str) -> Client:
        del cluster, setting
        return QuorumClient()
