"""The log and its unstable end, against lists that are too simple to be wrong."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rakit.raft import (
    CommittedConflictError,
    CompactedError,
    ConfState,
    Entry,
    EntryType,
    HardState,
    HardStateLostError,
    LogLostError,
    MemoryStorage,
    Snapshot,
    UnavailableError,
)
from rakit.raft.log import RaftLog
from rakit.raft.log_unstable import Unstable

BIG: Final = 1 << 20

#: A log as the terms of its entries, from index 1 on.
terms = st.lists(st.integers(1, 4), max_size=8).map(sorted)


def run_of(first: int, *run: int) -> list[Entry]:
    return [Entry(term, first + i, data=b"x" * 10) for i, term in enumerate(run)]


def opened(
    stored: list[int], unstable: list[int] | None = None, *, commit: int = 0, base: int = 0
) -> RaftLog:
    """A log with `stored` terms on disk behind a base, and `unstable` ones not."""
    storage = MemoryStorage()
    if base:
        storage.install(Snapshot(base, 1, ConfState((1,))))
    storage.append(run_of(base + 1, *stored))
    log = RaftLog(storage, HardState(9, 0, max(commit, base)), base, BIG, BIG)
    if unstable:
        log.append(run_of(log.last_index + 1, *unstable))
    return log


def terms_of(log: RaftLog) -> list[int]:
    return [log.term(i) for i in range(log.first_index, log.last_index + 1)]


# Opening (safety S5).


def test_s5_a_log_newer_than_the_stored_term_means_that_the_vote_record_was_lost() -> None:
    storage = MemoryStorage()
    storage.append(run_of(1, 1, 2))
    with pytest.raises(HardStateLostError, match="S5"):
        RaftLog(storage, HardState(1, 0, 1), 0, BIG, BIG)


def test_a_commit_beyond_the_log_is_refused() -> None:
    storage = MemoryStorage()
    storage.append(run_of(1, 1, 1))
    with pytest.raises(LogLostError, match="the log ends at 2"):
        RaftLog(storage, HardState(1, 0, 3), 0, BIG, BIG)


def test_a_commit_before_the_base_or_the_applied_index_is_refused() -> None:
    storage = MemoryStorage()
    storage.install(Snapshot(5, 1, ConfState((1,))))
    with pytest.raises(HardStateLostError, match="commit is 4"):
        RaftLog(storage, HardState(1, 0, 4), 5, BIG, BIG)
    storage.append(run_of(6, 1, 1))
    with pytest.raises(HardStateLostError, match="7 is applied"):
        RaftLog(storage, HardState(1, 0, 6), 7, BIG, BIG)


def test_an_applied_index_before_the_base_is_refused() -> None:
    storage = MemoryStorage()
    storage.install(Snapshot(5, 1, ConfState((1,))))
    with pytest.raises(LogLostError, match="applied is 4"):
        RaftLog(storage, HardState(1, 0, 5), 4, BIG, BIG)


# Reading.


def test_terms_are_known_from_the_base_to_the_end() -> None:
    log = opened([1, 2], [3], base=4)
    assert [log.term(i) for i in (4, 5, 6, 7)] == [1, 1, 2, 3]
    with pytest.raises(CompactedError):
        log.term(3)
    with pytest.raises(UnavailableError):
        log.term(8)


@pytest.mark.parametrize(
    ("low", "high", "size", "expected"),
    [
        (1, 7, BIG, [1, 2, 3, 4, 5, 6]),
        (2, 4, BIG, [2, 3]),
        (4, 7, BIG, [4, 5, 6]),
        (5, 7, BIG, [5, 6]),
        (1, 7, 1, [1]),
        (1, 7, 34 * 2, [1, 2]),
        (1, 7, 34 * 3, [1, 2, 3]),
        (1, 7, 34 * 5, [1, 2, 3, 4, 5]),
        (5, 7, 34, [5]),
    ],
)
def test_a_slice_spans_both_parts_and_is_cut_by_bytes(
    low: int, high: int, size: int, expected: list[int]
) -> None:
    """Each entry weighs 10 bytes of payload and 24 of overhead."""
    log = opened([1, 1, 1], [1, 1, 1])
    assert [entry.index for entry in log.slice(low, high, size)] == expected


def test_a_short_read_of_storage_is_a_bug_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known bug 13: what storage returns must start where it was asked to."""
    log = opened([1, 1, 1])

    def nothing(*_: int) -> list[Entry]:
        return []

    def elsewhere(*_: int) -> list[Entry]:
        return run_of(2, 1)

    def gappy(*_: int) -> list[Entry]:
        return [Entry(1, 1), Entry(1, 3)]

    monkeypatch.setattr(log.storage, "entries", nothing)
    with pytest.raises(AssertionError, match="no entries"):
        log.slice(1, 3, BIG)
    monkeypatch.setattr(log.storage, "entries", elsewhere)
    with pytest.raises(AssertionError, match="elsewhere"):
        log.slice(1, 3, BIG)
    monkeypatch.setattr(log.storage, "entries", gappy)
    with pytest.raises(AssertionError, match="gap"):
        log.slice(1, 4, BIG)


