"""The two entries into the state machine: a message arrives, a tick passes (section 5.1).

`step` settles the term first, as every rule of the paper presumes, then hands the message to
the part that the role calls for:

    higher term   follow it, unless it is a pre-vote, or a vote while a leader is heard (E5)
    lower term    an old leader or candidate: tell it our term, ignore the rest
    own term      by role

A reply with our term to an old *leader* is what lets a replica rejoin whose term ran ahead while it
was cut off: the leader steps down and the next election settles one term for all.
"""

from __future__ import annotations

from typing import Final

from rakit.raft import (
    election,
    follower,
    leader,
    membership,
    messages,
    reads,
    replication,
    trace,
)
from rakit.raft.errors import (
    StepLocalMessageError,
    StepMalformedError,
    StepPeerNotFoundError,
    StepWrongReplicaError,
    TwoLeadersError,
)
from rakit.raft.state import Raft
from rakit.raft.types import Message, MessageType, Role

_LOCAL: Final = frozenset(
    {
        MessageType.HUP,
        MessageType.BEAT,
        MessageType.PROP,
        MessageType.UNREACHABLE,
        MessageType.SNAP_STATUS,
        MessageType.CHECK_QUORUM,
        MessageType.TRANSFER_LEADER,
        MessageType.FORGET_LEADER,
        MessageType.BASE_PULL,
        MessageType.BASE_PART,
    }
)
_RESPONSES: Final = frozenset(
    {
        MessageType.APP_RESP,
        MessageType.VOTE_RESP,
        MessageType.HEARTBEAT_RESP,
        MessageType.PRE_VOTE_RESP,
    }
)
_VOTE_REQUESTS: Final = frozenset({MessageType.VOTE, MessageType.PRE_VOTE})
#: Only the leader of the message's term sends these.
_LEADERS: Final = frozenset({MessageType.APP, MessageType.HEARTBEAT, MessageType.SNAP})


def step(raft: Raft, message: Message) -> None:
    """Takes a peer's message; raises a `StepRefusedError` if it is not for this replica."""
    _check(raft, message)
    if raft.tracer is not None:
        trace.received(raft, message)
    kind = message.type
    if kind is MessageType.READ_INDEX:
        # It carries no term: a read promises nothing and asks for nothing of a term.
        reads.handle_request(raft, message)
        return
    if message.term < raft.term:
        _answer_old_term(raft, message)
        return
    if message.term > raft.term and not _follow_new_term(raft, message):
        return
    if kind in _VOTE_REQUESTS:
        election.handle_request(raft, message)
    elif kind in _LEADERS:
        _step_leaders_message(raft, message)
    elif kind is MessageType.VOTE_RESP or kind is MessageType.PRE_VOTE_RESP:
        election.handle_response(raft, message)
    elif kind is MessageType.TIMEOUT_NOW:
        if raft.role is Role.FOLLOWER:
            follower.handle_timeout_now(raft)
    elif kind is MessageType.READ_INDEX_RESP:
        reads.handle_response(raft, message)
    elif raft.role is Role.LEADER:
        progress = raft.tracker.progress[message.from_]
        if kind is MessageType.APP_RESP:
            replication.handle_append_response(raft, message, progress)
        else:
            assert kind is MessageType.HEARTBEAT_RESP, f"{kind.name} has no handler"
            replication.handle_heartbeat_response(raft, message, progress)


def _check(raft: Raft, message: Message) -> None:
    kind = message.type
    if kind in _LOCAL:
        raise StepLocalMessageError(f"{kind.name} is between a host and its core, or two hosts")
    if message.to != raft.id or message.from_ == raft.id or message.from_ < 1:
        raise StepWrongReplicaError(
            f"{kind.name} from {message.from_} to {message.to} arrived at {raft.id}"
        )
    if kind in _RESPONSES and message.from_ not in raft.tracker.progress:
        raise StepPeerNotFoundError(f"{kind.name} from {message.from_}, which is not a member")
    if message.term < (kind is not MessageType.READ_INDEX):
        raise StepMalformedError(f"{kind.name} without a term")
    if message.index < 0 or message.log_term < 0 or message.commit < 0 or message.reject_hint < 0:
        raise StepMalformedError(f"{kind.name} with a number below nothing")
    if kind is MessageType.APP:
        follower.check_append(message)
    elif kind is MessageType.SNAP:
        follower.check_base(message)


