"""Segments: whatever the logs went through, every entry is read, nothing else is, and room is given
back (0005, S4, S6, S7, S8, S12)."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rocksdict import Rdict

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    WriteStalledError,
    retiring,
    runs,
    segments,
)
from rakit.multiraft.store.directory import live_wals, wal_path
from rakit.multiraft.store.engine import DEFAULT, Engine, Operation, RocksEngine
from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.runs import Run
from rakit.multiraft.store.segments import Segments
from rakit.multiraft.store.space import Space
from tests.multiraft.store.history import History, check, config_of
from tests.multiraft.store.support import (
    NODE,
    STALL,
    FailingEngine,
    copy_of,
    crash_image,
    entries,
    open_breakable,
    settle,
    write_patiently,
)

KIB = 1 << 10
STEPS = 250
#: The last entry of group 1 after `fill`.
FILLED = 12 * 15


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of moving entries: several for each run, and of going through the rows."""
    monkeypatch.setattr(retiring, "STEP_BYTES", 3000)
    monkeypatch.setattr(retiring, "_ROWS_BYTES", 300)
    monkeypatch.setattr(segments, "_SPARE_SEGMENTS", 0)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("seed", range(5))
def test_every_history_reads_as_it_was_written(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stalls, upkeep at any time, and restarts; the same store all along."""
    rng = random.Random(1000 + seed)
    moved: list[Run] = []
    real = Segments.moved

    def recorded(self: Segments, run: Run, number: int) -> None:
        moved.append(run)
        real(self, run, number)

    monkeypatch.setattr(Segments, "moved", recorded)
    history = History(seed, [])
    store, engine = open_breakable(config_of(tmp_path))
    for step in range(STEPS):
        before = history.rows()
        batch = history.step()
        if rng.random() < 0.2:
            refuse_once(store, engine, batch)
            look_meanwhile(store, before, history.rows())
        write_patiently(store, batch)
        if rng.random() < 0.2:
            settle(store)
        for _ in range(rng.randrange(8)):
            if rng.random() < 0.2:
                refuse_upkeep(store, engine)
            store.upkeep()
        if rng.random() < 0.04:
            store.close()
            store, engine = open_breakable(config_of(tmp_path))
        if step % 10 == 9 or seed == 0:
            check(store, history, seed)
    check(store, history, seed)
    made = max(engine.segments())
    store.close()
    assert made > 5, "a history that goes through one segment only proves nothing"
    assert len(moved) > 5, "nor does one in which nothing is moved"


def look_meanwhile(
    store: RocksStore, before: dict[bytes, bytes], after: dict[bytes, bytes]
) -> None:
    """What a refused batch leaves alone is read, and what it does not is no damage."""
    for key, value in before.items():
        try:
            found = store.get(key)
        except StoreCorruptError as error:
            pytest.fail(f"a batch that is not written did damage: {error}")
        assert found == value if after.get(key) == value else found in {value, None}


def refuse_once(store: RocksStore, engine: FailingEngine, batch: WriteBatch) -> None:
    engine.texts["write"] = STALL
    with pytest.raises(WriteStalledError):
        store.write(batch)
    del engine.texts["write"]
    engine.calls.clear()
    store.upkeep()
    assert "write" not in engine.calls, "no other write comes before one that was refused (S12)"


def refuse_upkeep(store: RocksStore, engine: FailingEngine) -> None:
    number = store.last_number
    engine.texts["write"] = STALL
    store.upkeep()
    del engine.texts["write"]
    assert store.last_number == number


def append(store: RocksStore, group_id: int, first: int, count: int, size: int = 4 * KIB) -> None:
    for index in range(first, first + count):
        batch = WriteBatch()
        batch.put(keys.entry(group_id, index), bytes([index % 251]) * size)
        write_patiently(store, batch)
        settle(store)


def fill(store: RocksStore) -> None:
    """In each of several segments a little of group 2, and much of group 1."""
    for turn in range(12):
        append(store, 2, turn + 1, 1)
        append(store, 1, turn * 15 + 1, 15)


def trim(store: RocksStore, group_id: int, index: int) -> None:
    batch = WriteBatch()
    batch.delete_range(keys.entry(group_id, 0), keys.entry(group_id, index + 1))
    store.write(batch)


def test_a_segment_is_dropped_when_nothing_in_it_lives_and_not_before(tmp_path: Path) -> None:
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 40)
    assert engine.segments() == [1, 2, 3]
    trim(store, 1, 20)
    settle(store)
    assert engine.segments() == [2, 3]
    trim(store, 1, 40)
    settle(store)
    assert 2 not in engine.segments()
    store.close()


def test_s8_a_segment_waits_for_the_witness(tmp_path: Path) -> None:
    """What is synced and lies behind the witness may still be cut off, and the row come back."""
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 40)
    trim(store, 1, 40)
    store.flush_wal()
    store.maintain()
    assert 1 in engine.segments()
    settle(store)
    assert 1 not in engine.segments()
    store.close()


def test_a_store_without_syncs_gives_room_back_all_the_same(tmp_path: Path) -> None:
    """It never has a witness (--unsafe-no-fsync)."""
    store, engine = open_breakable(replace(config_of(tmp_path), fsync=False))
    append(store, 1, 1, 40)
    trim(store, 1, 40)
    settle(store)
    assert 1 not in engine.segments()
    store.close()


def test_what_hardly_lives_is_moved_and_its_segment_dropped(tmp_path: Path) -> None:
    store, engine = open_breakable(config_of(tmp_path))
    fill(store)
    trim(store, 1, FILLED)
    held = len(engine.segments())
    assert run_rows(store, 2) > 5
    for _ in range(100):
        assert store.get(keys.entry(2, 1)), "wherever it is now"
        settle(store)
        store.upkeep()
    assert len(engine.segments()) < held - 5
    assert run_rows(store, 2) <= 2, "what lies where nothing is said takes no row"
    assert [keys.number_of(key) for key, _ in store.scan(*keys.group_range(keys.ENTRY, 2))] == list(
        range(1, 13)
    )
    assert engine.real.get(keys.entry(2, 1)) is not None, "in the default family"
    store.close()


def run_rows(store: RocksStore, group_id: int) -> int:
    return len(list(store.scan(*keys.group_range(keys.RUN, group_id))))


def test_an_end_that_is_deleted_is_gone_though_nothing_takes_its_place(tmp_path: Path) -> None:
    """Twice in one batch, over several segments."""
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 60)
    assert len(engine.segments()) > 3
    batch = WriteBatch()
    for first in (50, 35, 5):
        batch.delete_range(keys.entry(1, first), keys.entry(1, 61))
    store.write(batch)
    bounds = keys.group_range(keys.ENTRY, 1)
    assert [keys.number_of(key) for key, _ in store.scan(*bounds)] == [1, 2, 3, 4]
    last = store.last_below(*bounds)
    assert last is not None
    assert keys.number_of(last[0]) == 4
    assert store.get(keys.entry(1, 5)) is None
    store.close()


def test_a_run_is_moved_in_steps_each_of_which_may_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was is read anew, and no other is done again."""
    monkeypatch.setattr(retiring, "STEP_BYTES", 3000)
    store, engine = open_breakable(config_of(tmp_path))
    for turn in range(8):
        append(store, 2, turn * 8 + 1, 8, size=2000)
        append(store, 1, turn * 16 + 1, 16)
    trim(store, 1, 8 * 16)
    settle(store)
    held = engine.segments()
    refused = writes = 0
    for _ in range(400):
        if refused <= writes:
            engine.calls.clear()
            refuse_upkeep(store, engine)
            refused += "write" in engine.calls
        if refused == 3:
            refuse_once(store, engine, entries(9, b"x"))
            store.write(entries(9, b"x"))
        number = store.last_number
        store.upkeep()
        writes += store.last_number - number
        settle(store)
    assert len(engine.segments()) < len(held) - 2
    assert 16 <= writes < 40, "two entries in each, and the row"
    assert refused > 10
    rows = list(store.scan(*keys.group_range(keys.ENTRY, 2)))
    assert [keys.number_of(key) for key, _ in rows] == list(range(1, 65))
    store.close()


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_dead_is_known_after_a_restart(tmp_path: Path, *, killed: bool) -> None:
    """By what the tables of a segment take, and what the rows say of its runs."""
    store, engine = open_breakable(config_of(tmp_path))
    fill(store)
    trim(store, 1, FILLED)
    store.flush_wal()
    held = len(engine.segments())
    if killed:
        engine.real.close()  # its memtables are written out; no row is noted
        store._directory.close()  # pyright: ignore[reportPrivateUsage]
    else:
        store.close()
    store, engine = open_breakable(config_of(tmp_path))
    for _ in range(100):
        settle(store)
        store.upkeep()
    assert len(engine.segments()) < held - 5
    assert len(list(store.scan(*keys.group_range(keys.ENTRY, 2)))) == 12
    store.close()


@pytest.mark.parametrize("fault", [Fault.CORRUPTION, Fault.TABLE_UNREAD])
def test_s9_what_cannot_be_read_stays_and_is_not_tried_for_ever(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    """Its segment stays with it; every other one is emptied."""
    monkeypatch.setattr(retiring, "_RETRY_S", 0.0)
    store, engine = open_breakable(config_of(tmp_path))
    fill(store)
    engine.damage(keys.group_range(keys.ENTRY, 2), segment=3, fault=fault)
    trim(store, 1, FILLED)
    for _ in range(200):
        settle(store)
        store.upkeep()
    assert engine.segments()[0] == 3
    assert len(engine.segments()) <= 5
    assert caplog.text.count("entries of group 2 stay in their segment") == 1
    store.close()


def test_s9_a_read_that_fails_for_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was found to be damaged: no file handle was left, say."""
    store, engine = open_breakable(config_of(tmp_path))
    fill(store)
    trim(store, 1, FILLED)
    settle(store)
    held = len(engine.segments())
    engine.texts["chunk"] = "IO error: While open a file: /d/db/000009.sst: Too many open files"
    store.upkeep()
    del engine.texts["chunk"]
    engine.calls.clear()
    store.upkeep()
    assert "chunk" not in engine.calls, "not at once"
    monkeypatch.setattr(time, "monotonic", lambda: time.time() + 1e9)
    for _ in range(100):
        settle(store)
        store.upkeep()
    assert len(engine.segments()) < held - 5
    store.close()


def test_s12_on_a_tight_disk_a_segment_that_is_mostly_dead_is_ended_though_it_is_not_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where little is written it would never fill up, and what was deleted keep its room."""
    config = replace(config_of(tmp_path), segment_bytes=1 << 20)
    store, engine = open_breakable(config)
    append(store, 1, 1, 40)
    trim(store, 1, 40)
    for tight, held in ((False, [1]), (True, [2])):
        monkeypatch.setattr(Space, "tight", tight)
        for _ in range(4):
            settle(store)
            store.upkeep()
        assert engine.segments() == held
    store.close()


def test_what_lives_in_a_segment_that_is_ended_early_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, engine = open_breakable(replace(config_of(tmp_path), segment_bytes=1 << 20))
    append(store, 1, 1, 30)
    append(store, 2, 1, 20)
    trim(store, 1, 30)
    monkeypatch.setattr(Space, "tight", True)
    for _ in range(2):
        settle(store)
        refuse_upkeep(store, engine)

    def nothing(_: retiring.Retiring) -> list[Operation]:
        return []

    monkeypatch.setattr(retiring.Retiring, "step", nothing)
    store.upkeep()
    store.write(entries(100, b"in the next one"))
    assert run_of(store, 2).size_bytes >= 20 * 4 * KIB
    store.close()


def run_of(store: RocksStore, group_id: int) -> Run:
    ((key, value),) = store.scan(*keys.group_range(keys.RUN, group_id))
    return runs.decode(key, value)


def test_s8_a_write_between_two_steps_is_covered_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment dies by the later of the two that took its last runs, whoever that was."""
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 2, 1, 1)
    append(store, 3, 1, 1)
    append(store, 1, 1, 80)
    trim(store, 1, 80)
    monkeypatch.setattr(Space, "tight", True)
    monkeypatch.setattr(retiring, "STEP_BYTES", 1)
    settle(store)
    assert engine.segments()[0] == 1
    for _ in range(50):
        if run_rows(store, 2):
            store.upkeep()
    assert run_rows(store, 3) == 1, "the next one is not moved yet"
    store.flush_wal()
    position = store.position()
    batch = WriteBatch()
    batch.delete_range(*keys.group_range(keys.ENTRY, 3))
    store.write(batch)
    store.upkeep()
    store.flush_wal()
    store.save_witness(position)
    for _ in range(5):
        store.maintain()
    assert engine.segments()[0] == 1
    settle(store)
    assert engine.segments()[0] != 1
    store.close()


def test_on_a_quiet_node_a_segments_end_is_synced_so_that_it_can_be_dropped(
    tmp_path: Path,
) -> None:
    """Nobody else may ask for a sync after the last trim."""
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 40)
    assert not store.upkeep()
    trim(store, 1, 40)
    assert store.upkeep()
    settle(store)
    assert not store.upkeep()
    assert 1 not in engine.segments()
    store.close()


def test_s8_a_segment_that_was_emptied_waits_for_the_witness(tmp_path: Path) -> None:
    store, engine = open_breakable(config_of(tmp_path))
    fill(store)
    trim(store, 1, FILLED)
    settle(store)
    held = engine.segments()
    emptied = 0
    while run_rows(store, 2) > 2:
        store.upkeep()
        store.flush_wal()
        store.maintain()
        emptied += 1
        assert emptied < 1000
    assert engine.segments() == held
    settle(store)
    assert len(engine.segments()) == len(held) - 1
    store.close()


def test_s7_closing_makes_tables_of_the_default_family_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the journal: a row there speaks for what is in tables as well, or in the log."""
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 20)
    closed: list[object] = []
    real = engine.real
    families = {number: pair[0] for number, pair in real._segments.items()}  # pyright: ignore[reportPrivateUsage]
    assert len(families) > 1

    class Recording:
        def __init__(self, name: object, family: Rdict) -> None:
            self._name, self._family = name, family

        def close(self) -> None:
            closed.append(self._name)
            self._family.close()

    monkeypatch.setattr(real, "_db", Recording("default", real._db))  # pyright: ignore[reportPrivateUsage]
    for number, (family, handle) in list(real._segments.items()):  # pyright: ignore[reportPrivateUsage]
        real._segments[number] = Recording(number, family), handle  # type: ignore[assignment]  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    real.close()
    assert closed[-1] == "default"
    assert set(closed[:-1]) == set(families)


def test_s7_tables_of_the_default_family_say_nothing_that_is_in_the_log_alone(
    tmp_path: Path,
) -> None:
    """Rows fill its memtable, and an entry of each write lies in a segment's."""
    copy = tmp_path / NODE
    crash_image(copy, "tables")
    in_tables = rows_without_the_log(copy)
    numbers = [int(key[1:]) for key in in_tables if key[0] == keys.LOCAL]
    assert numbers, "a memtable was full"
    indexes = {keys.number_of(key) for key in in_tables if key[0] == keys.ENTRY}
    assert indexes >= set(numbers)


def rows_without_the_log(directory: Path) -> set[bytes]:
    """What the tables hold: the log is taken away."""
    for number in live_wals(directory / "db"):
        wal_path(directory / "db", number).unlink()
    engine = RocksEngine(directory / "db", config_of(directory), create=False)
    found: set[bytes] = set()
    for segment in (DEFAULT, *engine.segments()):
        found |= {key for key, _ in engine.chunk(b"", b"\xff", 1 << 30, segment)}
    engine.close()
    return found


def test_entries_of_a_store_from_before_segments_are_read_and_go_on(tmp_path: Path) -> None:
    store, engine = open_breakable(config_of(tmp_path))
    number = store.last_number + 1
    old = [(0, keys.entry(1, index), bytes([index])) for index in range(1, 11)]
    journal = (0, keys.journal_row(number), b"")
    engine.real.write(number, [journal, *old])
    store.close()
    store, engine = open_breakable(config_of(tmp_path))
    batch = WriteBatch()
    batch.delete_range(keys.entry(1, 8), keys.entry(1, 11))
    batch.put(keys.entry(1, 8), b"new")
    store.write(batch)
    rows = list(store.scan(*keys.group_range(keys.ENTRY, 1)))
    assert [keys.number_of(key) for key, _ in rows] == list(range(1, 9))
    assert rows[-1][1] == b"new"
    trim(store, 1, 3)
    assert store.get(keys.entry(1, 3)) is None
    assert store.get(keys.entry(1, 4)) == bytes([4])
    store.close()


def test_s9_entries_of_a_segment_that_is_gone_are_damage_and_no_end_of_the_log(
    tmp_path: Path,
) -> None:
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 40)
    append(store, 2, 1, 1)
    engine.real.drop_segment(2)
    store.close()
    store = RocksStore.open(config_of(tmp_path), NODE)
    with pytest.raises(StoreCorruptError, match="segment 2 is gone"):
        list(store.scan(*keys.group_range(keys.ENTRY, 1)))
    with pytest.raises(StoreCorruptError):
        store.get(keys.entry(1, 20))
    assert store.get(keys.entry(2, 1)) is not None
    store.close()