@given(terms, terms, st.integers(0, 3))
def test_of_two_logs_one_is_up_to_date(a: list[int], b: list[int], split: int) -> None:
    """5.4.1: the later last term wins, then the longer log."""
    ours = opened(a[:split], a[split:])
    mine = (a[-1] if a else 0, len(a))
    theirs = (b[-1] if b else 0, len(b))
    newer = theirs[0] > mine[0] or (theirs[0] == mine[0] and theirs[1] >= mine[1])
    assert ours.is_up_to_date(theirs) is newer


# Appending.


@given(terms, st.integers(0, 8), terms, terms, st.integers(0, 12))
def test_an_append_is_like_the_naive_one(
    ours: list[int], stored: int, prefix: list[int], rest: list[int], commit: int
) -> None:
    """Section 5.3, by a list: find the first conflict, cut there, add what is missing."""
    log = opened(ours[:stored], ours[stored:])
    prev_index = len(prefix)
    prev_term = prefix[-1] if prefix else 0
    carried = [max(term, prev_term) for term in rest]
    entries = tuple(run_of(prev_index + 1, *carried))
    matches = prev_index <= len(ours) and (prev_index == 0 or ours[prev_index - 1] == prev_term)
    covered = log.maybe_append((prev_term, prev_index), entries, commit)
    if not matches:
        assert covered is None
        assert terms_of(log) == ours
        return
    expected = list(ours)
    for position, term in enumerate(carried):
        at = prev_index + position
        if at < len(expected) and expected[at] != term:
            del expected[at:]
        if at >= len(expected):
            expected.append(term)
    assert covered == prev_index + len(carried)
    assert terms_of(log) == expected
    assert log.committed == min(commit, prev_index + len(carried))


@given(terms, st.integers(0, 8), st.integers(1, 8), st.integers(1, 5))
def test_a_committed_entry_is_never_replaced(
    ours: list[int], commit: int, index: int, term: int
) -> None:
    assume(commit <= len(ours) and index <= len(ours))
    log = opened(ours, commit=commit)
    prev_term = ours[index - 2] if index > 1 else 0
    assume(term >= prev_term)
    entries = (Entry(term, index),)
    if index <= commit and ours[index - 1] != term:
        with pytest.raises(CommittedConflictError):
            log.maybe_append((prev_term, index - 1), entries, 0)
        assert terms_of(log) == ours
    else:
        log.maybe_append((prev_term, index - 1), entries, 0)
    assert log.committed == commit


@given(terms, st.integers(0, 10), st.integers(0, 5))
def test_conflicts_are_found_by_term(ours: list[int], index: int, term: int) -> None:
    log = opened(ours)
    found_term, found = log.find_conflict_by_term(index, term)
    if index > len(ours):
        assert (found_term, found) == (0, index)
        return
    naive = max((i for i in range(index + 1) if i == 0 or ours[i - 1] <= term), default=0)
    assert found == naive
    assert found_term == (ours[naive - 1] if naive else 0)


def test_below_the_base_nothing_is_known() -> None:
    log = opened([4, 4], base=5)
    assert log.find_conflict_by_term(7, 3) == (1, 5)
    assert log.find_conflict_by_term(7, 0) == (0, 4)


# Appending.


@pytest.mark.parametrize("index", [1, 2, 4])
def test_a_leader_never_replaces_its_own_entries(index: int) -> None:
    log = opened([1, 1])
    with pytest.raises(AssertionError, match="never replaces"):
        log.append([Entry(1, index)])


# Commit and apply.


def test_a_commit_beyond_the_log_means_that_the_log_was_lost() -> None:
    log = opened([1, 1])
    with pytest.raises(LogLostError, match="3 is committed"):
        log.commit_to(3)


def test_a_commit_index_never_falls() -> None:
    log = opened([1, 1, 1], commit=2)
    assert not log.commit_to(1)
    assert log.committed == 2


