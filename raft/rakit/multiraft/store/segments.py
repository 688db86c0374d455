"""Segments: tables of log entries that are dropped instead of rewritten.

A log is only appended and cut at its ends. In one family with everything else its tables are merged
for ever all the same, with each other and with the rows beside them (0005). So entries go to
families of their own, one after the other, each for a few gigabytes of all groups' entries: the
segments. Their tables are never merged. When no group has entries in a segment any more, it is
dropped whole. Which segment holds what is in the run rows (`runs`), in the default family.

The default family is the old generation: entries of stores from before there were segments, and
those that are moved there from a segment that is nearly dead (`retiring`).

Rules:

- An entry, the row of its run and everything else of its batch are written together. What goes
  where is decided for one batch at a time, by ``place``; later operations see earlier ones.
- Lookups go by the rows alone. So to delete a run, or its beginning, takes the row alone. Where
  entries of the group may be written again later, which is the current segment and the default
  family, what may be in the way is deleted by range.
- Where a group's log goes on at an index, no run begins at it or behind: those are gone with the
  end that was replaced.
- A segment is dropped only when the witness covers the write that deleted its last row. So neither
  a power cut nor a tail that is cut off (S8) can bring a row back whose segment is gone. (Without
  fsync there is no witness, and no such promise.)
- The next segment is made ahead of time, off the loop. Until it is there the current one grows.
- Rows that cannot be read hide whose they are. Then nothing more dies in this life of the store,
  no other segment is emptied, and ranges are deleted in every segment, blindly.

The loop thread owns all of it but ``prepare`` and ``let_go``, which are the syncer's, and what it
is told of the room: the next segment is handed over when it is made, the dead ones when they die.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import OPERATION_OVERHEAD_BYTES, Op
from rakit.multiraft.store import runs
from rakit.multiraft.store.engine import DEFAULT, Engine, Operation
from rakit.multiraft.store.reading import Reader
from rakit.multiraft.store.runs import INDEX_END, Run, entry_at, key_at, place_of

logger = logging.getLogger(__name__)

#: More are moved to the old generation: each costs a memtable's bookkeeping and a page of settings.
SEGMENT_COUNT_MAX: Final = 512
#: Lookups of so many groups are remembered.
_KNOWN_COUNT_MAX: Final = 1024
#: The next segment is made when the current one is so full.
_AHEAD: Final = 0.75
#: So many segments' worth of dead entries are let be beside as many bytes as there are living ones.
_SPARE_SEGMENTS: Final = 2
#: What may live of a segment that is emptied, and while the disk is filling up.
_LIVE_SHARE_MAX: Final = 0.5
_LIVE_SHARE_MAX_TIGHT: Final = 0.75


@dataclass(slots=True)
class Placed:
    """The operations of one write, by family."""

    default: list[Operation] = field(default_factory=list[Operation])
    segments: dict[int, list[Operation]] = field(default_factory=dict[int, list[Operation]])


@dataclass(slots=True)
class _Held:
    """What is known of a segment: for upkeep, nothing that is read rests on it."""

    run_count: int = 0
    live_bytes: int = 0
    size_bytes: int = 0

    @property
    def live_share(self) -> float:
        """How much of it lives."""
        return self.live_bytes / self.size_bytes if self.size_bytes else 0.0


@dataclass(frozen=True, slots=True)
class _Extent:
    first: int
    end: int
    segment: int


class Segments:
    """Says where entries go, where they lie, and which segments may go."""

    def __init__(self, engine: Engine, reader: Reader, segment_bytes: int, note_bytes: int) -> None:
        """Load what there is, and make the first segment if there is none to go on with.

        Raises ``EngineError`` if it cannot be made.
        """
        self._engine = engine
        self._reader = reader
        self._segment_bytes = segment_bytes
        self._note_bytes = note_bytes
        self._held = {number: _Held() for number in engine.segments()}
        self._current = max(self._held, default=DEFAULT)
        #: The runs of the current segment, by group.
        self._runs: dict[int, Run] = {}
        self._dirty: set[int] = set()
        self._unnoted_bytes = 0
        self._known: dict[int, _Extent] = {}
        #: Rows that the batch in hand writes (None: deletes), by group.
        self._staged: dict[int, dict[bytes, bytes | None]] = {}
        self._placed = Placed()
        self._number = 0
        self._is_certain = True
        self._newest = self._current
        self._next = DEFAULT
        #: Segments that may have lost their last run.
        self._dying = set(self._held)
        self._dead: deque[tuple[int, int]] = deque()  # bounded by the number of segments
        #: Whether the disk is filling up, and what is free for what is moved.
        self.tight = False
        self.free_bytes = 1 << 62
        #: Whether moving falls behind what dies.
        self.is_urgent = False
        #: The newest write that a segment died by.
        self.died_at = 0
        #: Whether something died, or a segment ended, since nothing was worth to be moved.
        self._has_news = True
        self._load()

    def _load(self) -> None:
        try:
            for key, value in self._reader.scan(*keys.prefix_range(keys.RUN)):
                self._count(runs.decode(key, value))
        except StoreCorruptError as error:
            logger.error("not all run rows can be read, no segment is dropped: %s", error)  # noqa: TRY400
            self._is_certain = False
        for number, held in self._held.items():
            held.size_bytes = max(held.size_bytes, self._engine.table_bytes(number))
        current = self._held.get(self._current)
        # Not all of its runs may be known. But where nothing is there are none.
        is_hidden = current is not None and current.size_bytes and not self._is_certain
        if current is None or current.size_bytes >= self._segment_bytes or is_hidden:
            self._newest += 1
            self._engine.make_segment(self._newest)
            self._begin(self._newest)
        self._bury()

    def _count(self, run: Run) -> None:
        self._newest = max(self._newest, run.segment)
        held = self._held.get(run.segment)
        if run.segment == DEFAULT:
            return
        if held is None:
            logger.error(
                "segment %d, which holds entries of group %d, is gone", run.segment, run.group_id
            )
            return
        held.run_count += 1
        held.live_bytes += run.size_bytes
        held.size_bytes += run.size_bytes
        if run.segment == self._current:
            self._runs[run.group_id] = run

    # -- where entries go --------------------------------------------------------------------

    def place(self, operations: Sequence[Operation], number: int) -> Placed:
        """What the write with this number does to which family. To be written as it is."""
        assert not self._staged, "a batch was placed before the last one was written"
        self._placed, self._number = Placed(), number
        for operation in operations:
            kind, key, value = operation
            if not runs.is_entry(key):
                self._placed.default.append(operation)
            elif kind == Op.PUT:
                self._put(operation)
            else:
                self._delete(key, bytes(value) if kind == Op.DELETE_RANGE else key + b"\0")
        if self._unnoted_bytes >= self._note_bytes:
            self._note()
        if self.is_due:
            self._note()
            self.seal()
        return self._placed

    def written(self) -> None:
        """What was placed last is written: what was looked up before may not hold any more."""
        for group_id in self._staged:
            self._known.pop(group_id, None)
        self._staged.clear()
        self._bury()

    def _put(self, operation: Operation) -> None:
        _, key, value = operation
        group_id, index = place_of(key)
        run = self._runs.get(group_id)
        if run is None:
            run = self._begin_run(group_id, index)
        elif index < run.first:
            # What lies between was deleted by moving the row.
            bounds = entry_at(group_id, index), entry_at(group_id, run.first)
            self._in_segment(self._current).append((Op.DELETE_RANGE, *bounds))
            run = self._begin_run(group_id, index)
        size = len(key) + len(value) + OPERATION_OVERHEAD_BYTES
        run.last = index
        run.size_bytes += size
        held = self._held[self._current]
        held.size_bytes += size
        held.live_bytes += size
        self._unnoted_bytes += size
        self._dirty.add(group_id)
        self._in_segment(self._current).append(operation)

    def _begin_run(self, group_id: int, index: int) -> Run:
        """The group's log goes on at ``index``, in the current segment."""
        try:
            for run in self._runs_in(group_id, index, INDEX_END):
                if run.first >= index:
                    self._forget(run)
        except StoreCorruptError as error:
            self.doubt(error)
            lo, hi = key_at(group_id, index), key_at(group_id, INDEX_END)
            self._placed.default.append((Op.DELETE_RANGE, lo, hi))
        run = Run(group_id, index, self._current, index, 0)
        self._runs[group_id] = run
        self._held[self._current].run_count += 1
        self._put_row(run)
        return run

    def _delete(self, lo_key: bytes, hi_key: bytes) -> None:
        (group_id, lo), (end_group, hi) = place_of(lo_key), place_of(hi_key)
        if end_group == group_id + 1 and hi == 0:
            end_group, hi = group_id, INDEX_END
        assert end_group == group_id, "entries are deleted by ranges within one group"
        if lo >= hi:
            return
        bounds = entry_at(group_id, lo), entry_at(group_id, hi)
        if self._is_in_old_generation(*bounds):
            self._placed.default.append((Op.DELETE_RANGE, *bounds))
        try:
            self._cut_runs(group_id, lo, hi)
        except StoreCorruptError as error:
            self.doubt(error)
            self._delete_blindly(group_id, lo, hi)

    def _cut_runs(self, group_id: int, lo: int, hi: int) -> None:
        found = self._runs_in(group_id, lo, hi)
        for at, run in enumerate(found):
            end = found[at + 1].first if at + 1 < len(found) else INDEX_END
            if run.first >= hi or end <= lo:
                continue
            if run.first < lo:
                if run.segment in self._held:
                    bounds = entry_at(group_id, lo), entry_at(group_id, min(end, hi))
                    self._in_segment(run.segment).append((Op.DELETE_RANGE, *bounds))
            elif end <= hi:
                if run.segment == self._current:
                    bounds = entry_at(group_id, 0), entry_at(group_id, hi)
                    self._in_segment(run.segment).append((Op.DELETE_RANGE, *bounds))
                self._forget(run)
            else:
                self._move_first(run, hi)

    def _delete_blindly(self, group_id: int, lo: int, hi: int) -> None:
        """Delete a range wherever it may be, and the rows that begin in it if its end goes, too.

        A start that goes leaves its rows: one of them, nobody knows which, may go beyond it.
        """
        operation = (Op.DELETE_RANGE, entry_at(group_id, lo), entry_at(group_id, hi))
        self._placed.default.append(operation)
        for number in self._held:
            self._in_segment(number).append(operation)
        if lo > 0 or hi == INDEX_END:
            bounds = key_at(group_id, lo), key_at(group_id, hi)
            self._placed.default.append((Op.DELETE_RANGE, *bounds))
            self._staged.setdefault(group_id, {})
            run = self._runs.get(group_id)
            if run is not None and run.first >= lo:
                del self._runs[group_id]

    def _is_in_old_generation(self, lo: bytes, hi: bytes) -> bool:
        """Whether a range deletion is worth its while there: each makes a table overlap others."""
        try:
            return self._reader.last_below(lo, hi) is not None
        except StoreCorruptError:
            return True

    def _in_segment(self, number: int) -> list[Operation]:
        return self._placed.segments.setdefault(number, [])

    # -- run rows ----------------------------------------------------------------------------

    def _runs_in(self, group_id: int, lo: int, hi: int) -> list[Run]:
        """The group's runs that may hold some of [lo, hi), ascending, and the one behind them.

        As the batch in hand has left them. Raises ``StoreCorruptError``.
        """
        staged = self._staged.get(group_id, {})
        start = key_at(group_id, 0)
        if not staged and (below := self._reader.last_below(start, key_at(group_id, lo))):
            start = below[0]
        rows: dict[bytes, bytes | None] = {}
        for key, value in self._reader.scan(start, key_at(group_id, INDEX_END)):
            rows[key] = value
            if key >= key_at(group_id, hi) and key not in staged:
                break
        rows |= staged
        found = [
            runs.decode(key, value) for key, value in sorted(rows.items()) if value is not None
        ]
        return [self._runs[group_id] if self._is_current(run) else run for run in found]

    def _is_current(self, run: Run) -> bool:
        mine = self._runs.get(run.group_id)
        return mine is not None and run.segment == self._current and mine.first == run.first

    def _put_row(self, run: Run) -> None:
        self._stage(run.group_id, run.key, run.value)
        self._placed.default.append((Op.PUT, run.key, run.value))

    def _delete_row(self, run: Run) -> None:
        self._stage(run.group_id, run.key, None)
        self._placed.default.append((Op.DELETE, run.key, b""))

    def _stage(self, group_id: int, key: bytes, value: bytes | None) -> None:
        self._staged.setdefault(group_id, {})[key] = value

    def _forget(self, run: Run) -> None:
        self._delete_row(run)
        if self._is_current(run):
            del self._runs[run.group_id]
        self._uncount(run)

    def moved(self, run: Run, number: int) -> None:
        """The run is in the default family, by the row that the write with this number has."""
        self._known.pop(run.group_id, None)
        self._number = number
        self._uncount(run)
        self._bury()

    def _uncount(self, run: Run) -> None:
        if held := self._held.get(run.segment):
            held.run_count -= 1
            held.live_bytes -= run.size_bytes
            self._has_news = True
            self._dying.add(run.segment)

    def _move_first(self, run: Run, index: int) -> None:
        self._delete_row(run)
        before = run.size_bytes
        run.cut_before(index)
        self._put_row(run)
        if held := self._held.get(run.segment):
            held.live_bytes -= before - run.size_bytes
            self._has_news = True

    def doubt(self, error: StoreCorruptError) -> None:
        """A run row cannot be read: nobody knows any more which segments are needed."""
        if self._is_certain:
            logger.error("a run row cannot be read, no segment is dropped: %s", error)
        self._is_certain = False

    # -- where entries lie -------------------------------------------------------------------

    def extent(self, group_id: int, index: int) -> tuple[int, int]:
        """The segment that an entry is in if it is anywhere, and up to where that holds."""
        run = self._runs.get(group_id)
        if run is not None and index >= run.first:
            return run.segment, INDEX_END
        known = self._known.get(group_id)
        if known is None or not known.first <= index < known.end:
            known = self._look_up(group_id, index)
            if len(self._known) >= _KNOWN_COUNT_MAX:
                self._known.clear()
            self._known[group_id] = known
        return known.segment, known.end

    def _look_up(self, group_id: int, index: int) -> _Extent:
        first, segment = self.run_before(group_id, index + 1)
        rest = key_at(group_id, index + 1), key_at(group_id, INDEX_END)
        following = self._reader.chunk(*rest, 1)
        end = runs.decode(*following[0]).first if following else INDEX_END
        return _Extent(first, end, segment)

    def run_before(self, group_id: int, end: int) -> tuple[int, int]:
        """Where the group's last run before ``end`` begins, and its segment."""
        row = self._reader.last_below(key_at(group_id, 0), key_at(group_id, end))
        if row is None:
            return 0, DEFAULT
        run = runs.decode(*row)
        if run.segment != DEFAULT and run.segment not in self._held:
            raise StoreCorruptError(
                f"segment {run.segment} is gone, with entries of group {group_id} from"
                f" {run.first} on"
            )
        return run.first, run.segment

    # -- upkeep ------------------------------------------------------------------------------

    def notes(self) -> list[Operation]:
        """What says how much there is of each run that grew."""
        grown = [run for each in self._dirty if (run := self._runs.get(each)) is not None]
        return [(Op.PUT, run.key, run.value) for run in grown]

    def _note(self) -> None:
        self._placed.default += self.notes()
        self._dirty.clear()
        self._unnoted_bytes = 0

    def _is_full(self, share: float) -> bool:
        """Whether the current segment is, or is worth to be ended since much of it is dead.

        On a disk that is filling up, where little may be written until it has room.
        """
        held = self._held[self._current]
        is_worth = held.size_bytes >= self._note_bytes and held.live_share <= _LIVE_SHARE_MAX_TIGHT
        return held.size_bytes >= share * self._segment_bytes or (self.tight and is_worth)

    @property
    def is_due(self) -> bool:
        """Whether to go on in the next segment: with the next write, or one of its own."""
        return bool(self._next) and self._is_full(1.0)

    def seal(self) -> None:
        """Go on in the next segment. The newest write has noted all runs of this one."""
        self._dying.add(self._current)
        self._begin(self._next)
        self._next = DEFAULT
        self._has_news = True

    def _begin(self, number: int) -> None:
        self._held[number] = _Held()
        self._current = number
        self._runs.clear()
        self._dirty.clear()

    def _bury(self) -> None:
        """Have segments without runs let go of, once the newest write so far is beyond doubt."""
        for number in self._dying if self._is_certain else ():
            if number != self._current and not self._held[number].run_count:
                del self._held[number]
                self.died_at = self._number
                self._dead.append((self._number, number))
        self._dying.clear()

    def victim(self, passed: Collection[int]) -> int:
        """The segment whose living entries are to be moved to the old generation, else 0.

        When more is dead than lives, the one with the least to move for what it gives back, if at
        least half of it is dead: no more bytes are moved than are gained. While the disk is filling
        up a quarter will do. One of which nothing lives at any time; and where there are too many
        the one with the least to move. Only while there is room for log and tables of what is
        moved. ``passed``: those that could not be emptied.
        """
        self.is_urgent = False
        if not self._has_news and not self.tight:
            return DEFAULT
        sealed = {
            number: held
            for number, held in self._held.items()
            if number != self._current and number not in passed
        }
        movable = {
            number: held
            for number, held in sealed.items()
            if 2 * held.live_bytes <= self.free_bytes
        }
        found = self._worth_emptying(movable) if movable and self._is_certain else DEFAULT
        # Those for which there is no room may have some one day.
        self._has_news = found != DEFAULT or len(movable) < len(sealed)
        return found

    def _worth_emptying(self, sealed: dict[int, _Held]) -> int:
        emptiest = min(sealed, key=lambda number: sealed[number].live_share)
        share = sealed[emptiest].live_share
        live = sum(held.live_bytes for held in self._held.values())
        dead = sum(held.size_bytes for held in self._held.values()) - live
        spare = live + _SPARE_SEGMENTS * self._segment_bytes
        self.is_urgent = self.tight or dead > 2 * spare
        is_due = dead > spare and share <= _LIVE_SHARE_MAX
        if share <= 0 or is_due or (self.tight and share <= _LIVE_SHARE_MAX_TIGHT):
            return emptiest
        if len(self._held) > SEGMENT_COUNT_MAX:
            return min(sealed, key=lambda number: sealed[number].live_bytes)
        return DEFAULT

    def prepare(self) -> None:
        """Make the next segment if the current one is filling up. The syncer's thread.

        Raises ``EngineError``.
        """
        if self._next or not self._is_full(_AHEAD):
            return
        self._newest += 1
        self._engine.make_segment(self._newest)
        self._next = self._newest

    def let_go(self, covered: int) -> None:
        """Drop one that died in a write that is beyond doubt. The syncer's thread.

        Raises ``EngineError``. Not all at once: each stops the loop for some milliseconds.
        """
        if self._dead and self._dead[0][0] <= covered:
            _, number = self._dead.popleft()
            self._engine.drop_segment(number)
            logger.info("segment %d of the log is dropped: nothing in it lives", number)
