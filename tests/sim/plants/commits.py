"""What counts as durable and as committed."""

from __future__ import annotations

from collections.abc import Generator
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
    reads,
    replication,
)
from rakit.raft.log import RaftLog
from rakit.raft.log_unstable import Unstable
from rakit.raft.state import Raft
from tests.sim.disk import SimDisk
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.DURABLE_COMMIT)
def answers_leave_before_the_sync() -> Generator[None]:
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
    def sync(self: SimDisk, number: int) -> None:
        del self, number

    with patch.object(SimDisk, "sync", sync):
        yield


@bug(Invariant.DURABLE_COMMIT)
def a_leader_counts_itself_before_its_disk_has_synced() -> Generator[None]:
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
    def set_hard_state(self: GroupLog, state: HardState, batch: WriteBatch) -> None:
        before, self.hard_state = self.hard_state, state
        for each in (state, before):
            self.hard_state = each
            original(self, each, batch)
        self.hard_state = state

    original = GroupLog.set_hard_state
    with patch.object(GroupLog, "set_hard_state", set_hard_state):
        yield
