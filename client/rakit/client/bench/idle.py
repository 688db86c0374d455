"""`rakit bench idle`: what partitions cost that nobody uses. `groups` tells how that grows."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rakit.client.bench.population import client_of, populate
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Report
from rakit.client.bench.target import own_cluster


@dataclass(frozen=True, slots=True)
class IdleSettings:
    """How many partitions, and for how long CPU time is taken."""

    partitions: int = 1000
    seconds: float = 20


async def bench_idle(settings: IdleSettings, say: Say) -> Report:
    """Measures three nodes of our own."""
    async with own_cluster() as target, client_of(target) as client:
        found = await populate(target, client, settings.partitions, settings.seconds, say)
    return Report("idle", {**asdict(settings), "replicas": found.replicas}, found.figures)
