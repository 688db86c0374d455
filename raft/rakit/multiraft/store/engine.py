"""The one module that talks to rocksdict, behind a typed interface that cannot be misused.

RocksDB holds the rows, in memory and in tables. That a write survives before it is in a table is
the business of our own log (``ahead``), which is written beside it: RocksDB's own is never used.
Large values of segments lie in files (``apart``); RocksDB and the log have what refers to them.
Opening brings what the log has behind the tables into tables, too, and begins a new log.

Rules of the binding that are kept here, so that nobody else has to know them (each has a regression
test):

- Raw mode everywhere; otherwise values are pickled, and unpickling disk bytes runs code.
- ``keys()``, ``items()`` and ``values()`` end silently at a corrupt block. Only ``iter()``
  followed by ``status()`` tells; every walk here that found nothing ends with ``status()``.
- Keys are compared in Python. The lower bound of ``ReadOptions`` sets the upper one and is never
  used; the upper one is a pointer into memory that may be gone, and is used where only it helps, by
  a walk that ends before the options and the key do.
- ``next()`` on an iterator that is no longer valid crashes the process: ``valid()`` comes first.
- A database stays open while an iterator lives: no iterator outlives the call that made it.
- ``write`` holds the interpreter's lock; with RocksDB's log in use it did so for its checksum and
  its copies, with ``sync=True`` for the whole disk sync.
- Without ``no_slowdown`` a write stall blocks inside ``write`` with that lock held, which is what
  only opening wants.
- A family is flushed or closed alone, whatever ``atomic_flush`` says: segments before the default
  family, which has the journal (S7). Its handle keeps the database open until it is closed.
- Making and dropping a family hold the lock while RocksDB writes its manifest and an OPTIONS file,
  durably: 2 to 5 ms with few families, 22 with 100, 86 with 400 on the build machine.

Every error leaves as ``EngineError`` with its kind; what it means for the store is decided above.
``Engine`` is a protocol so that tests can put a failing disk in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, cast

from rocksdict import (
    Cache,
    ColumnFamily,
    DbClosedError,
    Options,
    Rdict,
    ReadOptions,
    WriteOptions,
)
from rocksdict import WriteBatch as RawBatch

from rakit.multiraft import keys
from rakit.multiraft.kv import Op
from rakit.multiraft.store import ahead, apart, options, uncompacted, wal
from rakit.multiraft.store.ahead import Ahead
from rakit.multiraft.store.apart import GoneError, Reference, Values
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.errors import Fault, classify
from rakit.multiraft.store.space import reserve_bytes, room
from rakit.multiraft.store.wal import DEFAULT, Frame, Operation
from rakit.multiraft.store.witness import Witness

__all__ = [
    "DEFAULT",
    "NO_SEGMENTS",
    "Engine",
    "EngineError",
    "OpenEngine",
    "Operation",
    "Pair",
    "RocksEngine",
]

Pair = tuple[bytes, bytes]

NO_SEGMENTS: Final[Mapping[int, Sequence[Operation]]] = MappingProxyType({})

#: Values of this size come in a row, each once. A cache of them would only be written through, in
#: memory that is cold each time, while the same buffer is at hand again without it (0016).
_LARGE_BYTES = 256 << 10
#: One in so many is cached all the same, since only with it the index of its table is.
_LARGE_KEPT_EACH = 16
#: To look at all tables holds the interpreter's lock, for some 2 µs each: not for more than a
#: hundredth of the time, unless that would let the log grow for long.
_LOOK_PAUSE = 100
_LOOK_PAUSE_SECONDS_MAX = 5.0
_TABLE_BYTES = "rocksdb.total-sst-files-size"
#: Counted for each pair of a chunk, so that tiny rows do not make a chunk that takes long to read.
_PAIR_OVERHEAD_BYTES = 64


class _FillsCache(Protocol):
    """`ReadOptions.fill_cache` as it is; the binding's stub has lost its argument."""

    def fill_cache(self, v: bool, /) -> None: ...


