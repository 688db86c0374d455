"""`rakit bench produce`: how much a cluster takes in, in a closed loop.

One producer, or several with connections of their own, keep a fixed amount unacknowledged and send
more as soon as something is acknowledged. After the warm-up two moments are compared: what was
acknowledged between them, what the processes used meanwhile, and how long acknowledgements took
that came in between (from the call to the acknowledgement, so waiting inside the producer counts,
and a larger window makes it longer).

The references, measured right after the cluster is gone, so that they have the machine for
themselves as the cluster had it:

- the disk: as many files as there were nodes are appended to at once and made durable after each
  MiB. Every node has to store every byte at least like that (with three replicas on three nodes).
- the bare pipeline: the same messages through a leader and two followers that do nothing else, with
  the same durability (see `pipeline`). What rakit falls short of it is the price of Raft and the
  broker.
- gRPC: the same messages there and back on one stream. A record travels over three such hops.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from rakit.client.bench.background import Background, running, together
from rakit.client.bench.disk import measure_disk
from rakit.client.bench.echo import measure_rate
from rakit.client.bench.figures import summarise
from rakit.client.bench.meter import Meter
from rakit.client.bench.pipeline import measure_pipeline
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report, latency_figures
from rakit.client.bench.target import NODES_COUNT, Target, bench_topic, cluster_at
from rakit.client.bench.usage import Spent, Usage, spent_during
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.config import BATCH_COUNT_LIMIT, ProducerConfig
from rakit.client.model import TopicConfig
from rakit.client.producing.intake import RECORD_OVERHEAD_BYTES
from rakit.client.producing.producer import Producer

#: Batches that are not acknowledged at any time: two for each partition of the default.
WINDOW_BATCHES: Final = 12
#: However many producers share it.
PRODUCER_BATCHES_MIN: Final = 2
#: The window is at least so large: small batches gather.
WINDOW_BYTES_MIN: Final = 4 << 20
#: With `send()` one record of so many is timed: a callback for each would be a load of its own.
WATCH_EVERY: Final = 64
#: Batches of different contents that are sent in turn, so that no cache flatters a copy.
CONTENTS_COUNT: Final = 8
#: A reference gets a third of the time, within these bounds.
REFERENCE_S_MIN, REFERENCE_S_MAX = 0.3, 10.0
#: What a topic takes unless it is configured; larger batches need a topic that takes them.
TOPIC_BATCH_BYTES: Final = 2 << 20
#: Beside its records.
BATCH_OVERHEAD_BYTES: Final = 1 << 10


class Interface(StrEnum):
    """How records are handed over."""

    BATCH = "batch"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class ProduceSettings:
    """What is sent, and for how long."""

    record_bytes: int = 1024
    batch_bytes: int = 1 << 20
    partitions: int = 6
    seconds: float = 30
    interface: Interface = Interface.BATCH
    warm_up_seconds: float = 5
    producers: int = 1

    @property
    def batch_records(self) -> int:
        """Records of one batch, at least one."""
        fitting = self.batch_bytes // (self.record_bytes + RECORD_OVERHEAD_BYTES)
        return min(max(1, fitting), BATCH_COUNT_LIMIT)

    @property
    def reference_seconds(self) -> float:
        """How long each reference is measured."""
        return min(max(REFERENCE_S_MIN, self.seconds / 3), REFERENCE_S_MAX)

    @property
    def topic_config(self) -> TopicConfig:
        """A topic that takes these batches."""
        needed = BATCH_OVERHEAD_BYTES + max(
            self.batch_bytes, self.record_bytes + RECORD_OVERHEAD_BYTES
        )
        return TopicConfig(batch_bytes_max=None if needed <= TOPIC_BATCH_BYTES else needed)

    @property
    def producer_config(self) -> ProducerConfig:
        """A producer with its part of the closed loop's window: enough for two batches at least.

        More producers are more connections and smaller shares, not more that is waiting.
        """
        batches = max(WINDOW_BATCHES // self.producers, PRODUCER_BATCHES_MIN)
        window = max(batches * self.batch_bytes, WINDOW_BYTES_MIN // self.producers)
        return ProducerConfig(batch_bytes_max=self.batch_bytes, unacknowledged_bytes_max=window)


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened between the two moments."""

    records: int
    latencies_s: list[float]
    spent: Spent


