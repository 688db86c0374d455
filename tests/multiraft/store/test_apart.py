"""Large values of entries: written once, read from anywhere, gone with their segment (0023)."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft import keys, pages
from rakit.multiraft.checksum import crc32c
from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    StoreFailedError,
    WriteStalledError,
    apart,
    journal,
    options,
    wal,
)
from rakit.multiraft.store.apart import GoneError, Reference, Values
from rakit.multiraft.store.directory import live_values, live_wals, values_path, wal_path
from rakit.multiraft.store.engine import EngineError, RocksEngine
from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.witness import WitnessFile
from tests.multiraft.store.conformance import key
from tests.multiraft.store.support import (
    NODE,
    STALL,
    copy_of,
    ended,
    entries,
    entries_in,
    open_breakable,
    open_store,
    settle,
    wait_until,
    write_some,
)

KIB = 1 << 10
LARGE = 8 * KIB


def value_of(number: int, size: int = LARGE) -> bytes:
    return random.Random(number).randbytes(size)


def write(store: RocksStore, *numbers: int, size: int = LARGE) -> None:
    for number in numbers:
        store.write(entries(number, value_of(number, size)))


def files(directory: Path) -> list[Path]:
    return [values_path(directory / "db", *each) for each in live_values(directory / "db")]


def places_of(directory: Path, value: bytes) -> list[str]:
    """The kinds of files that hold it."""
    paths = [path for path in (directory / "db").rglob("*") if path.is_file()]
    return [path.suffix for path in paths if value in path.read_bytes()]


def test_a_large_value_is_written_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    small, large, other = value_of(1, 3 * KIB), value_of(2), value_of(3)
    batch = entries(1, small)
    batch.put(key(2), large)
    batch.put(keys.local(b"no entry"), other)
    store.write(batch)
    store.flush_wal()
    assert places_of(tmp_path, large) == [".values"]
    assert places_of(tmp_path, small) == [".wal"]
    assert places_of(tmp_path, other) == [".wal"]
    store.close()
    assert places_of(tmp_path, large) == [".values"]
    assert places_of(tmp_path, small) == [".sst"]
    assert places_of(tmp_path, other) == [".sst"]


def flags_of(path: Path) -> int:
    """How this process has a file open, which it has once."""
    found: list[int] = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as what lists them is
            if each.readlink() == path:
                found.append(int(each.name))
    (descriptor,) = found
    return fcntl.fcntl(descriptor, fcntl.F_GETFL)


@pytest.mark.parametrize("able", [True, False])
def test_it_passes_the_systems_cache_where_the_file_system_can(
    tmp_path: Path, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = able and options.probe_direct_io(tmp_path)

    def probe(_: Path) -> bool:
        return able

    monkeypatch.setattr(options, "probe_direct_io", probe)
    store = open_store(tmp_path)
    write(store, 1)
    store.flush_wal()
    (file,) = files(tmp_path)
    assert bool(flags_of(file) & os.O_DIRECT) is able
    store.close()


@pytest.mark.parametrize("direct_io", [True, False])
def test_it_is_read_before_it_is_written_and_after(
    tmp_path: Path, direct_io: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any size, also of more than what is written at a time."""

    def buffered(_: Path) -> bool:
        return False

    if not direct_io:
        monkeypatch.setattr("rakit.multiraft.store.options.probe_direct_io", buffered)
    monkeypatch.setattr(apart, "_WRITE_BYTES", 32 * KIB)
    rng = random.Random(7)
    sizes = [4096, 4097, 8191, 8192, 32 * KIB, 64 * KIB, 32 * KIB - 1, 200_000]
    sizes += [rng.randint(4096, 100_000) for _ in range(40)]
    rows = {key(number): value_of(number, size) for number, size in enumerate(sizes)}
    store = open_store(tmp_path)

    for first in range(0, len(sizes), 6):
        batch = WriteBatch()
        for each in list(rows)[first : first + 6]:
            batch.put(each, rng.choice((bytes, in_pages))(rows[each]))
        store.write(batch)
    check(store, rows)
    store.flush_wal()
    check(store, rows)
    store.close()
    store = open_store(tmp_path)
    check(store, rows)
    write(store, 500, 501)
    rows |= {key(number): value_of(number) for number in (500, 501)}
    check(store, rows)
    store.close()
    assert len(files(tmp_path)) > 1, "a file of an earlier life is not written to"


