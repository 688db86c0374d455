"""How each kind of work is measured, for every system alike. One call is one measurement.

Rules:

- What begins before the warm-up is over, and what is acknowledged after the end, does not count: in
  a closed loop two moments are compared, between which the load goes on.
- In an open loop a record counts from when it was due (`rakit.client.bench.pacing`), and one that
  is not acknowledged when patience ends counts with what it has waited by then.
- The records in the log are counted in the end; fewer than were acknowledged are an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGSTOP, Signals
from typing import TypeVar

from rakit.client.bench.figures import has_settled, percentile
from rakit.client.bench.pacing import Pace, RealClock, send_paced
from tests.bench.processes import Watch, pss_bytes, taken
from tests.bench.systems.base import (
    Client,
    Cluster,
    Ended,
    MeasurementError,
    Single,
    System,
    Tally,
    contents,
)
from tests.bench.systems.references import Bare
from tests.bench.works import Interface, Kind, Work

#: After a load has ended, until everything is acknowledged.
DRAIN_S_MAX = 60.0
#: What a log is filled with before it is read, whatever comes first.
FILL_BYTES, FILL_COUNT = 512 << 20, 2_000_000
#: Longer than any election.
GAP_S_MAX = 90.0
#: Of the CPU time of nodes that nobody uses.
SAMPLE_S, SETTLE_S_MAX = 2.0, 180.0
#: Below so many cores of all nodes together a system counts as settled: sampling is coarse.
QUIET_CORES = 0.06
NUMBER_BYTES = 8

_Result = TypeVar("_Result")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long is measured, and what goes before it."""

    seconds: float
    warm_s: float


async def measure(
    system: System, work: Work, setting: str, directory: Path, timing: Timing
) -> Figures:
    """Returns what one measurement comes to; raises whatever makes it worthless."""
    if isinstance(system, Bare) and work.kind is Kind.PRODUCE:
        rate = await system.mb_per_s(work, directory, timing.seconds)
        return {"mb_per_s": rate, "records_per_s": rate * 1e6 / work.size_bytes}
    async with system.cluster(directory) as cluster:
        client = system.client(cluster, setting)
        try:
            await client.open()
            match work.kind:
                case Kind.PRODUCE:
                    return await _produce(cluster, client, work, timing)
                case Kind.UNARY:
                    return await _unary(cluster, client, work, timing)
                case Kind.LATENCY:
                    return await _latency(cluster, client, work, timing)
                case Kind.TAIL:
                    return await _tail(cluster, client, work, timing)
                case Kind.READ:
                    batches = system.can(replace(_filling(work), interface=Interface.BATCH))
                    return await _read(cluster, client, work, timing, batches=batches)
                case Kind.KILL:
                    return await _gap(cluster, client, work, timing, SIGKILL)
                case Kind.PAUSE:
                    return await _gap(cluster, client, work, timing, SIGSTOP)
                case Kind.IDLE:
                    return await _idle(cluster, client, work, timing)
        finally:
            await client.close()


async def _beside(load: asyncio.Task[None], work: Coroutine[None, None, _Result]) -> _Result:
    """Awaits work beside a load that is not to end before."""
    doing = asyncio.ensure_future(work)
    await asyncio.wait({doing, load}, return_when=asyncio.FIRST_COMPLETED)
    if load.done():
        doing.cancel()
        load.result()
        raise MeasurementError("the load ended by itself")
    return doing.result()


@asynccontextmanager
async def _pumping(client: Client, work: Work) -> AsyncGenerator[tuple[Tally, asyncio.Task[None]]]:
    """A closed loop that goes on through the block; then everything is acknowledged and there."""
    tally = Tally()
    load = asyncio.create_task(client.pump(work, tally))
    try:
        yield tally, load
        tally.is_over = True
        async with asyncio.timeout(DRAIN_S_MAX):
            await load
    finally:
        # A thread ends by this alone.
        tally.is_over = True
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    await _check(client, tally.acknowledged)


async def _check(client: Client, acknowledged: int) -> None:
    stored = await client.stored()
    if stored is not None and stored < acknowledged:
        raise MeasurementError(f"{acknowledged:,} records were acknowledged, {stored:,} are there")


