"""What makes a leader: taking office, proposals, its clock, and handing over (5.2, 5.3, 3.10, 6.2).

Rules:

- Rule K1: a new leader appends an empty entry at once, since it can only commit by an entry of its
  own term, and knows what is committed only after that (section 8).
- Rule K2: a proposal is refused before it has any effect, or it is in the log. While leadership is
  being handed over every proposal is refused and the leader appends nothing of its own, or the
  target would never catch up. What it owes to doubtful peers (S8) it appends when that is over, so
  that transfers asked for one after another do not put it off.
- Rule K3: a transfer that has not succeeded within an election timeout is over; asking for the same
  target again does not extend it. A word to the target that has not left by then does not leave,
  nor one of a leader that leads no more: the target may lack what comes next, whosesoever it is.
- Rule K4: a leader that hears of no quorum for an election timeout stops leading, so that its
  clients look elsewhere (6.2); together with pre-vote and the vote lease it also ends the tug of
  war under one-way cuts (known bug 18).
"""

from __future__ import annotations

from collections.abc import Sequence

from rakit.raft import doubt, trace
from rakit.raft.errors import (
    NotLeaderError,
    TransferPendingError,
    TransferRefusedError,
    UncommittedLimitError,
)
from rakit.raft.read_only import ReadOnly
from rakit.raft.replication import (
    append_for_doubt,
    append_own,
    broadcast_heartbeat,
    maybe_hand_over,
)
from rakit.raft.state import Raft
from rakit.raft.tracker import ProgressState
from rakit.raft.types import Entry, EntryID, EntryType, Payload, Role


def become_leader(raft: Raft) -> None:
    """Takes office after a won election (5.2), with an entry of its own term (section 8)."""
    assert raft.role is Role.CANDIDATE, "only a candidate becomes leader"
    assert raft.durable_term == raft.term, "a leader's term must be durable before it leads"
    assert raft.promotable, "only a voter with a complete log may lead"
    log = raft.log
    raft.tracker.restart(raft.id, log.last_index, log.durable_index, raft.window)
    doubt.begin_leadership(raft)
    raft.reset(raft.term)
    raft.role = Role.LEADER
    raft.lead = raft.id
    raft.reads = ReadOnly()
    raft.term_start = log.last_index + 1
    # Configuration changes left behind by earlier leaders lie below this entry: wait until it is
    # applied, and with it they are.
    raft.pending_conf_index = raft.term_start
    assert log.term(log.last_index) < raft.term, "a new leader's term has no entries yet"
    if raft.tracer is not None:
        trace.became(raft)
    append_own(raft, [Entry(raft.term, raft.term_start)])


def ready_to_serve(raft: Raft) -> bool:
    """Tells whether this leader has applied an entry of its own term (safety S14)."""
    return raft.role is Role.LEADER and raft.log.applied >= raft.term_start


def check_can_propose(raft: Raft) -> None:
    """Raises if this replica takes no proposals now."""
    if raft.role is not Role.LEADER:
        raise NotLeaderError(raft.lead)
    if raft.lead_transferee:
        raise TransferPendingError(f"leadership is on its way to {raft.lead_transferee}")


def check_proposal(raft: Raft, size: int) -> None:
    """Raises if this replica takes no payloads of this size now."""
    check_can_propose(raft)
    uncommitted = raft.uncommitted_bytes
    # The first proposal always fits, or one larger than the limit could never be made; payloads
    # of no size always fit, since they are the leader's own signals.
    if uncommitted and size and uncommitted + size > raft.config.max_uncommitted_bytes:
        raise UncommittedLimitError(f"{uncommitted} bytes wait for commit, {size} more do not fit")


def propose(raft: Raft, payloads: Sequence[tuple[Payload, int | None]]) -> EntryID:
    """Appends payloads, with checksums or none yet, as entries, all or none (5.3).

    Returns the id of the first.
    """
    assert payloads, "a proposal has at least one payload"
    size = sum([len(data) for data, _ in payloads])
    check_proposal(raft, size)
    raft.uncommitted_bytes += size
    term, first = raft.term, raft.log.last_index + 1
    append_own(
        raft,
        [
            Entry(term, first + i, EntryType.NORMAL, data, checksum)
            for i, (data, checksum) in enumerate(payloads)
        ],
    )
    return term, first


def note_handed_out(raft: Raft, entries: list[Entry]) -> None:
    """Lets proposals of this term that are committed count no longer as waiting."""
    if raft.uncommitted_bytes and entries[-1].term == raft.term:
        size = sum([len(entry.data) for entry in entries if entry.term == raft.term])
        raft.uncommitted_bytes -= size
        assert raft.uncommitted_bytes >= 0, "more was committed than proposed"


def tick(raft: Raft) -> None:
    """Lets one tick pass for a leader: heartbeats (5.2), the quorum check (6.2)."""
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.config.election_tick:
        raft.election_elapsed = 0
        heard = _end_period(raft)
        if raft.config.check_quorum and not heard:
            raft.become_follower(raft.term, 0)
            return
        end_transfer(raft)
    if raft.heartbeat_elapsed >= raft.config.heartbeat_tick:
        raft.heartbeat_elapsed = 0
        for _, progress in raft.tracker.peers:
            progress.heard_heartbeat = False
        broadcast_heartbeat(raft)


def ticks_left(raft: Raft) -> int:
    """Returns how many ticks there are to the next heartbeat or the end of the period."""
    config = raft.config
    return min(
        config.heartbeat_tick - raft.heartbeat_elapsed, config.election_tick - raft.election_elapsed
    )


def _end_period(raft: Raft) -> bool:
    """Tells whether a quorum was heard in the period that ends (K4), and begins the next."""
    heard = raft.tracker.quorum_recently_active(raft.id)
    for _, progress in raft.tracker.peers:
        if progress.state is ProgressState.SNAPSHOT and not progress.base_is_fresh:
            # The base was sent more than a period ago and nothing came back: it was lost, or its
            # answer was. Ask where the peer is.
            progress.pending_snapshot = 0
            progress.become_probe()
        progress.base_is_fresh = False
        progress.recent_active = False
    return heard


def tick_quiesced(raft: Raft) -> None:
    """Lets a quiet leader's periods begin anew, with a heartbeat at the first tick that counts."""
    raft.election_elapsed = 0
    raft.heartbeat_elapsed = raft.config.heartbeat_tick


def transfer(raft: Raft, target: int) -> None:
    """Starts to hand leadership to `target` (dissertation 3.10)."""
    if raft.role is not Role.LEADER:
        raise NotLeaderError(raft.lead)
    if target == raft.id:
        raise TransferRefusedError("this replica leads already")
    progress = raft.tracker.progress.get(target)
    if progress is None or target not in raft.tracker.voters.incoming:
        raise TransferRefusedError(f"{target} does not vote in the current configuration")
    if progress.doubtful:
        raise TransferRefusedError(f"{target} doubts its log (S8)")
    if progress.lost_log:
        raise TransferRefusedError(f"{target} lost what it had acknowledged")
    if raft.lead_transferee == target:
        return
    end_transfer(raft)
    raft.lead_transferee = target
    raft.election_elapsed = 0
    if not maybe_hand_over(raft, target, progress):
        progress.send_empty = True
        raft.append_pending = True


def end_transfer(raft: Raft) -> None:
    """Appends to the log again, if leadership was to be handed over (K2, K3)."""
    if not raft.lead_transferee:
        return
    raft.forget_transfer()
    for _, progress in raft.tracker.peers:
        append_for_doubt(raft, progress)
