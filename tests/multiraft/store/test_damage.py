"""What opening makes of damaged files, on real RocksDB directories left by SIGKILL (S6, S7, S8).

Two crash images are made once; each test damages a copy. The rule behind every expectation:
damage before the witness refuses, damage after it is cut and doubted, and nothing is dropped in
silence that the witness or RocksDB's own records could prove.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import (
    IdentityMismatchError,
    LossKind,
    RocksStore,
    StoreConfig,
    StoreDamagedError,
    wal,
)
from rakit.multiraft.store.directory import live_wals, wal_path
from rakit.multiraft.store.witness import SLOT_BYTES, Witness, WitnessFile
from tests.multiraft.store.child import COUNT
from tests.multiraft.store.conformance import key
from tests.multiraft.store.support import (
    NODE,
    copy_of,
    crash_image,
    entries_in,
    newest,
    open_store,
    write_some,
)

pytestmark = pytest.mark.damage

LAST = COUNT + 1  # the store's first write is its own


@pytest.fixture(scope="module")
def one_wal_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("one-wal") / NODE
    crash_image(directory, "one-wal")
    return directory


@pytest.fixture(scope="module")
def many_wals_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many-wals") / NODE
    crash_image(directory, "many-wals")
    assert len(live_wals(directory / "db")) >= 5, "the damage tests need several live WALs"
    return directory


@pytest.fixture
def one_wal(one_wal_image: Path, tmp_path: Path) -> Path:
    return copy_of(one_wal_image, tmp_path / NODE)


@pytest.fixture
def many_wals(many_wals_image: Path, tmp_path: Path) -> Path:
    return copy_of(many_wals_image, tmp_path / NODE)


@pytest.fixture(scope="module")
def tables_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was closed with 2,000 entries, so that they lie in tables."""
    directory = tmp_path_factory.mktemp("tables") / NODE
    store = RocksStore.open(
        replace(StoreConfig.small(directory), write_buffer_bytes=1 << 20, write_buffer_count=4),
        NODE,
    )
    write_some(store, 2000, value=os.urandom(200))
    store.close()
    return directory


@pytest.fixture
def tables(tables_image: Path, tmp_path: Path) -> Path:
    return copy_of(tables_image, tmp_path / NODE)


def largest_table(directory: Path) -> Path:
    """A table of entries: those of the other rows are small."""
    return max((directory / "db").glob("*.sst"), key=lambda path: path.stat().st_size)


def record_ends(path: Path) -> list[int]:
    """The end of each write in a file of the log; entry n of the image ends at place n + 1."""
    data, ends, at = path.read_bytes(), list[int](), 0
    while at + wal.HEADER_BYTES <= len(data):
        at += wal.HEADER_BYTES + int.from_bytes(data[at + 8 : at + 12], "little")
        ends.append(at)
    return ends


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def zero(path: Path, start: int, end: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    stop = len(data) if end is None else end
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)


def only_wal(directory: Path) -> Path:
    (number,) = live_wals(directory / "db")
    return wal_path(directory / "db", number)


def refusal(directory: Path) -> StoreDamagedError:
    """Opening refuses, and does so again: a refusal hides nothing from the next start."""
    with pytest.raises(StoreDamagedError) as first:
        open_store(directory)
    with pytest.raises(StoreDamagedError) as second:
        open_store(directory)
    assert second.value.report.kind is first.value.report.kind
    assert first.value.exit_code == 11
    return first.value


# -- the live WAL, after the witness: cut, kept aside, doubted (S8) ------------------------------


def test_an_undamaged_crash_image_is_whole(one_wal: Path) -> None:
    store = open_store(one_wal)
    assert store.last_number == LAST + 1
    assert entries_in(store) == list(range(COUNT))
    assert store.loss.kind is LossKind.NONE
    store.close()


