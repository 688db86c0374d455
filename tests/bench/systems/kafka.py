"""Apache Kafka 4 in KRaft mode: three nodes that are broker and controller each, confluent-kafka.

The heap and the collector are those of its own documentation for small nodes; topics have three
replicas and `acks=all` with two in sync. `kafka-fsync` flushes each partition's log after every
append. Its producer is not idempotent, because the idempotent one was slower, and reports failures
only, because a call for each record is work that nobody needs who counts.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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

JARS = Path(__file__).resolve().parents[3] / "build/bench/kafka"
CLUSTER_ID = "cmFraXQtYmVzaWRlLXBlZQ"
CLIENT_PORT, CONTROLLER_PORT = 19_092, 19_192
MESSAGE_BYTES_MAX = 8 << 20
HEAP = ("-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:G1HeapRegionSize=16M")
#: Records of one call of `produce_batch`, and calls of `produce` between two looks for answers.
TOGETHER_BYTES, TOGETHER_MAX = 1 << 20, 4096
FLUSH_S_MAX = 60


class KafkaCluster(Processes):
    """Three nodes."""

    def __init__(self, directory: Path, *, fsyncs: bool) -> None:
        super().__init__(directory)
        self._fsyncs = fsyncs

    async def start(self) -> None:
        files = [self._configure(node) for node in range(NODES_COUNT)]
        for file in files:
            tool = ("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(file))
            await asyncio.to_thread(
                subprocess.run, self._java(*tool), check=True, capture_output=True
            )
        for file in files:
            self.spawn(self._java("kafka.Kafka", str(file)))
        for node in range(NODES_COUNT):
            await self.listening(CLIENT_PORT + node)

    def _java(self, *arguments: str) -> list[str]:
        return ["java", *HEAP, "-cp", f"{JARS}/*", *arguments]

    def _configure(self, node: int) -> Path:
        voters = ",".join(f"{each}@{HOST}:{CONTROLLER_PORT + each}" for each in range(NODES_COUNT))
        clients = f"PLAINTEXT://{HOST}:{CLIENT_PORT + node}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": f"{clients},CONTROLLER://{HOST}:{CONTROLLER_PORT + node}",
            "advertised.listeners": clients,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.directory / f"data-{node}",
            "default.replication.factor": NODES_COUNT,
            "min.insync.replicas": 2,
            "offsets.topic.replication.factor": NODES_COUNT,
            "offsets.topic.num.partitions": 3,
            "auto.create.topics.enable": "false",
            "message.max.bytes": MESSAGE_BYTES_MAX,
            "replica.fetch.max.bytes": MESSAGE_BYTES_MAX,
        }
        if self._fsyncs:
            settings["log.flush.interval.messages"] = 1
        path = self.directory / f"{node}.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path


BOOTSTRAP = ",".join(f"{HOST}:{CLIENT_PORT + node}" for node in range(NODES_COUNT))


def _failed(error: object, _message: object) -> None:
    if error is not None:
        raise MeasurementError(f"Kafka did not store a record: {error}")


class KafkaClient(Client):
    """One topic. The library has threads of its own; ours call it."""

    def __init__(self, linger_ms: str) -> None:
        self._linger_ms = linger_ms
        self._library: Any = importlib.import_module("confluent_kafka")
        self._topic = "bench"
        self._admin: Any = importlib.import_module("confluent_kafka.admin").AdminClient(
            {"bootstrap.servers": BOOTSTRAP}
        )
        self._partitions = 0

    async def create(self, partitions: int) -> None:
        self._partitions = partitions
        await asyncio.to_thread(self._create, partitions)

    def _create(self, partitions: int) -> None:
        new: Any = importlib.import_module("confluent_kafka.admin").NewTopic
        deadline_s = time.monotonic() + READY_S_MAX
        wanted = [new(self._topic, partitions, NODES_COUNT)]
        while True:
            try:
                self._admin.create_topics(wanted, operation_timeout=60)[self._topic].result()
                break
            except self._library.KafkaException:
                # Brokers that listen may not have found their controller.
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(LOOK_S)
        while time.monotonic() < deadline_s:
            found: Any = self._admin.list_topics(self._topic, 10).topics[self._topic].partitions
            if len(found) == partitions and all(
                each.leader >= 0 and len(each.isrs) == NODES_COUNT for each in found.values()
            ):
                return
            time.sleep(LOOK_S)
        raise MeasurementError("not every replica was in sync in time")

    def _producer(self, settings: Mapping[str, object]) -> Any:
        return self._library.Producer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "acks": "all",
                "enable.idempotence": False,
                "message.max.bytes": MESSAGE_BYTES_MAX,
                **settings,
            }
        )

    async def pump(self, work: Work, tally: Tally) -> None:
        await asyncio.to_thread(self._pump, work, tally)

    def _pump(self, work: Work, tally: Tally) -> None:
        producers = [
            self._producer(
                {
                    "linger.ms": 5,
                    "batch.size": 4 << 20,
                    "queue.buffering.max.kbytes": 256 << 10,
                    "queue.buffering.max.messages": 1 << 20,
                    "delivery.report.only.error": True,
                    "on_delivery": _failed,
                }
            )
            for _ in range(work.clients)
        ]
        sent = 0
        room, count = window(work), max(1, min(TOGETHER_MAX, TOGETHER_BYTES // work.size_bytes))
        values = contents(work.size_bytes)
        singles = [values[number % len(values)] for number in range(count)]
        messages = [{"value": value} for value in singles]
        while not tally.is_over:
            for producer in producers:
                if work.interface is Interface.BATCH:
                    queued = producer.produce_batch(self._topic, messages)
                    if queued != count:
                        raise MeasurementError(f"Kafka's client took {queued} of {count} records")
                else:
                    produce, topic = producer.produce, self._topic
                    for value in singles:
                        produce(topic, value)
                sent += count
                producer.poll(0)
                while True:
                    # A queue counts events of the library's own, too.
                    done = sent - sum(map(len, producers))
                    tally.acknowledged = max(tally.acknowledged, done)
                    if len(producer) <= room or tally.is_over:
                        break
                    producer.poll(0.01)
        if any(producer.flush(FLUSH_S_MAX) for producer in producers):
            raise MeasurementError(f"records were not acknowledged within {FLUSH_S_MAX} s")
        tally.acknowledged = sent

    def _single_producer(self) -> Any:
        # Its default is a million requests at once, which never gather and collapse when late.
        return self._producer(
            {
                "linger.ms": float(self._linger_ms or 5),
                "max.in.flight": 5,
                "queue.buffering.max.messages": 1 << 20,
            }
        )

    @asynccontextmanager
    async def _single(self) -> AsyncGenerator[Single]:
        producer, over = self._single_producer(), threading.Event()

        def poll() -> None:
            while not over.is_set():
                producer.poll(0.05)

        thread = threading.Thread(target=poll)
        thread.start()
        try:
            yield _KafkaSingle(producer, self._topic)
        finally:
            over.set()
            await asyncio.to_thread(thread.join)

    def single(self, *, retrying: bool) -> AbstractAsyncContextManager[Single]:
        del retrying  # It tries again by itself.
        return self._single()

    async def stored(self) -> int:
        return await asyncio.to_thread(self._stored)

    def _stored(self) -> int:
        consumer = self._consumer()
        try:
            ranges = [
                consumer.get_watermark_offsets(self._library.TopicPartition(self._topic, each), 10)
                for each in range(self._partitions)
            ]
        finally:
            consumer.close()
        return sum(high - low for low, high in ranges)

    def _consumer(self) -> Any:
        return self._library.Consumer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "group.id": "bench",
                "enable.auto.commit": False,
                "fetch.message.max.bytes": 4 << 20,
                "queued.max.messages.kbytes": 256 << 10,
            }
        )

    async def read(self, count: int, interface: Interface) -> int:
        del interface
        return await asyncio.to_thread(self._read, count)

    def _read(self, count: int) -> int:
        consumer = self._consumer()
        consumer.assign([self._library.TopicPartition(self._topic, 0, 0)])
        size_bytes = got = 0
        while got < count:
            for message in consumer.consume(min(10_000, count - got), 1.0):
                size_bytes += len(message.value())
                got += 1
        consumer.close()
        return size_bytes

    @asynccontextmanager
    async def _tail(self, got: Callable[[bytes], None]) -> AsyncGenerator[None]:
        consumer, over = self._consumer(), threading.Event()
        at_end = self._library.TopicPartition(self._topic, 0, await self.stored())
        consumer.assign([at_end])

        def consume() -> None:
            while not over.is_set():
                for message in consumer.consume(1000, 0.01):
                    if message.error() is not None:
                        raise MeasurementError(f"Kafka's consumer failed: {message.error()}")
                    got(message.value())

        consuming = asyncio.create_task(asyncio.to_thread(consume))
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(consuming, return_exceptions=True)
            consumer.close()
        consuming.result()

    def tail(self, got: Callable[[bytes], None]) -> AbstractAsyncContextManager[None]:
        return self._tail(got)

    async def leader(self) -> int:
        found: Any = await asyncio.to_thread(self._admin.list_topics, self._topic, 10)
        return int(found.topics[self._topic].partitions[0].leader)


class _KafkaSingle:
    def __init__(self, producer: Any, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, value: bytes, ended: Ended) -> None:
        def delivered(error: object, _message: object) -> None:
            _failed(error, None)
            ended()

        self._producer.produce(self._topic, value, on_delivery=delivered)

    async def drain(self) -> None:
        await asyncio.to_thread(self._producer.flush)


class Kafka(System):
    """Kafka, at its default or with a flush after every append."""

    interfaces = {Kind.READ: (Interface.RECORD,)}  # noqa: RUF012 - as the base class has it

    def __init__(self, name: str, *, fsyncs: bool = False) -> None:
        super().__init__(name)
        self.fsyncs = fsyncs
        self.kinds = FSYNC_KINDS if fsyncs else frozenset(Kind) - {Kind.UNARY}

    def settings(self, work: Work) -> Sequence[str]:
        return ("0", "1", "5") if work.kind in (Kind.LATENCY, Kind.TAIL) else ("",)

    def cluster(self, directory: Path) -> Cluster:
        if not any(JARS.glob("*.jar")):
            raise MeasurementError(f"Kafka's jars are not in {JARS}: run `make bench-peers`")
        return KafkaCluster(directory, fsyncs=self.fsyncs)

    def client(self, cluster: Cluster, setting: str) -> Client:
        del cluster
        return KafkaClient(setting)
