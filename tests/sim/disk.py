"""A disk that keeps what was synced, and of the rest a prefix: what a write-ahead log does in a
power cut.

Reads see every write. `sync(n)` makes everything up to write `n` durable. `crash` throws away the
unsynced writes but for a random prefix of them (the operating system may have written some pages
out on its own), in order: a log never keeps a later write without the earlier ones. The durable
image stays readable while the node is down, because the rule "committed is durable on a majority"
also counts voters that have crashed.

A disk may also lose what it had synced, but only what is newer than its witness, and the node is
told (safety S8): `cut` takes such a tail away.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from rakit.multiraft.kv import Op, WriteBatch


class Image:
    """A sorted map of bytes, small enough for a plain sorted list of keys."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.order: list[bytes] = []

    def copy(self) -> Image:
        twin = Image()
        twin.rows, twin.order = dict(self.rows), list(self.order)
        return twin

    def apply(self, batch: WriteBatch) -> None:
        for kind, key, value in batch.ops:
            if kind == Op.PUT:
                if key not in self.rows:
                    insort(self.order, key)
                self.rows[key] = bytes(value)
            elif kind == Op.DELETE:
                if self.rows.pop(key, None) is not None:
                    del self.order[bisect_left(self.order, key)]
            else:
                assert kind == Op.DELETE_RANGE, "a batch holds puts, deletes and range deletes only"
                first, last = bisect_left(self.order, key), bisect_left(self.order, bytes(value))
                for gone in self.order[first:last]:
                    del self.rows[gone]
                del self.order[first:last]


class SimDisk:
    """One node's disk. Implements rakit.multiraft.kv.KeyValue."""

    def __init__(self) -> None:
        self.live = Image()
        self.durable = Image()
        self.pending: deque[tuple[int, WriteBatch]] = deque()
        # What a cut may not touch, and the synced batches after it; None when nothing is ever cut.
        self.witnessed: Image | None = None
        self.unwitnessed: list[WriteBatch] = []
        # How many writes have become durable in the life of the store.
        self.count = 0
        # Whether it is the driver or a reader of the node that reads: for those reads may fail.
        self.at_work = False

    def holds(self, number: int) -> bool:
        """Whether the newest write is this one."""
        return bool(self.pending) and self.pending[-1][0] == number

    def write(self, number: int, batch: WriteBatch) -> None:
        self.live.apply(batch)
        self.pending.append((number, batch))

    def sync(self, number: int) -> None:
        while self.pending and self.pending[0][0] <= number:
            self._make_durable(self.pending.popleft()[1])

    def _make_durable(self, batch: WriteBatch) -> None:
        self.durable.apply(batch)
        self.count += 1
        if self.witnessed is not None:
            self.unwitnessed.append(batch)

    def witness(self) -> None:
        """Whatever is durable now is beyond doubt from now on."""
        assert self.witnessed is not None, "this disk keeps no witness"
        for batch in self.unwitnessed:
            self.witnessed.apply(batch)
        self.unwitnessed.clear()

    def cut(self, kept: int) -> Image:
        """Loses what is newer than the witness but for `kept` batches; returns what was durable."""
        assert self.witnessed is not None, "this disk keeps no witness"
        assert not self.pending, "a disk is cut after its crash"
        before = self.durable
        del self.unwitnessed[kept:]
        self.witness()
        self.durable, self.live = self.witnessed.copy(), self.witnessed.copy()
        return before

    def wipe(self) -> None:
        """Leaves nothing: an empty directory."""
        assert not self.pending, "a disk is emptied while its node is down"
        self.live, self.durable, self.count = Image(), Image(), 0

    def crash(self, rng: random.Random) -> int:
        """Keeps a random prefix of what was not synced; half of the time nothing of it.

        Returns the number of the last write that it kept, 0 for none.
        """
        last = 0
        kept = 0 if rng.random() < 0.5 else rng.randint(0, len(self.pending))
        for _ in range(kept):
            last, batch = self.pending.popleft()
            self._make_durable(batch)
        self.pending.clear()
        self.live = self.durable.copy()
        return last

    def get(self, key: bytes) -> bytes | None:
        return self.live.rows.get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        order = self.live.order
        for key in order[bisect_left(order, lo) : bisect_left(order, hi)]:
            yield key, self.live.rows[key]

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        order = self.live.order
        at = bisect_left(order, hi) - 1
        if at < 0 or order[at] < lo:
            return None
        return order[at], self.live.rows[order[at]]
