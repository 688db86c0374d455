"""Damage to the files of a real store, as a driver that starts on it sees it (S9)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.driver import Driver, DriverConfig
from rakit.multiraft.errors import GroupRefusedError, StoreCorruptError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import INDEX_END, stored_rows
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.multiraft.store import RocksStore, StoreConfig
from rakit.raft import ConfState
from tests.multiraft.host.support import Journal

NODE = "n1"
GROUPS = (5, 6, 7, 9)
VICTIM = 6
REMOVED = 8
#: So many that each kind of small row fills blocks of its own.
MANY = range(1000, 2200)
LATER = 3000
ENTRIES_COUNT = 20
#: More than a block of a table, so that no block holds entries of two groups.
ENTRY_BYTES = 20_000


def carry_out(driver: Driver, store: RocksStore) -> None:
    """Does what a driver asks for until it asks for nothing more."""
    while (effects := driver.advance()) is not None:
        if effects.batch:
            store.write(effects.batch)
        driver.written(effects.number)
        if effects.must_sync:
            store.flush_wal()
            driver.synced(effects.number)


def meta(group_id: int, sequence: int = 1) -> GroupMeta:
    return GroupMeta(group_id, replica_id(1, sequence), GroupKind.PARTITION)


def create(driver: Driver, group_id: int, sequence: int = 1) -> None:
    replica = meta(group_id, sequence)
    driver.create_group(replica, ConfState(voters=(replica.replica_id,)))


def payload(group_id: int, number: int) -> bytes:
    return b"group %d entry %d " % (group_id, number) + random.Random(number).randbytes(ENTRY_BYTES)


class Machine:
    """The node: its store can be damaged while it is closed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = self.open_store()
        self.driver = self.start()

    def open_store(self) -> RocksStore:
        # One table for everything, so that a test knows which rows are neighbours.
        config = StoreConfig(
            directory=self.directory, write_buffer_bytes=32 << 20, reserve_bytes=1 << 20
        )
        return RocksStore.open(config, NODE)

    def start(self) -> Driver:
        driver = Driver(DriverConfig(), 1, self.store, Journal, random.Random(1))
        driver.load()
        carry_out(driver, self.store)
        return driver

    def restart(self) -> None:
        self.store.close()
        self.store = self.open_store()
        self.driver = self.start()

    def flip(self, needle: bytes) -> None:
        """Flips a bit of what a table file holds."""
        self.store.close()
        for path in (self.directory / "db").glob("*.sst"):
            data = bytearray(path.read_bytes())
            at = data.find(needle)
            if at >= 0:
                data[at + len(needle) - 1] ^= 4
                path.write_bytes(data)
                break
        else:
            raise AssertionError("no table holds it")
        self.store = self.open_store()
        self.driver = self.start()

    def stored(self, key: bytes) -> bytes:
        value = self.store.get(key)
        assert value is not None
        return value

    def can_read(self, group_id: int) -> bool:
        """Whether every row of a group is readable by itself."""
        rows = (keys.birth(group_id), keys.hard_state(group_id), keys.checkpoint(group_id, 1))
        try:
            # One entry of each start so far.
            entries = (keys.entry(group_id, 2), keys.entry(group_id, 3))
            return all(self.store.get(key) for key in (*rows, *entries))
        except StoreCorruptError:
            return False

    def serves(self, group_id: int) -> bool:
        """Whether a group takes a proposal and applies it."""
        if self.driver.group(group_id) is None:
            return False
        self.driver.propose(group_id, (b"more",), None)
        carry_out(self.driver, self.store)
        machine = self.driver.groups[group_id].machine
        assert isinstance(machine, Journal)
        assert machine.payloads[:ENTRIES_COUNT] == [
            payload(group_id, number) for number in range(ENTRIES_COUNT)
        ]
        return machine.payloads[-1] == b"more"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / NODE)
    for group_id in (*GROUPS, REMOVED):
        create(machine.driver, group_id)
    carry_out(machine.driver, machine.store)
    for number in range(ENTRIES_COUNT):
        for group_id in GROUPS:
            machine.driver.propose(group_id, (payload(group_id, number),), None)
        carry_out(machine.driver, machine.store)
    machine.driver.remove_group(REMOVED)
    carry_out(machine.driver, machine.store)
    machine.restart()  # so that all is in tables
    return machine


