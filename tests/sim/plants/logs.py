"""Logs, their caches and their bases."""

from __future__ import annotations

from collections.abc import Generator
from unittest.mock import patch

from rakit.multiraft import keys, stepping
from rakit.multiraft.effects import Effects
from rakit.multiraft.group import Group
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.read_ahead import ReadAhead
from rakit.multiraft.roster import Roster
from rakit.multiraft.tail_cache import GroupTail
from rakit.node.partition import snapshots
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.state import LogState
from rakit.raft import (
    HardState,
    LogStorage,
    Message,
    ProgressState,
    Snapshot,
    replication,
)
from rakit.raft.log import RaftLog
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress
from rakit.raft.types import Entry
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.DURABLE_COMMIT, Topic.VOTES)
def every_append_truncates() -> Generator[None]:
    """A late message cuts off what came after it."""

    def first_new(self: RaftLog, entries: tuple[Entry, ...]) -> int:
        del self, entries
        return 0

    with patch.object(RaftLog, "_first_new", first_new):
        yield


@bug(Invariant.LOG_MATCHING)
def an_append_is_taken_without_a_look_at_the_entry_before_it() -> Generator[None]:
    """Logs fork."""
    original = RaftLog.maybe_append

    def maybe_append(
        self: RaftLog, prev: tuple[int, int], entries: tuple[Entry, ...], commit: int
    ) -> int | None:
        if self.committed <= prev[1] <= self.last_index:
            prev = (self.term(prev[1]), prev[1])
        return original(self, prev, entries, commit)

    with patch.object(RaftLog, "maybe_append", maybe_append):
        yield


@bug(Invariant.NO_DAMAGE)
def the_tail_cache_is_not_truncated() -> Generator[None]:
    """With its log: replaced entries are sent and read."""

    def truncate(self: GroupTail, index: int) -> None:
        del self, index

    def append(self: GroupTail, entries: list[Entry]) -> None:
        held = self._entries
        if held and held[-1].index + 1 != entries[0].index:
            # What was replaced stays, as in cockroachdb/cockroach#63473.
            entries = [entry for entry in entries if entry.index > held[-1].index]
        if entries:
            held.extend(entries)
            self._cache.added(self, entries)

    with patch.object(GroupTail, "truncate", truncate), patch.object(GroupTail, "append", append):
        yield


@bug(Invariant.NO_DAMAGE)
def what_was_read_ahead_is_not_truncated() -> Generator[None]:
    """With its log: a replaced entry is applied."""
    original = ReadAhead.forget

    def forget(self: ReadAhead, group_id: int, first: int) -> None:
        if first == 0:  # the whole log goes
            original(self, group_id, first)

    with patch.object(ReadAhead, "forget", forget):
        yield


@bug(Invariant.NO_DAMAGE)
def the_base_is_newer_than_its_index() -> Generator[None]:
    """A new replica takes records for duplicates, and stops."""
    original = GroupLog.snapshot

    def snapshot(self: GroupLog, to: int) -> Snapshot:
        base = original(self, to)
        newest = self.checkpoint(self.latest.index)
        return Snapshot(base.index, base.term, base.conf_state, newest.data)

    with patch.object(GroupLog, "snapshot", snapshot):
        yield


@bug(Invariant.SAME_STATE)
def a_restart_forgets_a_part_of_the_state() -> Generator[None]:
    """Replicas differ, and trim at different places."""

    def decode_state(data: bytes) -> LogState:
        state = snapshots.decode_state(data)
        state.marks = state.marks[-1:]
        return state

    with patch("rakit.node.partition.machine.decode_state", decode_state):
        yield


@bug(Invariant.RETENTION)
def the_log_is_cut_at_every_checkpoint() -> Generator[None]:
    """Records are gone before their time."""

    def trim_index(self: PartitionMachine) -> int:
        del self
        return 1 << 60

    with patch.object(PartitionMachine, "trim_index", trim_index):
        yield


@bug(Invariant.NO_DAMAGE)
def a_restart_skips_the_entry_after_its_checkpoint() -> Generator[None]:
    """The state lacks an entry for good."""
    original = RaftLog.__init__

    def init(
        self: RaftLog, storage: LogStorage, state: HardState, applied: int, *limits: int
    ) -> None:
        original(self, storage, state, applied, *limits)
        if applied < min(state.commit, self.last_index):
            self.applied = self.applying = applied + 1

    def apply(group: Group, entries: list[Entry], effects: Effects) -> None:
        group.applied = entries[0].index - 1
        applied(group, entries, effects)

    applied = stepping._apply
    with patch.object(RaftLog, "__init__", init), patch.object(stepping, "_apply", apply):
        yield


@bug(Invariant.NO_DAMAGE)
def the_state_is_stored_apart_from_its_index() -> Generator[None]:
    """A restart applies an entry twice."""

    def store_checkpoint(group: Group, entry: Entry, effects: Effects) -> None:
        original(
            group, Entry(entry.term, max(entry.index - 1, group.storage.latest.index + 1)), effects
        )

    original = stepping._store_checkpoint
    with patch.object(stepping, "_store_checkpoint", store_checkpoint):
        yield


@bug(Invariant.REST)
def a_window_of_lost_messages_stays_full() -> Generator[None]:
    """A follower is never sent anything again."""
    original = replication.handle_heartbeat_response

    def handle_heartbeat_response(raft: Raft, message: Message, progress: Progress) -> None:
        waits, empty = progress.waits, progress.send_empty
        original(raft, message, progress)
        if progress.state is ProgressState.REPLICATE:
            progress.waits, progress.send_empty = waits, empty

    with patch.object(replication, "handle_heartbeat_response", handle_heartbeat_response):
        yield


@bug(Invariant.BURIED, Topic.DELETION)
def a_grave_is_not_marked() -> Generator[None]:
    """A node with an outdated registry makes a dead replica again."""
    original = Roster.remove

    def remove(self: Roster, group_id: int, batch: WriteBatch) -> Group | None:
        group = original(self, group_id, batch)
        batch.ops[:] = [one for one in batch.ops if one[1][0] != keys.TOMBSTONE]
        return group

    with patch.object(Roster, "remove", remove):
        yield


@bug(Invariant.BURIED, Topic.DELETION)
def a_removed_replica_leaves_its_log() -> Generator[None]:
    """Rows of a group that is not there any more."""
    original = Roster.remove

    def remove(self: Roster, group_id: int, batch: WriteBatch) -> Group | None:
        group = original(self, group_id, batch)
        batch.ops[:] = [one for one in batch.ops if one[0] != Op.DELETE_RANGE]
        return group

    with patch.object(Roster, "remove", remove):
        yield
