"""Linearizable reads, and the oracle that judges them (S20).

A read is asked of any replica: a leader, a follower, a learner. Whatever had been acknowledged
when it was asked lies at or below the index that it is answered with, and that index is applied
where it is answered. Every read of a process that lives is answered, once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import ReadReady
from rakit.multiraft.errors import ProposalRefusedError
from rakit.raft import Role
from tests.sim.violations import Invariant, ViolationError


@dataclass(frozen=True, slots=True)
class Read:
    """One read under way; its identity is its token."""

    number: int
    node_id: int
    boot: int
    group_id: int
    floor: int


@dataclass(slots=True)
class ReadOracle:
    """What was acknowledged, and which reads wait."""

    # Highest index that any node may have acknowledged, by group.
    acknowledged: dict[int, int] = field(default_factory=dict[int, int])
    waiting: dict[int, Read] = field(default_factory=dict[int, Read])
    asked: int = 0
    confirmed: int = 0

    def acknowledge(self, group_id: int, index: int) -> None:
        self.acknowledged[group_id] = max(index, self.acknowledged.get(group_id, 0))

    def ask(self, node_id: int, boot: int, driver: Driver, rng: random.Random) -> None:
        """Begins a read of one of the node's groups, if it has any."""
        if not driver.groups:
            return
        self._ask(node_id, boot, driver, rng.choice(sorted(driver.groups)))

    def ask_leaders(self, node_id: int, boot: int, driver: Driver) -> None:
        """Begins a read of each group that the node leads."""
        for group_id, group in sorted(driver.groups.items()):
            if group.role is Role.LEADER:
                self._ask(node_id, boot, driver, group_id)

    def _ask(self, node_id: int, boot: int, driver: Driver, group_id: int) -> None:
        floor = self.acknowledged.get(group_id, 0)
        self.asked += 1
        read = Read(self.asked, node_id, boot, group_id, floor)
        try:
            driver.read_index(group_id, read)
        except ProposalRefusedError:
            return
        self.waiting[read.number] = read

    def answered(self, driver: Driver, answer: ReadReady) -> None:
        read = answer.token
        assert isinstance(read, Read), "every token of a read is the read"
        if self.waiting.pop(read.number, None) is None:
            raise ViolationError(Invariant.READS, f"{read} was answered twice")
        if answer.lost:
            return
        self.confirmed += 1
        if answer.index < read.floor:
            raise ViolationError(Invariant.READS, f"{read} was confirmed at {answer.index}")
        group = driver.group(read.group_id)
        if group is None or group.applied < answer.index:
            raise ViolationError(
                Invariant.READS, f"{read} was confirmed at {answer.index}, which is not applied"
            )

    def forget(self, node_id: int) -> None:
        """The process has gone, and whoever asked it has to ask again."""
        self.waiting = {
            number: read for number, read in self.waiting.items() if read.node_id != node_id
        }
