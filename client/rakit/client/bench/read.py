"""`rakit bench read`: how fast what is stored comes back, and how soon what is new.

A topic is filled first. Then, after each other:

- catch-up: one reader reads all of it from the start, record by record, and then batch by batch. A
  pass begins with opening the reader and ends with the last record; passes are repeated until the
  time is over, and what counts is all they read by all the time they took.
- fan-out: several readers with connections of their own, in this process, read all of it batch by
  batch at the same time. Passes as before; each ends with the slowest reader.
- tail: a reader follows the end of the log while records come at a fixed rate. A record's latency
  counts from when its send was due (see `pacing`) until the reader's program has it, so it holds
  the acknowledged write, and waiting in this process as well.

Nodes keep what came last in memory. So only a fill that is much larger than that shows what reading
from the disk costs; the operating system's cache stays warm in any case, as it does for whoever
catches up after minutes. The reference is the same bytes in MiBs there and back on a bare gRPC
stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from typing import Final

from rakit.client.bench.background import running, together
from rakit.client.bench.echo import measure_rate
from rakit.client.bench.figures import Latencies, summarise
from rakit.client.bench.filling import fill
from rakit.client.bench.meter import Meter
from rakit.client.bench.pacing import Pace, RealClock, send_paced
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report, latency_figures
from rakit.client.bench.target import Target, bench_topic, cluster_at
from rakit.client.bench.usage import Spent, spent_during
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.reading.reader import Reader

REFERENCE_S_MAX: Final = 10.0
REFERENCE_MESSAGE_BYTES: Final = 1 << 20
REFERENCE_WINDOW: Final = 12
#: The number of a record on the tail, at its beginning.
NUMBER_BYTES: Final = 8
#: A record that was acknowledged is at the reader long before.
ARRIVE_S_MAX: Final = 30.0
WARM_UP_S_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What is read, by how many, and for how long each way is measured."""

    record_bytes: int = 1024
    fill_mb: int = 512
    partitions: int = 6
    readers: int = 8
    rate: float = 1000
    seconds: float = 10

    @property
    def records(self) -> int:
        """How many records the topic is filled with, at least."""
        return max(1, self.fill_mb * 1_000_000 // max(1, self.record_bytes))


@dataclass(frozen=True, slots=True)
class Passes:
    """What reading everything several times came to."""

    records: int
    spent: Spent

    def figures(self, key: str, text: str, record_bytes: int) -> list[Figure]:
        """As they are shown."""
        size_bytes, seconds = self.records * record_bytes, self.spent.seconds
        rates = [
            Figure(f"{key}_mb_per_s", text, size_bytes / seconds / 1e6, "MB/s"),
            Figure(f"{key}_records_per_s", text, self.records / seconds, "records/s"),
        ]
        kept = ("client_cpu_s_per_gb", "nodes_cpu_s_per_gb")
        return rates + [
            Figure(f"{key}_{each.key}", f"{text}: {each.text}", each.value, each.unit)
            for each in self.spent.figures(size_bytes)
            if each.key in kept
        ]


async def bench_read(bootstrap: str | None, settings: ReadSettings, say: Say) -> Report:
    """Fills a topic and reads it."""
    size_bytes = settings.record_bytes
    async with (
        cluster_at(bootstrap) as target,
        Client(target.bootstrap) as client,
        bench_topic(client, settings.partitions) as topic,
    ):
        description = target.description
        say(f"read: writing {settings.fill_mb:,} MB")
        count = await fill(client, topic, size_bytes, settings.records)
        filled = _Filled(target, topic, count, settings.seconds)
        say("read: record by record")
        by_record = await _passes(filled, _by_record)
        say("read: batch by batch")
        by_batch = await _passes(filled, _by_batch)
        say(f"read: {settings.readers} readers")
        fan_out = await _passes(filled, _by_batch, settings.readers)
        say(f"read: following {settings.rate:g} records/s")
        await follow(client, topic, settings, min(settings.seconds, WARM_UP_S_MAX))
        tail = await follow(client, topic, settings, settings.seconds)
    say("reference: bare gRPC")
    seconds = min(settings.seconds / 3, REFERENCE_S_MAX)
    rate = await measure_rate(REFERENCE_MESSAGE_BYTES, REFERENCE_WINDOW, seconds)
    fan_out_text = f"{settings.readers} readers, all together"
    figures = [
        *by_record.figures("record", "record by record", size_bytes),
        *by_batch.figures("batch", "batch by batch", size_bytes),
        *fan_out.figures("fan_out", fan_out_text, size_bytes),
        *latency_figures("tail", "tail, from when the send was due", tail),
    ]
    mb_per_s = by_batch.records * size_bytes / by_batch.spent.seconds / 1e6
    text = "reference: bare gRPC stream, there and back"
    figures.append(Figure("grpc_mb_per_s", text, rate, "MB/s", mb_per_s / rate))
    return Report("read", {"cluster": description, **asdict(settings)}, tuple(figures))


@dataclass(frozen=True, slots=True)
class _Filled:
    """A topic, how many records are in it, and for how long it is read."""

    target: Target
    topic: str
    records: int
    seconds: float


async def _passes(
    filled: _Filled, read: Callable[[Reader], Awaitable[int]], readers: int = 1
) -> Passes:
    """Lets readers read everything, again and again until the time is over."""
    records = 0

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(filled.target.bootstrap)) for _ in range(readers)
        ]

        async def one(client: Client) -> None:
            nonlocal records
            async with client.reader(filled.topic) as reader:
                found = await read(reader)
            if found != filled.records:
                raise CommandError(f"{found:,} records were read, and {filled.records:,} are there")
            records += found

        async def everything() -> None:
            began_s = time.perf_counter()
            while not records or time.perf_counter() - began_s < filled.seconds:
                await together(one(client) for client in clients)

        # Connections are made before.
        for client in clients:
            await client.admin.get_topic(filled.topic)
        spent = await spent_during(filled.target.usage(), everything())
    return Passes(records, spent)


