"""When the store is given time to move entries out of segments that are nearly dead.

The step loop asks at each turn; a step is made when its time has come: a few milliseconds of
reading and a write of a quarter of a megabyte, or of one entry that is larger.

- Each step waits for the sync of the one before. A disk that hangs is given nothing more to do,
  and one that is slow gets less.
- There is a pause between two steps: 12 MiB a second at most, 50 where moving falls behind or the
  disk is filling up. A timer ends it, since an idle node has no turn before its next tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from rakit.multiraft.store.rocks import RocksStore

PAUSE_S: Final = 0.02
PAUSE_URGENT_S: Final = 0.005


class Upkeep:
    """Paces one store's upkeep. The step loop's."""

    def __init__(
        self, store: RocksStore, request_sync: Callable[[int], None], wake: Callable[[], None]
    ) -> None:
        """`request_sync` takes the number of a write, `wake` has a turn made soon."""
        self._store = store
        self._request_sync = request_sync
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._due_at = 0.0
        self._unsynced = 0
        self._timer: asyncio.TimerHandle | None = None

    def step(self) -> None:
        """Makes a step if it is time for one. Raises what the store's `upkeep` does."""
        if self._loop.time() < self._due_at or self._store.synced_counter < self._unsynced:
            return
        has_written = self._store.upkeep()
        pause_s = PAUSE_URGENT_S if self._store.upkeep_is_urgent else PAUSE_S
        self._due_at = self._loop.time() + pause_s
        if has_written:
            self._unsynced = self._store.last_number
            self._request_sync(self._unsynced)
            self.stop()
            self._timer = self._loop.call_at(self._due_at, self._is_due)

    def _is_due(self) -> None:
        self._due_at = 0.0  # a timer may be early by a rounding error
        self._wake()

    def stop(self) -> None:
        """Rings no more."""
        if self._timer is not None:
            self._timer.cancel()
