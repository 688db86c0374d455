"""Which partition a key belongs to: xxh3_64(key) modulo the partition count.

XXH3 with 64 bits of output, seed 0 and no secret, over the bytes of the key: the same rule as on
the server, which serves clients that do not route by themselves. It never changes, because the
records of a key would then go to another partition than those before. `VECTORS` is what a client in
any language checks itself against.
"""

from __future__ import annotations

from typing import Final

import xxhash

#: (key, its hash, its partition of 6).
VECTORS: Final[tuple[tuple[bytes, int, int], ...]] = (
    (b"", 0x2D06800538D394C2, 4),
    (b"a", 0xE6C632B61E964E1F, 1),
    (b"N14228", 0x045BF808CE8196A6, 0),
    (b"order-42", 0x79CCA5910B9ACE3C, 4),
    ("kayu \N{WOOD}".encode(), 0x64353ED928B290E2, 0),
    (bytes(range(256)), 0x9408A4433B952D71, 3),
)

# The bare hash, for the path that runs once per record.
key_hash: Final = xxhash.xxh3_64_intdigest


def partition_for(key: bytes, partition_count: int) -> int:
    """Returns the partition that records of this key go to."""
    assert partition_count > 0, "a topic has at least one partition"
    return key_hash(key) % partition_count
