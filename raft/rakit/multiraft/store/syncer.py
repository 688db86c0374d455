"""The one thread that makes writes durable: group commit (S13).

The loop thread writes to memory and asks (``request``); this thread writes to the log, syncs it,
and reports the newest number that this covered. While it does more writes gather, and the next
sync covers them, up to some megabytes at a time, so the rate of acknowledgements does not depend
on the number of writers.

Once per interval, after the report and off the acknowledgement's way, the witness is
brought up to date if anything was written (S7), and the store looks after its room (S12). How much
room there is it sees more often while it is written to, likewise after the report.

The first failure is reported once and ends the thread: a flush is never tried again (S12).

A disk may hang for ever, and a call of RocksDB cannot be broken off. So the thread tells when it
has ended, and whoever stops it may give up waiting; the process then has to end without it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rakit.multiraft.store.errors import StoreFailedError
from rakit.multiraft.store.rocks import RocksStore

logger = logging.getLogger(__name__)


class Syncer:
    """Runs flushes for one store. Callbacks are called on its thread."""

    def __init__(
        self,
        store: RocksStore,
        on_synced: Callable[[int], None],
        on_failed: Callable[[StoreFailedError], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._store = store
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._on_ended = on_ended
        #: Free when there may be something to do. A condition has a lock of its own, which both
        #: threads would wait for in turn.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._requested = store.last_number
        self._synced = store.last_number
        self._witnessed = store.last_number
        self._stopping = False
        self._in_flight_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="rakit-syncer", daemon=True)

    def start(self) -> None:
        """Begin to serve requests."""
        self._thread.start()

    def request(self, number: int) -> None:
        """Ask for write ``number`` and all before it to become durable. Does not wait.

        Like ``stop`` from one thread, which owns the syncer.
        """
        if number > self._requested:
            self._requested = number
            self._ring()

    def in_flight_since(self) -> float | None:
        """When (``time.monotonic``) the disk was last given work that is not done yet (S13)."""
        return self._in_flight_since

    def stop(self) -> None:
        """Have the thread end when it has served what was requested. Does not wait."""
        self._stopping = True
        self._ring()

    def close(self) -> None:
        """Serve what was requested, then end the thread. Waits for it."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    def abandon(self) -> None:
        """Report nothing any more: whoever listened has given up waiting."""
        self._on_synced = self._on_failed = self._on_ended = _ignore

    def _run(self) -> None:
        try:
            self._serve_until_stopped()
        finally:
            self._on_ended()

    def _serve_until_stopped(self) -> None:
        due = time.monotonic() + self._store.witness_interval_seconds
        try:
            while self._wait(due):
                due = self._serve(due)
        except StoreFailedError as error:
            self._on_failed(error)
        except Exception as error:
            logger.exception("the syncer broke")
            self._on_failed(StoreFailedError(f"the syncer broke: {error!r}", disk_full=False))

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    def _wait(self, due: float) -> bool:
        """Sleep until a sync is asked for or upkeep is due; False when it is time to end."""
        while self._requested <= self._synced:
            if self._stopping:
                return False
            left = due - time.monotonic()
            if left <= 0:
                return True
            # What came before is seen above; what comes from here on has the bell free.
            self._bell.acquire(timeout=left)
        return True

    def _serve(self, due: float) -> float:
        """One flush, or upkeep if its time has come; returns when upkeep is due next."""
        try:
            if time.monotonic() < due:
                self._flush()
                return due
            # A disk that hangs in any of this keeps the next flush waiting just as well.
            self._in_flight_since = time.monotonic()
            if max(self._requested, self._synced) > self._witnessed:
                self._flush()
                position = self._store.position()
                self._in_flight_since = time.monotonic()
                self._store.save_witness(position)
                self._witnessed = position.number
            self._store.maintain()
            return time.monotonic() + self._store.witness_interval_seconds
        finally:
            self._in_flight_since = None

    def _flush(self) -> None:
        self._in_flight_since = time.monotonic()
        self._synced = self._store.flush_some()
        self._on_synced(self._synced)
        self._store.watch_room()


def _ignore(_: object = None) -> None:
    """What is reported to nobody."""
