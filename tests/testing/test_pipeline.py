"""The rules of the bare pipeline's processes; a run of them is in tests/client/test_bench_parts."""

from __future__ import annotations

from rakit.testing.pipeline import committed, pack, unpack


def test_an_entry_is_committed_on_a_majority_that_the_leader_is_part_of() -> None:
    assert committed([5, 0, 0]) == 0
    assert committed([5, 3, 0]) == 3
    assert committed([5, 0, 9]) == 5
    # Both followers are ahead of the leader's disk: its own answer waits for it.
    assert committed([2, 9, 9]) == 2


def test_entries_come_out_of_a_message_as_they_went_in() -> None:
    entries = [b"", b"one", bytes(1000)]
    assert unpack(pack(entries)) == entries
    assert unpack(pack([])) == []
