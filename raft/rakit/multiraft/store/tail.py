"""The end of the log after a crash: what to keep, what to cut off, what to refuse (S7, S8).

A power cut may leave anything where data was written but not yet synced. Before RocksDB opens, the
files of the log are walked from the witness on, and ``decide`` says what the first flaw means:

- before the witness: durable data is gone. Refuse.
- a torn end of the newest file: the ordinary trace of a power cut, which is not replayed. A cut
  that falls between two writes leaves no trace at all, so a torn one is no more reason for doubt
  than that.
- anything else after the witness (zeros, foreign bytes, an older file that ends torn although a
  newer one exists): not proof of loss, since it may never have been acknowledged. But the witness
  is up to ``witness_interval_ms`` old, so it may have been. Cut there, keep what was cut off, and
  report doubt.

The file that the witness names need not be there: files go when tables have their writes. What must
be there is told by the numbers of the writes (``ahead.replay``).

``apply`` is crash-safe: newer files are moved away first, newest first, then the damaged one is
copied aside and shortened. Wherever it stops, the next start finds the same flaw again. What was
cut off stays ``.pending`` until the doubt has been recorded by the replicas (``settle``), so a
second crash in between does not make the doubt forgotten.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rakit.multiraft.store import wal
from rakit.multiraft.store.directory import (
    live_values,
    live_wals,
    values_path,
    wal_directory,
    wal_path,
)
from rakit.multiraft.store.errors import LossKind, LossReport
from rakit.multiraft.store.files import sync_directory, write_durably
from rakit.multiraft.store.wal import Flaw, Survey
from rakit.multiraft.store.witness import Witness

logger = logging.getLogger(__name__)

_PENDING = ".pending"
_KEPT = ".kept"


@dataclass(frozen=True, slots=True)
class Cut:
    """Shorten file ``number`` to ``length`` and take the newer ones away."""

    number: int
    length: int
    newer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """Durable data is gone."""

    detail: str


def inspect(database: Path, witness: Witness) -> Cut | Lost | None:
    """Walk the log from the witness on and decide. None: leave everything as it is."""
    surveys: list[tuple[int, Survey]] = []
    for number in live_wals(database):
        if number < witness.wal:
            continue
        path = wal_path(database, number)
        is_witnessed = number == witness.wal
        start, after = (witness.length, witness.number) if is_witnessed else (0, None)
        size = path.stat().st_size
        if size < start:
            return Lost(f"{path.name} has {size} bytes; {start} were durable")
        surveys.append((number, wal.survey(path, start, after)))
    return decide(surveys)


def decide(surveys: Sequence[tuple[int, Survey]]) -> Cut | None:
    """What the first flaw after the witness asks for; ``surveys`` ascend by number."""
    for place, (number, found) in enumerate(surveys):
        if found.flaw is Flaw.NONE:
            continue
        newer = tuple(number for number, _ in surveys[place + 1 :])
        if found.flaw is Flaw.TORN and not newer:
            return None
        return Cut(number, found.valid_length, newer)
    return None


def apply(cut: Cut, database: Path, aside: Path) -> None:
    """Carry out a cut, keeping every byte that is taken out of the database."""
    aside.mkdir(mode=0o700, exist_ok=True)
    sync_directory(aside.parent)
    for number in sorted(cut.newer, reverse=True):
        source = wal_path(database, number)
        source.rename(aside / f"{source.name}@0{_PENDING}")
        sync_directory(aside)
        sync_directory(wal_directory(database))
    source = wal_path(database, cut.number)
    with source.open("r+b") as file:
        file.seek(cut.length)
        write_durably(aside / f"{source.name}@{cut.length}{_PENDING}", file.read())
        file.truncate(cut.length)
        os.fsync(file.fileno())
    logger.warning(
        "cut %s at byte %d, after the witness: the replicas of this store are doubtful",
        source.name,
        cut.length,
    )


def doubt_what_rocksdb_replays(aside: Path) -> None:
    """A store of an earlier version that was not stopped: RocksDB drops what it cannot replay.

    Without a word, and what it drops may have been acknowledged.
    """
    aside.mkdir(mode=0o700, exist_ok=True)
    sync_directory(aside.parent)
    write_durably(aside / f"an earlier version's{_PENDING}", b"")
    logger.warning("an earlier version was not stopped: the replicas of this store are doubtful")


def pending(aside: Path, store_uuid: str) -> LossReport | None:
    """The doubt that is not yet settled, of this start or an earlier one."""
    if not aside.is_dir():
        return None
    names = sorted(path.name for path in aside.iterdir() if path.name.endswith(_PENDING))
    if not names:
        return None
    detail = f"cut off after the witness: {', '.join(names)}"
    doubt = ",".join([store_uuid, *names]).encode()
    return LossReport(LossKind.DAMAGED_TAIL_AFTER_WITNESS, detail, doubt)


def keep_values(database: Path, last: int, aside: Path) -> None:
    """Keep files of values that belong to nothing but writes that were cut off."""
    if not aside.is_dir():
        return
    for segment, number in live_values(database):
        if number > last:
            source = values_path(database, segment, number)
            source.rename(aside / f"{source.name}{_KEPT}")
            sync_directory(aside)


def settle(aside: Path) -> None:
    """The doubt is recorded elsewhere: keep what was cut off for people only."""
    if not aside.is_dir():
        return
    for path in sorted(aside.iterdir()):
        if path.name.endswith(_PENDING):
            path.rename(path.with_suffix(_KEPT))
    sync_directory(aside)
