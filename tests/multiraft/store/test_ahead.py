"""The write-ahead log: its files, what is let go of, and what opening makes of it (S6, S7)."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import cast
from uuid import uuid4

import pytest
from rocksdict import Rdict

from rakit.multiraft import keys
from rakit.multiraft.store import (
    IdentityMismatchError,
    LossKind,
    RocksStore,
    StoreConfig,
    StoreDamagedError,
    StoreFailedError,
    WriteStalledError,
    ahead,
)
from rakit.multiraft.store.ahead import Ahead, HoleError
from rakit.multiraft.store.apart import Values
from rakit.multiraft.store.directory import live_wals, wal_directory, wal_path
from rakit.multiraft.store.engine import RocksEngine
from rakit.multiraft.store.wal import (
    DEFAULT,
    HEADER_BYTES,
    Frame,
    Operation,
    decode,
    encode,
)
from rakit.multiraft.store.witness import Witness, WitnessFile
from tests.multiraft.store.child import COUNT
from tests.multiraft.store.conformance import key
from tests.multiraft.store.support import (
    NODE,
    copy_of,
    crash_image,
    ended,
    entries,
    entries_in,
    open_breakable,
    open_store,
    wait_until,
    write_some,
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "db").mkdir()
    return tmp_path / "db"


def begun(database: Path, last: int = 0) -> Ahead:
    values = Values(database, bytes_min=1 << 20, direct_io=False, fsync=True)
    return Ahead(database, values, last, file_bytes_max=1000, waiting_bytes_max=10_000, fsync=True)


def operations(number: int, size: int = 300) -> list[Operation]:
    return [(0, b"key", bytes([number % 251]) * size)]


def found(database: Path, covered: int = 0) -> list[Frame]:
    return [frame for frame, _ in ahead.replay(database, covered)]


def replayed(database: Path, covered: int = 0) -> list[Frame]:
    """Of a log that has no hole."""
    try:
        return found(database, covered)
    except HoleError as error:
        pytest.fail(str(error))


def numbers(database: Path, covered: int = 0) -> list[int]:
    return [frame.number for frame in replayed(database, covered)]


def reopened(directory: Path) -> RocksStore:
    """A store that must not be refused."""
    try:
        return open_store(directory)
    except StoreDamagedError as error:
        pytest.fail(str(error))


def append(
    log: Ahead,
    number: int,
    default: list[Operation],
    segments: Mapping[int, list[Operation]] = MappingProxyType({}),
) -> None:
    log.append(log.encode(number, default, segments))


def write(log: Ahead, first: int, count: int) -> None:
    """Each with a sync of its own."""
    for number in range(first, first + count):
        append(log, number, operations(number))
        log.sync()


def test_what_was_synced_is_replayed_behind_what_tables_have(database: Path) -> None:
    log = begun(database)
    write(log, 1, 20)
    assert len(live_wals(database)) > 3
    for covered in range(21):
        assert numbers(database, covered) == list(range(covered + 1, 21))
    assert decode(replayed(database)[4].payload) == {DEFAULT: operations(5)}
    log.close()


def test_what_was_not_synced_is_nowhere(database: Path) -> None:
    log = begun(database)
    write(log, 1, 2)
    append(log, 3, operations(3))
    assert numbers(database) == [1, 2]
    assert log.sync() == Witness(3, 1, wal_path(database, 1).stat().st_size)
    log.close()


def test_one_sync_covers_all_that_was_appended_in_as_many_files_as_it_takes(
    database: Path,
) -> None:
    log = begun(database)
    for number in range(1, 25):
        append(log, number, operations(number))
    reached = log.sync()
    assert reached.number == 24
    assert reached.wal == live_wals(database)[-1] > 1
    assert reached.length == wal_path(database, reached.wal).stat().st_size
    assert numbers(database) == list(range(1, 25))
    log.close()


def test_a_write_of_very_many_pieces_is_one_write(database: Path) -> None:
    log = begun(database)
    many: list[Operation] = [(0, number.to_bytes(4, "big"), bytes(9000)) for number in range(3000)]
    append(log, 1, many, {7: many[:2000]})
    log.sync()
    written = [decode(frame.payload) for frame in replayed(database)]
    assert written == [{DEFAULT: many, 7: many[:2000]}]
    log.close()


def test_a_disk_that_takes_a_part_is_given_the_rest(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    whole = os.writev

    def a_part(descriptor: int, pieces: Sequence[bytes]) -> int:
        data = b"".join(pieces)
        return whole(descriptor, [data[: rng.randint(1, len(data))]])

    monkeypatch.setattr(os, "writev", a_part)
    log = begun(database)
    write(log, 1, 30)
    assert numbers(database) == list(range(1, 31))
    log.close()


def test_s6_files_go_oldest_first_when_tables_have_all_of_their_writes(database: Path) -> None:
    log = begun(database)
    write(log, 1, 20)
    starts = live_wals(database)

    def left(covered: int) -> list[int]:
        log.release(covered)
        wait_until(lambda: not log.is_releasing)
        return live_wals(database)

    assert left(starts[2] - 2) == starts[1:]
    assert left(starts[2] - 1) == starts[2:]
    assert left(1000) == starts[-1:], "the newest stays"
    assert numbers(database, starts[-1] - 1) == list(range(starts[-1], 21))
    log.close()


@pytest.mark.parametrize("gone", [0, 2, -2])
def test_s7_a_file_that_is_gone_is_a_hole_unless_tables_have_it(database: Path, gone: int) -> None:
    log = begun(database)
    write(log, 1, 20)
    starts = live_wals(database)
    wal_path(database, starts[gone]).unlink()
    after = starts[starts.index(starts[gone]) + 1]
    with pytest.raises(HoleError, match="is missing"):
        found(database)
    with pytest.raises(HoleError, match=f"write {after - 1} is missing, write {after} is there"):
        found(database, after - 2)
    assert numbers(database, after - 1) == list(range(after, 21))
    log.close()


def test_s6_damage_to_what_tables_have_is_passed_over(database: Path) -> None:
    """It is needed no more, and what RocksDB has of it has checksums of its own."""
    log = begun(database)
    write(log, 1, 20)
    log.close()
    first, second = live_wals(database)[:2]
    path = wal_path(database, second)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 50] ^= 4
    path.write_bytes(data)
    wal_path(database, first).write_bytes(b"garbage")
    assert numbers(database, second) == list(range(second + 1, 21))
    with pytest.raises(HoleError, match=f"{second:020}.wal is damaged at byte 0"):
        found(database, second - 1)


def test_s12_nothing_is_written_behind_what_may_be_lacking(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was that went wrong: it would lie behind a hole, and seem to be durable."""

    def none_left(*_: object) -> int:
        raise MemoryError

    log = begun(database)
    write(log, 1, 5)
    append(log, 6, operations(6))
    monkeypatch.setattr(os, "writev", none_left)
    with pytest.raises(MemoryError):
        log.sync()
    monkeypatch.undo()
    append(log, 7, operations(7))
    with pytest.raises(OSError, match="an earlier write to the log failed"):
        log.sync()
    assert numbers(database) == [1, 2, 3, 4, 5]
    log.close()


