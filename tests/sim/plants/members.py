"""Changes of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from unittest.mock import patch

from rakit.multiraft import stepping
from rakit.multiraft.effects import Effects
from rakit.multiraft.group import Group, Remainder
from rakit.raft import ConfChange, EntryID, confchange, leader, membership
from rakit.raft.quorum import JointConfig, VoteResult, majority_index, majority_vote
from rakit.raft.state import Raft
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.LEADER_COMPLETENESS, Topic.MEMBERS)
def a_joint_configuration_decides_by_its_new_half() -> Generator[None]:
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
    def propose(raft: Raft, change: ConfChange) -> EntryID:
        leader.check_can_propose(raft)
        confchange.follow(raft.tracker.membership, change)
        raft.pending_conf_index = 0
        return membership._append(raft, change)

    with patch.object(membership, "propose", propose):
        yield
