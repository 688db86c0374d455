"""Elections (5.2, 5.4.1), with pre-vote and the vote lease (dissertation 9.6, 4.2.3).

    FOLLOWER --timeout--> PRE_CANDIDATE --could win--> CANDIDATE --wins--> LEADER

Rules:

- Rule E1: one vote in a term, for ever: a vote is given only while none is given in this term, or
  again to the same candidate, whose request may have been repeated (known bugs 1 and 4).
- Rule E2: a vote goes only to a log that holds at least what ours does (5.4.1).
- Rule E3: a candidate's own vote counts when it is durable, like everybody's. Its requests leave
  after that, so an answer that comes sooner is one to an earlier life that its disk has forgotten.
- Rule E4: a pre-vote changes neither term nor vote. It is granted with the term asked for and
  refused with our own, so that a candidate that is behind catches up instead of asking for ever
  (known bug 17). A pre-candidate forgets its leader, or two of them would refuse each other.
- Rule E5: who hears from a leader takes no part in an election, unless that leader asked for it by
  a transfer. Without this a replica that returns from behind a cut deposes a working leader.
- Rule E6: a replica does not stand while a base state is pending, while a committed configuration
  change is not applied, or if it is a learner. A learner does vote when asked: the candidate may
  know of a promotion that it does not (etcd-io/etcd#10998).
- Rule E7: a replica that was never in its own applied configuration neither stands nor votes: it
  may have been sent a base that is older than its own addition (safety S2). One that was removed
  goes on voting: whoever asks may not know of the removal yet, and need this vote to learn of it.
"""

from __future__ import annotations

from rakit.raft import doubt, messages, trace
from rakit.raft.leader import become_leader
from rakit.raft.quorum import VoteResult
from rakit.raft.state import Raft
from rakit.raft.types import Message, MessageType, Role


def campaign(raft: Raft, *, pre_vote: bool, forced: bool = False) -> bool:
    """Stands for election (5.2), or asks first whether it could be won (9.6); tells whether it did.

    `forced`: on the leader's word, so that others need not let their leader's lease run out.
    """
    if raft.role is Role.LEADER or not raft.promotable or _has_unapplied_change(raft):
        return False
    if pre_vote:
        _become_pre_candidate(raft)
        # An own pre-vote promises nothing and need not be durable.
        doubt.note_vote(raft, raft.id, raft.stamp, granted=True)
        term = raft.term + 1
    else:
        _become_candidate(raft)
        term = raft.term
    last = raft.log.last_id()
    for voter in raft.tracker.voters.ids:
        if voter != raft.id:
            raft.post(
                messages.vote_request(voter, raft.id, term, last, pre_vote=pre_vote, forced=forced)
            )
    _conclude(raft)
    return True


def _has_unapplied_change(raft: Raft) -> bool:
    log = raft.log
    return log.holds_conf_change(log.applied + 1, log.committed + 1)


def _become_pre_candidate(raft: Raft) -> None:
    assert raft.role is not Role.LEADER, "a leader does not ask whether it could win"
    gives_up = raft.role is Role.CANDIDATE
    raft.reset(raft.term)
    raft.role = Role.PRE_CANDIDATE
    if gives_up and raft.tracer is not None:
        trace.became(raft)


def _become_candidate(raft: Raft) -> None:
    assert raft.role is not Role.LEADER, "a leader does not stand against itself"
    raft.reset(raft.term + 1)
    assert raft.vote == 0, "a new term begins without a vote (rule E1)"
    raft.vote = raft.id
    raft.role = Role.CANDIDATE
    if raft.tracer is not None:
        trace.became(raft)
        trace.sent(raft, trace.own_vote(raft))


def own_vote_durable(raft: Raft) -> None:
    """Counts a candidate's own vote (5.2) once it is on its disk (rule E3)."""
    if (
        raft.role is Role.CANDIDATE
        and raft.durable_term == raft.term
        and raft.durable_vote == raft.id
        and raft.id not in raft.votes
    ):
        if raft.tracer is not None:
            trace.received(raft, trace.own_vote(raft))
        doubt.note_vote(raft, raft.id, raft.stamp, granted=True)
        _conclude(raft)


def handle_response(raft: Raft, message: Message) -> None:
    """Counts an answer to this candidate's request (5.2, 9.6)."""
    pre_vote = message.type is MessageType.PRE_VOTE_RESP
    if raft.role is not (Role.PRE_CANDIDATE if pre_vote else Role.CANDIDATE):
        return
    if pre_vote and not message.reject and message.term != raft.term + 1:
        return
    if not pre_vote and raft.durable_term != raft.term:
        return
    assert raft.vote == raft.id or pre_vote, "a candidate has voted for itself"
    doubt.note_vote(raft, message.from_, message.context, granted=not message.reject)
    _conclude(raft)


def _conclude(raft: Raft) -> None:
    """Acts on the count as it stands."""
    match doubt.tally(raft):
        case VoteResult.PENDING:
            pass
        case VoteResult.LOST:
            raft.become_follower(raft.term, 0)
        case VoteResult.WON if raft.role is Role.PRE_CANDIDATE:
            campaign(raft, pre_vote=False)
        case VoteResult.WON:
            become_leader(raft)


def in_lease(raft: Raft) -> bool:
    """Tells whether a leader was heard lately enough to refuse an election (4.2.3, rule E5)."""
    return (
        raft.config.check_quorum
        and raft.lead != 0
        and raft.election_elapsed < raft.config.election_tick
    )


def is_forced(message: Message) -> bool:
    """Tells whether the leader itself asked for this election."""
    return message.context == messages.FORCED


def handle_request(raft: Raft, message: Message) -> None:
    """Answers a request for a vote or a pre-vote (5.2, 5.4.1); the term has been dealt with."""
    pre_vote = message.type is MessageType.PRE_VOTE
    free = (
        raft.vote == message.from_
        or (raft.vote == 0 and raft.lead == 0)
        or (pre_vote and message.term > raft.term)
    )
    granted = (
        free
        and (raft.is_member or raft.removed)
        and raft.log.is_up_to_date((message.log_term, message.index))
    )
    if granted and not pre_vote:
        assert raft.vote in (0, message.from_), "a second vote in one term"
        assert message.term == raft.term, "a vote is given in the current term only"
        raft.vote = message.from_
        raft.election_elapsed = 0
    if not granted:
        refuse(raft, message)
        return
    raft.post(
        messages.vote_response(
            message.from_,
            raft.id,
            message.term,
            pre_vote=pre_vote,
            reject=False,
            stamp=raft.stamp,
        )
    )


def refuse(raft: Raft, message: Message) -> None:
    """Refuses a vote or a pre-vote with our own term (rule E4)."""
    raft.post(
        messages.vote_response(
            message.from_,
            raft.id,
            raft.term,
            pre_vote=message.type is MessageType.PRE_VOTE,
            reject=True,
            stamp=raft.stamp,
        )
    )
