"""What tables had before it was durable, and what opening makes of it (S7, S8, S13)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.records import decode_hard_state
from rakit.multiraft.store import RocksStore, StoreConfig, StoreFailedError, apart, mending
from rakit.multiraft.store.directory import live_values, live_wals, values_path, wal_path
from rakit.multiraft.store.engine import DEFAULT, Engine, EngineError
from rakit.multiraft.store.errors import Fault
from rakit.multiraft.store.runs import key_at
from rakit.multiraft.store.witness import WitnessFile
from tests.multiraft.store.child import COMMIT_OF_2, of_two_groups
from tests.multiraft.store.support import (
    DEAD_DISK,
    NODE,
    FailingEngine,
    copy_of,
    crash_image,
    open_store,
)

#: The last entry of each group that was synced: 25 writes of three entries.
SYNCED = 75


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("behind") / NODE
    crash_image(directory, "behind")
    return directory


@pytest.fixture
def directory(image: Path, tmp_path: Path) -> Path:
    return copy_of(image, tmp_path / NODE)


def last_of(store: RocksStore, group_id: int) -> int:
    found = store.last_below(*keys.group_range(keys.ENTRY, group_id))
    return 0 if found is None else keys.number_of(found[0])


def commit_of(store: RocksStore, group_id: int) -> int:
    value = store.get(keys.hard_state(group_id))
    assert value is not None
    return decode_hard_state(group_id, value).state.commit


def whole(store: RocksStore, group_id: int) -> int:
    """How many entries there are, from the first on; each is the one that was written."""
    written = {key: value for each in range(100) for _, key, value in of_two_groups(each).ops}
    try:
        rows = list(store.scan(*keys.group_range(keys.ENTRY, group_id)))
    except StoreCorruptError as error:
        pytest.fail(f"an entry is there without its value: {error}")
    assert [keys.number_of(key) for key, _ in rows] == list(range(1, len(rows) + 1))
    assert all(written[key] == value for key, value in rows)
    return len(rows)


def test_s13_a_log_ends_before_the_first_value_that_never_was_durable(directory: Path) -> None:
    """The small entry before it was in a table, whole, and stays. So do writes to other rows."""
    for _ in range(3):
        store = open_store(directory)
        for group_id in (1, 2):
            assert whole(store, group_id) == last_of(store, group_id) == SYNCED + 1
        assert commit_of(store, 1) == SYNCED + 1, "it goes back with the log"
        assert commit_of(store, 2) == COMMIT_OF_2, "it never goes forward"
        assert not store.loss.doubt
        store.close()


def test_what_is_cut_off_may_be_written_again(directory: Path) -> None:
    store = open_store(directory)
    there = {keys.entry(group_id, SYNCED + 1) for group_id in (1, 2)}
    for number in range(50, 100):
        batch = of_two_groups(number)
        batch.ops = [each for each in batch.ops if each[1] not in there]
        store.write(batch)
    store.close()
    store = open_store(directory)
    assert [whole(store, group_id) for group_id in (1, 2)] == [150, 150]
    store.close()


def test_s12_a_start_that_dies_is_made_up_for_by_the_next(directory: Path) -> None:
    """The log that says what was durable is there until the cut is."""
    for name in ("write", "flush_wal", "forget_log"):
        for abandoned in (False, True):
            store = open_store(image_of_a_start_that_died(directory, name, abandoned=abandoned))
            assert [whole(store, group_id) for group_id in (1, 2)] == [SYNCED + 1] * 2
            assert commit_of(store, 1) == SYNCED + 1
            store.close()


def test_s9_a_durable_value_that_is_gone_is_damage(directory: Path) -> None:
    """Even beside some that never were durable, and after a start that died."""
    *_, file = live_values(directory / "db")
    os.truncate(values_path(directory / "db", *file), 20 * 8192)
    for image in (directory, image_of_a_start_that_died(directory, "write")):
        store = open_store(image)
        rows = store.scan(*keys.group_range(keys.ENTRY, 1))
        for index in range(1, 20 * 3 // 2 + 2):
            assert next(rows, (b"", b""))[0] == keys.entry(1, index)
        with pytest.raises(StoreCorruptError):
            next(rows, None)
        assert commit_of(store, 1) == SYNCED + 1
        store.close()


def test_s9_the_newest_durable_write_is_durable(directory: Path) -> None:
    *_, file = live_values(directory / "db")
    os.truncate(values_path(directory / "db", *file), 49 * 8192)
    store = open_store(directory)
    assert whole(store, 1) == SYNCED + 1
    with pytest.raises(StoreCorruptError):
        list(store.scan(*keys.group_range(keys.ENTRY, 2)))
    assert last_of(store, 2) == SYNCED + 1
    store.close()


def test_an_empty_newest_file_hides_no_end_of_the_log(directory: Path) -> None:
    """It may have been begun when the process ended."""
    *_, file = live_values(directory / "db")
    os.truncate(values_path(directory / "db", *file), 49 * 8192)
    number = live_wals(directory / "db")[-1] + 70
    wal_path(directory / "db", number).touch()
    store = open_store(directory)
    with pytest.raises(StoreCorruptError):
        list(store.scan(*keys.group_range(keys.ENTRY, 2)))
    store.close()


ROWS = {
    "vote record": (keys.hard_state(1), DEFAULT),
    "entries": (keys.entry(1, SYNCED + 5), 1),
    "run row": (key_at(1, 1), DEFAULT),
}


@pytest.mark.parametrize("row", ROWS)
def test_s9_what_cannot_be_read_costs_its_group_and_no_start(directory: Path, row: str) -> None:
    key, segment = ROWS[row]

    def opener(path: Path, config: StoreConfig, *, create: bool) -> Engine:
        engine = FailingEngine(path, config, create=create)
        engine.damage((key, key + b"\0"), segment)
        return engine

    store = RocksStore.open(StoreConfig.small(directory), NODE, opener)
    assert whole(store, 2) == SYNCED + 1
    store.close()


def test_s9_a_value_that_cannot_be_read_costs_no_start_and_no_group(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was told of it, so it may go."""

    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    store = open_store(directory)
    monkeypatch.undo()
    assert [whole(store, group_id) for group_id in (1, 2)] == [SYNCED + 1] * 2
    assert commit_of(store, 1) == SYNCED + 1
    store.close()


