"""`rakit bench produce`: how much a cluster takes in, in a closed loop.

One producer keeps a fixed amount unacknowledged and sends more as soon as something is
acknowledged. After the warm-up two moments are compared: what was acknowledged between them, what
the processes used meanwhile, and how long acknowledgements took that came in between (from the call
to the acknowledgement, so waiting inside the producer counts, and a larger window makes it longer).

The references, measured right after the cluster is gone, so that they have the machine for
themselves as the cluster had it:

- the disk: as many files as there were nodes are appended to at once and made durable after each
  MiB. Every node has to store every byte at least like that (with three replicas on three nodes).
- gRPC: the same messages there and back on one stream. A record travels over three such hops.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from rakit.client.bench.background import running
from rakit.client.bench.disk import measure_disk
from rakit.client.bench.echo import measure_rate
from rakit.client.bench.figures import summarise
from rakit.client.bench.meter import Meter
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
        """A producer with the window of the closed loop."""
        window = max(WINDOW_BATCHES * self.batch_bytes, WINDOW_BYTES_MIN)
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
            rate = await measure_disk(Path(directory), NODES_COUNT, settings.reference_seconds)
        text = f"reference: bare disk, each of {NODES_COUNT} writers"
        figures.append(Figure("disk_mb_per_s", text, rate, "MB/s", mb_per_s / rate))
    say("reference: bare gRPC")
    rate = await measure_rate(settings.batch_bytes, WINDOW_BATCHES, settings.reference_seconds)
    text = "reference: bare gRPC stream, there and back"
    figures.append(Figure("grpc_mb_per_s", text, rate, "MB/s", mb_per_s / rate))
    return Report("produce", {"cluster": description, **asdict(settings)}, tuple(figures))


async def measure(target: Target, settings: ProduceSettings, say: Say) -> Measured:
    """Sends for the warm-up and the measurement."""
    async with (
        Client(target.bootstrap) as client,
        bench_topic(client, settings.partitions, settings.topic_config) as topic,
        client.producer(settings.producer_config) as producer,
    ):
        meter = Meter()
        async with running(_send(producer, topic, settings, meter)) as load:
            say("produce: warming up")
            await load.during(asyncio.sleep(settings.warm_up_seconds))
            say(f"produce: measuring for {settings.seconds:g} s")
            work = _between(target.usage(), settings.seconds, meter)
            measured = await load.during(work)
        await producer.flush()
        meter.check()
        return measured


async def _send(producer: Producer, topic: str, settings: ProduceSettings, meter: Meter) -> None:
    """Sends until it is cancelled; the producer's window makes it wait."""
    contents = [
        [os.urandom(settings.record_bytes) for _ in range(settings.batch_records)]
        for _ in range(CONTENTS_COUNT)
    ]
    while True:
        for values in contents:
            if settings.interface is Interface.BATCH:
                since_s = time.perf_counter()
                delivery = await producer.send_batch(topic, values)
                meter.watch(delivery, len(values), since_s)
            else:
                await _send_singly(producer, topic, values, meter)


async def _send_singly(producer: Producer, topic: str, values: list[bytes], meter: Meter) -> None:
    unwatched = 0
    for value in values:
        since_s = time.perf_counter()
        delivery = await producer.send(topic, value)
        unwatched += 1
        if unwatched == WATCH_EVERY or value is values[-1]:
            meter.watch(delivery, unwatched, since_s)
            unwatched = 0


async def _between(usage: Usage | None, seconds: float, meter: Meter) -> Measured:
    """Takes what happens in so many seconds."""
    records = meter.records
    meter.is_recording = True
    spent = await spent_during(usage, asyncio.sleep(seconds))
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