def test_s8_a_torn_last_write_is_the_ordinary_trace_of_a_power_cut(one_wal: Path) -> None:
    path = only_wal(one_wal)
    os.truncate(path, path.stat().st_size - 100)
    store = open_store(one_wal)
    assert entries_in(store) == list(range(COUNT - 1))
    assert store.loss.kind is LossKind.NONE
    store.close()


AFTER_WITNESS: dict[str, tuple[Callable[[Path, list[int]], None], int]] = {
    "garbage appended": (lambda path, _: _append(path, b"\x5a" * 500), COUNT),
    "zeros appended": (lambda path, _: _append(path, bytes(5000)), COUNT),
    "zeros from a write's start": (lambda path, ends: zero(path, ends[150]), 150),
    "zeros from inside a write": (lambda path, ends: zero(path, ends[150] + 100), 150),
    "a zeroed stretch in the middle": (lambda path, e: zero(path, e[150], e[160]), 150),
    "a flipped bit in the middle": (lambda path, ends: flip(path, ends[150] + 50), 150),
    "a flipped bit in the last write": (lambda path, ends: flip(path, ends[-1] - 50), COUNT - 1),
    "an old stretch copied over a newer": (lambda path, e: _copy(path, e[10], e[150]), 150),
}


def _append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def _copy(path: Path, source: int, target: int) -> None:
    data = bytearray(path.read_bytes())
    data[target + 30 : target + 230] = data[source : source + 200]
    path.write_bytes(data)


@pytest.mark.parametrize("name", AFTER_WITNESS)
def test_s8_damage_after_the_witness_is_cut_off_and_doubted(one_wal: Path, name: str) -> None:
    change, kept = AFTER_WITNESS[name]
    path = only_wal(one_wal)
    change(path, record_ends(path))
    damaged = path.read_bytes()

    store = open_store(one_wal)
    assert entries_in(store) == list(range(kept)), "everything before the damage, nothing after it"
    assert store.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
    assert store.loss.doubt
    write_some(store, 1, start=kept)
    store.close()

    (aside,) = (one_wal / "cut").iterdir()
    length = int(aside.name.partition("@")[2].partition(".")[0])
    assert aside.read_bytes() == damaged[length:], "what was cut off is kept, to the byte"


def test_s8_the_doubt_survives_restarts_until_it_is_settled(one_wal: Path) -> None:
    zero(only_wal(one_wal), record_ends(only_wal(one_wal))[150])
    store = open_store(one_wal)
    doubt = store.loss.doubt
    store.close()

    again = open_store(one_wal)
    assert again.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
    assert again.loss.doubt == doubt, "the same cut is the same doubt"
    again.settle_doubt()
    again.close()

    settled = open_store(one_wal)
    assert settled.loss.kind is LossKind.NONE
    settled.close()


def test_s8_no_two_starts_have_one_number_whatever_is_cut_off(one_wal: Path) -> None:
    """A leader tells the acknowledgements of two lives by it."""
    numbers: list[int] = []
    for _ in range(3):
        numbers.append(crash_image(one_wal, "again"))
        witness = WitnessFile.load(one_wal / "witness").current
        # All that the start has written and synced, but for what opening itself wrote.
        zero(wal_path(one_wal / "db", witness.wal), witness.length)
    last = open_store(one_wal)
    assert last.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
    assert entries_in(last) == list(range(COUNT)), "nothing of those starts is there"
    numbers.append(last.boot)
    assert numbers == sorted({*numbers}), "each is higher than those before it"
    last.close()


def test_s7_s8_a_store_that_knows_of_its_cut_does_not_look_rolled_back(one_wal: Path) -> None:
    """Peers may have heard of what was cut off, and never talk to a store again that went back."""
    zero(only_wal(one_wal), record_ends(only_wal(one_wal))[150])
    store = open_store(one_wal)
    assert store.opened_counter > LAST
    store.settle_doubt()
    written = write_some(store, 3, start=COUNT)
    store.close()
    again = open_store(one_wal)
    assert again.opened_counter == written + 1, "closing notes what there is of each run"
    again.close()