async def _produce(cluster: Cluster, client: Client, work: Work, timing: Timing) -> Figures:
    await client.create(work.partitions)
    async with _pumping(client, work) as (tally, load):
        await _beside(load, asyncio.sleep(timing.warm_s))
        with Watch(cluster.pids()) as watch:
            before = tally.acknowledged
            await _beside(load, asyncio.sleep(timing.seconds))
            count = tally.acknowledged - before
    if count <= 0:
        raise MeasurementError("nothing was acknowledged in the measured time")
    gigabytes = count * work.size_bytes / 1e9
    return {
        "records_per_s": count / watch.seconds,
        "mb_per_s": 1000 * gigabytes / watch.seconds,
        "cpu_s_per_gb": watch.cpu_s / gigabytes,
        **watch.figures(),
    }


async def _unary(cluster: Cluster, client: Client, work: Work, timing: Timing) -> Figures:
    await client.create(1)
    tally = Tally()
    async with client.calling(work.size_bytes) as call:

        async def caller() -> None:
            while not tally.is_over:
                await call()
                tally.add(1)

        async def callers() -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(work.clients):
                    tasks.create_task(caller())

        load = asyncio.create_task(callers())
        try:
            await _beside(load, asyncio.sleep(timing.warm_s))
            with Watch(cluster.pids()) as watch:
                before = tally.acknowledged
                await _beside(load, asyncio.sleep(timing.seconds))
                count = tally.acknowledged - before
            tally.is_over = True
            await load
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
    await _check(client, tally.acknowledged)
    return {"records_per_s": count / watch.seconds, **watch.figures()}


def _times(latencies_s: Sequence[float], count: int, last_due_s: float) -> Figures:
    """Percentiles in ms; what is missing has waited at least since the last one was due."""
    missing = count - len(latencies_s)
    waits_s = sorted([*latencies_s, *[time.perf_counter() - last_due_s] * missing])
    return {
        "p50_ms": 1000 * percentile(waits_s, 50),
        "p99_ms": 1000 * percentile(waits_s, 99),
        "p999_ms": 1000 * percentile(waits_s, 99.9),
        "max_ms": 1000 * waits_s[-1],
        "unacknowledged": missing,
    }


async def _latency(cluster: Cluster, client: Client, work: Work, timing: Timing) -> Figures:
    await client.create(1)
    value, sent, done = contents(work.size_bytes)[0], 0, 0
    async with client.single(retrying=False) as single:

        async def send(ended: Ended) -> None:
            nonlocal sent

            def acknowledged() -> None:
                nonlocal done
                done += 1
                ended()

            sent += 1
            await single.send(value, acknowledged)

        if timing.warm_s:
            await send_paced(Pace(work.rate, timing.warm_s), send, RealClock())
        pace = Pace(work.rate, timing.seconds)
        with Watch(cluster.pids()) as watch:
            latencies_s = await send_paced(pace, send, RealClock())
            last_due_s = time.perf_counter()
            await _drained(single, lambda: done >= sent)
        figures = _times(latencies_s, pace.count, last_due_s)
    await _check(client, done)
    return {**figures, **watch.figures()}


async def _drained(single: Single, is_done: Callable[[], bool]) -> None:
    """Waits for what is on its way, but not for ever."""
    try:
        async with asyncio.timeout(DRAIN_S_MAX):
            await single.drain()
            while not is_done():  # noqa: ASYNC110 - a thread of a library may be who changes it
                await asyncio.sleep(0.01)
    except TimeoutError:
        return


async def _tail(cluster: Cluster, client: Client, work: Work, timing: Timing) -> Figures:
    await client.create(1)
    rest = contents(work.size_bytes)[0][NUMBER_BYTES:]
    sent = 0
    waiting: dict[int, Ended] = {}

    def got(value: bytes) -> None:
        waiting.pop(int.from_bytes(value[:NUMBER_BYTES], "big"))()

    async with client.single(retrying=False) as single, client.tail(got):

        async def send(ended: Ended) -> None:
            nonlocal sent
            sent += 1
            waiting[sent] = ended
            await single.send(sent.to_bytes(NUMBER_BYTES, "big") + rest, lambda: None)

        await send_paced(Pace(work.rate, max(timing.warm_s, 0.5)), send, RealClock())
        pace = Pace(work.rate, timing.seconds)
        with Watch(cluster.pids()) as watch:
            latencies_s = await send_paced(pace, send, RealClock())
            last_due_s = time.perf_counter()
            await _drained(single, lambda: not waiting)
        figures = _times(latencies_s, pace.count, last_due_s)
    return {**figures, **watch.figures()}


