"""Bases that are too large for one message."""

from __future__ import annotations

from collections.abc import Generator
from unittest.mock import patch

from rakit.multiraft.base_gathering import BaseGathering, Gathering
from rakit.multiraft.group import Group
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.raft import Message, Role, Snapshot, follower
from rakit.raft.state import Raft
from tests.sim.hazards import Hazard
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.NO_DAMAGE, Topic.REGISTRY)
def a_part_of_another_base_is_accepted() -> Generator[None]:
    """A replica takes over what nobody ever was."""

    def takes(self: Gathering, part: Snapshot) -> bool:
        return part.part in self.missing

    def is_of(self: Gathering, base: Snapshot) -> bool:
        return len(self.base.parts) <= len(base.parts)

    with patch.object(Gathering, "takes", takes), patch.object(Gathering, "is_of", is_of):
        yield


@bug(Invariant.NO_DAMAGE, Topic.REGISTRY)
def an_install_counts_before_its_last_part() -> Generator[None]:
    """Half a state is taken for a whole one."""
    original = BaseGathering.brought

    def brought(self: BaseGathering, group: Group, part: Snapshot, number: int) -> None:
        original(self, group, part, number)
        found = self._under_way.get(group.meta.group_id)
        if found is not None and len(found.missing) == 1:
            found.whole_with = number

    with patch.object(BaseGathering, "brought", brought):
        yield


@bug(Invariant.NO_LEFTOVERS)
def what_a_crash_has_left_of_a_base_is_not_swept() -> Generator[None]:
    """It stays on the disk for good."""

    def sweep_parts(self: GroupLog, batch: WriteBatch) -> None:
        del self, batch

    with patch.object(GroupLog, "sweep_parts", sweep_parts):
        yield


@bug(Invariant.NO_DAMAGE, hazard=Hazard.BASES)
def a_leader_that_stood_still_takes_a_base_in_parts_for_a_whole_one() -> Generator[None]:
    """It misses parts that it never asked for, and is shut out (ours)."""
    original = follower.would_restore

    def would_restore(raft: Raft, message: Message) -> bool:
        return raft.role is not Role.LEADER and original(raft, message)

    with patch.object(follower, "would_restore", would_restore):
        yield
