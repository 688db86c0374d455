"""What counts as durable and as committed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from unittest.mock import patch

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.raft import (
    Entry,
    HardState,
    Message,
    RawNode,
    Ready,
    doubt,
    leader,
    membership,
    messages,
    quorum,
    reads,
    replication,
)
from rakit.raft.log import RaftLog
from rakit.raft.log_unstable import Unstable
from rakit.raft.state import Raft
from rakit.raft.tracker import Tracker
from tests.sim.disk import SimDisk
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.DURABLE_COMMIT)
def answers_leave_before_the_sync() -> Generator[None]:
    """A follower vouches for what a crash takes back."""
    original = RawNode.ready

    def ready(self: RawNode) -> Ready:
        bundle = original(self)
        bundle.messages = [*bundle.messages, *bundle.messages_after_persist]
        bundle.messages_after_persist = []
        return bundle

    with patch.object(RawNode, "ready", ready):
        yield


@bug(Invariant.DURABLE_COMMIT)
def two_readys_share_a_list() -> Generator[None]:
    """Messages of one step leave with another (ours, found by the simulator)."""

    # Our own: found by this simulator in the first minutes of its life.
    def take_messages(self: Raft) -> tuple[list[Message], list[Message]]:
        now, later = self.outbox, self.outbox_durable
        if now:
            self.outbox = []
        if later:
            self.outbox_durable = []
            self._last_ack = None
        return now, later

    with patch.object(Raft, "take_messages", take_messages):
        yield


@bug(Invariant.DURABLE_COMMIT)
def a_disk_that_says_it_has_synced() -> Generator[None]:
    """And has not."""

    def sync(self: SimDisk, number: int) -> None:
        del self, number

    with patch.object(SimDisk, "sync", sync):
        yield


@bug(Invariant.DURABLE_COMMIT)
def a_leader_counts_itself_before_its_disk_has_synced() -> Generator[None]:
    """One disk too few has what is committed."""
    original = replication.append_own

    def append_own(raft: Raft, entries: list[Entry]) -> None:
        original(raft, entries)
        raft.tracker.progress[raft.id].acknowledge(raft.log.last_index)

    with ExitStack() as stack:
        for module in (replication, membership, leader):
            stack.enter_context(patch.object(module, "append_own", append_own))
        yield


@bug(Invariant.DURABLE_COMMIT)
def a_sync_counts_for_what_was_written_after_it() -> Generator[None]:
    """A replica vouches for what is only in memory."""
    original = Unstable.stable_to

    def stable_to(self: Unstable, index: int, term: int) -> None:
        if self.next_entry > self.offset:
            last = self.entries[self.next_entry - self.offset - 1]
            index, term = last.index, last.term
        original(self, index, term)

    with patch.object(Unstable, "stable_to", stable_to):
        yield


@bug(Invariant.COMMIT_RULE, Topic.FIGURE_8)
def entries_of_earlier_terms_are_counted() -> Generator[None]:
    """A majority holds it, and it is replaced (figure 8)."""

    def maybe_commit(raft: Raft) -> bool:
        log = raft.log
        index = raft.tracker.committed_index()
        if index <= log.committed:
            return False
        first_of_term = log.committed < raft.term_start <= index
        log.commit_to(index)
        raft.append_pending = True
        if raft.doubtful:
            doubt.committed_own_term(raft)
        if first_of_term:
            reads.release_early(raft)
        return True

    with (
        patch.object(replication, "maybe_commit", maybe_commit),
        patch.object(membership, "maybe_commit", maybe_commit),
    ):
        yield


@bug(Invariant.STATE_MACHINE_SAFETY)
def the_commit_index_is_taken_up_to_the_own_end() -> Generator[None]:
    """What will be replaced is applied."""
    original = RaftLog.maybe_append

    def maybe_append(
        self: RaftLog, prev: tuple[int, int], entries: tuple[Entry, ...], commit: int
    ) -> int | None:
        covered = original(self, prev, entries, commit)
        self.commit_to(min(commit, self.last_index))
        return covered

    with patch.object(RaftLog, "maybe_append", maybe_append):
        yield


@bug(Invariant.MONOTONE)
def an_older_vote_record_is_written_over_a_newer() -> Generator[None]:
    """A term falls on the disk."""

    def set_hard_state(self: GroupLog, state: HardState, batch: WriteBatch) -> None:
        before, self.hard_state = self.hard_state, state
        for each in (state, before):
            self.hard_state = each
            original(self, each, batch)
        self.hard_state = state

    original = GroupLog.set_hard_state
    with patch.object(GroupLog, "set_hard_state", set_hard_state):
        yield


@bug(Invariant.DURABLE_COMMIT)
def a_quorum_is_counted_in_the_order_of_arrival() -> Generator[None]:
    """By numbers that nobody sorted: what one voter has counts for a majority."""

    def majority_index(voters: tuple[int, ...], acked: Callable[[int], int]) -> int:
        if not voters:
            return quorum.EVERYTHING
        return acked(voters[(len(voters) - 1) // 2])

    with patch.object(quorum, "majority_index", majority_index):
        yield


@bug(Invariant.REST)
def a_commit_waits_for_every_voter() -> Generator[None]:
    """One node is lost, and nothing commits any more."""

    def majority_index(voters: tuple[int, ...], acked: Callable[[int], int]) -> int:
        return min(map(acked, voters), default=quorum.EVERYTHING)

    with patch.object(quorum, "majority_index", majority_index):
        yield


@bug(Invariant.DURABLE_COMMIT, Topic.MEMBERS)
def learners_count_for_commits() -> Generator[None]:
    """Who decides nothing makes a majority."""

    def committed_index(self: Tracker) -> int:
        held = sorted((self.durable_match(id_) for id_ in self.progress), reverse=True)
        return held[len(self.voters.incoming) // 2]

    with patch.object(Tracker, "committed_index", committed_index):
        yield


@bug(Invariant.NO_DAMAGE)
def a_heartbeat_carries_the_whole_commit_index() -> Generator[None]:
    """And a follower that lacks the entries takes its log for lost."""
    original = messages.heartbeat

    def broadcast_heartbeat(raft: Raft) -> None:
        context = raft.reads.send_round()
        for id_, _ in raft.tracker.peers:
            raft.post(original(id_, raft.id, raft.term, raft.log.committed, context))
        if context:
            reads.release_confirmed(raft)

    with (
        patch.object(replication, "broadcast_heartbeat", broadcast_heartbeat),
        patch.object(leader, "broadcast_heartbeat", broadcast_heartbeat),
    ):
        yield


@bug(Invariant.DURABLE_APPLY)
def entries_are_applied_before_they_are_durable_here() -> Generator[None]:
    """A crash takes back what was answered."""
    original = RaftLog.hand_out_committed

    def has_next_to_apply(self: RaftLog) -> bool:
        return (
            self.applying < self.committed
            and self.applying_bytes < self._apply_bytes_max
            and self.unstable.snapshot is None
        )

    def hand_out_committed(self: RaftLog) -> list[Entry]:
        with patch.object(RaftLog, "durable_index", self.last_index):
            return original(self)

    with (
        patch.object(RaftLog, "has_next_to_apply", property(has_next_to_apply)),
        patch.object(RaftLog, "hand_out_committed", hand_out_committed),
    ):
        yield