# -- the live WAL, before the witness: refused (S7) ----------------------------------------------


BEFORE_WITNESS: dict[str, Callable[[Path, list[int]], None]] = {
    "a flipped bit": lambda path, ends: flip(path, ends[50] + 50),
    "zeros from a write's start": lambda path, ends: zero(path, ends[50]),
    "zeros from inside a write": lambda path, ends: zero(path, ends[50] + 100),
    "a zeroed stretch": lambda path, ends: zero(path, ends[50], ends[60]),
    "cut at a write's end": lambda path, ends: os.truncate(path, ends[50]),
    "emptied": lambda path, _: os.truncate(path, 0),
    "deleted": lambda path, _: path.unlink(),
}


@pytest.mark.parametrize("name", BEFORE_WITNESS)
def test_s7_damage_before_the_witness_refuses(one_wal: Path, name: str) -> None:
    path = only_wal(one_wal)
    BEFORE_WITNESS[name](path, record_ends(path))
    assert refusal(one_wal).report.kind in (LossKind.LOST_ACKED, LossKind.UNREADABLE)


def test_s7_a_cut_between_two_writes_after_the_witness_leaves_no_trace_here(one_wal: Path) -> None:
    """The limit of what one node can know for witness_interval_ms. The peers know more: a leader
    counts this replica's acknowledgements, and the counter in the hello went back."""
    path = only_wal(one_wal)
    os.truncate(path, record_ends(path)[150])
    store = open_store(one_wal)
    assert store.loss.kind is LossKind.NONE
    assert store.opened_counter < LAST, "the hello says less than what it said"
    store.close()


# -- older WALs (S6) -----------------------------------------------------------------------------


def test_several_live_wals_are_replayed_whole(many_wals: Path) -> None:
    store = open_store(many_wals)
    assert entries_in(store) == list(range(COUNT))
    assert store.loss.kind is LossKind.NONE
    store.close()


OLDER: dict[str, Callable[[Path], None]] = {
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
    "halved at a write's end": lambda path: os.truncate(path, record_ends(path)[10]),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
    "flipped": lambda path: flip(path, record_ends(path)[10] + 50),
    "zeroed stretch": lambda path: zero(path, record_ends(path)[10], record_ends(path)[12]),
    "zeroed to the end": lambda path: zero(path, record_ends(path)[10]),
}


@pytest.mark.parametrize("name", OLDER)
@pytest.mark.parametrize("place", [0, 3, -2])
def test_s6_damage_to_an_older_wal_refuses(many_wals: Path, name: str, place: int) -> None:
    number = live_wals(many_wals / "db")[place]
    OLDER[name](wal_path(many_wals / "db", number))
    assert refusal(many_wals).report.kind in (LossKind.LOST_ACKED, LossKind.UNREADABLE)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("halved at a write's end", "is missing"),
        ("emptied", "is missing"),
        ("deleted", "is missing"),
        ("halved", "is torn at byte"),
        ("zeroed to the end", "is damaged at byte"),
    ],
)
def test_s7_a_refusal_says_what_of_the_log_is_gone(many_wals: Path, name: str, detail: str) -> None:
    OLDER[name](wal_path(many_wals / "db", live_wals(many_wals / "db")[3]))
    assert detail in refusal(many_wals).report.detail


def test_s7_a_newest_file_that_is_gone_is_loss(many_wals: Path) -> None:
    newest_file = wal_path(many_wals / "db", live_wals(many_wals / "db")[-1])
    newest_file.unlink()
    report = refusal(many_wals).report
    assert report.kind is LossKind.LOST_ACKED
    assert f"write {LAST} was durable" in report.detail


