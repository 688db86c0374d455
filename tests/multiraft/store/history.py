"""Random histories of logs, and what must be readable after each write of them.

A history is made of steps, each one batch, drawn from a seed: appends to some groups, replaced
ends, trims, bases that replace a whole log, groups that go and come back, several of them in one
batch. It needs no store: whoever knows the seed and how many steps were kept of each life knows
every row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch

#: The first ones are busy, the last ones hardly ever written to: they keep old segments alive.
GROUPS = (1, 2, 3, 4, 5, 6, 300, 70_000)
_WEIGHTS = (30, 30, 20, 10, 4, 3, 2, 1)
_APPENDED_MAX = 6
_VALUE_BYTES_MAX = 4000
_LOG_LENGTH_MAX = 60


@dataclass
class Log:
    """What one group's log must hold."""

    base: int = 0
    entries: list[bytes] = field(default_factory=list[bytes])

    @property
    def last(self) -> int:
        return self.base + len(self.entries)


class History:
    """The steps of a store's lives, of which some were kept each time."""

    def __init__(self, seed: int, kept: Sequence[int]) -> None:
        self._seed = seed
        self.logs: dict[int, Log] = {}
        for life, steps in enumerate(kept):
            self._rng = random.Random(f"{seed} {life}")
            for _ in range(steps):
                self.step()
        self._rng = random.Random(f"{seed} {len(kept)}")

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
            value = self._rng.randbytes(self._rng.randint(0, _VALUE_BYTES_MAX))
            log.entries.append(value)
            batch.put(keys.entry(group_id, log.last), value)

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
