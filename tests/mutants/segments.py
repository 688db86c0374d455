"""The log in segments: where an entry lies, what may be dropped, what is moved."""

from __future__ import annotations

from rakit.multiraft.store.engine import RocksEngine
from rakit.multiraft.store.entries import Entries
from rakit.multiraft.store.retiring import Retiring
from rakit.multiraft.store.rocks import RocksStore
from rakit.multiraft.store.segments import Segments
from tests.mutants import mutant, named_in

segments = named_in("multiraft/store/test_segments.py")

MUTANTS = [
    mutant(
        "a_run_survives_the_end_that_it_was_part_of",
        30,
        "decision 0019",
        (Segments._begin_run, "if run.first >= index:", "if False:"),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "an_installed_base_leaves_entries_in_the_current_segment",
        30,
        "decision 0019",
        (Segments._cut_runs, "if run.segment == self._current:", "if False:"),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "a_later_operation_of_a_batch_does_not_see_an_earlier_one",
        30,
        "decision 0019",
        (Segments._runs_in, "rows |= staged", "pass"),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "what_is_deleted_lives_on_in_the_old_generation",
        30,
        "decision 0019",
        (
            Segments._is_in_old_generation,
            "return self._reader.last_below(lo, hi) is not None",
            "return False",
        ),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "a_lookup_that_was_remembered_outlives_its_row",
        30,
        "decision 0019",
        (Segments.written, "self._known.pop(group_id, None)", "pass"),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "a_lookup_that_was_remembered_outlives_its_segment",
        30,
        "decision 0019",
        (Segments.moved, "self._known.pop(run.group_id, None)", "pass"),
        segments("what_hardly_lives_is_moved_and_its_segment_dropped"),
    ),
    mutant(
        "a_segment_is_dropped_before_the_witness_covers_its_death",
        30,
        "safety S8",
        (Segments.let_go, " and self._dead[0][0] <= covered", ""),
        segments("s8_a_segment_waits_for_the_witness"),
    ),
    mutant(
        "an_emptied_segment_is_dropped_before_the_witness_covers_that",
        30,
        "safety S8",
        (Segments.moved, "self._number = number", "pass"),
        segments("s8_a_segment_that_was_emptied_waits_for_the_witness"),
    ),
    mutant(
        "a_run_that_was_moved_is_told_late",
        30,
        "safety S8",
        (Retiring.written, "self._segments.moved(run, number)", "self.late = run, number"),
        segments("s8_a_write_between_two_steps_is_covered_as_well"),
        also=(
            Retiring.step,
            "if self._place is None:",
            """if "late" in vars(self):
            self._segments.moved(*vars(self).pop("late"))
        if self._place is None:""",
        ),
    ),
    mutant(
        "a_segment_is_buried_before_the_write_that_it_dies_by",
        30,
        "safety S12",
        (
            Segments.place,
            "return self._placed",
            "self._bury()\n        return self._placed",
        ),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "a_segment_is_ended_without_saying_what_lives_in_it",
        30,
        "decision 0019",
        (
            RocksStore._end_a_segment,
            "(not self._segments.notes() or self._note_runs())",
            "True",
        ),
        segments("what_lives_in_a_segment_that_is_ended_early_is_said"),
    ),
    mutant(
        "a_sync_is_taken_for_the_witness",
        30,
        "safety S8",
        (
            RocksStore._look_after_segments,
            "self._witness.current.number if self._config.fsync else self._synced",
            "self._synced",
        ),
        segments("s8_a_segment_waits_for_the_witness"),
    ),
    mutant(
        "segments_are_dropped_though_the_rows_of_some_groups_are_hidden",
        30,
        "safety S9",
        (Segments._bury, " if self._is_certain else ()", ""),
        segments("s9_a_start_that_cannot_read_the_run_rows_drops_and_moves_nothing"),
    ),
    mutant(
        "a_segment_that_is_gone_is_taken_for_the_end_of_the_log",
        30,
        "safety S9",
        (
            Segments.run_before,
            "if run.segment != DEFAULT and run.segment not in self._held:",
            "if False:",
        ),
        segments("s9_entries_of_a_segment_that_is_gone_are_damage_and_no_end_of_the_log"),
    ),
    mutant(
        "a_moved_run_hides_behind_an_earlier_one",
        30,
        "decision 0019",
        (Retiring._leave, "if before == DEFAULT:", "if True:"),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "a_refused_step_of_moving_counts_as_done",
        30,
        "safety S12",
        (Retiring.step, "if not step.operations:", "if True:"),
        segments("every_history_reads_as_it_was_written"),
        segments("a_run_is_moved_in_steps_each_of_which_may_be_refused"),
    ),
    mutant(
        "a_refused_batch_is_placed_anew",
        30,
        "safety S12",
        (RocksStore.write, "if self._stalled is None:", "if True:"),
        segments("every_history_reads_as_it_was_written"),
    ),
    mutant(
        "another_write_comes_before_one_that_was_refused",
        30,
        "safety S12",
        (RocksStore.upkeep, "if self._stalled is None:", "if True:"),
        segments("a_run_is_moved_in_steps_each_of_which_may_be_refused"),
    ),
    mutant(
        "the_journal_becomes_a_table_before_the_entries_do",
        30,
        "safety S7",
        (
            RocksEngine.close,
            "for family, _ in self._segments.values():",
            "for family in (self._db, *(each for each, _ in self._segments.values())):",
        ),
        segments("s7_closing_makes_tables_of_the_default_family_last"),
        also=(RocksEngine.close, "self._db.close()", "pass"),
    ),
    mutant(
        "what_is_dead_is_forgotten_by_a_restart",
        30,
        "decision 0019",
        (
            Segments._load,
            "held.size_bytes = max(held.size_bytes, self._engine.table_bytes(number))",
            "pass",
        ),
        segments("what_is_dead_is_known_after_a_restart"),
    ),
    mutant(
        "a_walk_goes_on_behind_the_end_of_a_run",
        30,
        "decision 0019",
        (Entries._scan_group, "min(end, run_end)", "end"),
        segments("every_history_reads_as_it_was_written"),
    ),
]