def test_s11_another_stores_database_changes_nothing_of_this_one(
    one_wal: Path, many_wals_image: Path, tmp_path: Path
) -> None:
    """It was put there by mistake, and holds more writes than this one."""
    WitnessFile.create(one_wal / "witness", Witness(2, 0, 0))
    witness = (one_wal / "witness").read_bytes()
    (one_wal / "db").rename(tmp_path / "mine")
    copy_of(many_wals_image / "db", one_wal / "db")
    for _ in range(2):
        with pytest.raises(IdentityMismatchError):
            open_store(one_wal)
    assert (one_wal / "witness").read_bytes() == witness
    (one_wal / "db").rename(tmp_path / "other")
    (tmp_path / "mine").rename(one_wal / "db")
    store = open_store(one_wal)
    assert entries_in(store) == list(range(COUNT))
    store.close()


def test_s8_unsynced_files_after_a_torn_one_are_taken_away_with_it(many_wals: Path) -> None:
    """Two files written but not synced when the power went; blocks reached the disk out of order.

    To replay the newer one after the torn older one would be to go over a hole.
    """
    database = many_wals / "db"
    first, torn, newer = live_wals(database)[0], *live_wals(database)[-2:]
    ends = record_ends(wal_path(database, first))
    WitnessFile.create(many_wals / "witness", Witness(first, first, ends[0]))
    ends = record_ends(wal_path(database, torn))
    os.truncate(wal_path(database, torn), ends[5] + 10)
    store = open_store(many_wals)
    assert store.loss.kind is LossKind.DAMAGED_TAIL_AFTER_WITNESS
    assert entries_in(store) == list(range(torn + 5 - 1)), "write 1 is the store's own"
    store.close()
    names = sorted(path.name for path in (many_wals / "cut").iterdir())
    assert names == sorted([f"{torn:020}.wal@{ends[5]}.pending", f"{newer:020}.wal@0.pending"])


# -- tables, manifest and the files around them --------------------------------------------------


