"""Writes that wait for others: family 15."""

from __future__ import annotations

from rakit.multiraft.held_writes import HeldWrites
from tests.mutants import mutant, named_in

held = named_in("multiraft/driver/test_held_writes.py")

MUTANTS = [
    mutant(
        "what_waits_is_forgotten",
        15,
        "decision 0027",
        (
            HeldWrites.join,
            "effects.batch, self._batch = WriteBatch(), batch",
            "effects.batch = WriteBatch()",
        ),
        held("a_commit_index_is_on_the_disk_with_what_is_written_after_it"),
        held("a_commit_index_is_on_the_disk_after_a_tick"),
    ),
    mutant(
        "what_waits_lies_behind_what_came_later",
        15,
        "decision 0027",
        (
            HeldWrites.join,
            "self._batch.extend(batch)\n            batch = self._batch",
            "batch.extend(self._batch)\n            self._batch = batch",
        ),
        held("what_waits_lies_before_what_it_goes_with"),
    ),
    mutant(
        "what_must_be_durable_waits",
        15,
        "decision 0027",
        (HeldWrites.join, "if effects.must_sync or self.is_due", "if self.is_due"),
        held("what_waits_goes_with_a_sync_that_brings_nothing_itself"),
        held("a_commit_index_is_on_the_disk_with_what_is_written_after_it"),
    ),
    mutant(
        "a_tick_brings_nothing_to_the_disk",
        15,
        "decision 0027",
        (HeldWrites.end_the_wait, "self.is_due = bool(self._batch)", "pass"),
        held("a_commit_index_is_on_the_disk_after_a_tick"),
    ),
    mutant(
        "a_tick_is_remembered_though_nothing_waits",
        15,
        "decision 0027",
        (HeldWrites.end_the_wait, "self.is_due = bool(self._batch)", "self.is_due = True"),
        held("what_came_after_a_tick_waits_for_the_next"),
    ),
    mutant(
        "a_tick_is_remembered_though_all_was_written",
        15,
        "decision 0027",
        (HeldWrites.join, "batch, WriteBatch(), False", "batch, WriteBatch(), self.is_due"),
        held("what_a_sync_took_along_is_not_due_any_more"),
    ),
    mutant(
        "any_number_of_writes_waits",
        15,
        "decision 0027",
        (HeldWrites.join, " or batch.size_bytes > HELD_BYTES_MAX", ""),
        held("no_more_waits_than_is_bounded"),
    ),
    mutant(
        "a_commit_index_is_written_by_itself",
        15,
        "decision 0027",
        (HeldWrites.join, "if effects.must_sync or", "if True or effects.must_sync or"),
        held("a_leader_writes_once_for_each_entry"),
    ),
]
