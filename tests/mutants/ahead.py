"""The store's own write-ahead log: what counts as durable, what is replayed, what may go."""

from __future__ import annotations

from rakit.multiraft import keys
from rakit.multiraft.store import ahead, files, opening, wal
from rakit.multiraft.store.ahead import Ahead
from rakit.multiraft.store.engine import RocksEngine
from rakit.multiraft.store.journal import Journal
from rakit.multiraft.store.rocks import RocksStore
from tests.mutants import mutant, named_in

disks = named_in("multiraft/store/test_disks.py")
log = named_in("multiraft/store/test_ahead.py")
damage = named_in("multiraft/store/test_damage.py")
journal = named_in("multiraft/store/test_journal.py")
form = named_in("multiraft/store/test_wal.py")

MUTANTS = [
    mutant(
        "what_is_written_is_not_synced",
        31,
        "decision 0020",
        (Ahead._begin, "flags |= os.O_DSYNC if self._fsync else 0", "pass"),
        disks("a_power_cut_takes_nothing_from_a_log_that_was_synced"),
    ),
    mutant(
        "the_rest_of_a_write_that_the_disk_took_in_part_is_dropped",
        31,
        "decision 0020",
        (files.write_pieces, "while written < wanted:", "while False:"),
        log("a_disk_that_takes_a_part_is_given_the_rest"),
    ),
    mutant(
        "pieces_behind_the_first_thousand_are_forgotten",
        31,
        "decision 0020",
        (
            files.write_pieces,
            "range(0, len(pieces), _PIECES_MAX)",
            "range(0, min(1, len(pieces)), _PIECES_MAX)",
        ),
        log("a_write_of_very_many_pieces_is_one_write"),
    ),
    mutant(
        "a_file_goes_with_a_write_that_no_table_has",
        31,
        "safety S6",
        (Ahead.release, "last <= covered for", "last <= covered + 1 for"),
        log("s6_files_go_oldest_first_when_tables_have_all_of_their_writes"),
    ),
    mutant(
        "a_file_with_a_write_that_no_table_has_is_not_replayed",
        31,
        "safety S6",
        (ahead.replay, "if after <= covered + 1", "if after <= covered + 2"),
        log("what_was_synced_is_replayed_behind_what_tables_have"),
    ),
    mutant(
        "what_tables_have_is_replayed_over_what_is_newer",
        31,
        "safety S6",
        (ahead.replay, "wal.Walk(path, covered=covered)", "wal.Walk(path)"),
        log("what_was_synced_is_replayed_behind_what_tables_have"),
    ),
    mutant(
        "a_hole_between_two_files_goes_unseen",
        31,
        "safety S7",
        (ahead.replay, "if frame.previous != reached.number:", "if False:"),
        log("s7_a_file_that_is_gone_is_a_hole_unless_tables_have_it"),
    ),
    mutant(
        "an_older_file_may_be_damaged",
        31,
        "safety S6",
        (ahead.replay, "if found.flaw is Flaw.DAMAGED or", "if False and"),
        damage("s7_a_refusal_says_what_of_the_log_is_gone"),
    ),
    mutant(
        "a_wrong_length_passes_for_a_tear",
        31,
        "safety S8",
        (wal.Walk._next, "if stored != crc32c(fields):", "if False:"),
        form("a_flipped_bit_anywhere_is_found_where_it_is"),
    ),
    mutant(
        "a_wrong_byte_is_replayed",
        31,
        "safety S8",
        (wal.Walk.__iter__, "if not is_covered and crc32c(payload) != crc:", "if False:"),
        form("a_flipped_bit_anywhere_is_found_where_it_is"),
    ),
    mutant(
        "an_older_write_passes_for_a_newer",
        31,
        "safety S8",
        (wal.Walk._next, "if not follows:", "if False:"),
        form("a_write_of_another_place_is_damage"),
    ),
    mutant(
        "the_log_goes_before_tables_have_what_was_replayed",
        31,
        "safety S6",
        (RocksEngine.replay_log, "if end is None:", "if True:"),
        log("s6_what_was_replayed_is_in_tables_when_its_log_is_gone"),
    ),
    mutant(
        "the_log_goes_before_tables_have_all_of_what_was_replayed",
        31,
        "safety S6",
        (RocksEngine._flush, "self._db.flush()", "pass"),
        log("s6_what_was_replayed_is_in_tables_when_its_log_is_gone"),
    ),
    mutant(
        "the_journal_is_in_tables_before_the_rest",
        31,
        "safety S7",
        (RocksEngine._flush, "self._segments[number][0].flush()", "self._db.flush()"),
        log("s7_the_default_family_becomes_tables_last"),
    ),
    mutant(
        "what_failed_is_brought_into_tables",
        31,
        "safety S12",
        (
            RocksStore.close,
            "if self._failed is None:",
            "if self._failed is None or self._engine.close():",
        ),
        log("s12_nothing_of_a_write_that_failed_is_in_tables_in_part"),
    ),
    mutant(
        "the_log_goes_on_behind_a_failure",
        31,
        "safety S12",
        (Ahead.sync, "if self._is_broken:", "if False:"),
        log("s12_nothing_is_written_behind_what_may_be_lacking"),
    ),
    mutant(
        "an_earlier_version_could_open_the_store",
        31,
        "safety S7",
        (opening._reopen, "SLOT_COUNT if witness_file.earlier_may_read else 1", "1"),
        log("a_store_of_an_earlier_version_that_was_killed_goes_on_and_doubts"),
    ),
    mutant(
        "what_is_being_written_counts_as_written",
        31,
        "safety S12",
        (
            Ahead.sync,
            "self._is_broken = True",
            "self._is_broken, self._synced_bytes = True, self._appended_bytes",
        ),
        log("s12_what_is_being_written_counts_as_waiting"),
    ),
    mutant(
        "a_sync_takes_all_that_waits",
        31,
        "safety S13",
        (Ahead._take, "if taken_bytes >= SYNC_BYTES_MAX:", "if False:"),
        log("what_a_sync_takes_at_a_time_is_bounded"),
    ),
    mutant(
        "a_hole_before_the_witness_is_cut_off",
        31,
        "safety S7",
        (opening._cut_for, "if reached.number < witness.current.number:", "if False:"),
        damage("s6_damage_to_an_older_wal_refuses"),
    ),
    mutant(
        "the_log_of_another_store_moves_the_witness",
        31,
        "safety S11",
        (opening._note_end, "_check_owner(engine, identity)", "pass"),
        damage("s11_another_stores_database_changes_nothing_of_this_one"),
    ),
    mutant(
        "the_end_of_a_range_passes_for_a_write",
        31,
        "decision 0020",
        (keys.is_journal_row, "len(key) == _JOURNAL_ROW_BYTES and", ""),
        journal("s6_the_end_of_a_range_is_not_taken_for_the_row_of_a_write"),
    ),
    mutant(
        "no_table_tells_any_more_what_it_has",
        31,
        "decision 0020",
        (Journal.written, "self.keep_from(covered)", "self.keep_from(covered + 1)"),
        journal("rows_go_once_tables_have_their_writes"),
    ),
    mutant(
        "nothing_bounds_what_waits_for_the_log",
        31,
        "safety S12",
        (RocksEngine.write, "if self._log.is_full:", "if False:"),
        log("s12_writes_stall_when_too_much_waits_for_the_disk"),
    ),
    mutant(
        "the_witness_speaks_of_what_is_not_synced",
        31,
        "safety S7",
        (
            RocksStore.position,
            "return self._position",
            "return replace(self._position, number=self._number)",
        ),
        log("s7_a_position_is_of_what_was_synced"),
    ),
    mutant(
        "what_an_earlier_version_left_in_its_log_is_believed",
        31,
        "safety S8",
        (opening._reopen, "if rocksdb_log_bytes(directory.database):", "if False:"),
        log("a_store_of_an_earlier_version_that_was_killed_goes_on_and_doubts"),
    ),
]
