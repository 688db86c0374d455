"""Random histories of logs, and what must be readable after each write of them.

A history is made of steps, each one batch, drawn from a seed: appends to some groups, replaced
ends, trims, bases that replace a whole log, groups that go and come back, several of them in one
batch. It needs no store: whoever knows the seed and how many steps were kept of each life knows
every row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig
from rakit.multiraft.stored_entries import encode_entry
from rakit.raft import Entry, EntryType

#: The first ones are busy, the last ones hardly ever written to: they keep old segments alive.
GROUPS = (1, 2, 3, 4, 5, 6, 300, 70_000)
_WEIGHTS = (30, 30, 20, 10, 4, 3, 2, 1)
_APPENDED_MAX = 6
_VALUE_BYTES_MAX = 4000
_LOG_LENGTH_MAX = 60
KIB = 1 << 10


@dataclass
class Log:
    """What one group's log must hold."""

    base: int = 0
    entries: list[bytes] = field(default_factory=list[bytes])

    @property
    def last(self) -> int:
        return self.base + len(self.entries)


#: Of a life: how many steps were kept, and where logs end that lost entries which never were
#: durable (``mending``).
Kept = tuple[int, dict[int, int]]


class History:
    """The steps of a store's lives, of which some were kept each time."""

    def __init__(self, seed: int, kept: Sequence[Kept]) -> None:
        self._seed = seed
        self.logs: dict[int, Log] = {}
        self._steps = 0
        #: The step of this life that wrote an entry last, by key; 0 in an earlier life.
        self.written: dict[bytes, int] = {}
        for life, (steps, lasts) in enumerate(kept):
            self._rng = random.Random(f"{seed} {life}")
            for _ in range(steps):
                self.step()
            for group_id, last in lasts.items():
                log = self.logs[group_id]
                del log.entries[last - log.base :]
        self._rng = random.Random(f"{seed} {len(kept)}")
        self._steps = 0
        self.written.clear()

    def rows(self) -> dict[bytes, bytes]:
        """Every entry that must be there."""
        return {
            keys.entry(group_id, log.base + 1 + at): value
            for group_id, log in self.logs.items()
            for at, value in enumerate(log.entries)
        }

    def step(self) -> WriteBatch:
        """The next batch; the logs are as after it."""
        batch = WriteBatch()
        self._steps += 1
        for _ in range(self._rng.choice((1, 1, 1, 2, 5))):
            self._change(self._rng.choices(GROUPS, _WEIGHTS)[0], batch)
        return batch

    def _change(self, group_id: int, batch: WriteBatch) -> None:
        log = self.logs.setdefault(group_id, Log())
        action = self._rng.random()
        if action < 0.1 and log.entries:
            self._replace_end(group_id, log, batch)
        elif (action < 0.2 or len(log.entries) > _LOG_LENGTH_MAX) and log.entries:
            self._trim(group_id, log, batch)
        elif action < 0.23:
            self._install(group_id, log, batch)
        elif action < 0.25:
            batch.delete_range(*keys.group_range(keys.ENTRY, group_id))
            del self.logs[group_id]
        elif action < 0.28 and log.entries:
            self._cut_end(group_id, log, batch)
        else:
            self._append(group_id, log, batch)

    def _append(self, group_id: int, log: Log, batch: WriteBatch) -> None:
        for _ in range(self._rng.randint(1, _APPENDED_MAX)):
            data = self._rng.randbytes(self._rng.randint(0, _VALUE_BYTES_MAX))
            index = log.last + 1
            value = bytes(encode_entry(group_id, Entry(1, index, EntryType.NORMAL, data)))
            log.entries.append(value)
            self.written[keys.entry(group_id, index)] = self._steps
            batch.put(keys.entry(group_id, index), value)

    def _replace_end(self, group_id: int, log: Log, batch: WriteBatch) -> None:
        kept = self._rng.randrange(len(log.entries))
        first = log.base + 1 + kept
        batch.delete_range(keys.entry(group_id, first), keys.entry(group_id, log.last + 1))
        del log.entries[kept:]
        self._append(group_id, log, batch)

    def _cut_end(self, group_id: int, log: Log, batch: WriteBatch) -> None:
        """No log does that, but what is deleted must be gone."""
        kept = self._rng.randrange(len(log.entries))
        first = log.base + 1 + kept
        batch.delete_range(keys.entry(group_id, first), keys.entry(group_id, log.last + 1))
        del log.entries[kept:]

    def _trim(self, group_id: int, log: Log, batch: WriteBatch) -> None:
        gone = self._rng.randint(1, len(log.entries))
        log.base += gone
        del log.entries[:gone]
        batch.delete_range(keys.entry(group_id, 0), keys.entry(group_id, log.base + 1))

    def _install(self, group_id: int, log: Log, batch: WriteBatch) -> None:
        batch.delete_range(*keys.group_range(keys.ENTRY, group_id))
        log.base = max(0, log.last + self._rng.randint(-20, 20))
        log.entries.clear()
        if self._rng.random() < 0.5:
            self._append(group_id, log, batch)


def config_of(directory: Path) -> StoreConfig:
    """Segments of a few dozen batches."""
    config = StoreConfig.small(directory)
    return replace(config, segment_bytes=64 * KIB, reserve_bytes=0, apart_bytes_min=2 * KIB)


def check(store: RocksStore, history: History, seed: int) -> None:
    """Every way of reading gives what the history says."""
    rows = history.rows()
    assert dict(store.scan(*keys.prefix_range(keys.ENTRY))) == rows, "all groups in one walk"
    rng = random.Random(seed)
    for group_id in GROUPS:
        bounds = keys.group_range(keys.ENTRY, group_id)
        mine = sorted(key for key in rows if bounds[0] <= key < bounds[1])
        found = [key for key, _ in store.scan(*bounds)]
        assert found == mine, f"group {group_id} in one walk"
        last = store.last_below(*bounds)
        assert last == (None if not mine else (mine[-1], rows[mine[-1]]))
        top = keys.number_of(mine[-1]) if mine else 5
        for index in range(max(0, top - 80), top + 3):
            key = keys.entry(group_id, index)
            assert store.get(key) == rows.get(key), f"entry {index} of group {group_id}"
        lo, hi = sorted(rng.randrange(top + 3) for _ in range(2))
        part = keys.entry(group_id, lo), keys.entry(group_id, hi)
        within = [key for key in mine if part[0] <= key < part[1]]
        assert [key for key, _ in store.scan(*part)] == within
        below = store.last_below(*part)
        assert (below and below[0]) == (within[-1] if within else None)