def test_s13_only_durable_entries_are_handed_out() -> None:
    log = opened([1], [1, 1])
    log.commit_to(3)
    assert [e.index for e in log.hand_out_committed()] == [1]
    assert not log.has_next_to_apply
    log.unstable.hand_out()
    log.durable_to(3, 1)
    assert log.has_next_to_apply


def test_the_apply_quota_holds_until_the_host_reports() -> None:
    storage = MemoryStorage()
    storage.append(run_of(1, 1, 1, 1))
    log = RaftLog(storage, HardState(1, 0, 3), 0, 15, BIG)
    assert [e.index for e in log.hand_out_committed()] == [1]
    assert [e.index for e in log.hand_out_committed()] == [2]
    assert not log.has_next_to_apply, "20 bytes are outstanding, the quota is 15"
    log.applied_to(1, 10)
    assert [e.index for e in log.hand_out_committed()] == [3]


def test_no_more_entries_are_handed_out_at_once_than_their_number_allows() -> None:
    storage = MemoryStorage()
    storage.append(run_of(1, 1, 1, 1, 1, 1))
    log = RaftLog(storage, HardState(1, 0, 5), 0, BIG, 2)
    assert [e.index for e in log.hand_out_committed()] == [1, 2]
    assert [e.index for e in log.hand_out_committed()] == [3, 4]
    assert [e.index for e in log.hand_out_committed()] == [5]


def test_nothing_is_applied_that_was_not_handed_out() -> None:
    log = opened([1, 1], commit=2)
    with pytest.raises(AssertionError, match="not given"):
        log.applied_to(1, 0)


def test_a_base_replaces_everything() -> None:
    log = opened([1, 1], [2])
    log.commit_to(1)
    log.restore(Snapshot(7, 3, ConfState((1,))))
    assert (log.first_index, log.last_index, log.committed) == (8, 7, 7)
    assert log.term(7) == 3
    assert not log.has_next_to_apply
    with pytest.raises(CompactedError):
        log.slice(2, 3, BIG)
    with pytest.raises(CompactedError):
        log.term(6)
    log.unstable.hand_out()
    log.snapshot_durable(7)
    assert (log.applied, log.applying) == (7, 7)


def test_applying_what_a_base_has_overtaken_is_forgotten() -> None:
    log = opened([1, 1, 1], commit=2)
    log.hand_out_committed()
    log.restore(Snapshot(9, 3, ConfState((1,))))
    log.snapshot_durable(9)
    log.applied_to(2, 20)
    assert (log.applied, log.applying_bytes) == (9, 0)


def test_configuration_changes_are_found_on_both_sides_of_what_is_stored() -> None:
    log = opened([1, 1, 1])
    log.append([Entry(1, 4, EntryType.CONF_CHANGE, b"c"), Entry(1, 5)])
    for _ in range(2):
        assert log.holds_conf_change(1, 6)
        assert log.holds_conf_change(4, 5)
        assert not log.holds_conf_change(1, 4)
        assert not log.holds_conf_change(5, 6)
        assert not log.holds_conf_change(3, 3)
        # The same once the change is stored.
        storage = log.storage
        assert isinstance(storage, MemoryStorage), "the tests' logs are in memory"
        storage.append(log.unstable.hand_out()[1])
        log.durable_to(5, 1)


# The unstable end.


