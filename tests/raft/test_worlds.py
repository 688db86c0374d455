"""Seeded worlds: the core is safe under all that can happen, and the worlds notice when it is not.

The second half plants bugs that others shipped and asserts that a world fails within a few seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rakit.raft import (
    Entry,
    EntryID,
    Message,
    ReplicaFatalError,
    leader,
    membership,
    reads,
    replication,
)
from rakit.raft.log import RaftLog
from rakit.raft.log_unstable import Unstable
from rakit.raft.state import Raft
from tests.raft.world import World

STEPS = 700
#: A planted bug must show within so many seeds.
SEEDS_MAX = 60


@pytest.mark.parametrize("seed", range(40))
def test_a_world_stays_safe_and_comes_to_rest(seed: int) -> None:
    World(seed).run(STEPS)


@pytest.mark.parametrize("seed", range(100, 108))
def test_without_pre_vote_and_quorum_check_it_is_safe_all_the_same(seed: int) -> None:
    World(seed, pre_vote=False, check_quorum=False).run(STEPS)


@pytest.mark.parametrize("seed", range(200, 212))
def test_s8_a_disk_that_loses_what_was_synced_costs_no_committed_entry(seed: int) -> None:
    World(seed, damage=True, number_boots=True).run(STEPS)


def test_worlds_are_eventful() -> None:
    """A world in which nothing happens would pass every check."""
    leaders = committed = crashes = 0
    for seed in range(12):
        world = World(seed)
        world.run(STEPS)
        leaders += len(world.led)
        committed += len(world.committed)
        crashes += sum(replica.boot - 1 for replica in world.network.replicas.values())
    assert leaders > 15
    assert committed > 200
    assert crashes > 20


def test_a_world_repeats_itself() -> None:
    first, second = World(5), World(5)
    first.run(STEPS)
    second.run(STEPS)
    assert first.committed == second.committed
    assert first.led == second.led


Plant = Callable[[pytest.MonkeyPatch], None]


def answers_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    """Known bug 14."""

    def hasty(self: Raft, message: Message) -> None:
        self.outbox.append(message)

    patch.setattr(Raft, "post_ack", hasty)


def counts_its_own_disk_at_once(patch: pytest.MonkeyPatch) -> None:
    """Rule L1: a leader that counts itself before its disk is done."""
    append_own = replication.append_own

    def hasty(raft: Raft, entries: list[Entry]) -> None:
        append_own(raft, entries)
        raft.tracker.progress[raft.id].acknowledge(raft.log.last_index)

    for module in (replication, membership, leader):
        patch.setattr(module, "append_own", hasty)


def truncates_at_prev(patch: pytest.MonkeyPatch) -> None:
    """Known bug 11."""

    def everything(_: RaftLog, entries: tuple[Entry, ...]) -> int:
        return 0 if entries else 1

    patch.setattr(RaftLog, "_first_new", everything)


def applies_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    """Safety S13."""
    patch.setattr(RaftLog, "durable_index", property(lambda self: self.last_index))
    patch.setattr(
        RaftLog,
        "has_next_to_apply",
        property(lambda self: self.applying < self.committed and self.unstable.snapshot is None),
    )


def answers_reads_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """Known bug 20: a leader that does not ask whether it still leads."""

    def careless(raft: Raft, requester: int, context: bytes) -> None:
        raft.term_start = 0
        reads._answer(raft, requester, context, raft.log.committed)

    patch.setattr(reads, "_accept", careless)


def votes_for_shorter_logs(patch: pytest.MonkeyPatch) -> None:
    """Section 5.4.1."""

    def indulgent(_: RaftLog, last: EntryID) -> bool:
        return last[1] >= 0

    patch.setattr(RaftLog, "is_up_to_date", indulgent)


def calls_whatever_was_handed_out_durable(patch: pytest.MonkeyPatch) -> None:
    """Known bugs 8 and 12: a completion is taken for the end of the log as it is now."""
    stable_to = Unstable.stable_to

    def late(self: Unstable, index: int, term: int) -> None:
        if self.next_entry > self.offset:
            last = self.entries[self.next_entry - self.offset - 1]
            index, term = last.index, last.term
        stable_to(self, index, term)

    patch.setattr(Unstable, "stable_to", late)


PLANTS: list[Plant] = [
    answers_before_the_disk,
    counts_its_own_disk_at_once,
    truncates_at_prev,
    applies_before_the_disk,
    answers_reads_without_a_round,
    votes_for_shorter_logs,
    calls_whatever_was_handed_out_durable,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS_MAX):
        try:
            World(seed).run(STEPS)
        except (AssertionError, ReplicaFatalError):
            return
    pytest.fail(f"no world noticed within {SEEDS_MAX} seeds")
