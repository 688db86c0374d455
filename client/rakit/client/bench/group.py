"""`rakit bench group`: what a consumer group reads, and how long it takes to share anew.

Throughput: members join an empty topic until each has its share, and pause. The topic is filled,
they go on, and the time runs until everything was handed to the program and the commit of all of
it has been acknowledged; on the way the members commit each second, as they do by themselves.
Record by record, and again batch by batch.

Rebalances: a record goes to each partition every few milliseconds, and the members read them. The
time of an event runs until every partition is owned, the shares differ by one at most, and of each
partition a record was read that was sent after that. Three events:

- a member joins: from the call to join;
- a member leaves: from the call to leave;
- a member is killed: from the SIGKILL of a process. Its session's grace, 10 s unless the cluster
  says otherwise, has to pass before anything is given to others.

The pause is the longest time that any partition had nothing read meanwhile: what a rebalance costs
whoever waits for records. Members are in this process, so they share one core.
"""

from __future__ import annotations

import asyncio
import struct
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

from rakit.client.bench.background import Background, running
from rakit.client.bench.figures import median
from rakit.client.bench.filling import fill
from rakit.client.bench.members import Members, is_even
from rakit.client.bench.meter import Meter
from rakit.client.bench.progress import Say
from rakit.client.bench.read import Passes
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.target import Target, bench_topic, cluster_at
from rakit.client.bench.usage import spent_during
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.consuming.consumer import GroupConsumer
from rakit.client.producing.producer import Producer