async def bench_produce(bootstrap: str | None, settings: ProduceSettings, say: Say) -> Report:
    """Measures a cluster, then the references."""
    async with cluster_at(bootstrap) as target:
        description = target.description
        measured = await measure(target, settings, say)
    if not measured.latencies_s:
        raise CommandError("nothing was acknowledged in the measured time; measure for longer")
    figures = figures_of(measured, settings.record_bytes)
    figures += measured.spent.node_figures()
    mb_per_s = figures[0].value
    if bootstrap is None:
        say("reference: the bare disk")
        with tempfile.TemporaryDirectory(prefix="rakit-bench-") as directory:
            path, seconds = Path(directory), settings.reference_seconds
            rate = await measure_disk(path, NODES_COUNT, seconds)
            text = f"reference: bare disk, each of {NODES_COUNT} writers"
            figures.append(Figure("disk_mb_per_s", text, rate, "MB/s", mb_per_s / rate))
            say("reference: the bare pipeline")
            rate = await measure_pipeline(path, settings.batch_bytes, WINDOW_BATCHES, seconds)
        text = "reference: bare pipeline of three"
        figures.append(Figure("pipeline_mb_per_s", text, rate, "MB/s", mb_per_s / rate))
    say("reference: bare gRPC")
    rate = await measure_rate(settings.batch_bytes, WINDOW_BATCHES, settings.reference_seconds)
    text = "reference: bare gRPC stream, there and back"
    figures.append(Figure("grpc_mb_per_s", text, rate, "MB/s", mb_per_s / rate))
    return Report("produce", {"cluster": description, **asdict(settings)}, tuple(figures))


async def measure(target: Target, settings: ProduceSettings, say: Say) -> Measured:
    """Sends for the warm-up and the measurement."""
    async with loaded(target, settings) as (load, meter):
        say("produce: warming up")
        await load.during(asyncio.sleep(settings.warm_up_seconds))
        say(f"produce: measuring for {settings.seconds:g} s")
        work = between(target.usage(), asyncio.sleep(settings.seconds), meter)
        return await load.during(work)


@asynccontextmanager
async def loaded(
    target: Target, settings: ProduceSettings
) -> AsyncGenerator[tuple[Background, Meter]]:
    """Sends to a topic of its own until the block ends; then all is acknowledged, or it raises."""
    meter, contents = Meter(), contents_of(settings)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        # A client is one connection to each node: each producer has its own.
        clients = [await enter(Client(target.bootstrap)) for _ in range(settings.producers)]
        topic = await enter(bench_topic(clients[0], settings.partitions, settings.topic_config))
        config = settings.producer_config
        producers = [await enter(client.producer(config)) for client in clients]
        sending = [_send(each, topic, settings.interface, contents, meter) for each in producers]
        async with running(together(sending)) as load:
            yield load, meter
        for producer in producers:
            await producer.flush()
        meter.check()


def contents_of(settings: ProduceSettings) -> list[list[bytes]]:
    """Returns the values of some batches."""
    return [
        [os.urandom(settings.record_bytes) for _ in range(settings.batch_records)]
        for _ in range(CONTENTS_COUNT)
    ]


async def _send(
    producer: Producer,
    topic: str,
    interface: Interface,
    contents: Sequence[list[bytes]],
    meter: Meter,
) -> None:
    """Sends until it is cancelled; the producer's window makes it wait."""
    while True:
        for values in contents:
            if interface is Interface.BATCH:
                since_s = time.perf_counter()
                delivery = await producer.send_batch(topic, values)
                meter.watch(delivery, len(values), since_s)
            else:
                await _send_singly(producer, topic, values, meter)


async def _send_singly(producer: Producer, topic: str, values: list[bytes], meter: Meter) -> None:
    for at in range(0, len(values), WATCH_EVERY):
        *unwatched, last = values[at : at + WATCH_EVERY]
        for value in unwatched:
            await producer.send(topic, value)
        since_s = time.perf_counter()
        meter.watch(await producer.send(topic, last), len(unwatched) + 1, since_s)


async def between(
    usage: Usage | None, period: Coroutine[None, None, None], meter: Meter
) -> Measured:
    """Takes what happens during a period."""
    records, meter.latencies_s = meter.records, []
    meter.is_recording = True
    spent = await spent_during(usage, period)
    meter.is_recording = False
    meter.check()
    return Measured(meter.records - records, meter.latencies_s, spent)


def figures_of(measured: Measured, record_bytes: int) -> list[Figure]:
    """Returns what a load came to; the first figure is the rate in MB/s."""
    size_bytes, seconds = measured.records * record_bytes, measured.spent.seconds
    return [
        Figure("mb_per_s", "acknowledged", size_bytes / seconds / 1e6, "MB/s"),
        Figure("records_per_s", "acknowledged", measured.records / seconds, "records/s"),
        *latency_figures("ack", "acknowledgement", summarise(measured.latencies_s)),
        *measured.spent.figures(size_bytes),
    ]