def in_pages(value: bytes) -> memoryview:
    """As entries put it together: it is written from there."""
    memory = pages.lend(len(value))
    memory[:] = value
    return memory.toreadonly()


def batch_of(values: Sequence[memoryview]) -> WriteBatch:
    batch = WriteBatch()
    for number, value in enumerate(values):
        batch.put(key(number), value)
    return batch


def test_what_lies_in_pages_is_written_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is copied, zeros follow it, and its memory is back when it is written."""
    monkeypatch.setattr(pages, "_kept", type(pages._kept)())  # pyright: ignore[reportPrivateUsage]
    whole, written = os.pwritev, list[object]()

    def seen(descriptor: int, pieces: Sequence[memoryview], offset: int) -> int:
        written.extend(piece.obj for piece in pieces)
        assert all(len(piece) % 4096 == 0 for piece in pieces), "the disk takes whole pages"
        return whole(descriptor, pieces, offset)

    monkeypatch.setattr(os, "pwritev", seen)
    store = open_store(tmp_path)
    values = [in_pages(value_of(number, 70_000 + number)) for number in range(1, 4)]
    store.write(batch_of(values))
    kept = pages.kept_bytes()
    store.flush_wal()
    assert [id(each) for each in written] == [id(value.obj) for value in values]
    (file,) = files(tmp_path)
    zeros = b"".join(bytes(value) + bytes(-len(value) % 4096) for value in values)
    assert file.read_bytes() == zeros
    written.clear()
    del values
    store.write(entries(9, b"what was placed last is looked at until the next is"))
    assert pages.kept_bytes() > kept
    store.close()


def check(store: RocksStore, rows: dict[bytes, bytes]) -> None:
    """Every way of reading finds them."""
    last = max(rows)
    try:
        assert dict(store.scan(key(0), key(1000))) == rows
        assert {each: store.get(each) for each in rows} == rows
        assert store.last_below(key(0), key(1000)) == (last, rows[last])
    except StoreCorruptError as error:
        pytest.fail(f"what was written is not there: {error}")


def test_values_are_durable_before_the_log_speaks_of_them(tmp_path: Path) -> None:
    store, engine = open_breakable(StoreConfig.small(tmp_path))
    seen: list[list[bool]] = []
    log = engine.real._ahead  # pyright: ignore[reportPrivateUsage]
    assert log is not None
    put = log._put  # pyright: ignore[reportPrivateUsage]

    def looking(pieces: Sequence[bytes]) -> None:
        if pieces:
            held = b"".join(path.read_bytes() for path in files(tmp_path))
            seen.append([value_of(number) in held for number in range(1, 7)])
        put(pieces)

    log._put = looking  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    write(store, 1, 2, 3)
    store.flush_wal()
    write(store, 4, 5, 6)
    store.flush_wal()
    assert seen == [[True] * 3 + [False] * 3, [True] * 6]
    (descriptor,) = open_for_writing(files(tmp_path)[0])
    assert descriptor & os.O_DSYNC, "a write that returns is durable"
    store.close()


def descriptors_of(path: Path) -> int:
    """How many this process has of a file, which may be deleted meanwhile."""
    names = {str(path), f"{path} (deleted)"}
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as what lists them is
            count += str(each.readlink()) in names
    return count


def open_for_writing(path: Path) -> list[int]:
    """The flags of this process's descriptors of a file that are not for reading alone."""
    found: list[int] = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            is_it = each.readlink() == path
        except FileNotFoundError:
            continue
        if is_it:
            lines = Path(f"/proc/self/fdinfo/{each.name}").read_text().splitlines()
            flags = int(next(line.split()[1] for line in lines if line.startswith("flags:")), 8)
            found += [flags] if flags & os.O_ACCMODE else []
    return found


