"""Who is measured, by name. Nothing of another project is loaded before it is used."""

from __future__ import annotations

from tests.bench.systems.base import System
from tests.bench.systems.jetstream import JetStream
from tests.bench.systems.kafka import Kafka
from tests.bench.systems.own import Rakit
from tests.bench.systems.rabbitmq import RabbitQuorum, RabbitStream
from tests.bench.systems.references import BareDisk, BareEcho, BarePipeline
from tests.bench.works import twin, work

SYSTEMS: dict[str, System] = {
    each.name: each
    for each in (
        Rakit("rakit"),
        BarePipeline("pipeline"),
        Kafka("kafka"),
        Kafka("kafka-fsync", fsyncs=True),
        JetStream("jetstream"),
        JetStream("jetstream-fsync", fsyncs=True),
        RabbitStream("rabbitmq-stream"),
        RabbitQuorum("rabbitmq-quorum"),
        BareEcho("echo"),
        BareDisk("disk"),
    )
}


def stand_in(name: str, system: str) -> str | None:
    """What a system is measured with for a work: that, or the same by its only interface."""
    other = twin(name)
    if SYSTEMS[system].can(work(name)):
        return name
    return other if other is not None and SYSTEMS[system].can(work(other)) else None
