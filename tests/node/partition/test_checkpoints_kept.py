"""What a partition keeps of its checkpoints on the disk: those that its log may be cut at (S1)."""

from __future__ import annotations

import random

import pytest

from rakit.multiraft import keys
from rakit.multiraft.driver import Driver, DriverConfig
from rakit.multiraft.machine import GroupKind, GroupMeta, replica_id
from rakit.node.partition import state as state_module
from rakit.node.partition.commands import Append, Trim, append_pieces, encode
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.state import Mark
from rakit.raft import ConfState
from tests.multiraft.driver.memory_disk import MemoryDisk

GROUP = 5
REPLICA = replica_id(1, 1)
EVERY_MS = 600_000


class Disk:
    """One replica alone on its disk."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.start()
        meta = GroupMeta(GROUP, REPLICA, GroupKind.PARTITION)
        self.driver.create_group(meta, ConfState(voters=(REPLICA,)))
        self.run()

    def start(self) -> None:
        self.driver = Driver(DriverConfig(), 1, self.disk, PartitionMachine, random.Random(1))
        self.driver.load()

    def run(self) -> None:
        while (effects := self.driver.advance()) is not None:
            self.disk.write(effects.batch)
            self.driver.written(effects.number)
            if effects.must_sync:
                self.disk.sync()
                self.driver.synced(effects.number)

    def propose(self, data: bytes) -> None:
        self.driver.propose(GROUP, (data,), None)
        self.run()

    @property
    def marks(self) -> list[Mark]:
        machine = self.driver.groups[GROUP].machine
        assert isinstance(machine, PartitionMachine)
        return machine.state.marks

    def checkpoints(self) -> list[int]:
        bounds = keys.group_range(keys.CHECKPOINT, GROUP)
        return [keys.number_of(key) for key, _ in self.disk.scan(*bounds)]


def test_a_checkpoint_goes_with_its_mark_and_every_mark_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_module, "MARK_COUNT_MAX", 8)
    one = Disk()
    for number in range(60):
        time_ms = EVERY_MS * (number + 1)
        append = Append(number, 1, time_ms, None, 99, compressed=False, checkpoint=True)
        one.propose(b"".join(append_pieces(append, b"x" * 100)))
        indexes = [mark.index for mark in one.marks]
        assert one.checkpoints() == [1, *indexes], "a record every ten minutes, for ten hours"
        assert len(indexes) <= 8
    one.start()
    one.run()
    oldest = one.marks[0]
    assert oldest.index < one.marks[-1].index - 8, "old marks are coarse, and are still there"
    one.propose(encode(Trim(oldest.next_offset, oldest.index, 61 * EVERY_MS)))
    log = one.driver.groups[GROUP].storage
    assert log.base.index == oldest.index
    assert log.snapshot(0).index == oldest.index
    one.driver.tick()
    one.run()
    assert one.checkpoints() == [oldest.index, *[mark.index for mark in one.marks]]
    assert one.driver.quarantined == {}
