"""`rakit bench restart`: how long a cluster with data takes to serve again.

Three nodes of its own are filled, all of them end, and all are started at once. Twice: after
SIGKILL, when each has to replay and check what was not flushed, and after a clean stop. Counted
from the start of the processes:

- ready: until the last node has said that it is ready;
- all led: until each node knows a leader of every partition on a node that is up;
- acknowledged: until the first record is, of a client that was there before and goes on trying.

The operating system's cache is as warm as the fill left it; after a power cut it would be cold.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Final

from rakit.client.bench.filling import fill
from rakit.client.bench.population import all_led
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.target import Target, bench_topic, own_cluster
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.config import ClientConfig, ProducerConfig
from rakit.client.demo.processes import STOP_TIMEOUT_S, NodeProcess
from rakit.client.demo.verify import durable

READY_S_MAX: Final = 600.0
VALUE: Final = bytes(100)


@dataclass(frozen=True, slots=True)
class RestartSettings:
    """How much is there."""

    gb: float = 1
    record_bytes: int = 1024
    partitions: int = 6


@dataclass(frozen=True, slots=True)
class _Restart:
    """Seconds from the start of the processes."""

    ready_s: float
    led_s: float
    acknowledged_s: float

    def figures(self, key: str, text: str) -> list[Figure]:
        """As they are shown."""
        return [
            Figure(f"{key}_ready_s", f"{text}: all ready", self.ready_s, "s"),
            Figure(f"{key}_led_s", f"{text}: all led", self.led_s, "s"),
            Figure(f"{key}_acknowledged_s", f"{text}: acknowledged", self.acknowledged_s, "s"),
        ]


async def bench_restart(settings: RestartSettings, say: Say) -> Report:
    """Measures three nodes of our own."""
    async with (
        own_cluster() as target,
        Client(_patient(target)) as client,
        bench_topic(client, settings.partitions) as topic,
    ):
        say(f"restart: writing {settings.gb:g} GB")
        wanted = max(1, round(settings.gb * 1e9) // settings.record_bytes)
        await fill(client, topic, settings.record_bytes, wanted)
        say("restart: all nodes are killed")
        for node in target.nodes:
            node.kill()
        for node in target.nodes:
            await node.wait()
        killed = await _start(target, client, topic, settings, say)
        say("restart: all nodes stop")
        began_s = time.perf_counter()
        await asyncio.gather(*(node.stop() for node in target.nodes))
        stop_s = time.perf_counter() - began_s
        if stop_s >= STOP_TIMEOUT_S:
            raise CommandError(f"a node did not stop within {STOP_TIMEOUT_S:.0f} s and was killed")
        stopped = await _start(target, client, topic, settings, say)
    figures = (
        *killed.figures("killed", "after SIGKILL"),
        Figure("stop_s", "a clean stop of all", stop_s, "s"),
        *stopped.figures("stopped", "after a clean stop"),
    )
    return Report("restart", asdict(settings), figures)


def _patient(target: Target) -> ClientConfig:
    """A client goes on asking for as long as nobody is there."""
    wait_ms = round(1000 * READY_S_MAX)
    bootstrap = tuple(target.bootstrap.split(","))
    return ClientConfig(bootstrap, request_timeout_ms=wait_ms, unreachable_timeout_ms=wait_ms)


async def _start(
    target: Target, client: Client, topic: str, settings: RestartSettings, say: Say
) -> _Restart:
    say("restart: all nodes start")
    began_s = time.perf_counter()

    async def acknowledged() -> float:
        config = ProducerConfig(delivery_timeout_ms=round(1000 * READY_S_MAX))
        async with client.producer(config) as producer:
            durable(await (await producer.send(topic, VALUE)))
        return time.perf_counter() - began_s

    async def ready(node: NodeProcess) -> float:
        await node.start(READY_S_MAX)
        return time.perf_counter() - began_s

    async def led() -> float:
        await all_led(target.nodes, settings.partitions, "restart: waiting for leaders", say)
        return time.perf_counter() - began_s

    sending = asyncio.create_task(acknowledged())
    try:
        ready_s = max(await asyncio.gather(*(ready(node) for node in target.nodes)))
        led_s = await led()
        return _Restart(ready_s, led_s, await sending)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
