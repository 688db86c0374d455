"""A hash over a range of a replica's log, to compare replicas in production (P9).

The hash is XXH3-128 over index, term, payload length (8 bytes each, big-endian) and payload of
every entry, in order. Replicas that hold the same range give the same hash, or one of them is
damaged in a way that its checksums did not see.

The range is read in pieces, with a pause for the event loop after each, so that a digest over a
large log delays nobody for longer than one piece takes.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Final

import xxhash

from rakit.node.partition.commands import holds_batches
from rakit.node.partition.reader import Log
from rakit.node.partition.stored import batches_of
from rakit.raft import Entry

PIECE_BYTES: Final = 1024 * 1024
_HEAD: Final = struct.Struct(">QQQ")


@dataclass(frozen=True, slots=True)
class Digest:
    """The hash of the entries from `first_index` to `last_index`, both included."""

    first_index: int
    last_index: int
    #: One past the last record in the range; 0 when it holds no record.
    end_offset: int
    hexadecimal: str


async def digest(log: Log, first_index: int, last_index: int) -> Digest:
    """Hashes a range of applied entries; raises as the log does when it is no longer held."""
    assert first_index <= last_index, "an empty range was asked for"
    state = xxhash.xxh3_128()
    last_append: Entry | None = None
    index = first_index
    while index <= last_index:
        for entry in log.entries(index, last_index + 1, PIECE_BYTES):
            state.update(_HEAD.pack(entry.index, entry.term, len(entry.data)))
            state.update(entry.data)
            if holds_batches(entry.data):
                last_append = entry
            index = entry.index + 1
        await asyncio.sleep(0)
    batches = batches_of(last_append) if last_append is not None else []
    end_offset = batches[-1].end_offset if batches else 0
    return Digest(first_index, last_index, end_offset, state.hexdigest())