def test_s8_numbers_jump_where_the_end_of_a_log_was_cut_off(database: Path) -> None:
    log = begun(database, last=7)
    write(log, 1 << 32, 3)
    assert numbers(database, 7) == [1 << 32, (1 << 32) + 1, (1 << 32) + 2]
    with pytest.raises(HoleError):
        found(database, 6)
    log.close()


def test_s12_a_file_that_cannot_be_begun_is_an_error_of_the_sync(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = begun(database)
    write(log, 1, 3)
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left"):
        write(log, 4, 3)
    monkeypatch.undo()
    log.close()


def test_what_a_sync_takes_at_a_time_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the first of much does not wait for the last."""
    monkeypatch.setattr(ahead, "SYNC_BYTES_MAX", 20_000)
    store, engine = open_breakable(StoreConfig.small(tmp_path))
    last = write_some(store, 20, value=bytes(5000))
    assert store.flush_some() == last - 16
    assert store.flush_wal() == last
    assert engine.calls.count("flush_wal") == 5
    write_some(store, 20, value=bytes(5000), start=20)
    store.close()
    store = open_store(tmp_path)
    assert entries_in(store) == list(range(40)), "closing waits for all"
    store.close()


def test_s12_what_is_being_written_counts_as_waiting(tmp_path: Path) -> None:
    config = replace(StoreConfig.small(tmp_path), wal_waiting_bytes_max=50_000)
    store, engine = open_breakable(config)
    before = write_some(store, 9, value=bytes(5000))
    engine.flush_gate.clear()
    flushing = threading.Thread(target=store.flush_wal)
    flushing.start()
    try:
        wait_until(engine.flush_begun.is_set)
        with pytest.raises(WriteStalledError):
            fill(store)
        taken = store.last_number - before
        assert taken <= 2
    finally:
        engine.flush_gate.set()
        flushing.join()
    store.write(entries(taken, bytes(5000)))
    store.close()


def test_s12_a_write_that_cannot_be_put_down_is_not_made(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    batch = entries(1, b"x")
    batch.put(keys.local(bytes(1 << 16)), b"a key of more than 64 KiB")
    with pytest.raises(struct.error):
        store.write(batch)
    assert entries_in(store) == []
    store.close()


def test_s12_writes_stall_when_too_much_waits_for_the_disk(tmp_path: Path) -> None:
    config = replace(StoreConfig.small(tmp_path), wal_waiting_bytes_max=50_000)
    store, engine = open_breakable(config)
    with pytest.raises(WriteStalledError, match="log is behind"):
        fill(store)
    last = store.last_number
    assert 9 <= last - 1 <= 11
    refused = entries(last - 1, bytes(5000))
    for _ in range(2):
        with pytest.raises(WriteStalledError):
            store.write(refused)
    assert last - 1 not in entries_in(store), "nothing of it was made"
    assert store.flush_wal() == last
    assert store.write(refused) == last + 1
    assert engine.calls.count("write") == last - 1 + 3 + 1
    store.close()


def fill(store: RocksStore) -> None:
    for number in range(100):
        store.write(entries(number, bytes(5000)))


def test_s13_files_that_are_being_deleted_keep_no_sync_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    write_some(store, 300, value=bytes(2000))
    store.flush_wal()
    gone = Path.unlink

    def wait(_: Path, *, missing_ok: bool) -> None:
        assert missing_ok
        wait_until(lambda: Path.unlink is gone)

    monkeypatch.setattr(Path, "unlink", wait)
    wait_until(lambda: _has_begun_to_delete(store))
    write_some(store, 3, start=300)
    assert store.flush_wal() == store.last_number
    store.maintain()
    monkeypatch.undo()
    wait_until(lambda: _is_down_to(store, tmp_path / "db", 8))
    store.close()


def _has_begun_to_delete(store: RocksStore) -> bool:
    store.maintain()
    engine = store._engine  # pyright: ignore[reportPrivateUsage]
    assert isinstance(engine, RocksEngine)
    return engine._log.is_releasing  # pyright: ignore[reportPrivateUsage]


def _is_down_to(store: RocksStore, database: Path, files: int) -> bool:
    store.maintain()
    return len(live_wals(database)) <= files


def test_the_log_stays_short_while_a_store_runs(tmp_path: Path) -> None:
    store = RocksStore.open(replace(StoreConfig.small(tmp_path), write_buffer_count=4), NODE)
    for start in range(0, 2000, 50):
        write_some(store, 50, value=bytes(2000), start=start)
        store.flush_wal()
        store.maintain()
    wait_until(lambda: _is_down_to(store, tmp_path / "db", 10))
    store.close()


def test_s6_what_was_replayed_is_in_tables_when_its_log_is_gone(tmp_path: Path) -> None:
    crash_image(tmp_path / NODE, "one-wal")
    store = open_store(tmp_path / NODE)
    image = copy_of(tmp_path / NODE, tmp_path / "killed")
    store.close()
    store = reopened(image)
    assert entries_in(store) == list(range(COUNT))
    store.close()


def test_s7_a_position_is_of_what_was_synced(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    number = write_some(store, 3)
    store.flush_wal()
    write_some(store, 3)
    wal = live_wals(tmp_path / "db")[0]
    length = wal_path(tmp_path / "db", wal).stat().st_size
    assert store.position() == Witness(number, wal, length)
    store.close()


def test_s7_a_start_that_dies_between_two_families_is_made_again(tmp_path: Path) -> None:
    """Segments are in tables then, while the journal, which says so, is in the log alone."""
    directory = tmp_path / NODE
    crash_image(directory, "one-wal")
    for _ in range(2):
        crash_image(directory, "opening")
    store = open_store(directory)
    assert entries_in(store) == list(range(COUNT))
    assert store.loss.kind is LossKind.NONE
    store.close()


def test_s8_what_a_start_has_in_tables_in_part_is_not_cut_off(tmp_path: Path) -> None:
    """One dies between two families, and then the log is damaged behind where the witness was."""
    directory = tmp_path / NODE
    crash_image(directory, "one-wal")
    crash_image(directory, "opening")
    path = wal_path(directory / "db", live_wals(directory / "db")[-1])
    data = bytearray(path.read_bytes())
    data[-2000] ^= 4
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(StoreDamagedError):
            open_store(directory)


BREAKS: dict[str, Callable[[Path], None]] = {
    "torn": lambda path: os.truncate(path, path.stat().st_size - 10),
    "emptied": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("place", [1, 3])
def test_s8_a_hole_behind_the_witness_is_cut_off_and_doubted(
    tmp_path: Path, name: str, place: int
) -> None:
    """A disk that does not do what it is told may lose any of what was written last."""
    directory = tmp_path / NODE
    crash_image(directory, "many-wals")
    WitnessFile.create(directory / "witness", Witness(0, 0, 0))
    starts = live_wals(directory / "db")
    BREAKS[name](wal_path(directory / "db", starts[place]))
    store = reopened(directory)
    assert store.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
    kept = entries_in(store)
    assert kept == list(range(len(kept)))
    assert len(kept) <= starts[place + 1] - 2
    store.close()


def test_s8_after_a_cut_the_rest_is_replayed_into_a_memory_of_its_own(tmp_path: Path) -> None:
    """Else earlier values would come back where that is brought into tables half way."""
    directory = tmp_path / NODE
    store = RocksStore.open(replace(StoreConfig.small(directory), wal_file_bytes=500), NODE)
    for number in range(60):
        batch = entries(1, b"%d" % number)
        store.write(batch)
        store.flush_wal()
    image = copy_of(directory, tmp_path / "killed")
    ended(store)
    WitnessFile.create(image / "witness", Witness(0, 0, 0))
    starts = live_wals(image / "db")
    wal_path(image / "db", starts[-2]).unlink()
    opened: list[RocksEngine] = []

    def opener(path: Path, config: StoreConfig, *, create: bool) -> RocksEngine:
        opened.append(RocksEngine(path, config, create=create))
        return opened[-1]

    store = RocksStore.open(StoreConfig.small(image), NODE, opener)
    assert len(opened) == 2
    assert store.get(key(1)) == b"%d" % (starts[-2] - 3)
    store.close()


def test_s11_a_start_that_may_not_cut_lets_go_of_the_database(tmp_path: Path) -> None:
    directory = tmp_path / NODE
    crash_image(directory, "many-wals")
    WitnessFile.create(directory / "witness", Witness(0, 0, 0))
    wal_path(directory / "db", live_wals(directory / "db")[3]).unlink()
    identity = directory / "identity.json"
    mine = identity.read_text()
    uuid = str(json.loads(mine)["store_uuid"])
    identity.write_text(mine.replace(uuid, str(uuid4())))
    held: list[IdentityMismatchError] = []
    for _ in range(2):
        with pytest.raises(IdentityMismatchError) as refused:
            open_store(directory)
        held.append(refused.value)  # its traceback would keep the database open
    identity.write_text(mine)
    store = reopened(directory)
    assert store.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
    store.close()


def test_s8_a_stop_that_dies_between_two_families_has_left_a_witness(tmp_path: Path) -> None:
    directory = tmp_path / NODE
    crash_image(directory, "one-wal")
    crash_image(directory, "stopping")
    path = wal_path(directory / "db", live_wals(directory / "db")[-1])
    assert WitnessFile.load(directory / "witness").current.length == path.stat().st_size
    store = reopened(directory)
    assert entries_in(store)[:COUNT] == list(range(COUNT))
    store.close()


def test_s7_the_default_family_becomes_tables_last(tmp_path: Path) -> None:
    """It says up to which write all of them are in tables."""
    order: list[int] = []

    class Noted:
        def __init__(self, number: int, family: Rdict) -> None:
            self.number, self.family = number, family

        def flush(self) -> None:
            order.append(self.number)
            self.family.flush()

    store, engine = open_breakable(StoreConfig.small(tmp_path))
    write_some(store, 100, value=bytes(5000))
    store.maintain()
    real, segments = engine.real, engine.real._segments  # pyright: ignore[reportPrivateUsage]
    kept, families = real._db, dict(segments)  # pyright: ignore[reportPrivateUsage]
    real._db = cast("Rdict", Noted(DEFAULT, kept))  # pyright: ignore[reportPrivateUsage]
    for number, (family, handle) in families.items():
        segments[number] = cast("Rdict", Noted(number, family)), handle
    real._flush()  # pyright: ignore[reportPrivateUsage]
    assert order == [*families, DEFAULT]
    real._db = kept  # pyright: ignore[reportPrivateUsage]
    segments.update(families)
    store.close()


def test_s7_a_write_to_a_segment_that_is_not_there_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / NODE
    crash_image(directory, "one-wal")
    number = COUNT + 2
    pieces, _ = encode(number, number - 1, [], {99: operations(1)})
    wal_path(directory / "db", number).write_bytes(b"".join(pieces))
    with pytest.raises(StoreDamagedError, match="segment 99 is missing"):
        open_store(directory)


def test_s6_a_store_that_was_stopped_needs_no_log(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write_some(store, 100)
    store.close()
    assert live_wals(tmp_path / "db") == []
    store = reopened(tmp_path)
    assert entries_in(store) == list(range(100))
    assert store.loss.kind is LossKind.NONE
    store.close()


def test_s12_nothing_of_a_write_that_failed_is_in_tables_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Families become tables one by one at a stop; a failed store is left as a crash leaves it."""
    store = open_store(tmp_path / NODE)
    batch = entries(0, b"before")
    batch.put(keys.hard_state(7), b"term 1")
    store.write(batch)
    store.flush_wal()
    batch = entries(0, b"after")
    batch.put(keys.hard_state(7), b"term 2")
    store.write(batch)
    monkeypatch.setattr(os, "writev", broken)
    with pytest.raises(StoreFailedError):
        store.flush_wal()
    monkeypatch.undo()
    store.close()
    image = reopened(copy_of(tmp_path / NODE, tmp_path / "killed"))
    assert image.get(keys.hard_state(7)) == b"term 1"
    assert image.get(key(0)) == b"before"
    image.close()


def test_a_file_that_was_begun_and_never_written_to_is_no_flaw(tmp_path: Path) -> None:
    directory = tmp_path / NODE
    crash_image(directory, "one-wal")
    wal_path(directory / "db", COUNT + 2).touch()
    store = open_store(directory)
    assert entries_in(store) == list(range(COUNT))
    assert store.loss.kind is LossKind.NONE
    assert live_wals(directory / "db") == [COUNT + 2], "the log before it is in tables"
    store.close()


def test_a_store_of_an_earlier_version_that_was_killed_goes_on_and_doubts(tmp_path: Path) -> None:
    """What RocksDB could not replay of its own log it has dropped without a word (S8)."""
    directory = tmp_path / NODE
    crash_image(directory, "earlier")
    crash_image(copy_of(directory, tmp_path / "again"), "again")
    for each in (directory, tmp_path / "again"):
        store = open_store(each)
        assert store.get(keys.entry(7, 99)) is None
        assert entries_in(store)[:100] == list(range(100))
        assert store.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
        assert b"RKW1" not in (each / "witness").read_bytes(), "an earlier version would lose all"
        assert store.opened_counter > 1 << 32, "it does not look rolled back"
        store.settle_doubt()
        store.close()
        store = open_store(each)
        assert entries_in(store)[:100] == list(range(100))
        assert store.loss.kind is LossKind.NONE
        store.close()


def broken(*_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_s12_a_poisoned_log_takes_no_more_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    write_some(store, 3)
    monkeypatch.setattr(os, "writev", broken)
    with pytest.raises(StoreFailedError) as failure:
        store.flush_wal()
    assert failure.value.exit_code == 11
    monkeypatch.undo()
    with pytest.raises(StoreFailedError):
        store.flush_wal()
    store.close()
    assert wal_directory(tmp_path / "db").is_dir()