@pytest.fixture
def crowd(tmp_path: Path) -> Machine:
    """Many groups, every second one removed."""
    machine = Machine(tmp_path / NODE)
    for group_id in MANY:
        create(machine.driver, group_id)
    carry_out(machine.driver, machine.store)
    for group_id in MANY[::2]:
        machine.driver.remove_group(group_id)
    carry_out(machine.driver, machine.store)
    machine.restart()
    return machine


@pytest.mark.parametrize("number", [0, ENTRIES_COUNT // 2, ENTRIES_COUNT - 1])
def test_s9_a_bad_block_of_entries_shuts_out_its_group_and_no_other(
    machine: Machine, number: int
) -> None:
    machine.flip(payload(VICTIM, number)[:100])
    assert machine.driver.quarantined.keys() == {VICTIM}
    assert machine.driver.quarantined[VICTIM].replica_id == replica_id(1, 1)
    assert all(machine.serves(group_id) for group_id in GROUPS if group_id != VICTIM)
    create(machine.driver, 20)
    # A replica that takes the place of a damaged one stays, and the id of that one is dead.
    create(machine.driver, VICTIM, 2)
    carry_out(machine.driver, machine.store)
    machine.restart()
    assert machine.driver.groups[VICTIM].meta == meta(VICTIM, 2)
    assert machine.driver.group(20) is not None
    with pytest.raises(GroupRefusedError):
        create(machine.driver, VICTIM, 1)


def damaged(
    directory: Path,
    tables: Sequence[Mapping[int, int]],
    row: Callable[[int, int], bytes],
    *,
    behind: int,
) -> RocksStore:
    """A store with a table for each mapping, of eight rows of the size for each group.

    Damaged is the block where the rows of a group end, or begin if they are all of their table.
    """
    config = StoreConfig(directory=directory, reserve_bytes=1 << 20)
    for table in tables:
        store = RocksStore.open(config, NODE)
        batch = WriteBatch()
        for group_id, size in table.items():
            for index in range(1, 9):
                batch.put(row(group_id, index), bytes([group_id]) * size)
        store.write(batch)
        store.close()  # a table for each
    needle = bytes([behind]) * 150
    (path,) = [each for each in (directory / "db").glob("*.sst") if needle in each.read_bytes()]
    data = bytearray(path.read_bytes())
    data[(data.index if {behind} in map(set, tables) else data.rindex)(needle) + 9] ^= 1
    path.write_bytes(data)
    return RocksStore.open(config, NODE)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("size", [3000, ENTRY_BYTES])
def test_s9_damage_in_a_table_of_another_group_alone_shortens_no_log_and_shuts_nobody_out(
    tmp_path: Path, size: int, bounded: bool
) -> None:
    """No row of the group stands in that table: a walk behind its last one ends in the damage."""
    store = damaged(tmp_path / NODE, [{1: size}, {2: size}], keys.entry, behind=2)
    end = 9 if bounded else INDEX_END
    assert list(stored_rows(store, 1, 1, end)) == [
        (index, bytes([1]) * size) for index in range(1, 9)
    ]
    with pytest.raises(StoreCorruptError):
        list(stored_rows(store, 2, 1, end))
    store.close()


def test_s9_a_bad_block_of_an_older_table_that_only_lies_in_the_way_hides_no_entry(
    tmp_path: Path,
) -> None:
    """It begins with rows before the group's and ends with rows behind: every walk reads it."""
    store = damaged(tmp_path / NODE, [{1: 3000, 3: 3000}, {2: 3000}], keys.entry, behind=1)
    assert list(stored_rows(store, 2, 1, 9)) == [
        (index, bytes([2]) * 3000) for index in range(1, 9)
    ]
    # It may hold the next one.
    with pytest.raises(StoreCorruptError):
        list(stored_rows(store, 2, 1, INDEX_END))
    store.close()


def test_s9_damage_in_a_table_of_another_group_alone_hides_no_checkpoint(tmp_path: Path) -> None:
    """The block behind the rows of the group is the other's, whichever way they are walked."""
    store = damaged(tmp_path / NODE, [{1: 3000}, {2: 3000}], keys.checkpoint, behind=2)
    lo, hi = keys.group_range(keys.CHECKPOINT, 1)
    rows = [(keys.checkpoint(1, index), bytes([1]) * 3000) for index in range(1, 9)]
    assert list(store.scan(lo, hi)) == rows
    assert store.last_below(lo, hi) == rows[-1]
    with pytest.raises(StoreCorruptError):
        list(store.scan(*keys.group_range(keys.CHECKPOINT, 2)))
    store.close()


@pytest.mark.parametrize(
    ("kind", "victim"),
    [(keys.HARD_STATE, MANY[1]), (keys.CHECKPOINT, MANY[601]), (keys.BIRTH, MANY[1])],
    ids=["hard states", "checkpoints", "births"],
)
def test_s9_a_bad_block_of_small_rows_shuts_out_what_is_in_it_and_the_node_starts(
    crowd: Machine, kind: int, victim: int
) -> None:
    key, _ = next(crowd.store.scan(*keys.group_range(kind, victim)))
    crowd.flip(crowd.stored(key))
    shut_out = crowd.driver.quarantined
    assert victim in shut_out
    unreadable = {each for each in MANY[1::2] if not crowd.can_read(each)}
    assert shut_out.keys() == unreadable, "what can be read is served"
    assert crowd.driver.groups.keys() == set(MANY[1::2]) - unreadable
    assert len(crowd.driver.groups) > 50, "one block holds far less than all"
    assert {one.replica_id for one in shut_out.values()} == {replica_id(1, 1)}, "others name it"
    with pytest.raises(GroupRefusedError):
        create(crowd.driver, victim, 1)
    create(crowd.driver, victim, 2)
    crowd.driver.trust_births_from(LATER)
    create(crowd.driver, LATER)
    carry_out(crowd.driver, crowd.store)
    assert crowd.driver.group(LATER) is not None


def test_s9_a_bad_tombstone_keeps_new_replicas_out_of_its_group_only(machine: Machine) -> None:
    batch = WriteBatch()
    batch.put(keys.tombstone(REMOVED), machine.stored(keys.tombstone(REMOVED))[:-1] + b"?")
    machine.store.write(batch)
    machine.restart()
    assert machine.driver.groups.keys() == set(GROUPS)
    with pytest.raises(GroupRefusedError, match="cannot be read"):
        create(machine.driver, REMOVED, 7)
    create(machine.driver, 20)
    machine.driver.remove_group(VICTIM)
    with pytest.raises(GroupRefusedError):
        create(machine.driver, VICTIM, 1)
    create(machine.driver, VICTIM, 2)


def test_s9_a_bad_block_of_tombstones_does_not_bring_the_dead_back(crowd: Machine) -> None:
    victim = MANY[len(MANY) // 2]
    crowd.flip(crowd.stored(keys.tombstone(victim)))
    for sequence in (1, 7):
        with pytest.raises(GroupRefusedError):
            create(crowd.driver, victim, sequence)
    reasons: list[str] = []
    for group_id in MANY[::2]:
        with pytest.raises(GroupRefusedError) as refused:
            create(crowd.driver, group_id)
        reasons.append(str(refused.value))
    readable = ["was removed from this node" in reason for reason in reasons]
    assert not all(readable)
    for group_id in [each for each, is_known in zip(MANY[::2], readable, strict=True) if is_known]:
        create(crowd.driver, group_id, 2)
    crowd.driver.trust_births_from(LATER)
    create(crowd.driver, LATER)
    carry_out(crowd.driver, crowd.store)
    assert crowd.driver.group(LATER) is not None
