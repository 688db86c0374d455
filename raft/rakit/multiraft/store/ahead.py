"""The write-ahead log of the store: what makes a write durable before RocksDB has it in tables.

RocksDB has one of its own, which is not used: it goes over every byte with a checksum in portable
code and copies it twice, which took a third of a node's CPU (docs/decisions/0020). Here a write's
pieces are handed to the disk from where they are, and the one checksum uses the processor's
instruction.

Rules:

- The loop's thread appends, which touches no disk. The syncer's thread writes and syncs what was
  appended meanwhile, in one call of the system as a rule (group commit).
- Values that lie apart (``apart``) are durable before the frame of their write is written: what the
  log holds is all there.
- A file is synced before the next one begins, so only the newest can end torn. The name of a new
  one is durable before anything in it counts as durable.
- A file goes when RocksDB has all of its writes in tables, oldest first.
- What waits to be written is bounded: beyond it a write is refused like one that RocksDB stalls.
- No error is handled here: whoever gets one must take the store for failed (S12). Nothing is
  written after it, so that there is no hole.

Reading it back is `replay`, at opening, before anything is appended.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from rakit.multiraft.store import wal
from rakit.multiraft.store.apart import Value, Values
from rakit.multiraft.store.directory import (
    PRIVATE_MODE,
    live_wals,
    wal_directory,
    wal_path,
)
from rakit.multiraft.store.files import sync_directory, sync_file, write_pieces
from rakit.multiraft.store.wal import Flaw, Frame, Operation
from rakit.multiraft.store.witness import Witness

logger = logging.getLogger(__name__)

#: Written and synced at a time, or a single write that is larger: 0.2 s of a disk of 40 MB/s.
SYNC_BYTES_MAX: Final = 8 << 20
_CLOSE_WAIT_SECONDS: Final = 1.0
#: Beyond every write.
_NUMBER_MAX: Final = 1 << 64


class Appended(NamedTuple):
    """A write that waits for the disk."""

    number: int
    #: Its frame, and the length of that.
    pieces: list[bytes]
    frame_bytes: int
    #: What of it lies apart.
    values: Sequence[Value]
    #: All of it.
    size_bytes: int


class HoleError(Exception):
    """The log lacks a write that was there, or holds bytes that no write has left."""

    def __init__(self, text: str, reached: Witness) -> None:
        super().__init__(text)
        #: Where what is whole ends: the newest write of it, and the file and length up to there.
        self.reached = reached


def replay(database: Path, covered: int) -> Iterator[tuple[Frame, Witness]]:
    """Yields every write behind ``covered``, up to which RocksDB has them in tables, and its end.

    They are durable when they are yielded, though a sync that covered them may not have returned
    before the process ended: what comes of them is in tables soon, and must not be there in part.
    Raises ``HoleError`` where one is missing. A torn end of the newest file is no such thing.
    """
    numbers = live_wals(database)
    unneeded = {number for number, after in pairwise(numbers) if after <= covered + 1}
    reached = Witness(covered, 0, 0)
    if numbers:
        sync_directory(wal_directory(database))
    for number in numbers:
        if number in unneeded:
            continue
        path = wal_path(database, number)
        sync_file(path)
        walk = wal.Walk(path, covered=covered)
        for frame in walk:
            if frame.previous != reached.number:
                missing = f"write {reached.number + 1} is missing, write {frame.number} is there"
                raise HoleError(missing, reached)
            reached = Witness(frame.number, number, walk.survey.valid_length)
            yield frame, reached
        found = walk.survey
        reached = Witness(reached.number, number, found.valid_length)
        if found.flaw is Flaw.DAMAGED or (found.flaw is Flaw.TORN and number != numbers[-1]):
            text = f"{path.name} is {found.flaw.value} at byte {found.valid_length}"
            raise HoleError(text, reached)


def newest(database: Path) -> int:
    """The newest write that the log has whole, to go by its headers; 0 if there is none."""
    for number in reversed(live_wals(database)):
        walk = wal.Walk(wal_path(database, number), covered=_NUMBER_MAX)
        for _ in walk:
            pass
        if walk.last is not None:
            return walk.last
    return 0


def end_at(database: Path, last: int) -> None:
    """Take away what the log has behind its newest write: a torn end, files with nothing whole.

    So that it can go on in a new file. ``last``: the newest write that there is.
    """
    numbers = live_wals(database)
    for number in numbers:
        path = wal_path(database, number)
        if number > last:
            path.unlink()
            continue
        if number == numbers[-1] or numbers[numbers.index(number) + 1] > last:
            walk = wal.Walk(path, covered=_NUMBER_MAX)
            for _ in walk:
                pass
            if walk.survey.flaw is Flaw.TORN:
                with path.open("r+b") as file:
                    file.truncate(walk.survey.valid_length)
                    os.fsync(file.fileno())


def forget(database: Path, before: int = _NUMBER_MAX) -> None:
    """Delete the files of the log that begin before a write: RocksDB has all of it in tables."""
    for number in live_wals(database):
        if number < before:
            wal_path(database, number).unlink(missing_ok=True)


class Ahead:
    """The end of the log that is written to."""

    def __init__(
        self,
        database: Path,
        values: Values,
        last: int,
        *,
        file_bytes_max: int,
        waiting_bytes_max: int,
        fsync: bool,
    ) -> None:
        """``last``: the newest write that there is, and the log has nothing behind it."""
        directory = wal_directory(database)
        if not directory.is_dir():
            directory.mkdir(mode=PRIVATE_MODE)
            sync_directory(database)
        assert max(live_wals(database), default=0) <= last, "a log goes on behind its end"
        self._database = database
        self._values = values
        self._appended = last
        self._file_bytes_max = file_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
        self._fsync = fsync
        #: What was appended and not yet taken to be written. Both ends of it are safe to use at
        #: once, and each count belongs to one thread.
        self._waiting: deque[Appended] = deque()
        self._appended_bytes = 0
        self._synced_bytes = 0
        self._descriptor = -1
        #: A write has begun and did not end well, or not yet.
        self._is_broken = False
        #: The newest file and its length, and the newest write in it.
        self._file, self._length, self._written = 0, 0, last
        #: Files before the newest, and the last write of each.
        self._whole: deque[tuple[Path, int]] = deque()
        self._deleting: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the disk that nothing may be appended."""
        return self._appended_bytes - self._synced_bytes >= self._waiting_bytes_max

    @property
    def has_whole_files(self) -> bool:
        """Whether there is any file that ``release`` may delete at all."""
        return bool(self._whole)

    @property
    def is_releasing(self) -> bool:
        """Whether files are being deleted."""
        return self._deleting is not None and self._deleting.is_alive()

    def encode(
        self,
        number: int,
        operations: Sequence[Operation],
        segments: Mapping[int, Sequence[Operation]],
        values: Sequence[Value] = (),
    ) -> Appended:
        """Make the frame of the next write, which ``append`` takes in."""
        assert number > self._appended, "writes are appended in the order of their numbers"
        pieces, size = wal.encode(number, self._appended, operations, segments)
        whole = size + sum(len(value.data) for value in values)
        return Appended(number, pieces, size, values, whole)

    def append(self, frame: Appended) -> None:
        """Take in a write. The loop's thread; touches no disk, and cannot fail."""
        self._appended = frame.number
        self._appended_bytes += frame.size_bytes
        self._values.append(frame.values)
        self._waiting.append(frame)

    def sync(self, *, durably: bool = True) -> Witness:
        """Make what was appended durable, or the older part of it; returns where the log ends then.

        So that who waits for the first of much does not wait for the last, nor the loop for room.
        Not ``durably`` only writes it where the log was opened without ``fsync``. The syncer's
        thread; raises ``OSError``.
        """
        if self._is_broken:
            raise OSError(errno.EIO, "an earlier write to the log failed")
        self._is_broken = True
        taken, taken_bytes = self._take()
        values = [value for each in taken for value in each.values]
        self._values.write(values)
        pieces: list[bytes] = []
        for number, more, size, _, _ in taken:
            if self._descriptor < 0 or self._length >= self._file_bytes_max:
                self._put(pieces)
                pieces = []
                self._begin(number)
            pieces += more
            self._length += size
            self._written = number
        self._put(pieces)
        if durably and not self._fsync:
            self._sync_all()
        self._values.written(values)
        self._synced_bytes += taken_bytes
        self._is_broken = False
        return Witness(self._written, self._file, self._length)

    def _take(self) -> tuple[list[Appended], int]:
        """What is written next, and its bytes."""
        taken: list[Appended] = []
        taken_bytes = 0
        for _ in range(len(self._waiting)):
            if taken_bytes >= SYNC_BYTES_MAX:
                break
            taken.append(self._waiting.popleft())
            taken_bytes += taken[-1].size_bytes
        return taken, taken_bytes

    def _sync_all(self) -> None:
        self._values.sync()
        for each in live_wals(self._database):
            with suppress(FileNotFoundError):  # some are deleted meanwhile
                sync_file(wal_path(self._database, each))
        sync_directory(wal_directory(self._database))

    def _begin(self, number: int) -> None:
        """Begin the next file; the one before it is durable."""
        if self._descriptor >= 0:
            self._let_go()
            self._whole.append((wal_path(self._database, self._file), self._written))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        flags |= os.O_DSYNC if self._fsync else 0
        self._descriptor = os.open(wal_path(self._database, number), flags, 0o600)
        if self._fsync:
            sync_directory(wal_directory(self._database))
        self._file, self._length = number, 0

    def _put(self, pieces: Sequence[bytes]) -> None:
        """Write to the newest file, durably: its descriptor is one that syncs what is written."""
        write_pieces(self._descriptor, pieces)

    def release(self, covered: int) -> None:
        """Begin to delete the files whose writes RocksDB has in tables. The syncer's thread.

        That takes 30 ms for each, while the disk is busy: no sync waits for it.
        """
        if self.is_releasing or not self._whole or self._whole[0][1] > covered:
            return
        # None that becomes whole meanwhile: the newest one has a write in it then (S13, mending).
        count = sum(last <= covered for _, last in self._whole)
        self._deleting = threading.Thread(
            target=self._delete, args=(count,), name="rakit-log", daemon=True
        )
        self._deleting.start()

    def _delete(self, count: int) -> None:
        for _ in range(count):
            try:
                self._whole[0][0].unlink(missing_ok=True)
            except OSError as error:
                logger.warning("a file of the log that is needed no more stays: %s", error)
                return
            self._whole.popleft()

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Let go of the newest file, and wait for a moment for those that are being deleted."""
        self._let_go()
        if self._deleting is not None:
            self._deleting.join(_CLOSE_WAIT_SECONDS)
