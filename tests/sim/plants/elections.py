"""Votes, terms, and who leads."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from unittest.mock import patch

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.raft import (
    HardState,
    Message,
    MessageType,
    RawNode,
    Ready,
    election,
    leader,
    messages,
    quorum,
    raft,
    replication,
)
from rakit.raft.log import RaftLog
from rakit.raft.quorum import VoteResult
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress, Tracker
from rakit.raft.types import EntryID
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.ONE_VOTE, Topic.VOTES)
def the_vote_is_cleared_within_a_term() -> Generator[None]:
    """Two candidates get it."""
    original = Raft.reset

    def reset(self: Raft, term: int) -> None:
        original(self, term)
        self.vote = 0

    with patch.object(Raft, "reset", reset):
        yield


@bug(Invariant.NO_DAMAGE)
def term_and_vote_are_not_stored() -> Generator[None]:
    """A log is newer than its vote record after a restart."""

    def set_hard_state(self: GroupLog, value: HardState, batch: WriteBatch) -> None:
        del batch
        self.hard_state = value

    with patch.object(GroupLog, "set_hard_state", set_hard_state):
        yield


@bug(Invariant.ONE_VOTE, Topic.VOTES)
def the_vote_for_oneself_is_not_stored() -> Generator[None]:
    """A candidate that restarts gives its vote away again."""
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
    """Two leaders in one term."""

    def majority_vote(voters: tuple[int, ...], votes: Mapping[int, bool]) -> VoteResult:
        granted = sum(1 for voter in voters if votes.get(voter) is True)
        return VoteResult.WON if 2 * granted >= len(voters) - 1 else VoteResult.PENDING

    with patch.object(quorum, "majority_vote", majority_vote):
        yield


@bug(Invariant.LEADER_COMPLETENESS)
def votes_go_to_shorter_logs() -> Generator[None]:
    """A leader lacks what was committed."""

    def is_up_to_date(self: RaftLog, last: EntryID) -> bool:
        del self, last
        return True

    with patch.object(RaftLog, "is_up_to_date", is_up_to_date):
        yield


@bug(Invariant.QUORUM_CHECK, Topic.EVERYTHING)
def a_leader_that_nobody_answers_goes_on() -> Generator[None]:
    """Its clients wait for one that is replaced."""

    def quorum_recently_active(self: Tracker, own_id: int) -> bool:
        del self, own_id
        return True

    with patch.object(Tracker, "quorum_recently_active", quorum_recently_active):
        yield


@bug(Invariant.ONE_VOTE, Topic.VOTES)
def a_new_term_is_stored_with_the_old_vote() -> Generator[None]:
    """A restart finds a vote in a term in which none was given."""
    original = GroupLog.set_hard_state

    def set_hard_state(self: GroupLog, state: HardState, batch: WriteBatch) -> None:
        vote = state.vote or self.hard_state.vote
        original(self, HardState(state.term, vote, state.commit), batch)

    with patch.object(GroupLog, "set_hard_state", set_hard_state):
        yield


@bug(Invariant.ONE_VOTE, Topic.VOTES)
def requests_for_votes_leave_before_the_sync() -> Generator[None]:
    """A candidate that restarts votes for another one in the same term."""
    original = RawNode.ready

    def ready(self: RawNode) -> Ready:
        bundle = original(self)
        early = [one for one in bundle.messages_after_persist if one.type is MessageType.VOTE]
        bundle.messages = [*bundle.messages, *early]
        bundle.messages_after_persist = [
            one for one in bundle.messages_after_persist if one.type is not MessageType.VOTE
        ]
        return bundle

    with patch.object(RawNode, "ready", ready):
        yield


@bug(Invariant.ELECTION_SAFETY, Topic.VOTES)
def a_vote_of_an_earlier_term_is_counted() -> Generator[None]:
    """An election is won by votes that were given in another."""
    original = raft._answer_old_term

    def answer_old_term(self: Raft, message: Message) -> None:
        if message.type is MessageType.VOTE_RESP:
            election.handle_response(self, message)
        original(self, message)

    with patch.object(raft, "_answer_old_term", answer_old_term):
        yield


@bug(Invariant.HAND_OVER)
def the_target_of_a_transfer_is_told_before_it_is_level() -> Generator[None]:
    """It stands, cannot win, and nobody leads meanwhile."""

    def maybe_hand_over(self: Raft, id_: int, progress: Progress) -> bool:
        del progress
        if id_ != self.lead_transferee:
            return False
        self.post(messages.timeout_now(id_, self.id, self.term))
        return True

    with (
        patch.object(replication, "maybe_hand_over", maybe_hand_over),
        patch.object(leader, "maybe_hand_over", maybe_hand_over),
    ):
        yield
