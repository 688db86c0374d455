"""Opening a store: the one sequence in which a directory is believed, cut, refused or born.

    1  make and lock the directory                           a second process stops here
       take away what is left of a database that was given up
    2  identity: whose is it, is there a database to expect   S10, S11
    3  a full disk: release the ballast                       S12
    4  a database that must be there: read the witness        S7
       walk the log from the witness on; cut or refuse        S8
    5  RocksDB opens: checks manifest and tables
       the rest of the log becomes tables, without a hole     S6, S7, S8
       what tables have and the log has not: is it all there  S13
    6  the store's uuid inside the database matches           S11
    7  journal: no hole, and not behind the witness           S7
    8  only then: a segment to write to, if there is none that is not full,
       and one first write, synced, and a new witness
       the log that was read back goes

A store whose tail was cut goes on with a number that it cannot have reached before. What was cut
off may have been synced, and peers may have heard so: they would take the store for one that was
rolled back, which they never talk to again. But this one knows of its loss, and its replicas doubt
themselves (S8).

Nothing is changed before it is known whose database it is, apart from what step 4 cuts off and
keeps aside, and a refusal repeats: whatever was found wrong is found again by the next start.
"""

from __future__ import annotations

import errno
import logging
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rakit.multiraft import keys
from rakit.multiraft.kv import Op
from rakit.multiraft.store import discarding, journal, mending, tail, uncompacted
from rakit.multiraft.store import identity as identities
from rakit.multiraft.store.ahead import HoleError
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.directory import DataDirectory, live_wals, rocksdb_log_bytes, wal_path
from rakit.multiraft.store.engine import Engine, EngineError, OpenEngine
from rakit.multiraft.store.errors import (
    DirectoryUnusableError,
    Fault,
    IdentityMismatchError,
    LossKind,
    LossReport,
    StoreDamagedError,
    StoreFailedError,
    StoreFullError,
)
from rakit.multiraft.store.identity import Identity
from rakit.multiraft.store.journal import Journal
from rakit.multiraft.store.reading import Reader
from rakit.multiraft.store.segments import Placed, Segments
from rakit.multiraft.store.space import Space, room
from rakit.multiraft.store.witness import SLOT_COUNT, Witness, WitnessFile

#: More writes than there can be between two witnesses.
_SKIP_AFTER_CUT = 1 << 32

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Opened:
    """What a store consists of once its directory is trusted."""

    directory: DataDirectory
    identity: Identity
    engine: Engine
    witness: WitnessFile
    journal: Journal
    space: Space
    reader: Reader
    segments: Segments
    #: The newest write, durable.
    number: int
    loss: LossReport


def open_directory(config: StoreConfig, node_name: str, open_engine: OpenEngine) -> Opened:
    """Run the sequence; whatever is raised, the directory is unlocked and the database closed."""
    directory = _own(config.directory)
    try:
        discarding.tidy(directory)
        identity = _settle_identity(directory, node_name)
        space = Space(config, directory.ballast)
        if identity.database_created:
            return _reopen(config, directory, identity, space, open_engine)
        return _give_birth(config, directory, identity, space, open_engine)
    except OSError as error:
        directory.close()
        raise _failure(error) from error
    except EngineError as error:
        uncompacted.note(directory.path, error.fault, str(error))
        directory.close()
        full = error.fault is Fault.DISK_FULL
        raise StoreFailedError(f"opening failed: {error}", disk_full=full) from error
    except BaseException:
        directory.close()
        raise


def _own(path: Path) -> DataDirectory:
    """Step 1. What only the person who chose the directory can mend is told apart."""
    try:
        return DataDirectory.open(path)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise DirectoryUnusableError(f"the data directory cannot be used: {error}") from error
    except OSError as error:
        raise _failure(error) from error


def _failure(error: OSError) -> StoreFailedError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreFailedError(f"opening failed: {error}", disk_full=full)


def _settle_identity(directory: DataDirectory, node_name: str) -> Identity:
    """Step 2: the identity to go on with, durable."""
    found = identities.load(directory.identity)
    has_database = directory.database.is_dir() and any(directory.database.iterdir())
    if found is None:
        if has_database:
            raise IdentityMismatchError(
                f"{directory.path} holds a database but no identity: nobody can say whose it is"
            )
        fresh = identities.newborn(node_name)
        identities.save(directory.identity, fresh)
        return fresh
    if found.node_name != node_name:
        raise IdentityMismatchError(
            f"{directory.path} belongs to the node named {found.node_name!r}, not {node_name!r}"
        )
    if found.database_created and not has_database:
        fresh = identities.reborn(found)
        logger.warning(
            "the database of store %s has vanished: this is the new store %s",
            found.store_uuid,
            fresh.store_uuid,
        )
        identities.save(directory.identity, fresh)
        return fresh
    return found


