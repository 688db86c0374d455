"""`rakit bench client`: what one process of the SDK can do, whatever the cluster can.

The other side is a process that acknowledges and sends without storing anything (`sink`). It is
Python, too, and needs about as much CPU as the client; so beside the rate there is the client's own
CPU for it: records for each second of CPU are what the SDK would do beside a fast enough cluster on
a core of its own.

`send_batch` has a third figure: its encoding alone, from lists of bytes to the request as it
travels, without sending anything.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass

from rakit.client.bench.produce import Interface, ProduceSettings, measure
from rakit.client.bench.progress import Say
from rakit.client.bench.report import Figure, Report
from rakit.client.bench.sink import sink_process
from rakit.client.bench.target import Target, bench_topic
from rakit.client.client import Client
from rakit.client.producing.batch import Batch
from rakit.client.producing.intake import columns_of


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
    rate = await asyncio.to_thread(_encoded, settings)
    figures.append(Figure("encoded_per_s", "send_batch(), encoding alone", rate, "records/s"))
    say("client: reading")
    figures += (await _read(settings, by_record=True)).figures("iterated", "iterated by a Reader")
    batches = await _read(settings, by_record=False)
    figures += batches.figures("batched", "values of batches of a Reader")
    return Report("client", asdict(settings), tuple(figures))


async def _sent(settings: ClientSettings, interface: Interface) -> _Rate:
    produce = ProduceSettings(
        settings.record_bytes, seconds=settings.seconds, interface=interface, warm_up_seconds=1
    )
    async with sink_process() as address:
        measured = await measure(Target(address), produce, lambda _text: None)
    return _Rate(measured.records, measured.spent.seconds, measured.spent.client_cpu_s)


def _encoded(settings: ClientSettings) -> float:
    """Records a second of what `send_batch` does before it sends."""
    count = ProduceSettings(settings.record_bytes).batch_records
    values = [os.urandom(settings.record_bytes) for _ in range(count)]
    encoded, began_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - began_s) < settings.seconds or not encoded:
        batch = Batch.of(columns_of(values, None, None, None), 0.0, None)
        encoded += len(values) if batch.message.SerializeToString() else 0
    return encoded / passed_s


async def _read(settings: ClientSettings, *, by_record: bool) -> _Rate:
    """Records a second of one reader, all partitions together."""
    async with (
        sink_process() as address,
        Client(address) as client,
        bench_topic(client, 6) as topic,
        client.reader(topic) as reader,
    ):
        count, bytes_count = 0, 0
        async with aclosing(reader.batches()) as batches:
            # The first one comes with the connections.
            await anext(batches)
            began_s, cpu_s = time.perf_counter(), time.process_time()
            async for batch in batches:
                if by_record:
                    for record in batch:
                        bytes_count += len(record.value or b"")
                else:
                    bytes_count += sum(map(len, filter(None, batch.values)))
                count += len(batch)
                if time.perf_counter() - began_s >= settings.seconds:
                    break
        assert bytes_count, "the records have values"
        return _Rate(count, time.perf_counter() - began_s, time.process_time() - cpu_s)