class Model:
    """The log as a disk and a list of writes under way; what is durable is what it says."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.handed = 0
        self.disk: list[int] = []
        self.writes: list[tuple[int, list[int], tuple[int, int] | None, int]] = []

    def append(self, first: int, run: list[int]) -> None:
        del self.log[first - 1 :]
        self.log += run
        self.handed = min(self.handed, first - 1)

    def hand_out(self, term: int) -> None:
        end = (self.log[-1], len(self.log)) if self.log else None
        self.writes.append((self.handed, self.log[self.handed :], end, term))
        self.handed = len(self.log)

    def complete(self) -> tuple[tuple[int, int] | None, int]:
        at, run, end, term = self.writes.pop(0)
        if run:
            del self.disk[at:]
            self.disk += run
        return end, term

    def durable(self) -> int:
        """The longest start of the log that is on disk and that no write under way replaces."""
        low = min([at for at, run, _, _ in self.writes if run], default=len(self.log))
        same = 0
        for ours, stored in zip(self.log, self.disk, strict=False):
            if ours != stored:
                break
            same += 1
        return min(same, low, self.handed)


ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 4), st.integers(1, 3)),
    st.tuples(st.just("newer"), st.integers(0, 4), st.integers(1, 3)),
    st.tuples(st.just("heard"), st.just(0), st.just(0)),
    st.tuples(st.just("over"), st.integers(0, 4), st.integers(1, 3)),
    st.tuples(st.just("write"), st.just(0), st.just(0)),
    st.tuples(st.just("done"), st.just(0), st.just(0)),
)
#: A Ready of the new term attests to entries of the old one, which that term then replaces.
REPLACED_WITHIN_A_TERM = [
    ("append", 0, 2),
    ("write", 0, 0),
    ("heard", 0, 0),
    ("write", 0, 0),
    ("over", 2, 2),
    ("done", 0, 0),
    ("done", 0, 0),
]


@given(st.lists(ACTIONS, max_size=40))
@example(REPLACED_WITHIN_A_TERM)
def test_nothing_is_called_durable_that_the_disk_does_not_hold(
    actions: list[tuple[str, int, int]],
) -> None:
    """Rule U1 with several writes under way (S18): `append` adds in the current term, `newer` is a
    leader of the next term that replaces the end at once, perhaps by entries of an earlier term,
    `heard` is one that says nothing of the log yet, and `over` its entries over older ones."""
    unstable = Unstable(1, 0)
    model = Model()
    term = 1
    # What the leader of the current term has decided about.
    settled = 0
    for action, back, count in actions:
        first, run = 0, list[int]()
        if action == "append":
            first = len(model.log) + 1
            run = [term] * count
        elif action == "newer":
            term += 1
            first = max(len(model.log) + 1 - back, 1)
            floor = model.log[first - 2] if first > 1 else 1
            run = [max(floor, term - count)] * count
        elif action == "heard":
            term += 1
            settled = 0
        elif action == "over":
            first = max(len(model.log) + 1 - back, settled + 1)
            run = [term] * count
        if run:
            unstable.append(run_of(first, *run))
            model.append(first, run)
            settled = len(model.log)
        elif action == "write":
            unstable.hand_out()
            model.hand_out(term)
        elif action == "done" and model.writes:
            end, at_term = model.complete()
            if end is not None and at_term == term:
                unstable.stable_to(end[1], end[0])
        assert unstable.last_index == len(model.log)
        assert unstable.offset - 1 <= model.durable()
        if unstable.base_term is not None and unstable.offset > 1:
            assert unstable.base_term == model.log[unstable.offset - 2]


def test_everything_becomes_durable_when_the_disk_is_done() -> None:
    unstable = Unstable(1, 0)
    unstable.append(run_of(1, 1, 1))
    unstable.hand_out()
    unstable.append(run_of(3, 1))
    assert unstable.has_waiting
    unstable.stable_to(2, 1)
    assert (unstable.offset, unstable.base_term) == (3, 1)
    unstable.hand_out()
    unstable.stable_to(3, 1)
    assert unstable.offset == 4
    assert not unstable.entries


def test_a_replaced_entry_is_handed_out_again() -> None:
    unstable = Unstable(1, 0)
    unstable.append(run_of(1, 1, 1, 1))
    unstable.hand_out()
    unstable.append(run_of(2, 2))
    assert [e.index for e in unstable.hand_out()[1]] == [2]


def test_what_lies_before_a_replaced_end_is_not_durable_by_that() -> None:
    unstable = Unstable(1, 0)
    unstable.append(run_of(1, 1, 1, 1))
    unstable.hand_out()
    unstable.append(run_of(3, 2))
    assert unstable.offset == 1
    assert [unstable.term(i) for i in (1, 2, 3)] == [1, 1, 2]


def test_a_base_is_handed_out_once() -> None:
    unstable = Unstable(1, 0)
    base = Snapshot(5, 2, ConfState((1,)))
    unstable.restore(base)
    unstable.append(run_of(6, 2))
    assert unstable.hand_out() == (base, run_of(6, 2))
    assert not unstable.has_waiting
    assert unstable.hand_out() == (None, [])
    unstable.snapshot_stable(4)
    assert unstable.snapshot is base
    unstable.snapshot_stable(5)
    assert unstable.snapshot is None


def test_what_follows_a_base_is_handed_out_with_it_wherever_the_log_ended_before() -> None:
    unstable = Unstable(4, 1)
    base = Snapshot(5, 2, ConfState((1,)))
    unstable.restore(base)
    unstable.append(run_of(6, 2, 2, 2))
    assert unstable.hand_out() == (base, run_of(6, 2, 2, 2))
