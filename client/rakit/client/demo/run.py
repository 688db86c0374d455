"""The story: found a cluster, send every flight, crash a leader on the way, and count.

Every figure in the table is computed from what was sent, acknowledged and read back in this run.
The exit code is 0 only if every promise held.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

from rakit.client.client import Client
from rakit.client.config import ProducerConfig
from rakit.client.demo import flights
from rakit.client.demo.processes import SMALL_RESERVE, LocalCluster, NodeProcess
from rakit.client.demo.readback import read_back
from rakit.client.demo.verify import Verdict, durable, judge
from rakit.client.model import Digest
from rakit.client.producing.batch import Delivery

TOPIC: Final = "flights"
PARTITIONS: Final = 6
REPLICAS: Final = 3
#: Parts of the records that are acknowledged when the leader is killed, and when it comes back.
KILL_AT: Final = 0.35
RESTART_AT: Final = 0.70
#: Every so many records one is watched for the moment of its acknowledgement.
WATCH_EVERY: Final = 16
#: Little in flight, so that the crash meets a stream of records and not one large buffer.
PRODUCER: Final = ProducerConfig(batch_bytes_max=64 << 10, unacknowledged_bytes_max=1 << 20)
#: How long the restarted node may take to hold everything again.
CATCH_UP_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.1


@dataclass(slots=True)
class Acknowledgements:
    """When records were acknowledged, and how long nothing was."""

    count: int = 0
    last_s: float = 0.0
    longest_gap_s: float = 0.0
    milestones: list[tuple[float, asyncio.Event]] = field(
        default_factory=list[tuple[float, asyncio.Event]]
    )

    def note(self, count: int) -> None:
        """Takes note of an acknowledgement that came now."""
        now = time.monotonic()
        if self.last_s:
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_s)
        self.last_s = now
        self.count += count
        for wanted, event in self.milestones:
            if self.count >= wanted:
                event.set()

    async def reach(self, count: float) -> None:
        """Waits until so many are acknowledged; returns at once when they are already."""
        if self.count < count:
            event = asyncio.Event()
            self.milestones.append((count, event))
            await event.wait()


@dataclass(frozen=True, slots=True)
class Story:
    """What a run found out."""

    verdict: Verdict
    # By partition: the hashes of its replicas, and the offset up to which they have to hold it.
    digests: list[Digest]
    ends: list[int]
    seconds: float
    size_bytes: int
    longest_gap_s: float
    killed: str

    @property
    def kept(self) -> bool:
        """Every promise held, and every replica of every partition holds the same, all of it."""
        return self.verdict.kept and all(map(is_whole, self.digests, self.ends))


def is_whole(digest: Digest, end_offset: int) -> bool:
    """Whether all replicas have answered, alike, for everything up to the end."""
    return digest.agrees and len(digest.replicas) == REPLICAS and digest.end_offset == end_offset


def ends_of(receipts: list[tuple[int, int]]) -> list[int]:
    """Returns where each partition must end, by what was acknowledged."""
    ends = [0] * PARTITIONS
    for partition, offset in receipts:
        ends[partition] = max(ends[partition], offset + 1)
    return ends


async def run_demo(console: Console) -> int:
    """Runs the demonstration; returns the exit code."""
    with console.status("fetching the flights"):
        archive = await flights.fetch()
        rows = await asyncio.to_thread(flights.read, archive)
    console.print(f"{len(rows):,} flights, the key is the aircraft's tail number")
    with tempfile.TemporaryDirectory(prefix="rakit-demo-") as directory:
        cluster = LocalCluster(Path(directory), extra=SMALL_RESERVE)
        with console.status("starting three nodes"):
            await cluster.__aenter__()
        try:
            story = await _tell(console, cluster, rows)
        finally:
            await cluster.__aexit__(None, None, None)
    console.print(_table(story))
    if story.kept:
        console.print("[green]every promise held[/green]")
        return 0
    console.print("[red]a promise was broken[/red]")
    return 1


async def _tell(console: Console, cluster: LocalCluster, rows: list[flights.Flight]) -> Story:
    addresses = ", ".join(node.address for node in cluster.nodes)
    console.print(f"three nodes on {addresses}")
    async with Client(cluster.bootstrap) as client:
        await client.admin.create_topic(TOPIC, PARTITIONS, REPLICAS)
        acks = Acknowledgements()
        began = time.monotonic()
        receipts, victim = await _produce(console, client, cluster, rows, acks)
        seconds = acks.last_s - began
    other = next(node for node in cluster.nodes if node is not victim)
    with console.status(f"reading everything back through {other.name}, with the bare stubs"):
        read = await read_back(other.address, TOPIC, PARTITIONS)
    verdict, ends = judge(rows, receipts, read), ends_of(receipts)
    async with Client(other.address) as client:
        with console.status("comparing the replicas"):
            digests = await _digests(client, ends)
    size_bytes = sum(len(row.value) + len(row.key or b"") for row in rows)
    return Story(verdict, digests, ends, seconds, size_bytes, acks.longest_gap_s, victim.name)


async def _produce(
    console: Console,
    client: Client,
    cluster: LocalCluster,
    rows: list[flights.Flight],
    acks: Acknowledgements,
) -> tuple[list[tuple[int, int]], NodeProcess]:
    """Sends every row; returns where each one went and who was killed meanwhile."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Elapsed(),
        console=console,
    )
    with bar:
        task = bar.add_task("producing", total=len(rows))
        disaster = asyncio.create_task(_disaster(bar, client, cluster, acks, len(rows)))
        try:
            deliveries = await _send_all(client, rows, acks, bar, task)
            victim = await disaster
        finally:
            disaster.cancel()
    receipts = [durable(delivery.result()) for delivery in deliveries]
    return [(receipt.partition, receipt.offset) for receipt in receipts], victim


