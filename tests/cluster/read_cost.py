"""`python -m tests.cluster.read_cost`: what a confirmed read costs on three nodes (decision 0011).

`GetOffsets` tells the latest offset, which takes one round of heartbeats for all callers that wait.
`Fetch` of a record that is there takes none. Given are wall times of a call, and the CPU time that
the three nodes spend on it beside what they spend on being there. The kinds take turns, so that
they see the same machine.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from rakit.api.v1.log_service_pb2 import (
    FetchRequest,
    GetOffsetsRequest,
    Position,
    ProduceRequest,
)
from rakit.api.v1.record_pb2 import Record, Rows
from tests.cluster.harness import Cluster, cluster_of

TURNS = 6
CALLS = 60
IDLE_S = 5
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Call: TypeAlias = Callable[[], Awaitable[object]]


def cpu_s(cluster: Cluster) -> float:
    """CPU time of every node since its start."""
    total = 0
    for node in cluster.nodes.values():
        assert node.process is not None, "every node runs"
        fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


async def idle_share(cluster: Cluster) -> float:
    """CPU seconds that the nodes take in a second in which nobody asks for anything."""
    before, began = cpu_s(cluster), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    return (cpu_s(cluster) - before) / (time.perf_counter() - began)


async def callers(count: int, call: Call) -> list[float]:
    """Wall times of calls, made by so many callers, each one after the other."""
    walls: list[float] = []

    async def one() -> None:
        for _ in range(CALLS):
            began = time.perf_counter()
            await call()
            walls.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(count)))
    return walls


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with cluster_of(Path(directory) / "nodes", "a", "b", "c") as cluster:
            cluster.start()
            await cluster.ready()
            await cluster.create("t")
            leader = await cluster.leader("t")
            log = leader.log
            one_record = ProduceRequest(
                topic="t", partition=0, rows=Rows(records=[Record(value=b"x" * 100)])
            )
            elsewhere = cluster.others(leader)[0].log
            await log.Produce(one_record)
            offsets = GetOffsetsRequest(topic="t")
            # No more than the one batch that is returned whatever its size.
            fetch = FetchRequest(positions=[Position(topic="t")], max_bytes=1)
            kinds: dict[str, tuple[int, Call]] = {
                "Fetch at the leader, no proof": (1, lambda: log.Fetch(fetch)),
                "GetOffsets at the leader": (1, lambda: log.GetOffsets(offsets)),
                "GetOffsets at another node": (1, lambda: elsewhere.GetOffsets(offsets)),
                "GetOffsets, 16 callers": (16, lambda: log.GetOffsets(offsets)),
                "Produce at the leader": (1, lambda: log.Produce(one_record)),
            }
            idle = await idle_share(cluster)
            walls: dict[str, list[float]] = {kind: [] for kind in kinds}
            cpu = dict.fromkeys(kinds, 0.0)
            for _ in range(TURNS):
                for kind, (count, call) in kinds.items():
                    before, began = cpu_s(cluster), time.perf_counter()
                    walls[kind] += await callers(count, call)
                    spent, passed = cpu_s(cluster) - before, time.perf_counter() - began
                    cpu[kind] += spent - idle * passed
            for kind, found in walls.items():
                print(
                    f"{kind}: p50 {statistics.median(found) * 1e3:.2f} ms,"
                    f" p99 {statistics.quantiles(found, n=100)[98] * 1e3:.2f} ms,"
                    f" {cpu[kind] / len(found) * 1e3:.2f} ms of the nodes' CPU a call"
                )


if __name__ == "__main__":
    asyncio.run(main())
