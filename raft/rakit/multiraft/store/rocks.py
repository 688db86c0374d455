"""``RocksStore``: the node's disk, as the host sees it.

All groups of a node share one store: one RocksDB, one write-ahead log (``ahead``), so one
``flush_wal`` covers everybody who wrote. Above it is one key space; below, entries lie in segments
(``segments``) and everything else in the default family. The loop thread writes to memory and
reads; the syncer thread writes to the log and syncs.

Rules:

- Writes are numbered from 1 without a gap, over the whole life of the store. Each carries its
  journal row (S7). A write is readable at once and durable after a flush that began later.
- A stall is the only error of a write that may be tried again, with the same batch and before any
  later one (S12). Our batches are plain lists, so nothing is lost to RocksDB's consumed ones.
  Where its operations go was decided the first time.
- Any other error of a write or flush poisons the store: every later write and flush raises the
  same ``StoreFailedError`` without touching the disk. Reads go on, so that the node can still say
  goodbye.
- A store whose tables hold a block that RocksDB cannot read goes on without rewriting tables, from
  the next start on (``uncompacted``).
- A read that meets a damaged block raises ``StoreCorruptError``, any other that fails (no file
  handle was left, the disk gave an IO error) ``StoreUnreadableError``; none returns less than there
  is.
- ``fsynced`` is False under --unsafe-no-fsync, so that acknowledgements can say so.

What cannot be detected here: a directory that was rolled back whole, witness included. Peers can,
by the highest ``synced_counter`` that they have heard of this store and its ``opened_counter``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.store import discarding, runs, tail, uncompacted
from rakit.multiraft.store import identity as identities
from rakit.multiraft.store.ahead import forget
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.directory import size_of
from rakit.multiraft.store.engine import (
    NO_SEGMENTS,
    EngineError,
    OpenEngine,
    Operation,
    RocksEngine,
)
from rakit.multiraft.store.entries import Entries
from rakit.multiraft.store.errors import Fault, LossReport, StoreFailedError, WriteStalledError
from rakit.multiraft.store.identity import Identity
from rakit.multiraft.store.opening import Opened, open_directory
from rakit.multiraft.store.reclaim import Reclaimer
from rakit.multiraft.store.retiring import Retiring
from rakit.multiraft.store.segments import Placed
from rakit.multiraft.store.witness import Witness

logger = logging.getLogger(__name__)


class RocksStore:
    """The disk of one node. ``KeyValue`` plus writing, syncing and identity."""

    def __init__(self, config: StoreConfig, parts: Opened) -> None:
        self._config = config
        self._directory = parts.directory
        self._identity = parts.identity
        self._engine = parts.engine
        self._witness = parts.witness
        self._journal = parts.journal
        self._space = parts.space
        self._space.look()
        self._uncompacted = uncompacted.reason(parts.directory.path)
        if self._uncompacted:
            logger.error("no table is rewritten, since one cannot be read: %s", self._uncompacted)
        self._reclaimer = Reclaimer(parts.engine, parts.space, compacts=not self._uncompacted)
        self._reader = parts.reader
        self._segments = parts.segments
        self._entries = Entries(parts.reader, parts.segments, config.scan_chunk_bytes)
        self._retiring = Retiring(parts.segments, parts.reader)
        #: A batch that met a stall, and where its operations go.
        self._stalled: tuple[WriteBatch, Placed] | None = None
        self._loss = parts.loss
        self._boot = parts.number
        self._doubt_is_settled = False
        self._is_disputed = False
        self._number = parts.number
        self._opened = parts.number - 1
        self._synced = parts.number
        self._failed: StoreFailedError | None = None
        self._closed = False
        #: What the newest flush covered, and up to where there are tables: the syncer's.
        self._position = parts.witness.current
        self._covered = 0

    @classmethod
    def open(
        cls, config: StoreConfig, node_name: str, open_engine: OpenEngine = RocksEngine
    ) -> RocksStore:
        """Open or create a store.

        Raises ``StoreLockedError``, ``IdentityMismatchError``, ``StoreDamagedError``,
        ``StoreFullError`` or ``StoreFailedError``; each has an ``exit_code``.
        """
        return cls(config, open_directory(config, node_name, open_engine))

    # -- what the store is -------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Whose store this is."""
        return self._identity

    @property
    def store_uuid(self) -> str:
        """The store's own name, minted when it was made (S11)."""
        return self._identity.store_uuid

    @property
    def loss(self) -> LossReport:
        """What opening found at the end of the log."""
        return self._loss

    @property
    def boot(self) -> int:
        """The number of this start: of the write that opening made, and had witnessed.

        Later starts have higher numbers. What is cut off a tail lies behind the witness (S8), so
        not even a start that loses all it wrote takes its number back.
        """
        return self._boot

    @property
    def failed(self) -> StoreFailedError | None:
        """Why the store is poisoned; None while it works."""
        return self._failed

    @property
    def uncompacted(self) -> str:
        """Why no table is rewritten: one cannot be read (S9). Empty while tables are rewritten."""
        return self._uncompacted

    @property
    def fsynced(self) -> bool:
        """Whether a sync really reaches the disk."""
        return self._config.fsync

    @property
    def last_number(self) -> int:
        """The number of the newest write."""
        return self._number

    @property
    def opened_counter(self) -> int:
        """What this opening found: the number before that of its own first write (S7)."""
        return self._opened

    @property
    def synced_counter(self) -> int:
        """The number of the newest write known to be durable; peers remember the highest (S7)."""
        return self._synced

    @property
    def witness_interval_seconds(self) -> float:
        """How old the witness may grow."""
        return self._config.witness_interval_ms / 1000

    @property
    def free_bytes(self) -> int:
        """Free bytes on the store's file system."""
        return self._space.free_bytes

    @property
    def low_space(self) -> bool:
        """Whether produce is to be refused for lack of room (S12), as it was found last."""
        return self._space.low

    @property
    def size_bytes(self) -> int:
        """What the database takes on the disk."""
        return size_of(self._directory.database)

    # -- identity ----------------------------------------------------------------------------

    def check_identity(self, cluster_id: str, node_id: int) -> None:
        """Raise ``IdentityMismatchError`` if the directory is another cluster's or node's."""
        self._identity.check(cluster_id, node_id)

    def adopt(self, cluster_id: str, node_id: int) -> None:
        """Record durably that this store now belongs to a node of a cluster."""
        assert cluster_id, "a store is adopted by a cluster that has an id"
        assert node_id > 0, "a store is adopted by a node that has an id"
        self._identity.check(cluster_id, node_id)
        adopted = replace(self._identity, cluster_id=cluster_id, node_id=node_id)
        identities.save(self._directory.identity, adopted)
        self._identity = adopted

    def settle_doubt(self) -> None:
        """The replicas' doubt is recorded and synced: later starts need not report it again.

        The files are renamed by ``maintain``, which is not on the loop.
        """
        self._doubt_is_settled = True

    def keep_for_a_person(self) -> None:
        """A replica here contradicts the others, and may be right: never give this store up.

        The note is left by ``maintain`` or ``close``, which are not on the loop.
        """
        self._is_disputed = True

    # -- writing -----------------------------------------------------------------------------

    def write(self, batch: WriteBatch) -> int:
        """Write a batch, not yet durable; returns its number.

        Raises ``WriteStalledError`` (write the same batch again, before any other) or
        ``StoreFailedError`` (the outcome is unknown, and so it stays).
        """
        self._refuse_if_failed()
        number = self._number + 1
        if self._stalled is None:
            # The small row first: behind a large one it would make RocksDB's batch grow once more.
            operations = [*self._journal.operations(number, self._apart(batch)), *batch.ops]
            placed = self._segments.place(operations, number)
        else:
            refused, placed = self._stalled
            assert batch.ops == refused.ops, "another batch was written before a stalled one"
        try:
            self._write(number, placed.default, placed.segments)
        except WriteStalledError:
            self._stalled = batch, placed
            raise
        self._stalled = None
        self._segments.written()
        self._journal.written(min(self._covered, self._synced))
        self._reclaimer.note(placed.default)
        return number

    def _apart(self, batch: WriteBatch) -> list[tuple[int, int]]:
        """The entries whose values will lie apart: all entries go to a segment."""
        least = self._config.apart_bytes_min
        return [
            runs.place_of(key)
            for kind, key, value in batch.ops
            if len(value) >= least and kind == Op.PUT and runs.is_entry(key)
        ]

    @property
    def upkeep_is_urgent(self) -> bool:
        """Whether upkeep falls behind, or the disk is filling up."""
        return self._segments.is_urgent

    def upkeep(self) -> bool:
        """Move a little of a segment that is nearly dead; whether a sync is of use now.

        Of what it wrote, or for a segment that can be dropped when the witness knows of its end. A
        write like any other; raises ``StoreFailedError``. A stall only puts it off.
        """
        self._refuse_if_failed()
        if self._stalled is None:
            self._end_a_segment()
            step = self._retiring.step()
            if step and self._write_of_our_own(step):
                self._retiring.written(self._number)
                return True
        return self._segments.died_at > self._synced

    def _end_a_segment(self) -> None:
        """Go on in the next segment if it is time: where little is written no write may come."""
        if self._segments.is_due and (not self._segments.notes() or self._note_runs()):
            self._segments.seal()
            self._segments.written()

    def _note_runs(self) -> bool:
        """Write down how much there is of each run; False after a stall."""
        return self._write_of_our_own(self._segments.notes())

    def _write_of_our_own(self, operations: Sequence[Operation]) -> bool:
        number = self._number + 1
        try:
            self._write(number, [*self._journal.operations(number), *operations])
        except WriteStalledError:
            return False
        self._journal.written(min(self._covered, self._synced))
        return True

    def _write(
        self,
        number: int,
        operations: Sequence[Operation],
        segments: Mapping[int, Sequence[Operation]] = NO_SEGMENTS,
    ) -> None:
        try:
            self._engine.write(number, operations, segments)
        except EngineError as error:
            if error.fault is Fault.STALL:
                raise WriteStalledError(str(error)) from error
            raise self._poison("write", error) from error
        self._number = number

    def flush_wal(self) -> int:
        """Make every write so far durable; returns the newest number covered.

        Any thread, but not beside another flush.
        """
        number = self._number
        while self.flush_some() < number:
            pass
        return self._synced

    def flush_some(self) -> int:
        """Make the oldest writes that are not durable so, as much as is written at a time.

        Returns the newest number covered. Whatever goes wrong, nothing is written after it.
        """
        self._refuse_if_failed()
        try:
            self._position = self._engine.flush_wal(durably=self._config.fsync)
        except Exception as error:
            raise self._poison("flush", error) from error
        self._synced = self._position.number
        return self._synced

    def position(self) -> Witness:
        """What the newest flush has covered, for the witness. The thread that flushes."""
        return self._position

    def save_witness(self, reached: Witness) -> None:
        """Make a position that a flush has covered the durable witness. The syncer's thread."""
        assert reached.number <= self._synced, "a witness speaks of what is durable"
        if not self._config.fsync:
            return  # nothing is durable: a witness would refuse the next start after a power cut
        try:
            self._witness.save(reached)
        except OSError as error:
            raise self._poison("witness", error) from error

    def maintain(self) -> None:
        """Look after the room: ballast back, deleted data out. The syncer's thread."""
        self._settle()
        self._mark_dispute()
        self._space.restore()
        self._space.look()
        self._let_go_of_the_log()
        self._reclaimer.consider()
        self._look_after_segments()

    def _let_go_of_the_log(self) -> None:
        try:
            self._covered = self._engine.release_log()
        except EngineError as error:
            raise self._poison("letting go of the log", error) from error

    def _look_after_segments(self) -> None:
        self._segments.tight = self._space.tight
        self._segments.free_bytes = self._space.free_bytes
        covered = self._witness.current.number if self._config.fsync else self._synced
        try:
            self._segments.let_go(covered)
            self._segments.prepare()
        except EngineError as error:
            raise self._poison("a segment", error) from error
        except StoreFailedError as error:  # of settings that did not take
            self._failed = self._failed or error
            raise

    def _mark_dispute(self) -> None:
        if self._is_disputed:
            self._is_disputed = not discarding.dispute(self._directory)

    def watch_room(self) -> None:
        """See whether the room still suffices, now that something was written. As `maintain`."""
        self._space.look_if_due()

    # -- reading -----------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """See ``KeyValue.get``."""
        return (self._entries if runs.is_entry(key) else self._reader).get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See ``KeyValue.scan``.

        Read in chunks, each a view of its own moment: what is written meanwhile may show up. Damage
        in a block that lies behind the range, where a walk forwards meets it, is somebody else's.
        """
        return (self._entries if runs.is_entry(lo) else self._reader).scan(lo, hi)

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        """See ``KeyValue.last_below``.

        Damage in a block that lies before or behind the range, where a look from behind begins or
        goes on to, is somebody else's: a walk forwards within the range does not meet it.
        """
        return (self._entries if runs.is_entry(lo) else self._reader).last_below(lo, hi)

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Sync, leave a witness of everything, and let go.

        A poisoned store is left as a crash would leave it, and the process has to end: its memory
        holds what the log lacks, and must not get into tables in part.
        """
        if self._closed:
            return
        self._closed = True
        idle = self._reclaimer.close()
        self._mark_dispute()
        try:
            if self._failed is None:
                self._leave(idle=idle)
        finally:
            self._directory.close()

    def _leave(self, *, idle: bool) -> None:
        """All durable, and a witness of it. A busy database stays as a crash would leave it."""
        try:
            if self._stalled is None and self._segments.notes():
                self._note_runs()
            reached = self._engine.flush_wal()
            while reached.number < self._number:
                reached = self._engine.flush_wal()
            self._synced = reached.number
            # Families become tables one by one: what is in them must not be cut off (S8).
            self._witness.save(reached)
            if idle:
                self._engine.close()
                forget(self._directory.database)
        except (EngineError, OSError) as error:
            raise self._poison("close", error) from error
        self._settle()

    def _settle(self) -> None:
        if self._doubt_is_settled:
            tail.settle(self._directory.cut)
            self._doubt_is_settled = False

    # -- helpers -----------------------------------------------------------------------------

    def _refuse_if_failed(self) -> None:
        assert not self._closed, "a closed store takes no writes"
        if self._failed is not None:
            raise self._failed

    def _poison(self, action: str, error: Exception) -> StoreFailedError:
        """Remember the first failure for good and return it for raising."""
        if self._failed is None:
            full = isinstance(error, EngineError) and error.fault is Fault.DISK_FULL
            self._failed = StoreFailedError(f"{action} failed: {error}", disk_full=full)
            logger.error("the store is poisoned: %s", self._failed)
            if isinstance(error, EngineError):
                uncompacted.note(self._directory.path, error.fault, str(error))
        return self._failed