def _answer_old_term(raft: Raft, message: Message) -> None:
    """Tells the sender of an old term ours, where that helps it (5.1)."""
    if message.type in _LEADERS:
        # Not an acknowledgement of anything: index 0.
        raft.post(messages.append_ack(message.from_, raft.id, raft.term, 0, raft.stamp))
    elif message.type in _VOTE_REQUESTS:
        election.refuse(raft, message)


def _follow_new_term(raft: Raft, message: Message) -> bool:
    """Deals with a higher term (5.1); tells whether to go on with the message."""
    kind = message.type
    if kind in _VOTE_REQUESTS and not election.is_forced(message) and election.in_lease(raft):
        return False
    if kind is MessageType.PRE_VOTE:
        return True
    if kind is MessageType.PRE_VOTE_RESP and not message.reject:
        # A grant carries the term that we asked for and that nobody is in yet.
        return True
    raft.become_follower(message.term, message.from_ if kind in _LEADERS else 0)
    return True


def _step_leaders_message(raft: Raft, message: Message) -> None:
    if raft.lead not in {0, message.from_}:
        raise TwoLeadersError(f"term {raft.term} has two leaders, {raft.lead} and {message.from_}")
    if raft.role is not Role.FOLLOWER:
        raft.become_follower(raft.term, message.from_)
    raft.lead = message.from_
    raft.election_elapsed = 0
    if message.type is MessageType.APP:
        follower.handle_append(raft, message)
    elif message.type is MessageType.HEARTBEAT:
        follower.handle_heartbeat(raft, message)
    else:
        follower.handle_snapshot(raft, message)


def tick(raft: Raft) -> None:
    """Lets one tick pass: a leader's (5.2, 6.2), or one towards an election timeout (5.2)."""
    if raft.role is Role.LEADER:
        leader.tick(raft)
        if raft.tracker.membership.auto_leave:
            membership.maybe_leave_joint(raft)
        return
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.randomized_timeout and raft.promotable:
        raft.election_elapsed = 0
        election.campaign(raft, pre_vote=raft.config.pre_vote)


def ticks_left(raft: Raft) -> int:
    """Returns which of the next ticks does something at the earliest; those before it do not.

    A message, a request or a campaign may bring it nearer.
    """
    if raft.role is Role.LEADER:
        if raft.tracker.membership.auto_leave:
            return 1
        left = leader.ticks_left(raft)
    else:
        left = raft.randomized_timeout - raft.election_elapsed
        if left <= 1 and not raft.promotable:
            return raft.config.election_tick
    return max(1, left)


def pass_ticks(raft: Raft, count: int) -> None:
    """Lets ticks pass in which nothing happens."""
    raft.election_elapsed += count
    if raft.role is Role.LEADER:
        raft.heartbeat_elapsed += count


def tick_quiesced(raft: Raft) -> None:
    """Lets a tick pass for a quiet group: nobody is sent anything and nobody campaigns.

    A follower's clock runs to half an election timeout and stops there: a replica that wakes has
    the other half to hear from its leader, and waits less than usual if there is none.
    """
    if raft.role is Role.LEADER:
        leader.tick_quiesced(raft)
    elif 2 * raft.election_elapsed < raft.config.election_tick:
        raft.election_elapsed += 1


def disk_advanced(raft: Raft) -> None:
    """Lets what became durable count: a leader's own copy, a candidate's own vote."""
    if raft.role is Role.LEADER:
        replication.own_disk_advanced(raft)
    elif raft.role is Role.CANDIDATE:
        election.own_vote_durable(raft)
