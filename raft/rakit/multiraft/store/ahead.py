"""The write-ahead log of the store: what makes a write durable before RocksDB has it in tables.

RocksDB has one of its own, which is not used: it goes over every byte with a checksum in portable
code and copies it twice, which took a third of a node's CPU (docs/decisions/0020). Here a write's
pieces are handed to the disk from where they are, and the one checksum uses the processor's
instruction.

Rules:

- The loop's thread appends, which touches no disk. The syncer's thread writes and syncs what was
  appended meanwhile, in one call of the system as a rule (group commit).
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
from typing import Final

from rakit.multiraft.store import wal
from rakit.multiraft.store.directory import (
    PRIVATE_MODE,
    live_wals,
    wal_directory,
    wal_path,
)
from rakit.multiraft.store.files import sync_directory
from rakit.multiraft.store.wal import Flaw, Frame, Operation
from rakit.multiraft.store.witness import Witness

logger = logging.getLogger(__name__)

#: Pieces in one call of the system, which takes 1,024.
_PIECES_MAX: Final = 1024
#: Written and synced at a time, or a single write that is larger: 0.2 s of a disk of 40 MB/s.
SYNC_BYTES_MAX: Final = 8 << 20
_CLOSE_WAIT_SECONDS: Final = 1.0


#: A write's number, its frame in pieces, and the length of that.
Appended = tuple[int, list[bytes], int]


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
        _sync_file(path)
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


def forget(database: Path) -> None:
    """Delete all of the log: RocksDB has everything in tables."""
    for number in live_wals(database):
        wal_path(database, number).unlink(missing_ok=True)


class Ahead:
    """The end of the log that is written to."""

    def __init__(
        self,
        database: Path,
        last: int,
        *,
        file_bytes_max: int,
        waiting_bytes_max: int,
        fsync: bool,
    ) -> None:
        """``last``: the newest write that there is. The log itself must be empty."""
        directory = wal_directory(database)
        if not directory.is_dir():
            directory.mkdir(mode=PRIVATE_MODE)
            sync_directory(database)
        assert not live_wals(database), "a log begins when the one before it is in tables"
        self._database = database
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
    ) -> Appended:
        """Make the frame of the next write, which ``append`` takes in."""
        assert number > self._appended, "writes are appended in the order of their numbers"
        pieces, size = wal.encode(number, self._appended, operations, segments)
        return number, pieces, size

    def append(self, frame: Appended) -> None:
        """Take in a write. The loop's thread; touches no disk, and cannot fail."""
        self._appended, _, size = frame
        self._appended_bytes += size
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
        pieces: list[bytes] = []
        taken_bytes = 0
        for _ in range(len(self._waiting)):
            if taken_bytes >= SYNC_BYTES_MAX:
                break
            number, more, size = self._waiting.popleft()
            if self._descriptor < 0 or self._length >= self._file_bytes_max:
                self._put(pieces)
                pieces = []
                self._begin(number)
            pieces += more
            taken_bytes += size
            self._length += size
            self._written = number
        self._put(pieces)
        if durably and not self._fsync:
            for each in live_wals(self._database):
                with suppress(FileNotFoundError):  # some are deleted meanwhile
                    _sync_file(wal_path(self._database, each))
            sync_directory(wal_directory(self._database))
        self._synced_bytes += taken_bytes
        self._is_broken = False
        return Witness(self._written, self._file, self._length)

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
        for start in range(0, len(pieces), _PIECES_MAX):
            _write(self._descriptor, pieces[start : start + _PIECES_MAX])

    def release(self, covered: int) -> None:
        """Begin to delete the files whose writes RocksDB has in tables. The syncer's thread.

        That takes 30 ms for each, while the disk is busy: no sync waits for it.
        """
        if self.is_releasing or not self._whole or self._whole[0][1] > covered:
            return
        self._deleting = threading.Thread(
            target=self._delete, args=(covered,), name="rakit-log", daemon=True
        )
        self._deleting.start()

    def _delete(self, covered: int) -> None:
        while self._whole and self._whole[0][1] <= covered:
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


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, pieces: Sequence[bytes]) -> None:
    wanted = sum(map(len, pieces))
    written = os.writev(descriptor, pieces)
    while written < wanted:  # a disk that is nearly full takes a part, and then says so
        written += os.write(descriptor, b"".join(pieces)[written:])
