"""The face of the core: one replica of one group, driven by its host.

    node.step(message) / node.tick() / node.propose(data)         inputs
    while node.has_ready():
        ready = node.ready()                                      what is to be done
        ...                                                       see `Ready` for the order
    node.on_persisted(number) / node.on_applied(index, size)      what was done

One owner: nothing here may be called from two threads, and nothing waits.

Several Readys may be in flight (safety S18). What a completion may be taken for:

- Rule N1: completions come in the order of the numbers, one for each Ready. A Ready without
  `must_sync` still completes after those before it: its messages may speak for their entries.
- Rule N2: with Ready n, everything that was handed out up to n is durable: term, vote, the base,
  and the log as it was then. Each Ready therefore attests to the whole unstable end of the log as
  of its making, not only to the entries that it carries itself.
- Rule N3: the attested end counts only if the term has not moved since, and if the entry is still
  the same (rule U1). In one term one leader decides about an index, once: same index and same term
  then mean that nothing was replaced in between. When the term moved, its own Ready attests anew.
- Rule N4: a message that waits for the disk waits for every Ready up to its own. It leaves at once
  only if nothing is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rakit.raft import (
    election,
    follower,
    leader,
    membership,
    raft,
    reads,
    replication,
    status,
    trace,
)
from rakit.raft.config import Config
from rakit.raft.errors import EntriesTemporarilyUnavailableError
from rakit.raft.state import Raft
from rakit.raft.storage import LogStorage
from rakit.raft.tracker import Progress
from rakit.raft.types import (
    ConfChange,
    ConfState,
    Entry,
    EntryID,
    HardState,
    Message,
    Payload,
    Ready,
    Role,
    SoftState,
)


@dataclass(frozen=True, slots=True)
class _Flight:
    """What a Ready attests to once it is durable (rule N2)."""

    number: int
    must_sync: bool
    term: int
    vote: int
    snapshot_index: int
    #: (term, index) of the last entry of the log, None if the log had no unstable end.
    end: EntryID | None


class RawNode:
    """One replica.

    Invariants:

    - `_flights` ascends by number without a gap; `_syncs` counts those with `must_sync`.
    - `_hard_state` and `_soft_state` are what the host was last given.
    """

    __slots__ = ("_flights", "_hard_state", "_number", "_raft", "_soft_state", "_syncs")

    def __init__(self, config: Config, storage: LogStorage) -> None:
        """Starts from what is stored; raises a `ReplicaFatalError` if that contradicts itself."""
        self._raft = Raft(config, storage)
        self._hard_state = HardState(self._raft.term, self._raft.vote, self._raft.log.committed)
        self._soft_state = SoftState(0, Role.FOLLOWER)
        self._number = 0
        self._flights: list[_Flight] = []
        self._syncs = 0

    # Inputs.

    def tick(self) -> None:
        """Lets one tick pass."""
        raft.tick(self._raft)

    def ticks_left(self) -> int:
        """Returns how many more ticks it takes until one does something, at the earliest.

        To be asked again after everything else that is done to this replica.
        """
        return raft.ticks_left(self._raft)

    def pass_ticks(self, count: int) -> None:
        """Lets so many ticks pass, fewer than `ticks_left`, at once."""
        raft.pass_ticks(self._raft, count)

    def tick_quiesced(self) -> None:
        """Lets one tick pass for a quiet group: no heartbeat, no election.

        Call it at least once when the group goes quiet, so that a leader's periods begin anew.
        """
        raft.tick_quiesced(self._raft)

    def step(self, message: Message) -> None:
        """Takes a message from a peer, or raises a `StepRefusedError`.

        A `ReplicaFatalError` means that this replica must be stopped.
        """
        raft.step(self._raft, message)

    @property
    def next_id(self) -> EntryID:
        """The term and index that an entry gets that is proposed next."""
        return self._raft.term, self._raft.log.last_index + 1

    def check_proposal(self, size_bytes: int) -> None:
        """Raises the `ProposalDroppedError` that `propose` would, for a payload of this size."""
        leader.check_proposal(self._raft, size_bytes)

    def propose(self, data: Payload, checksum: int | None = None) -> EntryID:
        """Appends one entry and returns its id; raises a `ProposalDroppedError`."""
        return leader.propose(self._raft, [(data, checksum)])

    def propose_batch(self, datas: Sequence[bytes]) -> EntryID:
        """Appends all entries or none and returns the id of the first."""
        return leader.propose(self._raft, [(data, None) for data in datas])

    def propose_conf_change(self, change: ConfChange) -> EntryID:
        """Appends a configuration change; raises a `ProposalDroppedError`."""
        return membership.propose(self._raft, change)

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Makes a committed change current; the caller stores the result with the applied index.

        Called once for each entry of type `CONF_CHANGE` among `committed_entries`, before
        `on_applied` reports it.
        """
        return membership.apply(self._raft, change)

    def read_index(self, context: bytes) -> None:
        """Asks for a linearizable read; `Ready.read_states` or `Ready.dropped` answers."""
        reads.request(self._raft, context)

    def transfer_leader(self, to: int) -> None:
        """Starts to hand leadership to a voter; raises if it cannot be the target."""
        leader.transfer(self._raft, to)

    def campaign(self) -> bool:
        """Stands for election at once, by way of a pre-vote; tells whether it may stand at all."""
        return election.campaign(self._raft, pre_vote=self._raft.config.pre_vote)

    def forget_leader(self) -> None:
        """Lets a follower vote before its leader's lease is over: the leader is known as dead."""
        if self._raft.role is Role.FOLLOWER:
            self._raft.forget_leader()

    def step_down(self) -> None:
        """Makes a leader a follower of nobody, in the same term (safety S12 and S13)."""
        if self._raft.role is Role.LEADER:
            self._raft.become_follower(self._raft.term, 0)

    def sent(self, message: Message) -> None:
        """Takes note, for a trace, of a message that the host sends in the replica's name."""
        if self._raft.tracer is not None:
            trace.sent(self._raft, message)

    def report_unreachable(self, peer: int) -> None:
        """Notes that messages to a peer were probably lost."""
        progress = self._peer(peer)
        if progress is not None:
            replication.report_unreachable(self._raft, progress)

    def report_reachable(self, peer: int) -> None:
        """Notes that a peer's node is back; a leader asks it at once where it is."""
        progress = self._peer(peer)
        if progress is not None:
            replication.report_reachable(self._raft, progress)

    def hold(self, full: Callable[[int], bool]) -> list[int]:
        """Sends no more appends to the peers for which `full` says so, until they are released.

        Returns them; nobody if this replica does not lead. A new leadership holds nobody.
        """
        r = self._raft
        if r.role is not Role.LEADER:
            return []
        found = [(id_, progress) for id_, progress in r.tracker.peers if full(id_)]
        for _, progress in found:
            progress.held = True
        return [id_ for id_, _ in found]

    def release(self, peer: int) -> None:
        """Lets a peer be sent what it needs again."""
        progress = self._peer(peer)
        if progress is not None and progress.held:
            progress.held = False
            self._raft.append_pending = True

    def report_snapshot(self, peer: int, ok: bool) -> None:
        """Notes whether the base sent to a peer was delivered."""
        progress = self._peer(peer)
        if progress is not None:
            replication.report_snapshot(progress, delivered=ok)

    def would_restore(self, message: Message) -> bool:
        """Tells whether stepping this base now would replace the log by it."""
        return follower.would_restore(self._raft, message)

    def report_base_moves(self, peer: int, index: int) -> None:
        """Notes that a peer is fetching the base as of `index` that it was told of."""
        progress = self._peer(peer)
        if progress is not None:
            replication.report_base_moves(progress, index)

    def report_base_gone(self, peer: int, index: int) -> None:
        """Notes that the base as of `index` cannot be sent to a peer any more."""
        progress = self._peer(peer)
        if progress is not None:
            replication.report_base_gone(self._raft, progress, index)

    def on_entries_fetched(self, peer: int, term: int) -> None:
        """Notes that entries can be read which were temporarily unavailable in `term`.

        `peer` is whom they are for; this replica's own id means: for being applied.
        """
        if peer == self._raft.id:
            self._raft.log.fetching = False
            return
        progress = self._peer(peer)
        if progress is not None and term == self._raft.term:
            replication.entries_fetched(self._raft, progress)

    def _peer(self, peer: int) -> Progress | None:
        """Returns the progress of a peer if this replica leads and knows it."""
        if self._raft.role is not Role.LEADER or peer == self._raft.id:
            return None
        return self._raft.tracker.progress.get(peer)

    # Output.

    def has_ready(self) -> bool:
        """Tells whether `ready` has something to say. Cheap; now and then it has not much."""
        r = self._raft
        hard, soft, log = self._hard_state, self._soft_state, r.log
        return bool(
            r.outbox
            or r.outbox_durable
            or r.append_pending
            or log.unstable.has_waiting
            or log.has_next_to_apply
            or r.term != hard.term
            or r.vote != hard.vote
            or log.committed != hard.commit
            or r.role is not soft.role
            or r.lead != soft.lead
            or r.read_states
            or r.dropped
            or r.lost_logs
            or r.reads.needs_heartbeat
        )

    def ready(self) -> Ready:
        """Returns what is to be done and counts it as handed out."""
        r = self._raft
        log = r.log
        if r.role is Role.LEADER:
            if r.append_pending:
                replication.flush(r)
            if r.reads.needs_heartbeat:
                replication.broadcast_heartbeat(r)
        assert (r.role is Role.LEADER) == (r.lead == r.id), "who leads follows itself, only then"
        self._number += 1
        ready = Ready(self._number)
        if log.unstable.has_waiting:
            ready.snapshot, ready.entries = log.unstable.hand_out()
        ready.must_sync = self._change_hard_state(ready) or bool(ready.entries or ready.snapshot)
        if r.role is not self._soft_state.role or r.lead != self._soft_state.lead:
            ready.soft_state = self._soft_state = SoftState(r.lead, r.role)
        self._take_off(ready)
        if r.sent_bytes:
            ready.sent_bytes, r.sent_bytes = r.sent_bytes, 0
        if log.has_next_to_apply:
            ready.committed_entries = self._next_to_apply()
        if r.read_states:
            ready.read_states, r.read_states = r.read_states, []
        if r.dropped:
            ready.dropped, r.dropped = r.dropped, []
        if r.lost_logs:
            ready.lost_logs, r.lost_logs = r.lost_logs, []
        if r.tracer is not None:
            trace.ready(r)
        return ready

    def _change_hard_state(self, ready: Ready) -> bool:
        """Puts a changed vote record into the Ready; tells whether it forces a sync."""
        r, old = self._raft, self._hard_state
        committed = r.log.committed
        votes_differ = r.term != old.term or r.vote != old.vote
        if votes_differ or committed != old.commit:
            assert r.term >= old.term, "a term never falls"
            assert committed >= old.commit, "a commit index never falls"
            ready.hard_state = self._hard_state = HardState(r.term, r.vote, committed)
        return votes_differ

    def _take_off(self, ready: Ready) -> None:
        """Notes what the Ready attests to, and sorts the messages (rules N2 and N4)."""
        r = self._raft
        unstable = r.log.unstable
        end = (unstable.entries[-1].term, unstable.last_index) if unstable.entries else None
        self._syncs += ready.must_sync
        self._flights.append(
            _Flight(
                ready.number,
                ready.must_sync,
                r.term,
                r.vote,
                ready.snapshot.index if ready.snapshot else 0,
                end,
            )
        )
        now, later = r.take_messages()
        if self._syncs:
            ready.messages, ready.messages_after_persist = now, later
        else:
            ready.messages = now + later if later else now

    def _next_to_apply(self) -> list[Entry]:
        r = self._raft
        try:
            entries = r.log.hand_out_committed()
        except EntriesTemporarilyUnavailableError:
            r.log.fetching = True
            return []
        if r.role is Role.LEADER:
            leader.note_handed_out(r, entries)
        return entries

    # Completions.

    def on_persisted(self, number: int) -> None:
        """Notes that everything up to this Ready is durable (rules N1 to N3)."""
        assert self._flights, f"Ready {number} is reported and none is in flight"
        flight = self._flights.pop(0)
        assert flight.number == number, f"Ready {number} is reported before {flight.number} (N1)"
        self._syncs -= flight.must_sync
        assert self._syncs >= 0, "more syncs were reported than asked for"
        r = self._raft
        assert flight.term >= r.durable_term, "what is durable goes back in terms"
        r.durable_term, r.durable_vote = flight.term, flight.vote
        if flight.snapshot_index:
            r.log.snapshot_durable(flight.snapshot_index)
        if flight.end is not None and flight.term == r.term:
            term, index = flight.end
            r.log.durable_to(index, term)
        raft.disk_advanced(r)

    def on_applied(self, index: int, size: int) -> None:
        """Notes that everything up to `index` is applied, `size` payload bytes more than before."""
        r = self._raft
        r.log.applied_to(index, size)
        if r.tracker.membership.auto_leave:
            membership.maybe_leave_joint(r)

    # Questions.

    @property
    def role(self) -> Role:
        """What this replica is."""
        return self._raft.role

    @property
    def lead(self) -> int:
        """Whom this replica follows; 0: nobody yet."""
        return self._raft.lead

    def leader_ready(self) -> bool:
        """Tells whether this replica leads and has applied an entry of its own term (S14)."""
        return leader.ready_to_serve(self._raft)

    def holder_count(self, index: int) -> int:
        """Counts the members known to hold everything up to `index` on their disks.

        0 if this replica does not lead. Asked for every acknowledged write, hence not by way of
        `status`.
        """
        r = self._raft
        if r.role is not Role.LEADER:
            return 0
        return sum([progress.match >= index for progress in r.tracker.progress.values()])

    def unsent_from(self, first: int) -> int:
        """Returns the first index from `first` on that some member is still to be sent.

        One behind the log's last where there is none, or where this replica does not lead. Who is
        to be sent older ones reads those before, and who is not heard of is sent nothing.
        """
        r = self._raft
        behind = r.log.last_index + 1
        if r.role is not Role.LEADER:
            return behind
        peers = [peer for _, peer in r.tracker.peers if peer.recent_active]
        return min([peer.next for peer in peers if peer.next >= first], default=behind)

    def is_level(self) -> bool:
        """Tells whether every entry of this log is applied here and held by every member."""
        r = self._raft
        last = r.log.last_index
        return r.log.applied == last and all(peer.match == last for _, peer in r.tracker.peers)

    def can_quiesce(self) -> status.QuiesceStatus:
        """Tells whether the group may go quiet, and which peers would be left behind (S15)."""
        return status.quiesce_status(self._raft)

    def basic_status(self) -> status.BasicStatus:
        """Returns what can be told without looking at peers."""
        return status.basic_status(self._raft)

    def status(self) -> status.Status:
        """Returns everything, with a leader's view of its peers."""
        return status.status(self._raft)
