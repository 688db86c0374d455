"""A leader's replication: what is sent to whom, what answers mean, and what is committed.

Sending is lazy: proposals, acknowledgements and heartbeat answers only note that somebody may need
something (`append_pending`); `flush` looks at everyone when the host takes a Ready. Entries
proposed one after another thus leave in one message for each peer.

Rules:

- Rule L1: commit what is durable on a majority (of both halves while joint), and only from this
  term's first entry on; what lies before it is committed along with it (5.3, 5.4.2, figure 8). The
  leader counts itself by what its own disk has reported, like any other voter, and is not required
  (safety S13).
- Rule L2: a leader's read failure never shapes a message: entries that are gone become a base,
  entries that are being fetched become a pause, anything else an exception (known bug 13).
- Rule L3: a heartbeat carries min(match, commit), since the peer may lack what lies above.
- Rule L4: a base goes only to a peer that was heard of lately; it is the one message that nobody
  repeats for a full quorum-check period, or for one after the peer was last seen to fetch it.
- Rule L5: what one flush sends to a peer is bounded, whatever its window has room for: reading for
  one that was away must hold up neither the others nor the host. The next Ready goes on.
"""

from __future__ import annotations

from rakit.raft import doubt, messages, reads, trace
from rakit.raft.errors import (
    CompactedError,
    EntriesTemporarilyUnavailableError,
    SnapshotTemporarilyUnavailableError,
    StepMalformedError,
)
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress, ProgressState
from rakit.raft.types import Entry, Message, Role, message_bytes


def append_own(raft: Raft, entries: list[Entry]) -> None:
    """Appends entries of this leader's term; they leave with the next flush."""
    assert raft.role is Role.LEADER, "only a leader makes entries"
    assert entries[0].term == raft.term, "a leader's entries carry its term"
    if raft.tracer is not None:
        trace.append_own(raft, entries)
    raft.log.append(entries)
    if raft.tracer is not None:
        trace.sent(raft, trace.own_ack(raft, raft.log.last_index))
    raft.append_pending = True


def append_for_doubt(raft: Raft, progress: Progress) -> None:
    """Appends the entry that the absolution of a doubtful peer will rest on, once (rule D4)."""
    if progress.doubtful and progress.absolve_index == 0:
        append_own(raft, [Entry(raft.term, raft.log.last_index + 1)])
        progress.absolve_index = raft.log.last_index


def flush(raft: Raft) -> None:
    """Sends everyone what they may be sent by now (5.3; ahead of answers, 10.2.1)."""
    assert raft.role is Role.LEADER, "only a leader replicates"
    raft.append_pending = False
    last = raft.log.last_index
    commit = raft.log.committed
    share = raft.config.max_sent_bytes_per_ready
    cut: list[Entry] = []
    for id_, progress in raft.tracker.peers:
        room = share
        while not progress.paused:
            # Peers are mostly at the same place: the run that was cut for one serves the next.
            low = progress.next
            sends = low <= last and not (
                progress.state is ProgressState.REPLICATE and progress.inflights.full
            )
            if not sends and not progress.send_empty and not progress.can_bump_commit(commit):
                break
            if not sends:
                entries: list[Entry] = []
            elif cut and cut[0].index == low:
                entries = cut
            else:
                found = _read(raft, id_, progress)
                if found is None:
                    break
                entries = cut = found
            size = _send_append(raft, id_, progress, entries)
            if size is None:
                break
            room -= size
            if room <= 0:
                raft.append_pending = True
                break


def _read(raft: Raft, id_: int, progress: Progress) -> list[Entry] | None:
    """Reads the next entries for a peer; None if they are not to be had now (rule L2)."""
    log = raft.log
    try:
        return log.slice(progress.next, log.last_index + 1, raft.config.max_size_per_msg_bytes)
    except CompactedError:
        _send_snapshot(raft, id_, progress)
    except EntriesTemporarilyUnavailableError:
        progress.waits_for_fetch = True
    return None


