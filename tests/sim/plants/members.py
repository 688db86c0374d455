"""Changes of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import replace
from unittest.mock import patch

from rakit.multiraft import stepping
from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.effects import Effects
from rakit.multiraft.group import Group, Remainder
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.raft import (
    ConfChange,
    EntryID,
    Snapshot,
    confchange,
    election,
    leader,
    membership,
)
from rakit.raft.quorum import JointConfig, VoteResult, majority_index, majority_vote
from rakit.raft.state import Raft
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.LEADER_COMPLETENESS, Topic.MEMBERS)
def a_joint_configuration_decides_by_its_new_half() -> Generator[None]:
    """The old half does not know of it."""

    def committed_index(self: JointConfig, acked: Callable[[int], int]) -> int:
        return majority_index(self.incoming, acked)

    def vote_result(self: JointConfig, votes: Mapping[int, bool]) -> VoteResult:
        return majority_vote(self.incoming, votes)

    with (
        patch.object(JointConfig, "committed_index", committed_index),
        patch.object(JointConfig, "vote_result", vote_result),
    ):
        yield


@bug(Invariant.ONE_CHANGE, Topic.MEMBERS)
def a_part_of_a_large_write_lacks_the_commit_index() -> Generator[None]:
    """A crash leaves two changes to apply (ours)."""
    original = stepping._write_remainder

    def write_remainder(
        group: Group, rest: Remainder, effects: Effects, batch_bytes_max: int
    ) -> bool:
        state, rest.hard_state = rest.hard_state, None
        wrote = original(group, rest, effects, batch_bytes_max)
        rest.hard_state = state
        if state is not None and not rest.entries:
            group.storage.set_hard_state(state, effects.batch)
        return wrote

    with patch.object(stepping, "_write_remainder", write_remainder):
        yield


@bug(Invariant.ONE_CHANGE, Topic.MEMBERS)
def a_change_begins_before_the_last_one_is_applied() -> Generator[None]:
    """Two majorities need not meet."""

    def propose(raft: Raft, change: ConfChange) -> EntryID:
        leader.check_can_propose(raft)
        confchange.follow(raft.tracker.membership, change)
        raft.pending_conf_index = 0
        return membership._append(raft, change)

    with patch.object(membership, "propose", propose):
        yield


@bug(Invariant.LEADER_COMPLETENESS, Topic.MEMBERS)
def a_majority_of_the_union_decides() -> Generator[None]:
    """One half of a joint configuration is passed over."""

    def committed_index(self: JointConfig, acked: Callable[[int], int]) -> int:
        return majority_index(self.ids, acked)

    def vote_result(self: JointConfig, votes: Mapping[int, bool]) -> VoteResult:
        return majority_vote(self.ids, votes)

    with (
        patch.object(JointConfig, "committed_index", committed_index),
        patch.object(JointConfig, "vote_result", vote_result),
    ):
        yield


@bug(Invariant.ONE_CHANGE, Topic.MEMBERS)
def a_new_leader_changes_members_before_its_first_commit() -> Generator[None]:
    """A change that its predecessor left may be under way."""
    original = leader.become_leader

    def become_leader(raft: Raft) -> None:
        original(raft)
        raft.pending_conf_index = 0

    with patch.object(election, "become_leader", become_leader):
        yield


@bug(Invariant.IDENTICAL, Topic.MEMBERS)
def a_base_forgets_its_learners() -> Generator[None]:
    """A replica that starts from it knows of none."""
    original = GroupLog.snapshot

    def snapshot(self: GroupLog, to: int) -> Snapshot:
        base = original(self, to)
        conf = replace(base.conf_state, learners=())
        return replace(base, conf_state=conf)

    with patch.object(GroupLog, "snapshot", snapshot):
        yield


@bug(Invariant.SAME_CONFIGURATION, Topic.MEMBERS)
def a_checkpoint_forgets_its_learners() -> Generator[None]:
    """A replica that restarts from it knows of none."""
    original = GroupLog.add_checkpoint

    def add_checkpoint(
        self: GroupLog,
        checkpoint: Checkpoint,
        log_bytes: int,
        wanted: Collection[int],
        batch: WriteBatch,
    ) -> None:
        conf = replace(checkpoint.conf_state, learners=())
        original(self, replace(checkpoint, conf_state=conf), log_bytes, wanted, batch)

    with patch.object(GroupLog, "add_checkpoint", add_checkpoint):
        yield


@bug(Invariant.IDENTICAL, Topic.MEMBERS)
def a_base_has_the_configuration_of_today() -> Generator[None]:
    """Changes that follow it are applied a second time."""
    original = GroupLog.snapshot

    def snapshot(self: GroupLog, to: int) -> Snapshot:
        base = original(self, to)
        newest = self.checkpoint(self.latest.index)
        return replace(base, conf_state=newest.conf_state)

    with patch.object(GroupLog, "snapshot", snapshot):
        yield