def test_s12_a_write_that_stalls_is_made_again_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    write(store, 1)

    def stalls(*_: object) -> None:
        raise EngineError(Fault.STALL, STALL)

    monkeypatch.setattr(RocksEngine, "_batch", stalls)
    for _ in range(3):
        with pytest.raises(WriteStalledError):
            write(store, 2)
    monkeypatch.undo()
    write(store, 2, 3)
    store.flush_wal()
    assert sum(path.stat().st_size for path in files(tmp_path)) == 3 * LARGE
    check(store, {key(number): value_of(number) for number in (1, 2, 3)})
    store.close()


def test_s12_what_waits_for_the_disk_counts_values(tmp_path: Path) -> None:
    config = replace(StoreConfig.small(tmp_path), wal_waiting_bytes_max=10 * LARGE)
    store = RocksStore.open(config, NODE)
    with pytest.raises(WriteStalledError, match="log is behind"):
        write(store, *range(20))
    taken = len(entries_in(store))
    assert taken <= 11
    store.flush_wal()
    write(store, taken)
    store.close()


def test_s12_a_value_that_cannot_be_written_poisons_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    write(store, 1)
    store.flush_wal()
    reached = store.position()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(store, 2)
    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(StoreFailedError) as caught:
        store.flush_wal()
    assert caught.value.disk_full
    monkeypatch.undo()
    with pytest.raises(StoreFailedError):
        store.flush_wal()
    assert store.position() == reached
    assert store.get(key(2)) == value_of(2), "the node may still say goodbye"
    ended(store)


