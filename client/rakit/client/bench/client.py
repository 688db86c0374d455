"""`rakit bench client`: what one process of the SDK can do, whatever the cluster can.

The other side is a process that acknowledges and sends without storing anything (`sink`). It is
Python, too, and needs about as much CPU as the client; so beside the rate there is the client's own
CPU for it: records for each second of CPU are what the SDK would do beside a fast enough cluster on
a core of its own.

`send_batch` has a third figure: its encoding alone, from lists of bytes to the request as it
travels, without sending anything. It encodes the same batches in turn as `send_batch` sends, in the
same thread, and keeps as many as are in flight then: otherwise the allocator gives the memory of
each batch back to the system, and clears it for the next one, which no sender has it do.

A reader is measured in three ways: one `async for` over its records, `for` over the records of each
of its batches, and the values of whole batches.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass

from rakit.client.bench.produce import (
    WINDOW_BATCHES,
    Interface,
    ProduceSettings,
    contents_of,
    measure,
)
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.sink import BATCH_RECORDS, sink_process
from rakit.client.bench.target import Target, bench_topic
from rakit.client.client import Client
from rakit.client.producing.batch import Batch
from rakit.client.producing.encoding import encode_request
from rakit.client.producing.intake import columns_of
from rakit.client.reading.reader import Reader
from rakit.client.records import RecordBatch


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How large records are, and for how long each way is measured."""

    record_bytes: int = 100
    seconds: float = 5


@dataclass(frozen=True, slots=True)
class _Rate:
    """Records, how long they took, and what CPU the client used for them."""

    records: int
    seconds: float
    cpu_s: float

    def figures(self, key: str, text: str) -> list[Figure]:
        """As they are shown."""
        return [
            Figure(f"{key}_per_s", text, self.records / self.seconds, "records/s"),
            Figure(
                f"{key}_per_cpu_s",
                f"{text}, for each second of the client's CPU",
                self.records / self.cpu_s,
                "records",
            ),
        ]


async def bench_client(settings: ClientSettings, say: Say) -> Report:
    """Measures one way after the other."""
    figures: list[Figure] = []
    say("client: send()")
    figures += (await _sent(settings, Interface.RECORD)).figures("send", "send()")
    say("client: send_batch()")
    figures += (await _sent(settings, Interface.BATCH)).figures("send_batch", "send_batch()")
    say("client: encoding")
    rate = await _encoded(settings)
    figures.append(Figure("encoded_per_s", "send_batch(), encoding alone", rate, "records/s"))
    say("client: reading")
    rates = await _read(settings, _singly)
    figures += rates.figures("singly", "iterated by a Reader with `async for`")
    rates = await _read(settings, _by_record)
    figures += rates.figures("iterated", "iterated by a Reader, batch by batch")
    rates = await _read(settings, _by_value)
    figures += rates.figures("batched", "values of batches of a Reader")
    return Report("client", asdict(settings), tuple(figures))


async def _sent(settings: ClientSettings, interface: Interface) -> _Rate:
    produce = ProduceSettings(
        settings.record_bytes, seconds=settings.seconds, interface=interface, warm_up_seconds=1
    )
    async with sink_process() as address:
        measured = await measure(Target(address), produce, lambda _text: None)
    return _Rate(measured.records, measured.spent.seconds, measured.spent.client_cpu_s)


async def _encoded(settings: ClientSettings) -> float:
    """Records a second of what `send_batch` does before it sends."""
    contents = itertools.cycle(contents_of(ProduceSettings(settings.record_bytes)))
    in_flight: deque[Batch] = deque(maxlen=WINDOW_BATCHES)
    encoded, began_s = 0, time.perf_counter()
    while True:
        values = next(contents)
        batch = Batch.of(columns_of(values, None, None, None), 0.0, None)
        in_flight.append(batch)
        encoded += len(values) if b"".join(encode_request(1, batch.request, batch.columns)) else 0
        if (passed_s := time.perf_counter() - began_s) >= settings.seconds:
            return encoded / passed_s
        await asyncio.sleep(0)


#: What was read, as numbers of records and of bytes, one at a time.
_Amounts = AsyncGenerator[tuple[int, int]]


async def _singly(reader: Reader) -> _Amounts:
    """Record by record; told of in as large steps as the others."""
    count, bytes_count = 0, 0
    async for record in reader:
        bytes_count += len(record.value or b"")
        count += 1
        if count == BATCH_RECORDS:
            yield count, bytes_count
            count, bytes_count = 0, 0


def _by_record(reader: Reader) -> _Amounts:
    def bytes_of(batch: RecordBatch) -> int:
        bytes_count = 0
        for record in batch:
            bytes_count += len(record.value or b"")
        return bytes_count

    return _by_batch(reader, bytes_of)


def _by_value(reader: Reader) -> _Amounts:
    return _by_batch(reader, lambda batch: sum(map(len, filter(None, batch.values))))


async def _by_batch(reader: Reader, bytes_of: Callable[[RecordBatch], int]) -> _Amounts:
    async with aclosing(reader.batches()) as batches:
        async for batch in batches:
            yield len(batch), bytes_of(batch)


async def _read(settings: ClientSettings, way: Callable[[Reader], _Amounts]) -> _Rate:
    """Records a second of one reader, all partitions together."""
    async with (
        sink_process() as address,
        Client(address) as client,
        bench_topic(client, 6) as topic,
        client.reader(topic) as reader,
        aclosing(way(reader)) as amounts,
    ):
        count, bytes_count = 0, 0
        # The first one comes with the connections.
        await anext(amounts)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        async for more_count, more_bytes in amounts:
            count += more_count
            bytes_count += more_bytes
            if time.perf_counter() - began_s >= settings.seconds:
                break
        assert bytes_count, "the records have values"
        return _Rate(count, time.perf_counter() - began_s, time.process_time() - cpu_s)