def test_a_damaged_table_block_raises_where_it_is_read_and_nowhere_else(tables: Path) -> None:
    path = largest_table(tables)
    flip(path, path.stat().st_size // 3)
    store = open_store(tables)
    bad = 0
    for number in range(2000):
        try:
            assert store.get(key(number)) is not None
        except StoreCorruptError:
            bad += 1
    assert 0 < bad < 500, "one block's worth"
    with pytest.raises(StoreCorruptError) as held:
        entries_in(store)
    with pytest.raises(StoreCorruptError):
        _last_below_each(store)
    assert write_some(store, 1, start=3000), "other groups go on"
    store.close()
    assert held.value.__cause__ is not None
    open_store(tables).close()  # no iterator in that traceback keeps the database open


def test_s9_a_damaged_table_block_is_not_in_the_way_of_the_rows_before_and_behind_it(
    tables: Path,
) -> None:
    """RocksDB looks into the block before, for versions of the row that it has found."""
    path = largest_table(tables)
    flip(path, path.stat().st_size // 3)
    store = open_store(tables)
    lost = {number for number in range(2000) if not _is_read(store.get, key(number))}
    not_last = {
        number
        for number in range(2000)
        if not _is_read(store.last_below, key(number), key(number + 1))
    }
    store.close()
    assert lost
    assert not_last == lost


def _is_read(read: Callable[..., object], *bounds: bytes) -> bool:
    try:
        return read(*bounds) is not None
    except StoreCorruptError:
        return False


def _last_below_each(store: RocksStore) -> None:
    for number in range(2000):
        store.last_below(key(0), key(number))


METADATA: dict[str, Callable[[Path], object]] = {
    "table truncated": lambda d: os.truncate(largest_table(d), 100_000),
    "table missing": lambda d: largest_table(d).unlink(),
    "table footer": lambda d: flip(largest_table(d), largest_table(d).stat().st_size - 20),
    "manifest flipped": lambda d: flip(
        newest(d, "MANIFEST-*"), newest(d, "MANIFEST-*").stat().st_size // 2
    ),
    "manifest missing": lambda d: newest(d, "MANIFEST-*").unlink(),
    "CURRENT missing": lambda d: (d / "db" / "CURRENT").unlink(),
    "CURRENT empty": lambda d: (d / "db" / "CURRENT").write_bytes(b""),
    "CURRENT names another": lambda d: (d / "db" / "CURRENT").write_text("MANIFEST-999999\n"),
    "witness missing": lambda d: (d / "witness").unlink(),
    "witness empty": lambda d: (d / "witness").write_bytes(b""),
    "witness garbage": lambda d: (d / "witness").write_bytes(b"\x5a" * 1024),
    "identity garbage": lambda d: (d / "identity.json").write_text('{"node_name": "n1"}'),
}


@pytest.mark.parametrize("name", METADATA)
def test_damaged_metadata_refuses(tables: Path, name: str) -> None:
    METADATA[name](tables)
    refusal(tables)


@pytest.mark.parametrize("content", [b"", b"\x5a" * 100, b"[DBOptions]\n  paranoid_checks=false\n"])
def test_s6_the_options_files_of_the_directory_decide_nothing(tables: Path, content: bytes) -> None:
    for path in (tables / "db").glob("OPTIONS-*"):
        path.write_bytes(content)
    (tables / "db" / "rocksdict-config.json").unlink()
    store = open_store(tables)
    assert len(entries_in(store)) == 2000
    text = newest(tables, "OPTIONS-*").read_text()
    assert "track_and_verify_wals_in_manifest=true" in text
    store.close()


# -- witness and journal -------------------------------------------------------------------------


def test_s7_a_witness_ahead_of_the_database_refuses(tables: Path) -> None:
    witness = WitnessFile.load(tables / "witness")
    witness.save(replace(witness.current, number=witness.current.number + 1))
    report = refusal(tables).report
    assert report.kind is LossKind.LOST_ACKED
    assert str(witness.current.number) in report.detail


@pytest.mark.parametrize("at", [2, 11, 12, 19, 30, 38])
def test_s7_a_damaged_witness_slot_leaves_the_older_one(tables: Path, at: int) -> None:
    """Magic, turn, number, WAL or length: a number that is wrong would refuse a good store."""
    newer = WitnessFile.load(tables / "witness").turn % 2
    flip(tables / "witness", newer * SLOT_BYTES + at)
    store = open_store(tables)
    assert len(entries_in(store)) == 2000
    store.close()


def test_s7_a_missing_journal_row_refuses(tmp_path: Path) -> None:
    directory = tmp_path / NODE
    store = open_store(directory)
    write_some(store, 10)
    batch = WriteBatch()
    batch.delete(keys.journal_row(5))
    store.write(batch)
    store.close()
    report = refusal(directory).report
    assert report.kind is LossKind.LOST_ACKED
    assert report.detail == "write 5 is missing, write 13 is there"


def test_s7_a_directory_rolled_back_whole_shows_only_in_the_counter(tmp_path: Path) -> None:
    directory = tmp_path / NODE
    store = open_store(directory)
    write_some(store, 10)
    store.close()
    old = copy_of(directory, tmp_path / "copy")
    store = open_store(directory)
    write_some(store, 50)
    store.flush_wal()
    told_to_peers = store.synced_counter
    store.close()

    rolled_back = open_store(old)
    assert rolled_back.loss.kind is LossKind.NONE
    assert rolled_back.opened_counter < told_to_peers
    write_some(rolled_back, 100)
    assert rolled_back.opened_counter < told_to_peers, "what it writes now does not count"
    rolled_back.close()


def test_s11_a_database_under_another_identity_is_refused(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        store = open_store(tmp_path / name)
        write_some(store, 10)
        store.close()
    (tmp_path / "mine" / "db").rename(tmp_path / "mine" / "old")
    copy_of(tmp_path / "other" / "db", tmp_path / "mine" / "db")
    (tmp_path / "mine" / "witness").write_bytes((tmp_path / "other" / "witness").read_bytes())
    with pytest.raises(IdentityMismatchError) as refused:
        open_store(tmp_path / "mine")
    assert refused.value.exit_code == 12
