"""Fills a topic before something is measured on what is in it."""

from __future__ import annotations

from rakit.client.bench.meter import Meter
from rakit.client.bench.produce import ProduceSettings, contents_of
from rakit.client.client import Client


async def fill(client: Client, topic: str, record_bytes: int, records: int) -> int:
    """Appends so many records, rounded up to a batch; returns how many once all are durable."""
    settings = ProduceSettings(record_bytes)
    contents, meter = contents_of(settings), Meter()
    sent = batches = 0
    async with client.producer(settings.producer_config) as producer:
        while sent < records:
            values = contents[batches % len(contents)]
            meter.watch(await producer.send_batch(topic, values), len(values), 0.0)
            sent, batches = sent + len(values), batches + 1
            meter.check()
        await producer.flush()
        await meter.until(batches)
    return sent
