"""Large values of entries, in files of their own: written once, where they stay (0023).

What is in RocksDB is written twice, to a log and to a table. For a large value a log alone would
do: it is appended, never changed, and goes with all of its segment. So it is written to a file that
belongs to its segment, and the entry's row in RocksDB, and in the write-ahead log, is a reference.

Rules:

- A value is durable before the frame of its write is written to the log (``ahead``). So what the
  log holds is all there, and nobody has to look at values to know how far the log goes.
- A table may have the reference before that. Such values are missing after a power cut, and never
  were acknowledged: opening cuts the entries off (``mending``). For that a reference tells by which
  write it was made.
- A file is begun by each life of the store in each segment, and named by segment and first write.
  Nothing is ever written to a file of an earlier life, so a place is never used twice.
- A value that waits for the disk is read from memory, any other one from its file.
- Where the file system can, values go past the operating system's cache: whoever reads them soon
  has them from ours, and pages that nobody has touched before are dear in a virtual machine. So a
  value begins at a block. It is written from where it was put together, if that is whole pages
  (``pages``), and else copied once into such.
- Files go with their segment, and what belongs to none, or to no write that there is, at opening.
- A value that is not there raises ``GoneError``. Whether it is the one that was written is told by
  the entry's own checksum, which whoever decodes it takes.

    reference: offset 8, length 4, FF, first write of the file 8, number of the write 8

FF stands where an entry has its type, and is none, so a reference is told from a small entry.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from rakit.multiraft import pages
from rakit.multiraft.kv import Op
from rakit.multiraft.pages import PAGE_BYTES
from rakit.multiraft.store.directory import (
    PRIVATE_MODE,
    live_values,
    values_directory,
    values_path,
)
from rakit.multiraft.store.files import sync_directory, sync_file
from rakit.multiraft.store.wal import Operation
from rakit.raft import Payload

logger = logging.getLogger(__name__)

_REFERENCE: Final = struct.Struct("<QIBQQ")
_MARK: Final = 0xFF
_MARK_AT: Final = 12
#: Written at a time, if no value is longer, and in how many pieces: what systems take at most.
_WRITE_BYTES: Final = 4 << 20
_PIECES_MAX: Final = 1024
#: Files that are kept open for reading.
_OPEN_COUNT_MAX: Final = 64
_CLOSE_WAIT_SECONDS: Final = 1.0


class GoneError(Exception):
    """A value is not where its reference says."""


class Reference(NamedTuple):
    """Where a value lies, in a segment's files, and by which write."""

    offset: int
    length: int
    file: int
    number: int


class Value(NamedTuple):
    """A value that is to be written."""

    segment: int
    file: int
    offset: int
    data: Payload

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + len(self.data) + -len(self.data) % PAGE_BYTES


#: A file: its segment and its first write.
_File = tuple[int, int]


def reference(row: bytes) -> Reference | None:
    """What the row of an entry refers to; None when it is the entry itself."""
    if len(row) != _REFERENCE.size or row[_MARK_AT] != _MARK:
        return None
    offset, length, _, file, number = _REFERENCE.unpack(row)
    return Reference(offset, length, file, number)


