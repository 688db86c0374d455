"""What a follower does with its leader's messages (section 5.3, 7).

Rules:

- Rule F1: an append is taken only if the entry before it is here; then only the first real conflict
  truncates, and the commit index follows to what the message covers at most (`log.maybe_append`).
- Rule F2: an acknowledgement names what *this message* covers, never the end of the log, which may
  hold entries of a leader that lost (known bug 8).
- Rule F3: an append from before the commit index is answered with the commit index: those entries
  agree by definition.
- Rule F4: a base state is taken only if it lies above the commit index. If its last entry is here
  already, only the commit index moves, and no entry is given up.
- Rule F5: a replica that its configuration knows takes no base that does not know it: that base is
  as of a time after its removal. A replica that is not in its own configuration yet takes any base
  that a leader sends it: the base may be older than its addition (safety S2).
"""

from __future__ import annotations

from rakit.raft import confchange, doubt, messages
from rakit.raft.election import campaign
from rakit.raft.errors import ConfChangeInvalidError, StepMalformedError
from rakit.raft.state import Raft
from rakit.raft.types import Message, Role, Snapshot


def check_append(message: Message) -> None:
    """Raises if an append contradicts itself; nothing has changed then."""
    index, term = message.index, message.log_term
    for entry in message.entries:
        index += 1
        if entry.index != index or entry.term < term:
            raise StepMalformedError(
                f"entry {entry.index} of term {entry.term} stands where {index} was due"
            )
        term = entry.term
    if term > message.term:
        raise StepMalformedError(f"an entry of term {term} in a message of {message.term}")


def check_base(message: Message) -> None:
    """Raises if a base contradicts the message that it came in; nothing has changed then."""
    base = message.snapshot
    if base is None or base.index < 1 or not 1 <= base.term <= message.term:
        raise StepMalformedError(f"a message of term {message.term} with the base {base}")


def handle_append(raft: Raft, message: Message) -> None:
    """Takes a leader's entries, or says where the logs may join (AppendEntries, 5.3)."""
    assert raft.lead == message.from_, "entries come from the leader of the term"
    log = raft.log
    if message.index < log.committed:
        _acknowledge(raft, message, log.committed)
        return
    covered = log.maybe_append((message.log_term, message.index), message.entries, message.commit)
    if covered is not None:
        if doubt.absolves(raft, message):
            doubt.end_doubt(raft)
        _acknowledge(raft, message, covered)
        return
    # Skip everything of ours that has a newer term than the leader has here: it cannot agree.
    hint = log.find_conflict_by_term(min(message.index, log.last_index), message.log_term)
    raft.post(
        messages.append_reject(
            message.from_, raft.id, raft.term, rejected=message.index, hint=hint, stamp=raft.stamp
        )
    )


def _acknowledge(raft: Raft, message: Message, index: int) -> None:
    raft.post_ack(messages.append_ack(message.from_, raft.id, raft.term, index, raft.stamp))


def handle_heartbeat(raft: Raft, message: Message) -> None:
    """Takes a sign of life (5.2), and the commit index that comes with it."""
    context = message.context
    if raft.doubtful:
        # No read is confirmed (rule D2), no commit index taken (rule D6), and the leader told: it
        # may not know of the restart yet.
        context = b""
        _acknowledge(raft, message, 0)
    else:
        raft.log.commit_to(message.commit)
    raft.post(messages.heartbeat_response(message.from_, raft.id, raft.term, context))


def handle_snapshot(raft: Raft, message: Message) -> None:
    """Takes a base state, or says what is here already (InstallSnapshot, section 7)."""
    base = message.snapshot
    assert base is not None, "the message was checked"
    _restore(raft, base)
    _acknowledge(raft, message, raft.log.committed)


def would_restore(raft: Raft, message: Message) -> bool:
    """Tells whether stepping this base now would replace the log by it (rules F4 and F5).

    A host asks before it fetches what belongs to the base, and again when it has it.
    """
    base = message.snapshot
    if base is None or message.term < raft.term:
        return False
    if message.term == raft.term and raft.lead not in {0, message.from_}:
        return False
    if base.index <= raft.log.committed or (raft.is_member and raft.id not in base.conf_state):
        return False
    return not raft.log.matches(base.index, base.term)


def _restore(raft: Raft, base: Snapshot) -> None:
    """Takes over a base if it is news and meant for us (rules F4 and F5)."""
    log = raft.log
    if base.index <= log.committed:
        return
    if raft.is_member and raft.id not in base.conf_state:
        return
    if log.matches(base.index, base.term):
        log.commit_to(base.index)
        return
    try:
        membership = confchange.restore(base.conf_state)
    except ConfChangeInvalidError as error:
        raise StepMalformedError(f"a base with an impossible configuration: {error}") from error
    assert raft.role is Role.FOLLOWER, "only a follower takes a base"
    log.restore(base)
    raft.install_membership(membership)


def handle_timeout_now(raft: Raft) -> None:
    """Stands for election at once: the leader hands over (dissertation 3.10)."""
    campaign(raft, pre_vote=False, forced=True)
