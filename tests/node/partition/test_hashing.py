"""Which partition a key belongs to: part of the contract with every client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.api.v1.record_pb2 import Record, Rows
from rakit.node.partition import hashing
from rakit.node.partition.hashing import VECTORS, partition_for, split
from rakit.node.partition.steps import at_once

MODULUS = (1 << 64) - 1


def test_the_published_vectors_hold() -> None:
    # With as many partitions as there are hashes, but one, the partition shows the hash itself.
    assert [partition_for(key, MODULUS) for key, _, _ in VECTORS] == [row[1] for row in VECTORS]
    assert [partition_for(key, 6) for key, _, _ in VECTORS] == [row[2] for row in VECTORS]


def test_the_vectors_are_those_of_the_public_hash() -> None:
    # XXH3 of nothing with seed 0, as its authors publish it.
    assert VECTORS[0][:2] == (b"", 0x2D06800538D394C2)
    assert len(VECTORS) == 6


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """So that a few rows are several steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hashing, "STEP_ROWS", 3)
        yield


@given(st.lists(st.none() | st.binary(max_size=6), min_size=1), st.integers(1, 12))
def test_rows_are_split_by_key_and_keep_their_order(keys: list[bytes | None], count: int) -> None:
    rows = Rows(records=[Record(key=key, value=b"%d" % at) for at, key in enumerate(keys)])
    parts = at_once(split(rows, count, unkeyed_partition=count - 1))
    assert list(parts) == sorted(parts)
    assert sorted(at for part in parts.values() for at in part.places) == list(range(len(keys)))
    for partition, part in parts.items():
        places = part.places
        assert places == sorted(places)
        assert [record.value for record in part.records] == [b"%d" % at for at in places]
        for at in places:
            key = keys[at]
            assert partition == (count - 1 if key is None else partition_for(key, count))