class Values:
    """The files of one store. The loop's thread places and reads, the syncer's writes and drops."""

    def __init__(self, database: Path, *, bytes_min: int, direct_io: bool, fsync: bool) -> None:
        self._database = database
        self._bytes_min = bytes_min
        self._flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._flags |= os.O_DIRECT if direct_io else 0
        self._flags |= os.O_DSYNC if fsync else 0
        self._fsync = fsync
        #: The file that is written to and where it ends, as what was placed will have it.
        self._place: _File = (0, 0)
        self._end = 0
        #: What was placed and is not in its file yet: bounded by what may wait for the log.
        self._waiting: dict[tuple[int, int, int], Payload] = {}
        self._written: _File = (0, 0)
        self._descriptor = -1
        #: Files that are open for reading, the one that was read last at the end. Of two threads:
        #: the syncer's takes out those of a segment that goes.
        self._open: dict[_File, int] = {}
        self._opening = threading.Lock()
        self._deleting: list[threading.Thread] = []

    # -- writing -----------------------------------------------------------------------------

    def divide(
        self, number: int, segments: Mapping[int, Sequence[Operation]]
    ) -> tuple[Mapping[int, Sequence[Operation]], list[Value]]:
        """The operations of a write with references for large values, and the values.

        Nothing is placed until they are appended: a write that stalls is made again.
        """
        values: list[Value] = []
        divided: dict[int, Sequence[Operation]] = {}
        for segment, operations in segments.items():
            divided[segment] = operations
            if any(len(value) >= self._bytes_min for _, _, value in operations):
                divided[segment] = self._divide(number, segment, operations, values)
        return (divided, values) if values else (segments, values)

    def _divide(
        self, number: int, segment: int, operations: Sequence[Operation], values: list[Value]
    ) -> list[Operation]:
        file, end = self._place[1], self._end
        if values:
            last = values[-1]
            same, end = last.segment == segment, last.end
            file = last.file
        else:
            same = self._place[0] == segment
        if not same:
            file, end = number, 0
        divided: list[Operation] = []
        for operation in operations:
            kind, key, value = operation
            if kind == Op.PUT and len(value) >= self._bytes_min:
                placed = Value(segment, file, end, value)
                values.append(placed)
                row = _REFERENCE.pack(end, len(value), _MARK, file, number)
                divided.append((kind, key, row))
                end = placed.end
            else:
                divided.append(operation)
        return divided

    def append(self, values: Iterable[Value]) -> None:
        """Take in the values of a write."""
        for value in values:
            self._waiting[value[:3]] = value.data
            self._place, self._end = value[:2], value.end

    def write(self, values: Iterable[Value]) -> None:
        """Write values to their files, durably, in the order in which they were appended.

        The syncer's thread; raises ``OSError``.
        """
        for file, group in groupby(values, key=lambda value: (value.segment, value.file)):
            if file != self._written:
                self._begin(file)
            self._put(list(group))

    def _put(self, values: Sequence[Value]) -> None:
        """Write values that lie behind each other, each from memory of whole pages."""
        at, size = values[0].offset, 0
        pieces: list[memoryview] = []
        for value in values:
            whole = pages.pages_of(value.data)
            if whole is None:
                copy = pages.lend(len(value.data))
                copy[:] = value.data
                whole = pages.pages_of(copy)
                assert whole is not None, "what was lent for a value is whole pages"
            pieces.append(whole)
            size += len(whole)
            if size >= _WRITE_BYTES:
                self._write_pieces(at, pieces)
                at, size, pieces = at + size, 0, []
        if pieces:
            self._write_pieces(at, pieces)

    def _write_pieces(self, at: int, pieces: list[memoryview]) -> None:
        """A disk that is nearly full takes a part, and then says so."""
        assert len(pieces) <= _PIECES_MAX, "more pieces than a system writes at a time"
        while pieces:
            done = os.pwritev(self._descriptor, pieces, at)
            if not done:
                raise OSError(errno.ENOSPC, "the disk took nothing and said nothing")
            at += done
            while pieces and done >= len(pieces[0]):
                done -= len(pieces.pop(0))
            if done:
                pieces[0] = pieces[0][done:]

    def _begin(self, file: _File) -> None:
        self._let_go()
        path = values_path(self._database, *file)
        self._descriptor = os.open(path, self._flags, 0o600)
        self._written = file
        if self._fsync:
            sync_directory(values_directory(self._database))

    def written(self, values: Iterable[Value]) -> None:
        """The values are in their files, and are read from there from now on."""
        for value in values:
            del self._waiting[value[:3]]

    def sync(self) -> None:
        """Make all files durable, whatever was written how."""
        directory = values_directory(self._database)
        if directory.is_dir():
            for file in live_values(self._database):
                with suppress(FileNotFoundError):  # some are deleted meanwhile
                    sync_file(values_path(self._database, *file))
            sync_directory(directory)

    # -- reading -----------------------------------------------------------------------------

    def read(self, segment: int, found: Reference) -> bytes:
        """The value. Raises ``GoneError``, or ``OSError`` when the disk cannot tell."""
        waiting = self._waiting.get((segment, found.file, found.offset))
        if waiting is not None:
            return bytes(waiting)
        try:
            descriptor = self._reading(segment, found.file)
        except FileNotFoundError as error:
            raise GoneError(f"{error.filename} is gone, with {found}") from error
        data = os.pread(descriptor, found.length, found.offset)
        while len(data) < found.length:
            more = os.pread(descriptor, found.length - len(data), found.offset + len(data))
            if not more:
                name = values_path(self._database, segment, found.file).name
                raise GoneError(f"{name} ends at byte {found.offset + len(data)}, within {found}")
            data += more
        return data

    def _reading(self, segment: int, file: int) -> int:
        with self._opening:
            descriptor = self._open.pop((segment, file), -1)
            if descriptor < 0:
                descriptor = os.open(values_path(self._database, segment, file), os.O_RDONLY)
            self._open[segment, file] = descriptor
            if len(self._open) > _OPEN_COUNT_MAX:
                os.close(self._open.pop(next(iter(self._open))))
        return descriptor

    def size_bytes(self, segment: int) -> int:
        """What the files of a segment take."""
        paths = [values_path(self._database, *file) for file in self._files_of(segment)]
        return sum(path.stat().st_size for path in paths)

    def _files_of(self, segment: int) -> list[_File]:
        return [file for file in live_values(self._database) if file[0] == segment]

    # -- the end -----------------------------------------------------------------------------

    def prepare(self, segments: Collection[int], last: int) -> None:
        """Let go of what belongs to no segment, or to no write that there is; make the directory.

        At opening, when it is known that the newest write is ``last``.
        """
        directory = values_directory(self._database)
        if not directory.is_dir():
            directory.mkdir(mode=PRIVATE_MODE)
            sync_directory(self._database)
        for segment, file in live_values(self._database):
            if segment not in segments or file > last:
                values_path(self._database, segment, file).unlink()

    def drop(self, segment: int) -> None:
        """Begin to delete the files of a segment, which nobody reads any more.

        That takes its time for gigabytes: no sync waits for it. What a crash leaves goes at the
        next opening.
        """
        files = self._files_of(segment)
        with self._opening:
            for file in files:
                if (descriptor := self._open.pop(file, -1)) >= 0:
                    os.close(descriptor)
        if self._written[0] == segment:
            self._let_go()
        paths = [values_path(self._database, *file) for file in files]
        thread = threading.Thread(target=_delete, args=(paths,), name="rakit-values", daemon=True)
        thread.start()
        self._deleting = [each for each in self._deleting if each.is_alive()] + [thread]

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._written = (0, 0)

    def close(self) -> None:
        """Let go of all files, and wait for a moment for those that are being deleted."""
        self._let_go()
        with self._opening:
            while self._open:
                os.close(self._open.popitem()[1])
        for each in self._deleting:
            each.join(_CLOSE_WAIT_SECONDS)


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("a file of values that is needed no more stays: %s", error)