def test_a_disk_that_takes_a_part_is_given_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    whole = os.pwritev

    def a_part(descriptor: int, pieces: Sequence[memoryview], offset: int) -> int:
        taken, left = list[memoryview](), 4096 * rng.randint(1, sum(map(len, pieces)) // 4096)
        for piece in pieces:
            taken.append(piece[:left])
            left -= len(taken[-1])
        return whole(descriptor, [piece for piece in taken if piece], offset)

    monkeypatch.setattr(os, "pwritev", a_part)
    store = open_store(tmp_path)
    write(store, *range(20), size=50_000)
    store.close()
    monkeypatch.undo()
    store = open_store(tmp_path)
    for number in range(20):
        assert store.get(key(number)) == value_of(number, 50_000)
    store.close()


def test_files_go_with_their_segment(tmp_path: Path) -> None:
    config = replace(StoreConfig.small(tmp_path), segment_bytes=64 * KIB, reserve_bytes=0)
    store = RocksStore.open(config, NODE)
    for number in range(1, 41):
        write(store, number)
        settle(store)
    assert {segment for segment, _ in live_values(tmp_path / "db")} > {1, 2, 3}
    assert store.get(key(3)) == value_of(3), "it is open for reading"
    size = store.size_bytes
    assert size > 40 * LARGE
    batch = WriteBatch()
    batch.delete_range(key(0), key(30))
    store.write(batch)
    for _ in range(6):
        settle(store)
    wait_until(lambda: min(segment for segment, _ in live_values(tmp_path / "db")) > 3)
    assert store.size_bytes < size - 20 * LARGE
    assert not is_held_open(tmp_path), "a file that is open keeps its room"
    assert entries_in(store) == list(range(30, 41))
    store.close()


def is_held_open(directory: Path) -> bool:
    """Whether this process holds a file of values open that was deleted."""
    for each in Path("/proc/self/fd").iterdir():
        try:
            name = str(each.readlink())
        except FileNotFoundError:
            continue
        if name.startswith(str(directory)) and name.endswith(".values (deleted)"):
            return True
    return False


def test_opening_lets_go_of_files_that_belong_to_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write(store, 1)
    store.close()
    last = store.last_number
    kept = files(tmp_path)
    for segment, number in ((1, last + 1), (99, 3), (99, 1 << 40)):
        values_path(tmp_path / "db", segment, number).write_bytes(bytes(100))
    store = open_store(tmp_path)
    assert files(tmp_path) == kept
    write(store, 2, 3)
    store.close()
    store = open_store(tmp_path)
    assert [store.get(key(number)) for number in (1, 2, 3)] == [value_of(n) for n in (1, 2, 3)]
    store.close()


@pytest.mark.parametrize("gone", [True, False])
def test_s9_a_value_that_is_gone_costs_its_group_alone(tmp_path: Path, gone: bool) -> None:
    store = open_store(tmp_path)
    write(store, 1, 2)
    store.close()
    (path,) = files(tmp_path)
    store = open_store(tmp_path)
    batch = WriteBatch()
    batch.put(keys.entry(2, 1), value_of(9))
    store.write(batch)
    write(store, 3)
    store.flush_wal()
    if gone:
        path.unlink()
    else:
        os.truncate(path, LARGE + 4096)
    rows = store.scan(key(0), key(10))
    if not gone:
        assert next(rows)[0] == key(1), "what lies before it is read"
    with pytest.raises(StoreCorruptError, match=r"gone|ends at byte"):
        list(rows)
    with pytest.raises(StoreCorruptError):
        store.get(key(2))
    assert store.last_below(key(0), key(10)) == (key(3), value_of(3))
    with pytest.raises(StoreCorruptError):
        store.last_below(key(0), key(3))
    assert store.get(keys.entry(2, 1)) == value_of(9)
    assert store.failed is None
    store.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
def test_s9_a_disk_that_cannot_tell_is_no_proof_of_damage(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    write(store, 1, 2)
    store.close()
    store = open_store(tmp_path)

    def failing(*_: object) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread" if code == errno.EIO else "open", failing)
    for read in (lambda: store.get(key(1)), lambda: list(store.scan(key(0), key(9)))):
        with pytest.raises(StoreUnreadableError):
            read()
    monkeypatch.undo()
    assert store.get(key(1)) == value_of(1)
    store.close()


def test_many_files_are_read_with_few_of_them_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "_OPEN_COUNT_MAX", 3)
    for number in range(8):
        store = open_store(tmp_path)
        write(store, number)
        store.close()
    assert len(files(tmp_path)) == 8
    store = open_store(tmp_path)
    for _ in range(2):
        for number in range(8):
            assert store.get(key(number)) == value_of(number)
    assert sum(len(open_files(path)) for path in files(tmp_path)) == 3
    store.close()
    assert sum(len(open_files(path)) for path in files(tmp_path)) == 0


def open_files(path: Path) -> list[Path]:
    found: list[Path] = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += [each] if each.readlink() == path else []
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is synced by a call of its own."""
    names: list[str] = []
    real = os.fsync

    def recorded(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    return names


def test_without_fsync_values_are_durable_when_that_is_asked_for(
    tmp_path: Path, synced: list[str]
) -> None:
    """As before what was in memory becomes tables, and at a start with fsync after one without."""
    store = RocksStore.open(StoreConfig.small(tmp_path / NODE, fsync=False), NODE)
    write(store, 1)
    store.flush_wal()
    (path,) = files(tmp_path / NODE)
    assert path.name not in synced
    engine = store._engine  # pyright: ignore[reportPrivateUsage]
    engine.flush_wal(durably=True)
    assert path.name in synced
    image = copy_of(tmp_path / NODE, tmp_path / "image")
    store.close()
    synced.clear()
    store = open_store(image)
    assert path.name in synced
    store.close()


def test_a_files_name_is_durable_before_anything_in_it_counts(
    tmp_path: Path, synced: list[str]
) -> None:
    store = open_store(tmp_path)
    assert synced.count("db") == 2, "the names of the directories of log and values are"
    synced.clear()
    write(store, 1)
    store.flush_wal()
    assert "values" in synced
    store.close()


def test_a_place_behind_the_end_of_a_file_holds_nothing(tmp_path: Path) -> None:
    values = Values(tmp_path, bytes_min=LARGE, direct_io=False, fsync=True)
    values.prepare([1], 0)
    _, placed = values.divide(1, {1: [(Op.PUT, key(1), value_of(1))]})
    values.append(placed)
    values.write(placed)
    values.written(placed)
    assert values.read(1, Reference(0, LARGE, 1, 1)) == value_of(1)
    with pytest.raises(GoneError):
        values.read(1, Reference(LARGE, LARGE, 1, 1))
    path = values_path(tmp_path, 1, 1)
    assert descriptors_of(path) == 2, "one to read, one to write"
    values.drop(1)
    assert descriptors_of(path) == 0
    values.close()


def test_s8_values_of_writes_that_were_cut_off_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path / NODE)
    write(store, *range(1, 4), size=3 * KIB)
    store.flush_wal()
    store.save_witness(store.position())
    write(store, 4)
    store.flush_wal()
    image = copy_of(tmp_path / NODE, tmp_path / "image")
    length, size = store._witness.current.length, LARGE  # pyright: ignore[reportPrivateUsage]
    store.close()
    log = wal_path(image / "db", live_wals(image / "db")[-1])
    data = bytearray(log.read_bytes())
    data[length + 60] ^= 1
    log.write_bytes(data)
    store = open_store(image)
    assert store.loss.doubt
    assert entries_in(store) == [1, 2, 3]
    assert not files(image)
    (kept,) = (image / "cut").glob("*.values.kept")
    assert kept.read_bytes()[:size] == value_of(4)
    store.close()


def test_the_log_is_told_the_place_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write(store, 1, 2)
    store.flush_wal()
    (path,) = [wal_path(tmp_path / "db", each) for each in live_wals(tmp_path / "db")]
    rows = [
        row
        for frame in wal.Walk(path)
        for segment, operations in wal.decode(frame.payload).items()
        for _, _, row in operations
        if segment
    ]
    found = [apart.reference(row) for row in rows]
    assert [each and (each.offset, each.length) for each in found] == [(0, LARGE), (LARGE, LARGE)]
    store.close()


def test_s13_the_journal_says_which_entries_lie_apart(tmp_path: Path) -> None:
    store, engine = open_breakable(StoreConfig.small(tmp_path))
    for number in range(1, 7):
        batch = entries(number, value_of(number, LARGE if number % 2 else KIB))
        batch.put(keys.entry(7, number), value_of(number))
        batch.put(keys.local(b"no entry"), value_of(number))
        store.write(batch)
    places = [(1, 5), (7, 5), (7, 6)]
    assert list(journal.places_behind(engine, store.last_number - 2)) == places
    store.close()


def test_s13_the_journal_keeps_what_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables may have it, and opening has to know of its values."""
    store, engine = open_breakable(StoreConfig.small(tmp_path))
    write(store, 1, 2)
    synced = store.flush_wal()
    write(store, 3, 4)
    monkeypatch.setattr(engine, "release_log", lambda: store.last_number)
    store.maintain()
    write(store, 5, 6)
    assert list(journal.places_behind(engine, synced)) == [(1, number) for number in range(3, 7)]
    store.close()


def test_a_store_of_the_version_before_is_opened_and_closed_to_it(tmp_path: Path) -> None:
    """It would take a reference for an entry."""
    store = open_store(tmp_path)
    write_some(store, 5)
    store.close()
    witness = tmp_path / "witness"
    was = WitnessFile.load(witness).current
    assert was.wal
    slots = [witness.read_bytes()[at : at + 512] for at in (0, 512)]
    witness.write_bytes(b"".join(resealed(slot, b"RKW2") for slot in slots))
    assert WitnessFile.load(witness).current == was, "its log was the same"
    store = open_store(tmp_path)
    assert entries_in(store) == list(range(5))
    store.close()
    assert b"RKW2" not in witness.read_bytes()


def resealed(slot: bytes, magic: bytes) -> bytes:
    fields = magic + slot[4:36]
    return (fields + crc32c(fields).to_bytes(4, "big")).ljust(512, b"\0")
