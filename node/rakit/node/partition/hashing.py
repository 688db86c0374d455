"""Which partition a key belongs to: xxh3_64(key) modulo the partition count (contract 7).

XXH3 with 64 bits of output, seed 0 and no secret, over the bytes of the key. A client in any
language computes the same; `VECTORS` lets it prove that it does. The rule is part of the contract:
changed, it would send the records of a key to another partition than those before.

Rows without a key are not spread: a request's rows without a key stay together in one partition,
so that they form one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import xxhash

from rakit.api.v1.record_pb2 import Record, Rows
from rakit.node.partition.steps import STEP_ROWS, Steps

#: (key, xxh3_64 of the key, partition of 6): published for clients in other languages.
VECTORS: Final[tuple[tuple[bytes, int, int], ...]] = (
    (b"", 0x2D06800538D394C2, 4),
    (b"a", 0xE6C632B61E964E1F, 1),
    (b"N14228", 0x045BF808CE8196A6, 0),
    (b"order-42", 0x79CCA5910B9ACE3C, 4),
    ("kayu \N{WOOD}".encode(), 0x64353ED928B290E2, 0),
    (bytes(range(256)), 0x9408A4433B952D71, 3),
)


def partition_for(key: bytes, count: int) -> int:
    """Returns the partition of a key in a topic of `count` partitions."""
    assert count > 0, "a topic has at least one partition"
    return xxhash.xxh3_64_intdigest(key) % count


@dataclass(slots=True)
class Part:
    """The rows of a request that go to one partition, and where they stand in it."""

    places: list[int] = field(default_factory=list[int])
    records: list[Record] = field(default_factory=list[Record])


def split(rows: Rows, count: int, unkeyed_partition: int) -> Steps[dict[int, Part]]:
    """Splits rows by key; returns the parts by partition, in their order."""
    parts: dict[int, Part] = {}
    for at, record in enumerate(rows.records):
        partition = (
            partition_for(record.key, count) if record.HasField("key") else unkeyed_partition
        )
        part = parts.get(partition)
        if part is None:
            part = parts[partition] = Part()
        part.places.append(at)
        part.records.append(record)
        if not (at + 1) % STEP_ROWS:
            yield
    return {partition: parts[partition] for partition in sorted(parts)}