async def _by_record(reader: Reader) -> int:
    """Has every value in its hands; returns how many."""
    count = 0
    async for record in reader:
        count += record.value is not None
    return count


async def _by_batch(reader: Reader) -> int:
    count = 0
    async with aclosing(reader.batches()) as batches:
        async for batch in batches:
            count += len(batch.values)
    return count


async def follow(client: Client, topic: str, settings: ReadSettings, seconds: float) -> Latencies:
    """Sends at the rate and reads it from the tail."""
    pace = Pace(settings.rate, seconds)
    padding = bytes(max(0, settings.record_bytes - NUMBER_BYTES))
    meter, arrived = Meter(), asyncio.Event()
    #: What ends the wait of each record that was sent and not read, by number.
    waiting: dict[int, Callable[[], None]] = {}
    sent = 0

    async def read(reader: Reader) -> None:
        async for record in reader:
            assert record.value is not None, "what was sent has a value"
            waiting.pop(int.from_bytes(record.value[:NUMBER_BYTES]))()
            if sent == pace.count and not waiting:
                arrived.set()

    async with (
        client.reader(topic, from_="latest", follow=True) as reader,
        client.producer() as producer,
        running(read(reader)) as reading,
    ):

        async def send(ended: Callable[[], None]) -> None:
            nonlocal sent
            waiting[sent] = ended
            value = sent.to_bytes(NUMBER_BYTES) + padding
            sent += 1
            meter.watch(await producer.send(topic, value), 1, 0.0)

        latencies = await reading.during(send_paced(pace, send, RealClock()))
        await producer.flush()
        await meter.until(pace.count)
        try:
            async with asyncio.timeout(ARRIVE_S_MAX):
                await reading.during(arrived.wait())
        except TimeoutError:
            raise CommandError(
                f"{len(waiting):,} acknowledged records were not read in {ARRIVE_S_MAX:.0f} s"
            ) from None
    return summarise(latencies)