def test_s9_a_damaged_run_row_is_damage_of_its_group_and_costs_no_segment(tmp_path: Path) -> None:
    """The rows of groups 1 and 2 cannot be read any more; deleting them works all the same."""
    store, engine = open_breakable(config_of(tmp_path))
    append(store, 1, 1, 40)
    append(store, 2, 1, 20)
    last = store.last_number
    store.close()
    store, engine = open_breakable(config_of(tmp_path))
    engine.damage(keys.group_range(keys.RUN, 1))
    with pytest.raises(StoreCorruptError):
        store.get(keys.entry(1, 1))
    trim(store, 1, 25)
    engine.damage((b"", b""))
    rows = list(store.scan(*keys.group_range(keys.ENTRY, 1)))
    assert [keys.number_of(key) for key, _ in rows] == list(range(26, 41))
    engine.damage(keys.group_range(keys.RUN, 1))
    batch = WriteBatch()
    batch.delete_range(*keys.group_range(keys.ENTRY, 1))
    store.write(batch)
    assert store.last_number > last
    settle(store)
    held = engine.segments()
    trim(store, 2, 20)
    settle(store)
    assert engine.segments() == held, "nobody knows what else is in it"
    engine.damage((b"", b""))
    assert list(store.scan(*keys.group_range(keys.ENTRY, 1))) == []
    append(store, 1, 1, 3)
    assert len(list(store.scan(*keys.group_range(keys.ENTRY, 1)))) == 3
    store.close()


