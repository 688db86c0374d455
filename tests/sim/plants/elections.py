"""Votes, terms, and who leads."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from unittest.mock import patch

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.raft import HardState, RawNode, Ready, quorum
from rakit.raft.log import RaftLog
from rakit.raft.quorum import VoteResult
from rakit.raft.state import Raft
from rakit.raft.tracker import Tracker
from rakit.raft.types import EntryID
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.ONE_VOTE, Topic.VOTES)
def the_vote_is_cleared_within_a_term() -> Generator[None]:
    original = Raft.reset

    def reset(self: Raft, term: int) -> None:
        original(self, term)
        self.vote = 0

    with patch.object(Raft, "reset", reset):
        yield


@bug(Invariant.NO_DAMAGE)
def term_and_vote_are_not_stored() -> Generator[None]:
    def set_hard_state(self: GroupLog, value: HardState, batch: WriteBatch) -> None:
        del batch
        self.hard_state = value

    with patch.object(GroupLog, "set_hard_state", set_hard_state):
        yield


@bug(Invariant.ONE_VOTE, Topic.VOTES)
def the_vote_for_oneself_is_not_stored() -> Generator[None]:
    original = RawNode.ready

    def ready(self: RawNode) -> Ready:
        bundle = original(self)
        state = bundle.hard_state
        if state is not None and state.vote == self._raft.id:
            bundle.hard_state = HardState(state.term, 0, state.commit)
        return bundle

    with patch.object(RawNode, "ready", ready):
        yield


@bug(Invariant.ELECTION_SAFETY)
def half_of_the_votes_are_enough() -> Generator[None]:
    def majority_vote(voters: tuple[int, ...], votes: Mapping[int, bool]) -> VoteResult:
        granted = sum(1 for voter in voters if votes.get(voter) is True)
        return VoteResult.WON if 2 * granted >= len(voters) - 1 else VoteResult.PENDING

    with patch.object(quorum, "majority_vote", majority_vote):
        yield


@bug(Invariant.LEADER_COMPLETENESS)
def votes_go_to_shorter_logs() -> Generator[None]:
    def is_up_to_date(self: RaftLog, last: EntryID) -> bool:
        del self, last
        return True

    with patch.object(RaftLog, "is_up_to_date", is_up_to_date):
        yield


@bug(Invariant.QUORUM_CHECK, Topic.EVERYTHING)
def a_leader_that_nobody_answers_goes_on() -> Generator[None]:
    def quorum_recently_active(self: Tracker, own_id: int) -> bool:
        del self, own_id
        return True

    with patch.object(Tracker, "quorum_recently_active", quorum_recently_active):
        yield