class _KeepsLog(Protocol):
    """`WriteOptions.disable_wal` as it is: a property; the binding's stub has a method."""

    disable_wal: bool


class EngineError(Exception):
    """A call of RocksDB failed."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Engine(Protocol):
    """Ordered maps of bytes with atomic batches over all of them and an explicit log sync.

    Number 0 is the default family, the others are segments, which are made and dropped.
    """

    def get(self, key: bytes, segment: int = DEFAULT) -> bytes | None:
        """The value of ``key``."""
        ...

    def chunk(
        self, lo: bytes, hi: bytes, bytes_max: int, segment: int = DEFAULT, *, bounded: bool = False
    ) -> list[Pair]:
        """The first pairs in [lo, hi), up to about ``bytes_max`` or to a block that is damaged.

        At least one if there is any: an empty list means that there is none. So damage raises when
        it comes first, even where it lies behind the range: a walk reads the block that follows.
        One that is ``bounded`` does not: the index says that all of the block lies behind.
        """
        ...

    def last_below(self, lo: bytes, hi: bytes, segment: int = DEFAULT) -> Pair | None:
        """The greatest pair in [lo, hi)."""
        ...

    def write(
        self,
        number: int,
        operations: Sequence[Operation],
        segments: Mapping[int, Sequence[Operation]] = NO_SEGMENTS,
    ) -> None:
        """Apply the operations of each family in order, atomically, not yet durable.

        Numbers ascend. One that stalls may be made again, and nothing of it was.
        """
        ...

    def replay_log(self, durable: Callable[[Witness], None]) -> int:
        """Bring what the log has behind the tables into tables, all of it or nothing.

        Tells where it ends before families become tables one by one: none of it may be cut off
        then (S8). Raises ``HoleError``. Returns the newest write in the log, 0 if it has none: only
        of writes behind it large values may be missing.
        """
        ...

    def reference(self, key: bytes, segment: int) -> Reference | None:
        """Where the value of ``key`` lies apart; None if it does not, or is not there."""
        ...

    def sync_values(self) -> None:
        """Make all large values durable that are there."""
        ...

    def abandon(self) -> None:
        """Let go of the directory as it is. RocksDB may bring all families into tables, at once.

        It holds the interpreter's lock meanwhile.
        """
        ...

    def begin_log(self) -> None:
        """Begin the log that is written to, behind the one that opening has read back.

        Nothing is written before. What opening found is in tables, and was found good. Files that
        belong to nothing of it go.
        """
        ...

    def forget_log(self, before: int) -> None:
        """Let go of the log that opening has read back: the files that begin before a write."""
        ...

    def flush_wal(self, *, durably: bool = True) -> Witness:
        """Make what was written durable, up to what is returned. May run beside ``write``.

        That is all of it, or as much as is written at a time. Not ``durably`` leaves it with the
        system, where the configuration says no ``fsync``.
        """
        ...

    def release_log(self) -> int:
        """Let go of the log as far as there are tables, if that is a file of it at least.

        Returns the newest write that is known to be in a table. Where ``flush_wal`` is called.
        """
        ...

    def compact(self, lo: bytes, hi: bytes) -> None:
        """Rewrite the tables of the default family that hold [lo, hi) without what was deleted."""
        ...

    def segments(self) -> list[int]:
        """The numbers of the segments that there are, ascending."""
        ...

    def table_bytes(self, segment: int) -> int:
        """What a segment takes, in tables and values: all of it, just after opening."""
        ...

    def make_segment(self, number: int) -> None:
        """Make an empty segment, durably. May run beside everything else."""
        ...

    def drop_segment(self, number: int) -> None:
        """Let go of a segment with all its tables, durably. Nobody may be using it."""
        ...

    def close(self) -> None:
        """Bring what is in memory into tables, and let go of the directory.

        Only where the log has all of it: families become tables one by one. What fails leaves it
        open.
        """
        ...


class OpenEngine(Protocol):
    """Opens the engine of a store; ``RocksEngine`` unless a test wants a failing disk."""

    def __call__(self, path: Path, config: StoreConfig, *, create: bool) -> Engine:
        """Raises ``EngineError``; never makes a database unless ``create``."""
        ...


class RocksEngine:
    """``Engine`` over rocksdict."""

    def __init__(self, path: Path, config: StoreConfig, *, create: bool) -> None:
        """Open the database at ``path`` or make it, and prove that the settings are in force."""
        direct_io = options.probe_direct_io(path.parent)
        sections = options.settings(
            config,
            create=create,
            direct_io=direct_io,
            compacts=not uncompacted.reason(path.parent),
            reserve_bytes=reserve_bytes(config, room(path.parent).total_bytes),
        )
        self._path = path
        self._config = config
        self._segments: dict[int, tuple[Rdict, ColumnFamily]] = {}
        with _translated():
            template = options.template(path.parent, options.render(sections))
            cache = Cache(config.block_cache_bytes)
            database, families = Options.load_latest(str(template), cache=cache)
            database.set_auto_tuned_ratelimiter(
                options.BACKGROUND_BYTES_PER_S_MAX,
                options.BACKGROUND_REFILL_US,
                options.BACKGROUND_FAIRNESS,
            )
            self._segment_options = families.pop(options.SEGMENT_FAMILY)
            names = [] if create else Rdict.list_cf(str(path), database)
            found = [name for name in names if name != options.DEFAULT_FAMILY]
            families.update(dict.fromkeys(found, self._segment_options))
            self._db = Rdict(str(path), database, column_families=families)
        self._sections = sections
        self._keeping, self._passing = ReadOptions(), ReadOptions()
        cast("_FillsCache", self._passing).fill_cache(False)
        self._large_count = 0
        self._ahead: Ahead | None = None
        self._values = Values(
            path, bytes_min=config.apart_bytes_min, direct_io=direct_io, fsync=config.fsync
        )
        self._covered = 0
        self._next_look_s = 0.0
        self._patient, self._prompt = WriteOptions(), WriteOptions()
        for each in (self._patient, self._prompt):
            cast("_KeepsLog", each).disable_wal = True
        self._prompt.no_slowdown = True
        try:
            for name in found:
                self._hold(options.segment_number(name))
            options.verify(path, options.in_force(sections, found))
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """See ``Engine.abandon``."""
        self._segments.clear()
        self._values.close()
        if self._ahead is not None:
            self._ahead.close()
        del self._db

    def replay_log(self, durable: Callable[[Witness], None]) -> int:
        """See ``Engine.replay_log``."""
        with _translated():
            self._covered = self._newest_in_tables()
            end: Witness | None = None
            for frame, reached in ahead.replay(self._path, self._covered):
                self._replay(frame)
                end = reached
            if end is None:
                return ahead.newest(self._path)
            durable(end)
            with _meeting_tables():
                self._flush()
            self._covered = end.number
            return end.number

    def _replay(self, frame: Frame) -> None:
        placed = wal.decode(frame.payload)
        default = placed.pop(DEFAULT)
        # One that is gone had nothing left that lives when it went.
        there = {number: placed[number] for number in placed if number in self._segments}
        if max(placed, default=0) > max(self._segments, default=0):
            text = f"segment {max(placed)} is missing, of write {frame.number}"
            raise EngineError(Fault.CORRUPTION, text)
        with _meeting_tables():
            self._db.write(self._batch(default, there), self._patient)

    def begin_log(self) -> None:
        """See ``Engine.begin_log``."""
        with _translated():
            ahead.end_at(self._path, self._covered)
            self._values.prepare(self._segments, self._covered)
            self._ahead = Ahead(
                self._path,
                self._values,
                self._covered,
                file_bytes_max=self._config.wal_file_bytes,
                waiting_bytes_max=self._config.wal_waiting_bytes_max,
                fsync=self._config.fsync,
            )

    def forget_log(self, before: int) -> None:
        """See ``Engine.forget_log``."""
        with _translated():
            ahead.forget(self._path, before)

    def _flush(self) -> None:
        for number in self._segments:  # no name for a family: a traceback would keep it open
            self._segments[number][0].flush()
        self._db.flush()

    def _hold(self, number: int) -> None:
        name = options.segment_name(number)
        with _translated():
            handle = self._db.get_column_family_handle(name)
            self._segments[number] = self._db.get_column_family(name), handle

    def _family(self, number: int) -> Rdict:
        if number == DEFAULT:
            return self._db
        assert number in self._segments, f"segment {number} is read, which is not there"
        return self._segments[number][0]

    def get(self, key: bytes, segment: int = DEFAULT) -> bytes | None:
        """See ``Engine.get``."""
        read = self._passing if self._large_count % _LARGE_KEPT_EACH else self._keeping
        with _translated():
            row = cast("bytes | None", self._family(segment).get(key, None, read))
            is_large = row is not None and len(row) >= _LARGE_BYTES
            self._large_count = self._large_count + 1 if is_large else 0
            return None if row is None else self._value(segment, row)

    def _value(self, segment: int, row: bytes) -> bytes:
        """What a row holds, or refers to."""
        found = apart.reference(row) if segment != DEFAULT else None
        if found is None:
            return row
        try:
            return self._values.read(segment, found)
        except GoneError as error:
            raise EngineError(Fault.VALUE_GONE, str(error)) from error

    def chunk(
        self, lo: bytes, hi: bytes, bytes_max: int, segment: int = DEFAULT, *, bounded: bool = False
    ) -> list[Pair]:
        """See ``Engine.chunk``."""
        pairs: list[Pair] = []
        size = 0
        with _translated():
            read = ReadOptions()
            if bounded:
                read.set_iterate_upper_bound(hi)
            # It points to `read` and to `hi`, which outlive it here.
            walk = self._family(segment).iter(read)
            try:
                walk.seek(lo)
                while walk.valid():
                    key = cast("bytes", walk.key())
                    if key >= hi:
                        break
                    try:
                        value = self._value(segment, cast("bytes", walk.value()))
                    except (EngineError, OSError):
                        if pairs:
                            break  # as before a bad block: the next chunk begins here and says so
                        raise
                    pairs.append((key, value))
                    size += len(key) + len(value) + _PAIR_OVERHEAD_BYTES
                    if size >= bytes_max:
                        break
                    walk.next()
                if not pairs:
                    walk.status()  # raises if the walk ended at a block that could not be read
            finally:
                del walk  # the error's traceback would keep it, and it the database open
        return pairs

    def last_below(self, lo: bytes, hi: bytes, segment: int = DEFAULT) -> Pair | None:
        """See ``Engine.last_below``."""
        found: Pair | None = None
        with _translated():
            walk = self._family(segment).iter()
            try:
                walk.seek_for_prev(hi)
                if walk.valid() and cast("bytes", walk.key()) == hi:
                    walk.prev()
                if walk.valid() and cast("bytes", walk.key()) >= lo:
                    row = cast("bytes", walk.value())
                    found = cast("bytes", walk.key()), self._value(segment, row)
                walk.status()
            finally:
                del walk
        return found

    def reference(self, key: bytes, segment: int) -> Reference | None:
        """See ``Engine.reference``."""
        with _translated():
            row = cast("bytes | None", self._family(segment).get(key))
        return apart.reference(row) if row is not None and segment != DEFAULT else None

    def sync_values(self) -> None:
        """See ``Engine.sync_values``."""
        with _translated():
            self._values.sync()

    def write(
        self,
        number: int,
        operations: Sequence[Operation],
        segments: Mapping[int, Sequence[Operation]] = NO_SEGMENTS,
    ) -> None:
        """See ``Engine.write``."""
        if self._log.is_full:
            raise EngineError(Fault.STALL, "the log is behind: too much waits to be written to it")
        divided, values = self._values.divide(number, segments)
        frame = self._log.encode(number, operations, divided, values)
        batch = self._batch(operations, divided)
        with _translated():
            self._db.write(batch, self._prompt)
        # A table may have it before the log has: then the log is not needed for it.
        self._log.append(frame)

    def _batch(
        self, operations: Sequence[Operation], segments: Mapping[int, Sequence[Operation]]
    ) -> RawBatch:
        batch = RawBatch(raw_mode=True)
        _fill(batch, operations, None)
        for number, placed in segments.items():
            _fill(batch, placed, self._segments[number][1])
        return batch

    @property
    def _log(self) -> Ahead:
        assert self._ahead is not None, "a log is begun by opening"
        return self._ahead

    def flush_wal(self, *, durably: bool = True) -> Witness:
        """See ``Engine.flush_wal``."""
        with _translated():
            return self._log.sync(durably=durably)

    def release_log(self) -> int:
        """See ``Engine.release_log``."""
        if self._log.has_whole_files and time.monotonic() >= self._next_look_s:
            with _translated():
                began = time.thread_time()
                self._covered = self._newest_in_tables()
                pause = min(_LOOK_PAUSE_SECONDS_MAX, _LOOK_PAUSE * (time.thread_time() - began))
                self._log.release(self._covered)
            self._next_look_s = time.monotonic() + pause
        return self._covered

    def _newest_in_tables(self) -> int:
        """The newest write in tables: the last key of those of the default family is its row."""
        last_keys = [cast("bytes", table["end_key"]) for table in self._db.live_files()]
        return max((keys.write_of(key) for key in last_keys if keys.is_journal_row(key)), default=0)

    def compact(self, lo: bytes, hi: bytes) -> None:
        """See ``Engine.compact``."""
        with _translated():
            self._db.compact_range(lo, hi)

    def segments(self) -> list[int]:
        """See ``Engine.segments``."""
        return sorted(self._segments)

    def table_bytes(self, segment: int) -> int:
        """See ``Engine.table_bytes``."""
        with _translated():
            tables = self._family(segment).property_int_value(_TABLE_BYTES) or 0
            return tables + self._values.size_bytes(segment)

    def make_segment(self, number: int) -> None:
        """See ``Engine.make_segment``; proves that the settings are in force, too."""
        name = options.segment_name(number)
        with _translated():
            self._db.create_column_family(name, self._segment_options)
        options.verify(self._path, options.in_force(self._sections, [name]))
        self._hold(number)

    def drop_segment(self, number: int) -> None:
        """See ``Engine.drop_segment``."""
        with _translated():
            self._segments[number][0].close()
            del self._segments[number]
            self._db.drop_column_family(options.segment_name(number))
            self._values.drop(number)

    def close(self) -> None:
        """See ``Engine.close``. The default family is the last: its rows say that all is there."""
        with _translated():
            for family, _ in self._segments.values():
                family.close()
            self._segments.clear()
            self._db.close()
            if self._ahead is not None:
                self._ahead.close()
            self._values.close()


def _fill(batch: RawBatch, operations: Sequence[Operation], family: ColumnFamily | None) -> None:
    for kind, key, value in operations:
        if kind == Op.PUT:
            batch.put(key, bytes(value), family)
        elif kind == Op.DELETE:
            batch.delete(key, family)
        else:
            assert kind == Op.DELETE_RANGE, f"a write batch holds an unknown operation {kind}"
            batch.delete_range(key, bytes(value), family)


@contextmanager
def _meeting_tables() -> Generator[None]:
    """Tell damage that RocksDB meets when it merges tables from what is lost of the log."""
    try:
        with _translated():
            yield
    except EngineError as error:
        if error.fault is not Fault.CORRUPTION:
            raise
        raise EngineError(Fault.TABLE_UNREAD, str(error)) from error


@contextmanager
def _translated() -> Generator[None]:
    """Give RocksDB's bare exceptions a kind. Our own errors and Python's pass through untouched."""
    try:
        yield
    except DbClosedError as error:
        raise EngineError(Fault.OTHER, "the database is closed") from error
    except OSError as error:
        raise EngineError(classify(error), str(error)) from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise EngineError(classify(error), str(error)) from error