def _send_append(raft: Raft, id_: int, progress: Progress, entries: list[Entry]) -> int | None:
    """Sends entries, perhaps none, behind `next - 1`; returns their bytes, None if it cannot."""
    prev_index = progress.next - 1
    try:
        prev_term = raft.log.term(prev_index)
    except CompactedError:
        _send_snapshot(raft, id_, progress)
        return None
    commit = raft.log.committed
    raft.post(
        messages.append(
            id_,
            raft.id,
            raft.term,
            prev=(prev_term, prev_index),
            entries=tuple(entries),
            commit=commit,
            context=doubt.absolution(progress, commit),
        )
    )
    size = message_bytes(entries)
    progress.sent(len(entries), prev_index + len(entries), size, commit)
    raft.sent_bytes += size
    return size


def _send_snapshot(raft: Raft, id_: int, progress: Progress) -> None:
    """Sends a base state, if there is one and the peer lives (section 7, rule L4)."""
    if not progress.recent_active:
        return
    try:
        base = raft.log.storage.snapshot(id_)
    except SnapshotTemporarilyUnavailableError:
        return
    assert base.index <= raft.log.applied, "a base must be as of an applied index"
    assert base.index + 1 >= raft.log.first_index, "a base must be continued by what is kept"
    progress.become_snapshot(base.index)
    raft.sent_bytes += len(base.data)
    raft.post(messages.snapshot(id_, raft.id, raft.term, base))


def broadcast_heartbeat(raft: Raft) -> None:
    """Sends everyone a sign of life (5.2), with the number of the read round (6.4, rule L3).

    Those that reads ask for put off none of the clock's: only the clock's begin a new round of rule
    T3, and where somebody reads all the time, what was lost would never be sent again.
    """
    context = raft.reads.send_round()
    commit = raft.log.committed
    for id_, progress in raft.tracker.peers:
        raft.post(messages.heartbeat(id_, raft.id, raft.term, min(progress.match, commit), context))
    if context:
        reads.release_confirmed(raft)


def maybe_commit(raft: Raft) -> bool:
    """Commits what a quorum holds (5.3, 5.4.2, rule L1); tells whether that was news."""
    log = raft.log
    index = raft.tracker.committed_index()
    if index <= log.committed or index < raft.term_start:
        return False
    assert log.term(index) == raft.term, "only entries of this term are committed by counting"
    first_of_term = log.committed < raft.term_start
    log.commit_to(index)
    assert raft.role is Role.LEADER, "only a leader commits by counting"
    if raft.tracer is not None:
        trace.commit(raft)
    raft.append_pending = True
    if raft.doubtful:
        doubt.committed_own_term(raft)
    if first_of_term:
        reads.release_early(raft)
    return True


def own_disk_advanced(raft: Raft) -> None:
    """Counts this leader's own disk (10.2.1, rule L1)."""
    own = raft.tracker.progress.get(raft.id)
    if own is not None and own.acknowledge(raft.log.durable_index):
        if raft.tracer is not None:
            trace.received(raft, trace.own_ack(raft, own.match))
        maybe_commit(raft)


def handle_append_response(raft: Raft, message: Message, progress: Progress) -> None:
    """Takes a peer's acknowledgement or rejection of an append (5.3)."""
    if not message.reject and message.index > raft.log.last_index:
        raise StepMalformedError(
            f"{message.from_} acknowledges {message.index}, the log ends at {raft.log.last_index}"
        )
    if not doubt.admit(raft, message, progress):
        return
    progress.recent_active = True
    if progress.doubtful and not raft.lead_transferee:
        append_for_doubt(raft, progress)
    if message.reject:
        _handle_reject(raft, message, progress)
        return
    advanced = progress.acknowledge(message.index)
    if doubt.absolution(progress, raft.log.committed):
        # Until it has arrived: a doubtful peer answers every heartbeat, and the word may be lost.
        progress.send_empty = True
        raft.append_pending = True
    if not advanced and not (
        progress.match == message.index and progress.state is ProgressState.PROBE
    ):
        return
    match progress.state:
        case ProgressState.PROBE:
            progress.become_replicate()
        case ProgressState.SNAPSHOT:
            # Rule T4. The base may be on its way still; the peer will find that it needs it not.
            if progress.match + 1 >= raft.log.first_index:
                progress.become_replicate()
        case ProgressState.REPLICATE:
            progress.inflights.free_to(message.index)
    maybe_commit(raft)
    if progress.next <= raft.log.last_index or progress.can_bump_commit(raft.log.committed):
        raft.append_pending = True
    maybe_hand_over(raft, message.from_, progress)


