"""Getting room back for what was deleted, when it matters (S12).

RocksDB lets go of deleted bytes when it compacts, and it compacts when enough was written. On a
disk that is filling up that is a trap: produce is refused, so hardly anything is written, so
nothing is compacted, and the topic that somebody deleted to make room goes on taking it.

Segments of the log go as a whole (``segments``); here is what lies in the default family. The
ranges of log entries that were deleted there are remembered, one per group, and when room gets
tight they are compacted by a thread of their own. It starts well above the mark at which produce is
refused, because a compaction needs room for its output before its input can go.

A compaction cannot be broken off. Closing waits for it for a moment, and otherwise leaves the
database as a crash would, after everything was synced: that is safe, while waiting could outlast
the patience of whatever stops the process.

What was deleted before a restart is not remembered; it goes with the ordinary compactions. A store
whose tables must not be rewritten (``uncompacted``) gets no room back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from rakit.multiraft import keys
from rakit.multiraft.kv import Op
from rakit.multiraft.store.engine import Engine, EngineError, Operation
from rakit.multiraft.store.space import Space

logger = logging.getLogger(__name__)

#: Groups whose deleted ranges are remembered one by one; beyond, the whole log is one range.
RANGE_COUNT_MAX = 4096

_CLOSE_WAIT_SECONDS = 5.0
_WHOLE_LOG = keys.prefix_range(keys.ENTRY)


class Reclaimer:
    """Remembers deleted ranges and compacts them when the disk gets tight."""

    def __init__(self, engine: Engine, space: Space, *, compacts: bool) -> None:
        self._engine = engine
        self._space = space
        self._compacts = compacts
        self._lock = threading.Lock()
        self._ranges: dict[int, tuple[bytes, bytes]] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None

    def note(self, operations: Sequence[Operation]) -> None:
        """Remember what a batch deletes. The loop thread, for every batch."""
        for kind, lo, hi in operations:
            if kind == Op.DELETE_RANGE and lo[:1] == _WHOLE_LOG[0]:
                with self._lock:
                    self._remember(lo, bytes(hi))

    def consider(self) -> None:
        """Begin to compact if room is tight and something was deleted. The syncer's thread."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if not (self._ranges and self._compacts and self._space.tight) or self._stopping:
                return
            ranges, self._ranges = list(self._ranges.values()), {}
        self._thread = threading.Thread(
            target=self._compact, args=(ranges,), name="rakit-reclaim", daemon=True
        )
        self._thread.start()

    def close(self) -> bool:
        """Stop; False when a compaction would not end in time and the engine is still in use."""
        with self._lock:
            self._stopping = True
        if self._thread is None:
            return True
        self._thread.join(_CLOSE_WAIT_SECONDS)
        return not self._thread.is_alive()

    def _remember(self, lo: bytes, hi: bytes) -> None:
        if len(self._ranges) >= RANGE_COUNT_MAX:
            self._ranges = {0: _WHOLE_LOG}
        group = 0 if 0 in self._ranges else keys.group_of(lo)
        known = self._ranges.get(group, (lo, hi))
        self._ranges[group] = min(lo, known[0]), max(hi, known[1])

    def _compact(self, ranges: list[tuple[bytes, bytes]]) -> None:
        before = self._space.free_bytes
        for lo, hi in sorted(ranges):
            if self._stopping:
                return
            try:
                self._engine.compact(lo, hi)
            except EngineError as error:
                # RocksDB refuses writes from here on: the next one poisons the store and says so.
                logger.error("reclaiming room failed: %s", error)  # noqa: TRY400
                return
        gained = self._space.free_bytes - before
        logger.info("reclaimed %d bytes from the ranges of %d groups", gained, len(ranges))
