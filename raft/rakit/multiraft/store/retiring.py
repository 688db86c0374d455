"""Moving what still lives in a segment to the old generation, so that the segment can go.

A log that is hardly written to, or kept for long, has its entries in segments beside those of logs
that come and go. Once too much of what lies there is dead, the segment with the least to move is
emptied: what lives in it is written anew to the default family, whose tables RocksDB merges, and is
never moved again.

Rules:

- While a run is copied lookups go to the segment. With the last of it, or after, its row names the
  default family, or goes if the group's entries before it are there as well.
- Each step reads anew what there is: the group may have been cut, emptied or replaced meanwhile.
  What is deleted meanwhile is deleted in both places.
- A step that was read but could not be written is read anew, not written later: something that it
  copies may be deleted by then.
- What cannot be read stays where it is, and its segment with it. Other groups go on. A read that
  fails without proof of damage is tried once more, after a minute.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.multiraft.kv import Op
from rakit.multiraft.store import runs
from rakit.multiraft.store.engine import DEFAULT, Operation
from rakit.multiraft.store.reading import Reader
from rakit.multiraft.store.runs import INDEX_END, Run, entry_at, place_of
from rakit.multiraft.store.segments import Segments

logger = logging.getLogger(__name__)

#: Copied in one step, while the loop waits, or what can be found in so long a time.
STEP_BYTES: Final = 256 << 10
_STEP_S: Final = 0.003
_RETRY_S: Final = 60.0
_ROWS_BYTES: Final = 16 << 10
_ROWS_END: Final = keys.prefix_range(keys.RUN)[1]


@dataclass(frozen=True, slots=True)
class _Place:
    """How far the emptying of a segment is."""

    segment: int
    #: The first run row that is not worked off.
    row: bytes = keys.prefix_range(keys.RUN)[0]
    #: Of this group's run what lies before the index is copied.
    group_id: int = 0
    index: int = 0


@dataclass(slots=True)
class _Step:
    """What is to be written next, and what is true when it is."""

    place: _Place | None
    operations: list[Operation] = field(default_factory=list[Operation])
    size_bytes: int = 0
    #: Runs whose rows it changes.
    left: list[Run] = field(default_factory=list[Run])


class Retiring:
    """Empties one segment after the other, a step at a time. The loop thread's."""

    def __init__(self, segments: Segments, reader: Reader) -> None:
        self._segments = segments
        self._reader = reader
        self._place: _Place | None = None
        self._step: _Step | None = None
        #: Segments that were gone through and may still hold runs.
        self._passed: set[int] = set()
        self._due_at = 0.0
        #: Rows of runs of which a read failed without proof of damage.
        self._unread: set[bytes] = set()

    def step(self) -> list[Operation]:
        """What to write next; nothing if there is nothing to do, or not in this turn.

        ``written`` tells that it was: else the next step is the same one, read anew.
        """
        if time.monotonic() < self._due_at:
            return []
        if self._place is None:
            victim = self._segments.victim(self._passed)
            if not victim:
                return []
            logger.info("segment %d of the log is emptied: hardly anything in it lives", victim)
            self._passed.add(victim)
            self._unread.clear()
            self._place = _Place(victim)
        step = self._step = _Step(self._place)
        ends_at = time.monotonic() + _STEP_S
        try:
            while step.place is not None and step.size_bytes < STEP_BYTES:
                self._go_on(step, step.place)
                if time.monotonic() >= ends_at:
                    break
        except StoreUnreadableError as error:
            logger.warning("segment %d cannot be emptied now: %s", self._place.segment, error)
            self._due_at = time.monotonic() + _RETRY_S
        except StoreCorruptError as error:
            self._segments.doubt(error)
            step.place = None
        if not step.operations:
            self._place = step.place
        return step.operations

    def written(self, number: int) -> None:
        """The step is written, by the write with this number."""
        assert self._step is not None, "what was written was read before"
        self._place = self._step.place
        for run in self._step.left:
            self._segments.moved(run, number)
        self._step = None

    def _go_on(self, step: _Step, place: _Place) -> None:
        """Add a piece of the next run that lies in the segment, or its end."""
        rows = self._reader.chunk(place.row, _ROWS_END, _ROWS_BYTES)
        for key, value in rows:
            run = runs.decode(key, value)
            if run.segment == place.segment:
                try:
                    step.place = self._copy(step, replace(place, row=key), run)
                except StoreCorruptError as error:
                    if isinstance(error, StoreUnreadableError) and key not in self._unread:
                        self._unread.add(key)
                        raise
                    text = "entries of group %d stay in their segment: %s"
                    logger.error(text, run.group_id, error)  # noqa: TRY400
                    step.place = replace(place, row=key + b"\0")
                return
        step.place = replace(place, row=rows[-1][0] + b"\0") if rows else None

    def _copy(self, step: _Step, place: _Place, run: Run) -> _Place:
        """Copy what comes next of a run, if anything; else have its row say where it is now.

        A segment has one run of a group at most, and nothing of the group behind its end.
        """
        copied = place.index if place.group_id == run.group_id else 0
        lo = entry_at(run.group_id, max(copied, run.first))
        hi = entry_at(run.group_id, INDEX_END)
        if pairs := self._reader.chunk(lo, hi, STEP_BYTES, run.segment):
            step.operations += [(Op.PUT, key, value) for key, value in pairs]
            step.size_bytes += sum(len(value) for _, value in pairs)
            return replace(place, group_id=run.group_id, index=place_of(pairs[-1][0])[1] + 1)
        step.operations.append(self._leave(run))
        step.left.append(run)
        return replace(place, row=run.key + b"\0")

    def _leave(self, run: Run) -> Operation:
        _, before = self._segments.run_before(run.group_id, run.first)
        if before == DEFAULT:
            return Op.DELETE, run.key, b""
        return Op.PUT, run.key, Run(run.group_id, run.first, DEFAULT, run.last, 0).value
