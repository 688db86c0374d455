"""The data directory: where things lie, who may look, and that one process has it.

    DIR/LOCK            held (flock) by the process that runs on this directory; holds its pid
    DIR/identity.json   whose data this is (``identity``)
    DIR/witness         how far the store had got (``witness``)
    DIR/ballast         room kept back for a full disk (``space``)
    DIR/db/             RocksDB
    DIR/db/wal/         the write-ahead log (``ahead``)
    DIR/db/values/      large values of entries (``apart``)
    DIR/options/        how RocksDB is set up (``options``)
    DIR/cut/            damaged ends of the log that were cut off (``tail``)
    DIR/uncompacted     why no table is rewritten, if so (``uncompacted``)
    DIR/disputed        a replica contradicts the others: for a person (``discarding``)
    DIR/given-up/       a database that is being deleted (``discarding``)

The lock is ours, though RocksDB has one too: ours comes before anything is read or changed, covers
the files beside the database, and says who has it. The kernel drops it with the process, so a crash
never leaves it behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from rakit.multiraft.store.errors import StoreLockedError
from rakit.multiraft.store.files import sync_directory

logger = logging.getLogger(__name__)

PRIVATE_MODE = 0o700

_PID_BYTES = 32


class DataDirectory:
    """A locked data directory."""

    def __init__(self, path: Path, lock_descriptor: int) -> None:
        self.path = path
        self.identity = path / "identity.json"
        self.witness = path / "witness"
        self.ballast = path / "ballast"
        self.database = path / "db"
        self.cut = path / "cut"
        self.given_up = path / "given-up"
        self._lock_descriptor = lock_descriptor

    @classmethod
    def open(cls, path: Path) -> DataDirectory:
        """Make the directory if need be and lock it; raises ``StoreLockedError``."""
        absolute = path.absolute()
        if not absolute.is_dir():
            absolute.mkdir(mode=PRIVATE_MODE, parents=True)
            sync_directory(absolute.parent)
        if absolute.stat().st_mode & 0o077:
            _make_private(absolute)
        return cls(absolute, _lock(absolute))

    def close(self) -> None:
        """Let other processes in."""
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1


def wal_directory(database: Path) -> Path:
    """Where the write-ahead log lies: with the database, which is nothing without it."""
    return database / "wal"


def live_wals(database: Path) -> list[int]:
    """The first write of each file of the write-ahead log, ascending."""
    try:
        with os.scandir(wal_directory(database)) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(".wal") for name in names if name.endswith(".wal")]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def wal_path(database: Path, number: int) -> Path:
    """The file of the write-ahead log that begins with a write."""
    return wal_directory(database) / f"{number:020}.wal"


def values_directory(database: Path) -> Path:
    """Where large values lie: with the database, which refers to them."""
    return database / "values"


def live_values(database: Path) -> list[tuple[int, int]]:
    """Segment and first write of each file of values, ascending."""
    try:
        with os.scandir(values_directory(database)) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(".values") for name in names if name.endswith(".values")]
    found = [stem.partition("-")[::2] for stem in stems]
    return sorted((int(one), int(two)) for one, two in found if one.isdigit() and two.isdigit())


def values_path(database: Path, segment: int, number: int) -> Path:
    """The file of a segment's values that begins with a write."""
    return values_directory(database) / f"{segment:010}-{number:020}.values"


def rocksdb_log_bytes(database: Path) -> int:
    """What RocksDB's own log holds: nothing, but in a store that an earlier version has left."""
    return _size(path for path in database.glob("*.log") if path.stem.isdigit())


def size_of(database: Path) -> int:
    """What the files of a database take, as far as they do not vanish while we look."""
    log = (wal_path(database, each) for each in live_wals(database))
    values = (values_path(database, *each) for each in live_values(database))
    return _size(chain(database.iterdir(), log, values))


def _size(paths: Iterable[Path]) -> int:
    size = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # files are deleted at any time
            size += path.stat().st_size
    return size


def _make_private(path: Path) -> None:
    """Take group and others out. Some volumes do not let us: worth a line, not a refusal."""
    try:
        path.chmod(PRIVATE_MODE)
    except PermissionError:
        logger.warning("%s may be read by other users, and its mode cannot be changed", path)


def _lock(path: Path) -> int:
    descriptor = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, _PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreLockedError(
            f"a second process on one data directory: {path} is in use by process {owner}"
        ) from None
    # Written over the old one in place: a full disk must not keep us from opening.
    os.pwrite(descriptor, f"{os.getpid():<{_PID_BYTES - 1}}\n".encode(), 0)
    return descriptor
