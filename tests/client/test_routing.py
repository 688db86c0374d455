"""Keys go where the server would put them (contract 7)."""

from __future__ import annotations

from rakit.client import routing
from rakit.node.partition import hashing


def test_the_published_vectors_hold() -> None:
    for key, digest, partition in routing.VECTORS:
        assert routing.key_hash(key) == digest
        assert routing.partition_for(key, 6) == partition


def test_client_and_server_agree() -> None:
    assert routing.VECTORS == hashing.VECTORS
    keys = [b"%d" % number for number in range(200)]
    for count in (1, 7, 10_000):
        assert [routing.partition_for(key, count) for key in keys] == [
            hashing.partition_for(key, count) for key in keys
        ]