def test_s9_a_start_that_cannot_read_the_run_rows_drops_and_moves_nothing(tmp_path: Path) -> None:
    store, _ = open_breakable(config_of(tmp_path))
    append(store, 2, 1, 20)
    append(store, 1, 1, 20)
    store.close()
    engines: list[FailingEngine] = []

    def opener(path: Path, config: StoreConfig, *, create: bool) -> Engine:
        engines.append(FailingEngine(path, config, create=create))
        engines[-1].damage(keys.group_range(keys.RUN, 1))
        return engines[-1]

    store = RocksStore.open(config_of(tmp_path), NODE, opener)
    held = engines[0].segments()
    trim(store, 2, 20)
    for _ in range(20):
        settle(store)
        store.upkeep()
    assert engines[0].segments() == held
    with pytest.raises(StoreCorruptError):
        store.get(keys.entry(1, 20))
    append(store, 3, 1, 3)
    store.close()
    store = RocksStore.open(config_of(tmp_path), NODE)
    assert len(list(store.scan(*keys.group_range(keys.ENTRY, 1)))) == 20
    assert len(list(store.scan(*keys.group_range(keys.ENTRY, 3)))) == 3
    store.close()


def test_a_copy_of_a_closed_store_is_whole(tmp_path: Path) -> None:
    history = History(99, [])
    store = RocksStore.open(config_of(tmp_path / NODE), NODE)
    for _ in range(100):
        write_patiently(store, history.step())
        settle(store)
    store.close()
    copy = copy_of(tmp_path / NODE, tmp_path / "copy" / NODE)
    store = RocksStore.open(config_of(copy), NODE)
    check(store, history, 1)
    store.close()