def _handle_reject(raft: Raft, message: Message, progress: Progress) -> None:
    """Looks for the place where the two logs join (5.3): one probe for each term at most."""
    hint = message.reject_hint
    if message.log_term > 0:
        # The peer has `log_term` at `hint`. Whatever of ours lies above the last entry with that
        # term or less cannot be in its log.
        _, hint = raft.log.find_conflict_by_term(hint, message.log_term)
    if progress.reject(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        progress.send_empty = True
        raft.append_pending = True


def handle_heartbeat_response(raft: Raft, message: Message, progress: Progress) -> None:
    """Takes a peer's sign of life: it may be sent one more append (rule T3)."""
    progress.recent_active = True
    if not progress.heard_heartbeat:
        progress.heard_heartbeat = True
        progress.waits = False
        if progress.match < raft.log.last_index or progress.state is ProgressState.PROBE:
            progress.send_empty = True
            raft.append_pending = True
    if message.context:
        raft.reads.acknowledge(message.from_, message.context)
        reads.release_confirmed(raft)


def maybe_hand_over(raft: Raft, id_: int, progress: Progress) -> bool:
    """Tells the transfer target to campaign once it holds the whole log (dissertation 3.10)."""
    if id_ != raft.lead_transferee or progress.match != raft.log.last_index:
        return False
    if progress.doubtful or progress.lost_log:
        # It restarted since it was asked, and what `leader.transfer` refuses now holds.
        return False
    raft.post(messages.timeout_now(id_, raft.id, raft.term))
    return True


def report_unreachable(raft: Raft, progress: Progress) -> None:
    """Notes that messages to the peer were probably lost: back to guessing."""
    if progress.state is ProgressState.SNAPSHOT:
        progress.pending_snapshot = 0
        progress.become_probe()
        # A host that cannot send says so at once. Sending the base again before the peer has
        # answered a heartbeat would go round in circles, without an end.
        progress.waits = True
    elif progress.state is ProgressState.REPLICATE:
        progress.become_probe()
    progress.waits_for_fetch = False
    raft.append_pending = True


def report_snapshot(progress: Progress, *, delivered: bool) -> None:
    """Notes how the base arrived; an answer of the peer itself says the same and more."""
    if progress.state is not ProgressState.SNAPSHOT:
        return
    if not delivered:
        progress.pending_snapshot = 0
    progress.become_probe()
    # Delivered: wait for the acknowledgement. Failed: wait for a heartbeat's answer before trying
    # again. Either way nothing goes out at once.
    progress.waits = True


def report_base_moves(progress: Progress, index: int) -> None:
    """Notes that the peer is fetching the base as of `index`: it is not lost yet (rule L4)."""
    if progress.state is ProgressState.SNAPSHOT and progress.pending_snapshot == index:
        progress.base_is_fresh = True


def report_base_gone(raft: Raft, progress: Progress, index: int) -> None:
    """Notes that the base as of `index`, which the peer asks for, is not to be had any more."""
    if progress.state is ProgressState.SNAPSHOT and progress.pending_snapshot == index:
        report_snapshot(progress, delivered=False)
        raft.append_pending = True


def report_reachable(raft: Raft, progress: Progress) -> None:
    """Notes that the peer's node is back: ask it at once where it is (safety S15)."""
    if progress.state is ProgressState.SNAPSHOT:
        progress.pending_snapshot = 0
        progress.become_probe()
    progress.recent_active = True
    progress.waits = False
    progress.send_empty = True
    raft.append_pending = True


def entries_fetched(raft: Raft, progress: Progress) -> None:
    """Notes that the entries for this peer can be read now."""
    progress.waits_for_fetch = False
    raft.append_pending = True
