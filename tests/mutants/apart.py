"""Large values in files of their own: where they lie, when they count, what is cut off."""

from __future__ import annotations

from rakit.multiraft import pages, stored_entries
from rakit.multiraft.store import ahead, journal, mending, opening, tail, witness
from rakit.multiraft.store.ahead import Ahead
from rakit.multiraft.store.apart import Value, Values
from rakit.multiraft.store.engine import RocksEngine
from rakit.multiraft.store.rocks import RocksStore
from tests.mutants import mutant, named_in

apart = named_in("multiraft/store/test_apart.py")
mended = named_in("multiraft/store/test_mending.py")
paged = named_in("multiraft/test_pages.py")
log_storage = named_in("multiraft/driver/test_log_storage.py")

MUTANTS = [
    mutant(
        "the_log_speaks_of_a_value_before_it_is_written",
        32,
        "decision 0023",
        (Ahead.sync, "        self._values.write(values)\n", ""),
        apart("values_are_durable_before_the_log_speaks_of_them"),
        also=(
            Ahead.sync,
            "        self._values.written(values)",
            "        self._values.write(values)\n        self._values.written(values)",
        ),
    ),
    mutant(
        "values_are_written_and_not_synced",
        32,
        "decision 0023",
        (Values.__init__, "os.O_DSYNC if fsync else 0", "0"),
        apart("values_are_durable_before_the_log_speaks_of_them"),
    ),
    mutant(
        "values_go_through_the_systems_cache",
        32,
        "decision 0023",
        (Values.__init__, "os.O_DIRECT if direct_io else 0", "0"),
        apart("it_passes_the_systems_cache_where_the_file_system_can"),
    ),
    mutant(
        "memory_is_lent_again_while_somebody_looks_at_it",
        32,
        "safety P9",
        (
            pages.lend,
            "    return view[",
            "    _kept.append(_Back(memory, lambda: None))\n    return view[",
        ),
        paged("memory_is_nobody_elses_while_anybody_looks_at_a_part_of_it"),
    ),
    mutant(
        "memory_is_looked_at_and_then_taken",
        32,
        "safety P9",
        (pages._fitting, "each = _kept.pop()", "each = _kept[-1]"),
        paged("threads_never_share_memory"),
        also=(
            pages._fitting,
            "            found = each.memory\n",
            "            found = each.memory\n            each in _kept and _kept.remove(each)\n",
        ),
    ),
    mutant(
        "garbage_that_is_saved_has_lost_its_memory",
        32,
        "safety P9",
        (pages._fitting, "if each.lent() is not None:", "if False:"),
        paged("garbage_that_is_saved_keeps_its_memory"),
    ),
    mutant(
        "what_lay_in_memory_before_is_written_with_a_value",
        32,
        "decision 0024",
        (pages.lend, "    view[end : _end(end)] = bytes(_end(end) - end)\n", ""),
        paged("a_value_is_whole_pages_with_zeros_behind_it"),
    ),
    mutant(
        "memory_that_is_back_is_kept_without_a_limit",
        32,
        "contract 5",
        (pages._back, "    _trim(KEPT_BYTES_MAX - len(back.memory))\n", ""),
        paged("no_more_is_kept_than_its_limit_and_the_oldest_goes_first"),
    ),
    mutant(
        "memory_that_comes_back_meanwhile_is_kept_beyond_the_limit",
        32,
        "contract 5",
        (pages._fitting, "        _trim(KEPT_BYTES_MAX)", "        pass"),
        paged("no_more_is_kept_also_if_much_comes_back_while_memory_is_looked_for"),
    ),
    mutant(
        "a_small_value_lies_in_memory_of_a_large_one",
        32,
        "contract 5",
        (pages._fitting, " <= most_bytes", ""),
        paged("what_is_back_is_used_again_by_what_needs_most_of_it"),
    ),
    mutant(
        "a_message_gets_memory_like_a_value",
        32,
        "decision 0024",
        (pages.lend, "size_bytes if briefly else size_bytes // 4", "size_bytes // 4"),
        paged("what_is_needed_briefly_may_have_twice_as_much"),
    ),
    mutant(
        "memory_that_does_not_fit_is_the_next_to_go",
        32,
        "contract 5",
        (pages._fitting, "_kept.extend(reversed(passed))", "_kept.extendleft(passed)"),
        paged("what_does_not_fit_stays_where_it_was"),
    ),
    mutant(
        "a_part_of_a_value_passes_for_all_of_its_memory",
        32,
        "decision 0024",
        (pages.pages_of, " or lent.size_bytes != len(value)", ""),
        paged("a_part_of_a_value_is_no_whole_pages_but_knows_them"),
    ),
    mutant(
        "a_value_that_lies_in_pages_is_copied",
        32,
        "decision 0024",
        (Values._put, "pages.pages_of(value.data)", "None"),
        apart("what_lies_in_pages_is_written_from_there"),
    ),
    mutant(
        "what_arrives_in_pages_is_not_checked",
        32,
        "safety P9",
        (
            stored_entries.arrived_entry,
            "taken = entry_crc32c(group_id, index, term, kind, data)",
            "taken = checksum",
        ),
        log_storage("what_is_proposed_in_pieces_is_what_is_sent_stored_and_read"),
    ),
    mutant(
        "values_do_not_count_as_waiting",
        32,
        "safety S12",
        (Ahead.encode, "size + sum(len(value.data) for value in values)", "size"),
        apart("s12_what_waits_for_the_disk_counts_values"),
    ),
    mutant(
        "a_value_lies_behind_the_one_before_and_not_at_a_block",
        32,
        "decision 0023",
        (Value.end.fget, " + -len(self.data) % PAGE_BYTES", ""),  # type: ignore[attr-defined]
        apart("it_is_read_before_it_is_written_and_after"),
    ),
    mutant(
        "a_write_that_stalls_has_taken_its_place",
        32,
        "safety S12",
        (
            Values.divide,
            "        return (divided",
            "        self.append(values)\n        return (divided",
        ),
        apart("s12_a_write_that_stalls_is_made_again_in_the_same_place"),
    ),
    mutant(
        "what_waits_is_looked_for_on_the_disk",
        32,
        "decision 0023",
        (Values.read, "if waiting is not None:", "if False:"),
        apart("it_is_read_before_it_is_written_and_after"),
    ),
    mutant(
        "a_part_of_a_value_passes_for_it",
        32,
        "safety S9",
        (Values.read, "while len(data) < found.length:", "while False:"),
        apart("s9_a_value_that_is_gone_costs_its_group_alone"),
    ),
    mutant(
        "files_of_a_segment_that_goes_stay_open",
        32,
        "decision 0023",
        (Values.drop, "if (descriptor := self._open.pop(file, -1)) >= 0:", "if False:"),
        apart("files_go_with_their_segment"),
    ),
    mutant(
        "a_file_of_a_write_that_never_was_stays",
        32,
        "decision 0023",
        (Values.prepare, "if segment not in segments or file > last:", "if False:"),
        apart("opening_lets_go_of_files_that_belong_to_nothing"),
    ),
    mutant(
        "values_of_a_life_without_fsync_are_believed",
        32,
        "decision 0023",
        (opening._reopen, "            engine.sync_values()", "            pass"),
        apart("without_fsync_values_are_durable_when_that_is_asked_for"),
    ),
    mutant(
        "what_is_asked_to_be_durable_is_the_log_alone",
        32,
        "decision 0023",
        (Ahead._sync_all, "        self._values.sync()\n", ""),
        apart("without_fsync_values_are_durable_when_that_is_asked_for"),
    ),
    mutant(
        "the_name_of_a_new_file_is_not_durable",
        32,
        "decision 0023",
        (Values._begin, "if self._fsync:", "if False:"),
        apart("a_files_name_is_durable_before_anything_in_it_counts"),
    ),
    mutant(
        "the_name_of_the_directory_is_not_durable",
        32,
        "decision 0023",
        (Values.prepare, "            sync_directory(self._database)\n", ""),
        apart("a_files_name_is_durable_before_anything_in_it_counts"),
    ),
    mutant(
        "a_file_that_goes_is_still_written_to",
        32,
        "decision 0023",
        (Values.drop, "if self._written[0] == segment:", "if False:"),
        apart("a_place_behind_the_end_of_a_file_holds_nothing"),
    ),
    mutant(
        "values_of_what_was_cut_off_go_with_it",
        32,
        "safety S8",
        (tail.keep_values, "if number > last:", "if False:"),
        apart("s8_values_of_writes_that_were_cut_off_are_kept"),
    ),
    mutant(
        "the_place_in_the_log_of_the_version_before_is_forgotten",
        32,
        "safety S7",
        (witness._decode, "if is_rocksdb_s else", "if True else"),
        apart("a_store_of_the_version_before_is_opened_and_closed_to_it"),
    ),
    mutant(
        "nobody_looks_for_values_that_never_were_durable",
        32,
        "safety S13",
        (opening._reopen, "if found > log_end else []", "if False else []"),
        mended("s13_a_log_ends_before_the_first_value_that_never_was_durable"),
    ),
    mutant(
        "the_journal_does_not_say_which_values_lie_apart",
        32,
        "safety S13",
        (RocksStore._apart, "len(value) >= least", "False"),
        apart("s13_the_journal_says_which_entries_lie_apart"),
    ),
    mutant(
        "the_journal_lets_go_of_what_tables_alone_have",
        32,
        "safety S13",
        (RocksStore.write, "min(self._covered, self._synced)", "self._covered"),
        apart("s13_the_journal_keeps_what_is_not_synced"),
    ),
    mutant(
        "the_end_behind_the_first_missing_value_stays",
        32,
        "safety S13",
        (mending.operations, "if index < first and", "if"),
        mended("s13_a_log_ends_before_the_first_value_that_never_was_durable"),
    ),
    mutant(
        "what_is_cut_off_stays_committed",
        32,
        "safety S13",
        (mending.operations, "        cut += _commit_back(engine, group_id, first - 1)\n", ""),
        mended("s13_a_log_ends_before_the_first_value_that_never_was_durable"),
    ),
    mutant(
        "a_commit_index_goes_forward_to_the_cut",
        32,
        "safety S13",
        (mending._commit_back, "if stored.state.commit <= last:", "if False:"),
        mended("s13_a_log_ends_before_the_first_value_that_never_was_durable"),
    ),
    mutant(
        "durable_entries_are_cut_off_when_their_value_is_gone",
        32,
        "safety S9",
        (journal.places_behind, "journal_row(number + 1)", "journal_row(0)"),
        mended("s9_a_durable_value_that_is_gone_is_damage"),
        also=(mending._is_missing, "found.number <= log_end", "False"),
    ),
    mutant(
        "the_newest_durable_write_is_cut_off_when_its_value_is_gone",
        32,
        "safety S9",
        (journal.places_behind, "journal_row(number + 1)", "journal_row(number)"),
        mended("s9_the_newest_durable_write_is_durable"),
        also=(mending._is_missing, "found.number <= log_end", "found.number < log_end"),
    ),
    mutant(
        "an_empty_file_hides_the_end_of_the_log",
        32,
        "safety S9",
        (ahead.newest, "if walk.last is not None:", "if True:"),
        mended("an_empty_newest_file_hides_no_end_of_the_log"),
        also=(ahead.newest, "return walk.last", "return walk.last or 0"),
    ),
    mutant(
        "a_value_that_cannot_be_read_stays_for_good",
        32,
        "safety S9",
        (
            mending._is_missing,
            "error)\n        return True",
            "error)\n        return not isinstance(error, EngineError)",
        ),
        mended("s9_a_value_that_cannot_be_read_costs_no_start_and_no_group"),
    ),
    mutant(
        "a_file_that_has_grown_passes_for_its_values",
        32,
        "safety S13",
        (mending._is_missing, "        decode_entry(group_id, index, value)\n", "        pass\n"),
        mended("what_a_file_holds_behind_the_log_counts_if_it_is_the_value"),
    ),
    mutant(
        "the_log_goes_before_the_cut_is_durable",
        32,
        "safety S12",
        (
            RocksEngine.begin_log,
            "ahead.end_at(self._path, self._covered)",
            "ahead.forget(self._path)",
        ),
        mended("s9_a_durable_value_that_is_gone_is_damage"),
    ),
    mutant(
        "the_log_goes_on_behind_a_torn_end",
        32,
        "safety S8",
        (ahead.end_at, "if walk.survey.flaw is Flaw.TORN:", "if False:"),
        mended("s8_a_torn_end_of_the_log_goes_before_the_next_file_begins"),
    ),
]
