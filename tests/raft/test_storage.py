from __future__ import annotations

import pytest

from rakit.raft import (
    CompactedError,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Snapshot,
    SnapshotTemporarilyUnavailableError,
    UnavailableError,
)


def filled() -> MemoryStorage:
    storage = MemoryStorage()
    storage.install(Snapshot(3, 1, ConfState((1, 2)), b"base"))
    storage.append([Entry(1, 4, data=b"a"), Entry(2, 5, data=b"b"), Entry(2, 6, data=b"c")])
    return storage


def test_a_new_storage_is_empty() -> None:
    storage = MemoryStorage()
    assert storage.initial_state() == (HardState(), ConfState())
    assert (storage.first_index(), storage.last_index(), storage.term(0)) == (1, 0, 0)


def test_what_was_written_is_read() -> None:
    storage = filled()
    assert (storage.first_index(), storage.last_index()) == (4, 6)
    assert [storage.term(i) for i in range(3, 7)] == [1, 1, 2, 2]
    assert [e.data for e in storage.entries(4, 7, 1 << 20)] == [b"a", b"b", b"c"]
    assert storage.snapshot(2).data == b"base"


def test_a_read_returns_at_least_one_entry() -> None:
    assert [e.index for e in filled().entries(5, 7, 0)] == [5]


def test_outside_of_the_log_reads_are_errors() -> None:
    storage = filled()
    with pytest.raises(CompactedError):
        storage.entries(3, 5, 100)
    with pytest.raises(UnavailableError):
        storage.entries(5, 8, 100)
    with pytest.raises(CompactedError):
        storage.term(2)
    with pytest.raises(UnavailableError):
        storage.term(7)


def test_an_append_replaces_everything_from_its_first_entry_on() -> None:
    storage = filled()
    storage.append([Entry(3, 5)])
    assert (storage.last_index(), storage.term(5)) == (5, 3)


def test_gaps_are_refused() -> None:
    with pytest.raises(AssertionError, match="gap"):
        filled().append([Entry(2, 8)])
    with pytest.raises(AssertionError, match="before the base"):
        filled().append([Entry(2, 3)])


def test_compaction_keeps_the_term_of_the_last_entry_dropped() -> None:
    storage = filled()
    storage.compact(5)
    assert (storage.first_index(), storage.term(5), storage.last_index()) == (6, 2, 6)


def test_a_snapshot_may_still_be_in_the_making() -> None:
    with pytest.raises(SnapshotTemporarilyUnavailableError):
        MemoryStorage().snapshot(2)
