"""What can go wrong with a store, as types that tell the caller what to do (S8, S11, S12).

RocksDB reports every failure through one bare ``Exception`` whose text begins with the kind. The
text is read in exactly one place, ``classify``; nothing else in the project looks at it.

- ``WriteStalledError`` is the only error worth a retry: nothing was written, and the same batch
  must be handed in again before any later one.
- ``StoreFailedError`` poisons: what the failed call wrote is unknown, so the store refuses
  everything afterwards and the process must end with ``exit_code``. An fsync that failed once is
  never tried again, because the kernel may have dropped the pages it could not write and would
  then report success.
- ``StoreDamagedError`` (also a ``StoreCorruptError``) comes from opening: the directory lacks or
  contradicts what the witness proves was durable.
- ``StoreLockedError``, ``DirectoryUnusableError``, ``StoreFullError`` and
  ``IdentityMismatchError`` come from opening too and touch nothing.

Exit codes are a contract with whatever supervises the process: 10 full disk, 11 storage error,
12 the directory belongs to somebody else, 2 (misuse) for a second process on one directory and for
one that this process may not use.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rakit.multiraft.errors import StoreCorruptError

EXIT_MISUSE = 2
EXIT_DISK_FULL = 10
EXIT_STORAGE_ERROR = 11
EXIT_IDENTITY_MISMATCH = 12


class StoreError(Exception):
    """Base of the store's operating errors; ``exit_code`` is what the process should end with."""

    exit_code = EXIT_STORAGE_ERROR


class WriteStalledError(StoreError):
    """RocksDB pushes back (S12). Nothing of the batch was written: submit the same batch again."""


class StoreFailedError(StoreError):
    """A write or flush failed, or failed earlier (S12). Its outcome is unknown; no retry, ever."""

    def __init__(self, message: str, *, disk_full: bool) -> None:
        super().__init__(message)
        self.disk_full = disk_full
        self.exit_code = EXIT_DISK_FULL if disk_full else EXIT_STORAGE_ERROR


class StoreFullError(StoreError):
    """The disk has too little room even to open the store, ballast released."""

    exit_code = EXIT_DISK_FULL


class StoreLockedError(StoreError):
    """Another process has this data directory open."""

    exit_code = EXIT_MISUSE


class DirectoryUnusableError(StoreError):
    """The data directory cannot be made or written to by this process, or is no directory."""

    exit_code = EXIT_MISUSE


class IdentityMismatchError(StoreError):
    """The data directory belongs to another cluster, node or store (S11)."""

    exit_code = EXIT_IDENTITY_MISMATCH


class LossKind(enum.Enum):
    """What opening found out about the end of the log."""

    #: Everything up to the witness is there, and nothing after it looks wrong.
    NONE = "none"

    #: Garbage beyond the witness was cut off: perhaps never acknowledged, so the node is doubtful
    #: (S8).
    DAMAGED_TAIL_AFTER_WITNESS = "damaged-tail-after-witness"

    #: Writes that were durable are gone, or there is a hole among the recovered ones (S7).
    LOST_ACKED = "lost-acked"

    #: The files contradict themselves: tables, the manifest, an older part of the log.
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class LossReport:
    """The verdict of opening a store, with a sentence for the operator."""

    kind: LossKind
    detail: str = ""
    #: Not empty when the replicas here may vote only once every other voter has answered (S8);
    #: differs for every cut, so that a driver can tell a new doubt from one that it has cleared.
    doubt: bytes = b""


class StoreDamagedError(StoreError, StoreCorruptError):
    """The store cannot be trusted as a whole; opening stopped. Ends the process with 11.

    `is_lost`: what is wrong lies in what was stored, or in the proof that it is all there, and will
    be so at every later start. Not so where something around it may be mended: who it belongs to, a
    right, a handle.
    """

    def __init__(self, report: LossReport, *, is_lost: bool = False) -> None:
        super().__init__(f"{report.kind.value}: {report.detail}")
        self.report = report
        self.is_lost = is_lost


class Fault(enum.Enum):
    """The kinds of failure that RocksDB's texts are sorted into."""

    STALL = "stall"
    DISK_FULL = "disk full"
    CORRUPTION = "corruption"
    #: A large value is not where its row says.
    VALUE_GONE = "a value is gone"
    #: Because of the disk, as a bad sector does, or of damage that a merge met at the start.
    TABLE_UNREAD = "a table could not be read"
    OTHER = "other"


def classify(error: Exception) -> Fault:
    """Sort an exception of the engine by its text.

    A full disk comes before corruption: RocksDB prefixes both with "IO error" or, when a background
    job met it, with the job's own words, but always keeps the system's text at the end.
    """
    text = str(error)
    if text.startswith("Result incomplete: Write stall"):
        return Fault.STALL
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return Fault.DISK_FULL
    if text.startswith("Corruption:"):
        return Fault.CORRUPTION
    if text.startswith("IO error: While pread") and ".sst" in text:
        return Fault.TABLE_UNREAD
    return Fault.OTHER
