"""`rakit bench produce`: how much a cluster takes in, in a closed loop.

One producer keeps a fixed amount unacknowledged and sends more as soon as something is
acknowledged. After the warm-up two moments are compared: what was acknowledged between them, what
the processes used meanwhile, and how long acknowledgements took that came in between (from the call
to the acknowledgement, so waiting inside the producer counts, and a larger window makes it longer).

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
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from rakit.client.bench.background import running
from rakit.client.bench.disk import measure_disk
from rakit.client.bench.echo import measure_rate
from rakit.client.bench.figures import summarise
from rakit.client.bench.meter import Meter
from rakit.client.bench.pipeline import measure_pipeline
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report, latency_figures
from rakit.client.bench.target import NODES_COUNT, Target, bench_topic, cluster_at
from rakit.client.bench.usage import Usage
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

    seconds: float
    records: int
    latencies_s: list[float]
    client_cpu_s: float
    # Of each node; empty for a cluster of others.
    node_cpu_s: list[float]
    node_rss_peak_bytes: list[int]


async def bench_produce(bootstrap: str | None, settings: ProduceSettings, say: Say) -> Report:
    """Measures a cluster, then the references."""
    async with cluster_at(bootstrap) as target:
        description = target.description
        measured = await measure(target, settings, say)
    if not measured.latencies_s:
        raise CommandError("nothing was acknowledged in the measured time; measure for longer")
    mb_per_s = measured.records * settings.record_bytes / measured.seconds / 1e6
    figures = _figures(measured, mb_per_s)
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
    if usage is None:
        return await _counted(None, seconds, meter)
    async with running(usage.watch_memory()):
        return await _counted(usage, seconds, meter)


async def _counted(usage: Usage | None, seconds: float, meter: Meter) -> Measured:
    began_s, records = time.perf_counter(), meter.records
    client_cpu_s, node_cpu_s = time.process_time(), usage.cpu_s() if usage else []
    meter.is_recording = True
    await asyncio.sleep(seconds)
    meter.is_recording = False
    meter.check()
    after_s = usage.cpu_s() if usage else []
    return Measured(
        time.perf_counter() - began_s,
        meter.records - records,
        meter.latencies_s,
        time.process_time() - client_cpu_s,
        [after - before for before, after in zip(node_cpu_s, after_s, strict=True)],
        usage.rss_peak_bytes if usage else [],
    )


def _figures(measured: Measured, mb_per_s: float) -> list[Figure]:
    per_s = measured.records / measured.seconds
    figures = [
        Figure("mb_per_s", "acknowledged", mb_per_s, "MB/s"),
        Figure("records_per_s", "acknowledged", per_s, "records/s"),
        *latency_figures("ack", "acknowledgement", summarise(measured.latencies_s)),
        Figure("client_cpu_s", "CPU of the client", measured.client_cpu_s, "s"),
    ]
    if measured.node_cpu_s:
        cpu_s, peak = sum(measured.node_cpu_s), max(measured.node_rss_peak_bytes)
        figures += [
            Figure("nodes_cpu_s", "CPU of all nodes", cpu_s, "s"),
            Figure("node_rss_peak_mb", "largest node's memory, peak", peak / 1e6, "MB"),
        ]
    return figures
