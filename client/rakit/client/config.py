"""Settings of the SDK: one frozen object per part, every field with its unit, checked once.

Defaults suit a service that wants low latency when it sends little and throughput when it sends
much: nothing lingers, because batches form by themselves while a request is on its way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rakit.client.codecs import CodecName

DEFAULT_BOOTSTRAP: Final = "127.0.0.1:7070"
BOOTSTRAP_VARIABLE: Final = "RAKIT_BOOTSTRAP"
#: A partition remembers this many batches of one producer; more in flight would be refused.
IN_FLIGHT_BATCHES_LIMIT: Final = 64
#: No topic takes a larger batch, compressed or not; a message that is much larger would not even
#: reach the node.
BATCH_BYTES_LIMIT: Final = 16 << 20
#: A node takes no more records in a batch, whatever their bytes.
BATCH_COUNT_LIMIT: Final = 200_000
#: Client listeners take messages up to this size.
MESSAGE_BYTES_MAX: Final = 20 << 20
#: What may be under way to a member of a group.
CREDIT_BYTES_LIMIT: Final = 64 << 20
PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How a client reaches its cluster."""

    # host:port of any nodes of the cluster, or of a load balancer in front of them.
    bootstrap: tuple[str, ...]
    # A unary request is tried again, on other nodes too, for this long.
    request_timeout_ms: int = 30_000
    # One attempt of it. Shorter than the above, so that a node that hangs is left for another one.
    attempt_timeout_ms: int = 5_000
    # It is not tried for so long when no node answers at all.
    unreachable_timeout_ms: int = 10_000
    # The pause between attempts starts here and doubles up to the maximum.
    backoff_ms: int = 20
    backoff_ms_max: int = 1_000
    # A silent connection is probed after this time, and given up after that one. Servers allow 5 s.
    keepalive_ms: int = 5_000
    keepalive_timeout_ms: int = 2_000

    def __post_init__(self) -> None:
        if not self.bootstrap:
            raise ValueError("bootstrap needs at least one host:port")
        for address in self.bootstrap:
            if not _is_address(address):
                raise ValueError(f"bootstrap address {address!r} is not host:port")
        if not 0 < self.attempt_timeout_ms <= self.request_timeout_ms:
            raise ValueError("attempt_timeout_ms must be above 0 and at most request_timeout_ms")
        if not 0 < self.backoff_ms <= self.backoff_ms_max:
            raise ValueError("backoff_ms must be above 0 and at most backoff_ms_max")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and int(port) <= PORT_MAX
    return bool(host) and host.isprintable() and is_port


def bootstrap_addresses(
    given: str | None, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Returns the given addresses, else those of RAKIT_BOOTSTRAP, else the local node's."""
    text = given or environ.get(BOOTSTRAP_VARIABLE) or DEFAULT_BOOTSTRAP
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """How a producer batches, bounds its memory, and for how long it tries."""

    # A stable name fences older instances of the same producer and goes on with their numbering.
    # The cluster remembers each name for ever. Empty: a producer that nobody was before.
    name: str = ""
    # Numbered batches are stored once, however often they are sent. Without, a batch whose outcome
    # is unknown fails instead of being sent again.
    idempotent: bool = True
    # How long the first record of a batch waits for company while nothing else is on its way.
    linger_ms: float = 0
    # A batch is closed at this size. Topics take 2 MiB unless configured otherwise.
    batch_bytes_max: int = 1 << 20
    # Partitions refuse more than 200,000.
    batch_count_max: int = 100_000
    # Batches on their way to one partition while much is waiting; while little is, it is one.
    in_flight_batches_max: int = 8
    # What was handed to send() and is not acknowledged; send() waits beyond it.
    unacknowledged_bytes_max: int = 64 << 20
    unacknowledged_count_max: int = 1_000_000
    # From the first record of a batch to the acknowledgement, over all attempts. The failure may
    # come about 1.5 s later, when the batch is at a node that does not answer.
    delivery_timeout_ms: int = 60_000
    compression: CodecName | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.linger_ms <= 60_000:
            raise ValueError("linger_ms must be from 0 to 60000")
        if not 1 <= self.batch_bytes_max <= BATCH_BYTES_LIMIT:
            raise ValueError("batch_bytes_max must be from 1 to 16 MiB")
        if not 1 <= self.batch_count_max <= BATCH_COUNT_LIMIT:
            raise ValueError(f"batch_count_max must be from 1 to {BATCH_COUNT_LIMIT}")
        if not 1 <= self.in_flight_batches_max <= IN_FLIGHT_BATCHES_LIMIT:
            raise ValueError(f"in_flight_batches_max must be from 1 to {IN_FLIGHT_BATCHES_LIMIT}")
        if self.unacknowledged_bytes_max < self.batch_bytes_max:
            raise ValueError("unacknowledged_bytes_max must be at least batch_bytes_max")
        if self.unacknowledged_count_max < 1:
            raise ValueError("unacknowledged_count_max must be at least 1")
        if self.delivery_timeout_ms <= self.linger_ms:
            raise ValueError("delivery_timeout_ms must be longer than linger_ms")


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """How much a reader takes in advance, and for how long it tries."""

    # Received and not yet consumed; beyond it the reader stops reading its streams.
    buffer_bytes_max: int = 16 << 20
    # A partition that has failed for so long without a sign of life ends the reading with its last
    # error. None: what a retry may cure is retried for as long as the reader lives.
    retry_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        if self.buffer_bytes_max < 1:
            raise ValueError("buffer_bytes_max must be at least 1")
        if self.retry_timeout_ms is not None and self.retry_timeout_ms < 0:
            raise ValueError("retry_timeout_ms must not be negative")


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """How a member of a consumer group lives."""

    # Names this member for good, such as a pod's name: its next process takes over what it had.
    instance_id: str = ""
    # Where it runs: replicas in this rack are preferred.
    rack: str = ""
    # For people: what this client is.
    client_id: str = ""
    # A record that is neither committed nor done with for so long ends the membership.
    max_processing_ms: int = 300_000
    # How long the member keeps its partitions when its connection is lost. 0: the server's default.
    session_grace_ms: int = 0
    # Received and not yet done with; the server sends no more.
    buffer_bytes_max: int = 16 << 20
    # What the program is through with is committed so often. None: only when it says so.
    auto_commit_ms: int | None = 1_000
    # Without a node that serves for so long, the last error is raised. None: for ever tried again.
    retry_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.buffer_bytes_max <= CREDIT_BYTES_LIMIT:
            raise ValueError("buffer_bytes_max must be from 1 to 64 MiB")
        if self.auto_commit_ms is not None and self.auto_commit_ms < 1:
            raise ValueError("auto_commit_ms must be at least 1, or None for commits by hand")
        if self.retry_timeout_ms is not None and self.retry_timeout_ms < 0:
            raise ValueError("retry_timeout_ms must not be negative")
