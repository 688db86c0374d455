"""A disk in memory: writes are readable at once and survive a crash only if they were synced."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from rakit.multiraft.kv import Op, WriteBatch


class MemoryDisk:
    """A sorted key space and the journal of batches that are not durable yet.

    Invariant: `_view` is `_durable` plus every batch of `_journal`, in order.
    """

    def __init__(self) -> None:
        self._durable: dict[bytes, bytes] = {}
        self._view: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._journal: list[WriteBatch] = []
        self.sizes: list[int] = []

    def write(self, batch: WriteBatch) -> None:
        self.sizes.append(batch.size_bytes)
        self._journal.append(batch)
        for op, key, value in batch.ops:
            if op == Op.PUT:
                if key not in self._view:
                    insort(self._keys, key)
                self._view[key] = bytes(value)
            elif op == Op.DELETE:
                self._remove(key, key + b"\0")
            else:
                self._remove(key, bytes(value))

    def _remove(self, lo: bytes, hi: bytes) -> None:
        start, stop = bisect_left(self._keys, lo), bisect_left(self._keys, hi)
        for key in self._keys[start:stop]:
            del self._view[key]
        del self._keys[start:stop]

    def sync(self) -> None:
        self._durable = dict(self._view)
        self._journal.clear()

    def crash(self, surviving_batches: int = 0) -> None:
        """Loses what was not synced, except the first batches (a journal keeps a prefix)."""
        kept = self._journal[:surviving_batches]
        self._view = dict(self._durable)
        self._keys = sorted(self._view)
        self._journal = []
        for batch in kept:
            self.write(batch)
        self.sync()

    @property
    def unsynced_batches(self) -> int:
        return len(self._journal)

    def get(self, key: bytes) -> bytes | None:
        return self._view.get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in self._keys[bisect_left(self._keys, lo) : bisect_left(self._keys, hi)]:
            yield key, self._view[key]

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        position = bisect_left(self._keys, hi) - 1
        if position < 0 or self._keys[position] < lo:
            return None
        return self._keys[position], self._view[self._keys[position]]

    def put(self, key: bytes, value: bytes) -> None:
        """Damages the disk: sets a durable value behind everybody's back."""
        batch = WriteBatch()
        batch.put(key, value)
        self.write(batch)
        self.sync()

    def delete(self, key: bytes) -> None:
        """Damages the disk: loses a durable value behind everybody's back."""
        batch = WriteBatch()
        batch.delete(key)
        self.write(batch)
        self.sync()
