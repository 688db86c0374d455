"""`rakit bench latency`: how long single records take through `send()`.

Two loads after each other on one cluster. First one caller that sends a record, awaits its receipt
and sends the next: the time that a request costs when nothing else is going on. Then an open loop:
sends are due at a fixed rate whatever the cluster does, and each is counted from when it was due
(see `pacing`). The rate is given, or a part of the most that the same calls reach in a closed loop
just before, the last acknowledgement included.

Records have no key, so the SDK gives each partition a run of them in turn. The reference is the
round trip of a message of the same size on a bare gRPC stream: a record needs at least one from the
client to the leader and one from the leader to a follower, and an fsync on both nodes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

from rakit.client.bench.echo import measure_round_trips
from rakit.client.bench.figures import summarise
from rakit.client.bench.meter import Meter
from rakit.client.bench.pacing import Pace, RealClock, send_paced
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report, latency_figures
from rakit.client.bench.target import bench_topic, cluster_at
from rakit.client.client import Client
from rakit.client.demo.verify import durable
from rakit.client.producing.producer import Producer

#: Before each load, so that connections are open and the interpreter has seen the code.
WARM_UP_S_MAX: Final = 1.0
REFERENCE_S_MIN, REFERENCE_S_MAX = 0.3, 5.0


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """What is sent, how often, and for how long each load lasts."""

    rate: float = 1000
    record_bytes: int = 100
    seconds: float = 20
    partitions: int = 6
    #: The part of the maximum that is the rate, instead of `rate`; 0: `rate` is.
    of_maximum: float = 0

    @property
    def warm_up_seconds(self) -> float:
        """What goes before each load and is not measured."""
        return min(self.seconds, WARM_UP_S_MAX)

    @property
    def reference_seconds(self) -> float:
        """How long the reference is measured."""
        return min(max(REFERENCE_S_MIN, self.seconds / 3), REFERENCE_S_MAX)


async def bench_latency(bootstrap: str | None, settings: LatencySettings, say: Say) -> Report:
    """Measures both loads, then the reference."""
    async with cluster_at(bootstrap) as target:
        description = target.description
        async with (
            Client(target.bootstrap) as client,
            bench_topic(client, settings.partitions) as topic,
            client.producer() as producer,
        ):
            sender = _Sender(producer, topic, settings)
            say("latency: one caller")
            await sender.one_by_one(settings.warm_up_seconds)
            single = summarise(await sender.one_by_one(settings.seconds))
            if settings.of_maximum:
                say("latency: the maximum")
                await sender.maximum(settings.warm_up_seconds)
                maximum = await sender.maximum(settings.seconds)
                settings = replace(settings, rate=float(round(settings.of_maximum * maximum)))
            say(f"latency: {settings.rate:g} records/s")
            await sender.paced(settings.rate, settings.warm_up_seconds)
            paced = summarise(await sender.paced(settings.rate, settings.seconds))
    say("reference: bare gRPC")
    trips = summarise(await measure_round_trips(settings.record_bytes, settings.reference_seconds))
    figures = (
        *latency_figures("single", "one caller", single),
        *latency_figures("paced", f"{settings.rate:g} records/s", paced),
        Figure(
            "grpc_p50",
            "reference: bare gRPC round trip, p50",
            trips.p50_ms,
            "ms",
            single.p50_ms / trips.p50_ms,
        ),
        Figure(
            "grpc_p99",
            "reference: bare gRPC round trip, p99",
            trips.p99_ms,
            "ms",
            single.p99_ms / trips.p99_ms,
        ),
    )
    return Report("latency", {"cluster": description, **asdict(settings)}, figures)


class _Sender:
    """Sends records of one size to one topic."""

    def __init__(self, producer: Producer, topic: str, settings: LatencySettings) -> None:
        self._producer = producer
        self._topic = topic
        self._value = os.urandom(settings.record_bytes)

    async def one_by_one(self, seconds: float) -> list[float]:
        """Sends each record when the one before is acknowledged; returns the times in seconds."""
        times: list[float] = []
        began_s = time.perf_counter()
        while (sent_s := time.perf_counter()) - began_s < seconds or not times:
            durable(await (await self._producer.send(self._topic, self._value)))
            times.append(time.perf_counter() - sent_s)
        return times

    async def maximum(self, seconds: float) -> float:
        """Sends whenever the producer has room; returns acknowledged records a second."""
        meter, sent = Meter(), 0
        began_s = time.perf_counter()
        while (now_s := time.perf_counter()) - began_s < seconds or not sent:
            meter.watch(await self._producer.send(self._topic, self._value), 1, now_s)
            sent += 1
        await self._producer.flush()
        await meter.until(sent)
        return sent / (time.perf_counter() - began_s)

    async def paced(self, rate: float, seconds: float) -> list[float]:
        """Sends at the rate; returns the times in seconds from when each send was due."""
        meter = Meter()

        async def send(ended: Callable[[], None]) -> None:
            meter.then(await self._producer.send(self._topic, self._value), ended)

        pace = Pace(rate, seconds)
        times = await send_paced(pace, send, RealClock())
        await self._producer.flush()
        await meter.until(pace.count)
        return times