#: Between two records to the same partition. A pause is found to within this.
PACE_S: Final = 0.01
_TIME: Final = struct.Struct("d")
Read = Callable[[GroupConsumer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Who reads what, and how often each event comes."""

    members: int = 3
    partitions: int = 6
    record_bytes: int = 1024
    fill_mb: int = 512
    rounds: int = 3


class Reads:
    """Which partitions were read since a moment, and the longest wait of any of them. Pure."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._since_s = 0.0
        self._waiting: set[int] = set()
        self._last_s: dict[int, float] = {}
        self.pause_s = 0.0

    def watch_pauses(self, now_s: float) -> None:
        """Counts the waits that are over from now on, those from before among them."""
        self.pause_s = 0.0
        self._last_s = {at: self._last_s.get(at, now_s) for at in range(self._partitions)}

    def expect(self, now_s: float) -> None:
        """Every partition is to be read again, with something sent after this."""
        self._since_s, self._waiting = now_s, set(range(self._partitions))

    def took(self, partition: int, sent_s: float, now_s: float) -> None:
        """A record was read that was sent then."""
        self.pause_s = max(self.pause_s, now_s - self._last_s.get(partition, now_s))
        self._last_s[partition] = now_s
        if sent_s >= self._since_s:
            self._waiting.discard(partition)

    @property
    def are_over(self) -> bool:
        """Whether every partition was read."""
        return not self._waiting


@dataclass(frozen=True, slots=True)
class Rebalance:
    """What one event came to."""

    seconds: float
    pause_s: float


async def bench_group(bootstrap: str | None, settings: GroupSettings, say: Say) -> Report:
    """Measures throughput, then rebalances."""
    async with cluster_at(bootstrap) as target:
        description = target.description
        say("group: record by record")
        by_record = await consume(target, settings, by_record=True)
        say("group: batch by batch")
        by_batch = await consume(target, settings, by_record=False)
        found = await rebalances(target, settings, say)
    size_bytes = settings.record_bytes
    figures = (
        *by_record.figures("record", "record by record", size_bytes),
        *by_batch.figures("batch", "batch by batch", size_bytes),
        *(figure for event, each in found.items() for figure in _figures(event, each)),
    )
    return Report("group", {"cluster": description, **asdict(settings)}, figures)


def _figures(event: str, found: list[Rebalance]) -> list[Figure]:
    text = {"join": "a member joins", "leave": "a member leaves", "kill": "a member is killed"}
    seconds, pauses = [each.seconds for each in found], [each.pause_s for each in found]
    return [
        Figure(f"{event}_median_s", f"{text[event]}: shared anew, median", median(seconds), "s"),
        Figure(f"{event}_max_s", f"{text[event]}: shared anew, longest", max(seconds), "s"),
        Figure(f"{event}_pause_median_s", f"{text[event]}: pause, median", median(pauses), "s"),
        Figure(f"{event}_pause_max_s", f"{text[event]}: pause, longest", max(pauses), "s"),
    ]


@asynccontextmanager
async def _joined(
    target: Target, topic: str, read: Read, settings: GroupSettings
) -> AsyncGenerator[tuple[Members, list[GroupConsumer]]]:
    """A group whose members have their shares."""
    members = Members(target.bootstrap, f"bench-{uuid.uuid4().hex[:12]}", topic)
    async with AsyncExitStack() as stack:
        consumers = [
            await stack.enter_async_context(members.member(read)) for _ in range(settings.members)
        ]
        await _shared(members, settings)
        yield members, consumers


async def _shared(members: Members, settings: GroupSettings) -> None:
    await members.until(
        lambda: is_even(members.shares, settings.partitions), "waiting for even shares"
    )


async def consume(target: Target, settings: GroupSettings, *, by_record: bool) -> Passes:
    """Lets a group read a filled topic once, to the last commit."""
    read_count = sent_count = 0
    members: Members

    async def read(consumer: GroupConsumer) -> None:
        nonlocal read_count
        async for batch in consumer.batches():
            if by_record:
                for record in batch:
                    read_count += record.value is not None
            else:
                read_count += len(batch.values)
            if read_count >= sent_count:
                members.note()

    async def everything() -> None:
        members.resume()
        await members.until(lambda: read_count >= sent_count, "reading everything")
        await asyncio.gather(*(consumer.commit() for consumer in consumers))

    async with (
        Client(target.bootstrap) as client,
        bench_topic(client, settings.partitions) as topic,
        _joined(target, topic, read, settings) as (members, consumers),
    ):
        members.pause()
        wanted = max(1, settings.fill_mb * 1_000_000 // max(1, settings.record_bytes))
        sent_count = await fill(client, topic, settings.record_bytes, wanted)
        # A record may have slipped through before the pause was known everywhere.
        before_count = read_count
        spent = await spent_during(target.usage(), everything())
        lag = (await client.admin.get_group(members.group)).lag_records
        if lag or read_count != sent_count:
            raise CommandError(
                f"{sent_count:,} records are there, {read_count:,} were read, and {lag:,} are not"
                " committed"
            )
    return Passes(read_count - before_count, spent)


async def rebalances(
    target: Target, settings: GroupSettings, say: Say
) -> dict[str, list[Rebalance]]:
    """Lets members come and go."""
    reads, meter = Reads(settings.partitions), Meter()
    members: Members

    async def read(consumer: GroupConsumer) -> None:
        async for record in consumer:
            assert record.value is not None, "what was sent has a value"
            (sent_s,) = _TIME.unpack(record.value)
            reads.took(record.partition, sent_s, time.perf_counter())
            members.note()

    found: dict[str, list[Rebalance]] = {"join": [], "leave": [], "kill": []}
    async with (
        Client(target.bootstrap) as client,
        bench_topic(client, settings.partitions) as topic,
        client.producer() as producer,
        _joined(target, topic, read, settings) as (members, _),
        running(_send(producer, topic, settings.partitions, meter)) as load,
    ):
        event = _Event(members, reads, load, settings)
        await event.over(time.perf_counter())
        for number in range(1, settings.rounds + 1):
            say(f"group: members come and go, {number} of {settings.rounds}")
            async with AsyncExitStack() as stack:
                since_s = event.begin()
                await load.during(_enter(stack, members, read))
                found["join"].append(await event.over(since_s))
                since_s = event.begin()
                await load.during(stack.aclose())
                found["leave"].append(await event.over(since_s))
            async with members.process() as process:
                since_s = event.begin()
                process.kill()
                found["kill"].append(await event.over(since_s))
            meter.check()
    return found


async def _enter(stack: AsyncExitStack, members: Members, read: Read) -> None:
    await stack.enter_async_context(members.member(read))


class _Event:
    """One event after the other, under a load."""

    def __init__(
        self, members: Members, reads: Reads, load: Background, settings: GroupSettings
    ) -> None:
        self._members = members
        self._reads = reads
        self._load = load
        self._settings = settings

    def begin(self) -> float:
        """It happens now."""
        now_s = time.perf_counter()
        self._reads.watch_pauses(now_s)
        return now_s

    async def over(self, since_s: float) -> Rebalance:
        """Waits until everything is owned evenly and read again."""
        await self._load.during(_shared(self._members, self._settings))
        self._reads.expect(time.perf_counter())
        reading = self._members.until(lambda: self._reads.are_over, "reading all partitions")
        await self._load.during(reading)
        return Rebalance(time.perf_counter() - since_s, self._reads.pause_s)


async def _send(producer: Producer, topic: str, partitions: int, meter: Meter) -> None:
    """Sends to every partition in turn until it is cancelled."""
    while True:
        for partition in range(partitions):
            value = _TIME.pack(time.perf_counter())
            meter.watch(await producer.send(topic, value, partition=partition), 1, 0.0)
        await asyncio.sleep(PACE_S)
