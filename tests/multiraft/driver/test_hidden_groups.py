"""What damage hides from the census of a start is found before a replica is made (S9, S10)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from rakit.multiraft import keys
from rakit.multiraft.driver import Driver, DriverConfig
from rakit.multiraft.errors import GroupRefusedError, StoreCorruptError
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.raft import ConfState
from tests.multiraft.driver.cluster import GROUP, ListMachine
from tests.multiraft.driver.memory_disk import MemoryDisk

SEEN = GROUP - 1
ROWS = (keys.BIRTH, keys.ENTRY, keys.HARD_STATE, keys.CHECKPOINT)


class DamagedDisk(MemoryDisk):
    """Walks over the damaged kinds of rows end before `GROUP`; single rows can be read."""

    damaged: tuple[int, ...] = ()

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in super().scan(lo, hi):
            if key[0] in self.damaged and keys.group_of(key) >= GROUP:
                raise StoreCorruptError("a bad block")
            yield key, value


class Machine:
    """A node whose disk can be damaged."""

    def __init__(self) -> None:
        self.disk = DamagedDisk()
        self.driver = self.start()

    def start(self) -> Driver:
        self.driver = Driver(DriverConfig(), 1, self.disk, ListMachine, random.Random(1))
        self.driver.load()
        self.carry_out()
        return self.driver

    def carry_out(self) -> None:
        while (effects := self.driver.advance()) is not None:
            self.disk.write(effects.batch)
            self.driver.written(effects.number)
            self.disk.sync()
            self.driver.synced(effects.number)

    def create(self, group_id: int, sequence: int) -> None:
        replica = replica_id(1, sequence)
        meta = GroupMeta(group_id, replica, GroupKind.PARTITION)
        self.driver.create_group(meta, ConfState(voters=(replica,)))


@pytest.fixture
def machine() -> Machine:
    """Holds two groups, each the second replica of this node, the first being dead."""
    machine = Machine()
    for group_id in (SEEN, GROUP):
        machine.create(group_id, 1)
        machine.carry_out()
        machine.driver.remove_group(group_id)
        machine.carry_out()
        machine.create(group_id, 2)
        machine.carry_out()
    machine.driver.propose(GROUP, (b"acknowledged",), None)
    machine.carry_out()
    return machine


def test_s10_a_hidden_replica_is_not_made_anew_though_an_earlier_one_has_a_tombstone(
    machine: Machine,
) -> None:
    promised = machine.disk.get(keys.hard_state(GROUP))
    machine.disk.damaged = ROWS
    machine.start()
    assert GROUP not in machine.driver.groups, "the damage hides it"
    with pytest.raises(GroupRefusedError, match="hid this group at the start"):
        machine.create(GROUP, 2)
    machine.carry_out()
    assert machine.disk.get(keys.hard_state(GROUP)) == promised
    assert machine.driver.quarantined[GROUP].replica_id == replica_id(1, 2)
    machine.create(GROUP, 3)
    machine.carry_out()
    assert machine.driver.groups[GROUP].meta.replica_id == replica_id(1, 3)


def test_what_a_damaged_store_was_told_to_remove_can_be_followed_at_once(machine: Machine) -> None:
    """Its birth record is still on the disk then: the removal is not written yet."""
    machine.disk.damaged = ROWS
    machine.start()
    machine.driver.remove_group(SEEN)
    machine.create(SEEN, 3)
    machine.carry_out()
    assert machine.driver.groups[SEEN].meta.replica_id == replica_id(1, 3)
    machine.start()
    assert machine.driver.groups[SEEN].meta.replica_id == replica_id(1, 3)


@pytest.mark.parametrize("damaged", [(), (keys.TOMBSTONE,)], ids=["seen", "hidden"])
def test_s9_a_dead_replica_stays_dead_whether_the_census_sees_its_tombstone(
    machine: Machine, damaged: tuple[int, ...]
) -> None:
    machine.driver.remove_group(GROUP)
    machine.carry_out()
    machine.disk.damaged = (*ROWS, *damaged)
    machine.start()
    for sequence in (1, 2):
        with pytest.raises(GroupRefusedError, match="was removed from this node"):
            machine.create(GROUP, sequence)
    machine.create(GROUP, 3)