def image_of_a_start_that_died(directory: Path, call: str, *, abandoned: bool = False) -> Path:
    """What is left when a call of the engine fails while the store is opened.

    Before RocksDB has let go of its files, which makes tables of what is in memory, or after.
    """
    engines: list[FailingEngine] = []

    def opener(path: Path, config: StoreConfig, *, create: bool) -> Engine:
        engines.append(FailingEngine(path, config, create=create))
        engines[-1].texts = {call: DEAD_DISK} | ({} if abandoned else {"abandon": DEAD_DISK})
        return engines[-1]

    dying = copy_of(directory, directory.with_name(f"dying {call} {abandoned}"))
    with pytest.raises(StoreFailedError):
        RocksStore.open(StoreConfig.small(dying), NODE, opener)
    image = copy_of(dying, directory.with_name(f"image {call} {abandoned}"))
    if not abandoned:
        engines.pop().real.abandon()
    return image


@pytest.mark.parametrize("grown", ["zeros", "whole"])
def test_what_a_file_holds_behind_the_log_counts_if_it_is_the_value(
    directory: Path, grown: str
) -> None:
    """The disk may have taken more than what a sync has covered, or only the length of it."""
    database = directory / "db"
    *_, file = live_values(database)
    path = values_path(database, *file)
    values = [
        value
        for number in range(50, 100)
        for _, key, value in of_two_groups(number).ops
        if len(value) > 4096 and key[0] == keys.ENTRY
    ]
    blocks = b"".join(bytes(value).ljust(8192, b"\0") for value in values)
    with path.open("ab") as end:
        end.write(blocks if grown == "whole" else bytes(len(blocks)))
    store = open_store(directory)
    expected = 150 if grown == "whole" else SYNCED + 1
    assert [whole(store, group_id) for group_id in (1, 2)] == [expected] * 2
    assert commit_of(store, 1) == expected
    store.close()


def test_nothing_is_looked_at_where_the_log_has_all_of_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(directory).close()

    def unexpected(*_: object) -> None:
        raise AssertionError("a start that needs not look for missing values does")

    monkeypatch.setattr(mending, "operations", unexpected)
    open_store(directory).close()


def test_s8_a_torn_end_of_the_log_goes_before_the_next_file_begins(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that dies leaves two files, of which the older one must not end torn."""
    database = directory / "db"
    newest = wal_path(database, live_wals(database)[-1])
    os.truncate(newest, newest.stat().st_size - 7)

    def dies(*_: object) -> None:
        raise EngineError(Fault.OTHER, DEAD_DISK)

    monkeypatch.setattr(WitnessFile, "save", dies)
    image = image_of_a_start_that_died(directory, "nothing more")
    monkeypatch.undo()
    assert len(live_wals(image / "db")) == 2
    store = open_store(image)
    assert not store.loss.doubt, "an older file that ends torn is no trace of a power cut"
    assert last_of(store, 1) in {SYNCED - 3 + 1, SYNCED + 1}
    store.close()


def test_a_reference_is_no_entry() -> None:
    for number in range(100):
        for _, key, value in of_two_groups(number).ops:
            assert key[0] != keys.ENTRY or apart.reference(bytes(value)) is None