def _give_birth(
    config: StoreConfig,
    directory: DataDirectory,
    identity: Identity,
    space: Space,
    open_engine: OpenEngine,
) -> Opened:
    """Make the database. What an interrupted birth left was never used and goes first."""
    shutil.rmtree(directory.database, ignore_errors=True)
    shutil.rmtree(directory.cut, ignore_errors=True)
    directory.witness.unlink(missing_ok=True)
    (directory.path / uncompacted.NAME).unlink(missing_ok=True)
    (directory.path / discarding.DISPUTED).unlink(missing_ok=True)
    try:
        engine = open_engine(directory.database, config, create=True)
    except EngineError as error:
        raise _refusal(error) from error
    try:
        number = journal.FIRST_NUMBER
        engine.begin_log()
        reader, segments = _load_segments(engine, config, directory)
        rows = Journal(number)
        uuid_row = (Op.PUT, journal.STORE_UUID, identity.store_uuid.encode())
        placed = Placed([uuid_row, *rows.operations(number)])
        witness = _first_write(engine, directory, number, placed)
        witness_file = WitnessFile.create(directory.witness, witness)
        born = replace(identity, database_created=True)
        identities.save(directory.identity, born)
    except BaseException:
        engine.abandon()
        raise
    space.restore()
    loss = LossReport(LossKind.NONE)
    parts = (witness_file, rows, space, reader, segments)
    return Opened(directory, born, engine, *parts, number, loss)


def _reopen(
    config: StoreConfig,
    directory: DataDirectory,
    identity: Identity,
    space: Space,
    open_engine: OpenEngine,
) -> Opened:
    """Steps 3 to 8 for a database that must be there."""
    space.release_if_short(_live_wal_bytes(directory))
    witness_file = WitnessFile.load(directory.witness)
    finding = tail.inspect(directory.database, witness_file.current)
    if isinstance(finding, tail.Lost):
        raise StoreDamagedError(LossReport(LossKind.LOST_ACKED, finding.detail), is_lost=True)
    if finding is not None:
        tail.apply(finding, directory.database, directory.cut)
    if rocksdb_log_bytes(directory.database):
        tail.doubt_what_rocksdb_replays(directory.cut)
    witnessed = witness_file.current.number
    engine, log_end = _start_engine(
        config, directory, identity, witness_file, space=space, open_engine=open_engine
    )
    try:
        found = _believe(engine, identity, witness_file.current)
        loss = tail.pending(directory.cut, identity.store_uuid) or LossReport(LossKind.NONE)
        if loss.doubt:
            tail.keep_values(directory.database, found, directory.cut)
        if config.fsync:
            engine.sync_values()  # of a life without, or what tables had before the log
        number = found + 1 + (_SKIP_AFTER_CUT if loss.doubt else 0)
        engine.begin_log()
        reader, segments = _load_segments(engine, config, directory)
        rows = Journal(journal.FIRST_NUMBER)
        # Everything is in tables now, so only the newest row is still needed, if it is one of ours.
        ours = engine.get(keys.journal_row(found)) is not None
        rows.keep_from(found if ours and not loss.doubt else number)
        if not ours:
            rows.keep_none_of_earlier_versions()
        log_end = max(log_end, witnessed)
        cut = mending.operations(engine, segments, log_end) if found > log_end else []
        placed = segments.place([*rows.operations(number), *cut], number)
        witness = _first_write(engine, directory, number, placed)
        segments.written()
        for _ in range(SLOT_COUNT if witness_file.earlier_may_read else 1):
            witness_file.save(witness)
        engine.forget_log(number)
    except BaseException:
        engine.abandon()
        raise
    space.restore()
    parts = (witness_file, rows, space, reader, segments)
    return Opened(directory, identity, engine, *parts, number, loss)


def _load_segments(
    engine: Engine, config: StoreConfig, directory: DataDirectory
) -> tuple[Reader, Segments]:
    reader = Reader(engine, config.scan_chunk_bytes)
    size = config.segment_bytes_on(room(directory.path).total_bytes)
    try:
        return reader, Segments(engine, reader, size, config.write_buffer_bytes)
    except EngineError as error:
        full = error.fault is Fault.DISK_FULL
        raise StoreFailedError(f"no segment could be made: {error}", disk_full=full) from error


def _start_engine(
    config: StoreConfig,
    directory: DataDirectory,
    identity: Identity,
    witness: WitnessFile,
    *,
    space: Space,
    open_engine: OpenEngine,
) -> tuple[Engine, int]:
    """Step 5, a second time without the ballast if the disk is too full for the first."""
    try:
        return _open_and_replay(config, directory, identity, witness, open_engine)
    except EngineError as error:
        if error.fault is Fault.TABLE_UNREAD:  # tables are merged as soon as the database is open
            uncompacted.note(directory.path, error.fault, str(error))
        if error.fault is not Fault.DISK_FULL or not space.release():
            raise _refusal(error) from error
    try:
        return _open_and_replay(config, directory, identity, witness, open_engine)
    except EngineError as error:
        raise _refusal(error) from error


