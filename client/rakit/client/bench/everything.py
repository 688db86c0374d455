"""`rakit bench all`: every bench after the other, with the goals of the project beside the figures.

The settings are those for which the goals were set, with durations that make it a few minutes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from rakit.client.bench.failover import bench_failover
from rakit.client.bench.idle import IdleSettings, bench_idle
from rakit.client.bench.latency import LatencySettings, bench_latency
from rakit.client.bench.produce import Interface, ProduceSettings, bench_produce
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Report, at_least, at_most
from rakit.client.bench.start import bench_start


async def bench_all(say: Say) -> AsyncGenerator[Report]:
    """Gives each report as it is made."""
    large = ProduceSettings(seconds=20)
    small = ProduceSettings(record_bytes=100, seconds=20)
    single = ProduceSettings(record_bytes=100, seconds=10, interface=Interface.RECORD)
    produced = await bench_produce(None, large, say)
    yield produced.aiming({"mb_per_s": at_least(60)})
    many = await bench_produce(None, small, say)
    yield many.aiming({"records_per_s": at_least(600_000)})
    yield await bench_produce(None, single, say)
    latency = await bench_latency(None, LatencySettings(seconds=15), say)
    yield latency.aiming(
        {"single_p50": at_most(3), "paced_p50": at_most(5), "paced_p99": at_most(25)}
    )
    failover = await bench_failover(10, say)
    yield failover.aiming({"all_median": at_most(1000)})
    idle = await bench_idle(IdleSettings(), say)
    yield idle.aiming({"cpu_percent_max": at_most(10)})
    start = await bench_start(say)
    yield start.aiming({"ready_median_s": at_most(2)})
