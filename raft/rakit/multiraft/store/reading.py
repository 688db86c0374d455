"""Reads of one family at a time, whatever is damaged around them (S9).

RocksDB's walks meet blocks that lie before or behind the range that is asked for, and end there if
such a block cannot be read. That is somebody else's damage: what lies within the range is found all
the same. Damage within it raises ``StoreCorruptError``, any other failure (no file handle was left,
the disk gave an IO error) ``StoreUnreadableError``; nothing returns less than there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.multiraft.store.engine import DEFAULT, Engine, EngineError, Pair
from rakit.multiraft.store.errors import Fault

#: A scan begins small: many callers want the first row only.
FIRST_CHUNK_BYTES: Final = 16 << 10


class Reader:
    """The read side of an engine, with errors that say what they mean for a replica."""

    def __init__(self, engine: Engine, chunk_bytes: int) -> None:
        self._engine = engine
        self._chunk_bytes = chunk_bytes

    def get(self, key: bytes, segment: int = DEFAULT) -> bytes | None:
        """The value of a key."""
        try:
            return self._engine.get(key, segment)
        except EngineError as error:
            raise unreadable(error) from error

    def chunk(self, lo: bytes, hi: bytes, bytes_max: int, segment: int = DEFAULT) -> list[Pair]:
        """The first pairs in [lo, hi), at least one if there is any."""
        if lo >= hi:
            return []
        try:
            return self._engine.chunk(lo, hi, bytes_max, segment)
        except EngineError:
            return self._within(lo, hi, bytes_max, segment)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[Pair]:
        """The pairs of the default family in [lo, hi), each chunk a view of its own moment."""
        size = min(FIRST_CHUNK_BYTES, self._chunk_bytes)
        while pairs := self.chunk(lo, hi, size):
            yield from pairs
            lo = pairs[-1][0] + b"\0"
            size = min(4 * size, self._chunk_bytes)

    def last_below(self, lo: bytes, hi: bytes, segment: int = DEFAULT) -> Pair | None:
        """The greatest pair in [lo, hi)."""
        try:
            return self._engine.last_below(lo, hi, segment)
        except EngineError:
            return self._last_of_walk(lo, hi, segment)

    def _last_of_walk(self, lo: bytes, hi: bytes, segment: int) -> Pair | None:
        last: Pair | None = None
        while lo < hi and (pairs := self._within(lo, hi, FIRST_CHUNK_BYTES, segment)):
            last = pairs[-1]
            lo = last[0] + b"\0"
        return last

    def _within(self, lo: bytes, hi: bytes, bytes_max: int, segment: int) -> list[Pair]:
        try:
            return self._engine.chunk(lo, hi, bytes_max, segment, bounded=True)
        except EngineError as error:
            raise unreadable(error) from error


def unreadable(error: EngineError) -> StoreCorruptError:
    """Either way the replica cannot go on; only damage is there again at every later start."""
    if error.fault in {Fault.CORRUPTION, Fault.VALUE_GONE}:
        return StoreCorruptError(f"a read failed: {error}")
    return StoreUnreadableError(f"a read failed: {error}")