def _open_and_replay(
    config: StoreConfig,
    directory: DataDirectory,
    identity: Identity,
    witness: WitnessFile,
    open_engine: OpenEngine,
) -> tuple[Engine, int]:
    """Opens the database, and once more after a hole in the log was cut off.

    Returns the newest write in the log, too.

    Never are writes replayed twice into one memory: tables of it would say that all of them are
    there, and hold what the earlier ones left.
    """
    for may_cut in (True, False):
        engine = open_engine(directory.database, config, create=False)
        try:
            log_end = engine.replay_log(partial(_note_end, engine, identity, witness))
        except HoleError as hole:
            try:
                cut = _cut_for(hole, engine, identity, directory, witness) if may_cut else None
            finally:
                engine.abandon()
            if cut is None:
                raise _lost(str(hole)) from hole
            tail.apply(cut, directory.database, directory.cut)
        except BaseException:
            engine.abandon()
            raise
        else:
            return engine, log_end
    raise AssertionError("what is left of a log that was cut has no hole")


def _note_end(engine: Engine, identity: Identity, witness: WitnessFile, reached: Witness) -> None:
    """What was replayed is about to become tables: none of it may be cut off then (S8)."""
    _check_owner(engine, identity)
    if reached.number < witness.current.number:
        raise _loss(reached.number, witness.current)
    witness.save(reached)


def _cut_for(
    hole: HoleError,
    engine: Engine,
    identity: Identity,
    directory: DataDirectory,
    witness: WitnessFile,
) -> tail.Cut | None:
    """How to cut off a hole that lies behind the witness, as any other damage there (S8).

    None where it does not. What is left is durable, and witnessed from now on: a start that dies
    after the cut finds less of the file than the witness before it has seen.
    """
    _check_owner(engine, identity)
    reached = hole.reached
    if reached.number < witness.current.number:
        return None
    logger.warning("the log is not whole behind the witness: %s", hole)
    witness.save(reached)
    later = [number for number in live_wals(directory.database) if number > reached.wal]
    if reached.wal:
        return tail.Cut(reached.wal, reached.length, tuple(later))
    return tail.Cut(later[0], 0, tuple(later[1:]))  # it lies before the first file


def _loss(recovered: int, witness: Witness) -> StoreDamagedError:
    return _lost(f"recovered up to write {recovered}; write {witness.number} was durable")


def _lost(detail: str) -> StoreDamagedError:
    return StoreDamagedError(LossReport(LossKind.LOST_ACKED, detail), is_lost=True)


def _check_owner(engine: Engine, identity: Identity) -> None:
    """Step 6, and before anything is changed because of what the log says."""
    found = engine.get(journal.STORE_UUID)
    if found is not None and found != identity.store_uuid.encode():
        raise IdentityMismatchError(
            f"the database is that of store {found.decode(errors='replace')},"
            f" the identity beside it that of {identity.store_uuid}"
        )


def _live_wal_bytes(directory: DataDirectory) -> int:
    """How much there is to replay, or to keep aside: it takes as much room again."""
    database = directory.database
    live = sum(wal_path(database, number).stat().st_size for number in live_wals(database))
    return live + rocksdb_log_bytes(database)


def _refusal(error: EngineError) -> Exception:
    if error.fault is Fault.DISK_FULL:
        return StoreFullError(f"no room to open the store: {error}")
    report = LossReport(LossKind.UNREADABLE, f"the database does not open: {error}")
    return StoreDamagedError(report, is_lost=error.fault is Fault.CORRUPTION)


def _believe(engine: Engine, identity: Identity, witness: Witness) -> int:
    """Steps 6 and 7: the newest write, proven to follow a whole history."""
    try:
        _check_owner(engine, identity)
        found = engine.get(journal.STORE_UUID)
        recovered = journal.recover(engine)
    except EngineError as error:
        detail = f"the journal cannot be read: {error}"
        report = LossReport(LossKind.UNREADABLE, detail)
        raise StoreDamagedError(report, is_lost=error.fault is Fault.CORRUPTION) from error
    if recovered.last < witness.number:
        raise _loss(recovered.last, witness)
    detail = ""
    if recovered.hole is not None:
        detail = f"write {recovered.hole} is missing, write {recovered.last} is there"
    elif found is None:
        detail = "the store's own uuid is gone from the database"
    if detail:
        raise StoreDamagedError(LossReport(LossKind.LOST_ACKED, detail), is_lost=True)
    return recovered.last


def _first_write(
    engine: Engine,
    directory: DataDirectory,
    number: int,
    placed: Placed,
) -> Witness:
    """Step 8: prove that the store takes writes and syncs before anybody relies on it."""
    try:
        engine.write(number, placed.default, placed.segments)
        return engine.flush_wal()
    except EngineError as error:
        # A compaction may have begun as soon as the database was open.
        uncompacted.note(directory.path, error.fault, str(error))
        full = error.fault is Fault.DISK_FULL
        raise StoreFailedError(f"the first write failed: {error}", disk_full=full) from error