def _filling(work: Work) -> Work:
    return replace(work, kind=Kind.PRODUCE, clients=1)


async def _read(
    cluster: Cluster, client: Client, work: Work, timing: Timing, *, batches: bool
) -> Figures:
    await client.create(1)
    interface = Interface.BATCH if batches else Interface.RECORD
    filling = replace(_filling(work), interface=interface)
    async with _pumping(client, filling) as (tally, load):
        until_s = time.perf_counter() + max(timing.seconds, timing.warm_s)
        wanted = min(FILL_COUNT, FILL_BYTES // work.size_bytes)
        while tally.acknowledged < wanted and time.perf_counter() < until_s:
            await _beside(load, asyncio.sleep(0.05))
    count = tally.acknowledged
    await client.read(max(1, count // 10), work.interface)
    passes = 0
    with Watch(cluster.pids()) as watch:
        began_s = time.perf_counter()
        while not passes or time.perf_counter() - began_s < timing.seconds:
            read = [client.read(count, work.interface) for _ in range(work.clients)]
            sizes = await asyncio.gather(*read)
            passes += 1
            if any(size < count * work.size_bytes for size in sizes):
                raise MeasurementError(f"{count:,} records were filled in, {sizes} bytes read")
    records = passes * work.clients * count
    return {
        "records_per_s": records / watch.seconds,
        "mb_per_s": records * work.size_bytes / watch.seconds / 1e6,
        **watch.figures(),
    }


async def _gap(
    cluster: Cluster, client: Client, work: Work, timing: Timing, number: Signals
) -> Figures:
    await client.create(1)
    value, struck_s = contents(work.size_bytes)[0], float("inf")
    after: list[float] = []
    began_s = time.perf_counter()

    def ended(sent_s: float) -> None:
        if sent_s >= struck_s:
            after.append(time.perf_counter())

    async with client.single(retrying=True) as single:
        while not after:
            now_s = time.perf_counter()
            if now_s - began_s > timing.warm_s and struck_s > now_s:
                leader = await client.leader()
                struck_s = time.perf_counter()
                cluster.signal(leader, number)
            if now_s - min(struck_s, now_s) > GAP_S_MAX:
                raise MeasurementError(f"nothing was acknowledged for {GAP_S_MAX:.0f} s")
            await single.send(value, partial(ended, time.perf_counter()))
            await asyncio.sleep(1 / work.rate)
        return {"gap_s": after[0] - struck_s}


async def _idle(cluster: Cluster, client: Client, work: Work, timing: Timing) -> Figures:
    pids = cluster.pids()
    empty_cores, empty_bytes = await _at_rest(pids, timing.seconds), pss_bytes(pids)
    began_s = time.perf_counter()
    await client.create(work.partitions)
    created_s = time.perf_counter() - began_s
    cores, size_bytes = await _at_rest(pids, timing.seconds), pss_bytes(pids)
    return {
        "cores": cores,
        "cores_per_partition": max(cores - empty_cores, 0.0) / work.partitions,
        "replica_kb": (size_bytes - empty_bytes) / (3 * work.partitions) / 1e3,
        "memory_mib": size_bytes / (1 << 20),
        "created_s": created_s,
    }


async def _at_rest(pids: Sequence[int], seconds: float) -> float:
    """Waits until the CPU use of all nodes has stopped falling; returns the cores they use then."""
    samples: list[float] = []
    while not has_settled(samples, quiet=QUIET_CORES):
        if len(samples) * SAMPLE_S > SETTLE_S_MAX:
            raise MeasurementError(f"not at rest: {samples[-3:]} cores")
        samples.append(await _cores(pids, SAMPLE_S))
    return await _cores(pids, seconds)


async def _cores(pids: Sequence[int], seconds: float) -> float:
    before, began_s = taken(pids).cpu_s, time.perf_counter()
    await asyncio.sleep(seconds)
    return (taken(pids).cpu_s - before) / (time.perf_counter() - began_s)
