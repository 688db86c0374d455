"""Logs, their caches and their bases."""

from __future__ import annotations

from collections.abc import Generator
from unittest.mock import patch

from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.tail_cache import GroupTail
from rakit.node.partition import snapshots
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.state import LogState
from rakit.raft import Snapshot
from rakit.raft.log import RaftLog
from rakit.raft.types import Entry
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.DURABLE_COMMIT, Topic.VOTES)
def every_append_truncates() -> Generator[None]:
    def first_new(self: RaftLog, entries: tuple[Entry, ...]) -> int:
        del self, entries
        return 0

    with patch.object(RaftLog, "_first_new", first_new):
        yield


@bug(Invariant.LOG_MATCHING)
def an_append_is_taken_without_a_look_at_the_entry_before_it() -> Generator[None]:
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
def the_base_is_newer_than_its_index() -> Generator[None]:
    original = GroupLog.snapshot

    def snapshot(self: GroupLog, to: int) -> Snapshot:
        base = original(self, to)
        newest = self.checkpoint(self.latest.index)
        return Snapshot(base.index, base.term, base.conf_state, newest.data)

    with patch.object(GroupLog, "snapshot", snapshot):
        yield


@bug(Invariant.SAME_STATE)
def a_restart_forgets_a_part_of_the_state() -> Generator[None]:
    def decode_state(data: bytes) -> LogState:
        state = snapshots.decode_state(data)
        state.marks = state.marks[-1:]
        return state

    with patch("rakit.node.partition.machine.decode_state", decode_state):
        yield


@bug(Invariant.RETENTION)
def the_log_is_cut_at_every_checkpoint() -> Generator[None]:
    def trim_index(self: PartitionMachine) -> int:
        del self
        return 1 << 60

    with patch.object(PartitionMachine, "trim_index", trim_index):
        yield