async def _send_all(
    client: Client,
    rows: list[flights.Flight],
    acks: Acknowledgements,
    bar: Progress,
    task: TaskID,
) -> list[Delivery]:
    def watched(_delivery: Delivery) -> None:
        acks.note(WATCH_EVERY)
        bar.update(task, completed=acks.count)

    deliveries: list[Delivery] = []
    async with client.producer(PRODUCER) as producer:
        for number, row in enumerate(rows):
            delivery = await producer.send(TOPIC, row.value, row.key)
            deliveries.append(delivery)
            if number % WATCH_EVERY == WATCH_EVERY - 1:
                delivery.add_done_callback(watched)
    bar.update(task, completed=len(rows))
    return deliveries


async def _disaster(
    bar: Progress, client: Client, cluster: LocalCluster, acks: Acknowledgements, total: int
) -> NodeProcess:
    """Kills the node that leads most partitions, and starts it again later."""
    await acks.reach(KILL_AT * total)
    victim = await _busiest_leader(client, cluster)
    victim.kill()
    bar.console.print(f"SIGKILL to {victim.name}, which led most partitions")
    await victim.wait()
    await acks.reach(RESTART_AT * total)
    await victim.start()
    bar.console.print(f"{victim.name} is back")
    return victim


async def _busiest_leader(client: Client, cluster: LocalCluster) -> NodeProcess:
    topic = await client.admin.get_topic(TOPIC)
    led = Counter(partition.leader_address for partition in topic.partitions)
    address = max(led, key=lambda one: led[one])
    return next(node for node in cluster.nodes if node.address == address)


async def _digests(client: Client, ends: list[int]) -> list[Digest]:
    """Returns each partition's hashes: those of the whole, or the last ones when time is up."""
    deadline = time.monotonic() + CATCH_UP_TIMEOUT_S
    digests: list[Digest] = []
    for partition, end in enumerate(ends):
        digest = await client.admin.get_digest(TOPIC, partition)
        while not is_whole(digest, end):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL_S)
            digest = await client.admin.get_digest(TOPIC, partition)
        digests.append(digest)
    return digests


def _table(story: Story) -> Table:
    verdict = story.verdict
    table = Table(title="rakit demo", show_header=False)
    table.add_column("what")
    table.add_column("result", justify="right")
    must_be_zero = [
        ("lost", verdict.lost),
        ("doubled", verdict.doubled),
        ("out of order per key", verdict.out_of_order),
        ("at a wrong place", verdict.wrong),
        ("gaps in offsets", verdict.gaps),
    ]
    table.add_row("records sent", f"{verdict.sent:,}")
    table.add_row("records read", f"{verdict.read:,}")
    for name, count in must_be_zero:
        table.add_row(name, f"[red]{count:,}[/red]" if count else "0")
    for partition, (digest, end) in enumerate(zip(story.digests, story.ends, strict=True)):
        table.add_row(f"digest of partition {partition}", _digest_text(digest, end))
    table.add_row("records/s", f"{verdict.sent / story.seconds:,.0f}")
    table.add_row("MB/s", f"{story.size_bytes / story.seconds / 1e6:.1f}")
    table.add_row(
        f"longest wait for an ack ({story.killed} killed)", f"{story.longest_gap_s:.2f} s"
    )
    return table


def _digest_text(digest: Digest, end: int) -> str:
    if is_whole(digest, end):
        return f"{digest.replicas[0].digest[:16]}… on all {len(digest.replicas)} replicas"
    shown = (f"node {one.node_id}: {one.digest[:8] or one.error}" for one in digest.replicas)
    return f"[red]{', '.join(shown)}, up to {digest.end_offset:,} of {end:,}[/red]"
