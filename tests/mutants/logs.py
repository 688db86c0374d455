"""What is durable, committed and applied, and the log: families 2 and 7 to 16."""

from __future__ import annotations

from rakit.raft import RawNode, follower, quorum, replication
from rakit.raft.log import RaftLog
from rakit.raft.log_unstable import Unstable
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress
from tests.mutants import mutant, named_in

known = named_in("raft/test_known_bugs.py")
paper = named_in("raft/test_paper.py")
logs = named_in("raft/test_log.py")
raw_node = named_in("raft/test_raw_node.py")
tracker = named_in("raft/test_tracker.py")

MUTANTS = [
    mutant(
        "a_vote_record_that_was_lost_is_no_matter",
        2,
        "safety S5",
        (RaftLog.__init__, "if last_term > hard_state.term:", "if False:"),
        logs("s5_a_log_newer_than_the_stored_term_means_that_the_vote_record_was_lost"),
    ),
    mutant(
        "entries_of_an_earlier_term_are_committed_by_counting",
        7,
        "logcabin/logcabin#44",
        (replication.maybe_commit, "or index < raft.term_start", ""),
        known("bug_07_entries_of_an_earlier_term_are_not_committed_by_counting"),
        also=(
            replication.maybe_commit,
            "assert log.term(index) == raft.term,",
            "assert True,",
        ),
    ),
    mutant(
        "a_follower_commits_up_to_its_own_end",
        8,
        "bakwc/PySyncObj#166",
        (RaftLog.maybe_append, "min(commit, covered)", "min(commit, self.last_index)"),
        known("bug_08_a_follower_commits_only_what_the_message_covers"),
    ),
    mutant(
        "a_commit_index_falls",
        8,
        "rabbitmq/ra#508",
        (RaftLog.commit_to, "if index <= self.committed:", "if index == self.committed:"),
        logs("a_commit_index_never_falls"),
    ),
    mutant(
        "an_acknowledgement_names_the_end_of_the_log",
        8,
        "microsoft/CCF#6001",
        (RaftLog.maybe_append, "return covered", "return self.last_index"),
        paper("5_5_a_delayed_append_cuts_nothing_off"),
    ),
    mutant(
        "a_late_completion_counts_in_a_newer_term",
        8,
        "rabbitmq/ra#516, rule N3",
        (RawNode.on_persisted, "and flight.term == r.term", ""),
        known("bug_12_a_completion_of_replaced_entries_counts_for_nothing"),
    ),
    mutant(
        "what_replaces_an_entry_in_flight_counts_as_handed_out",
        8,
        "rabbitmq/rabbitmq-server#16688",
        (Unstable.append, "self.next_entry = min(self.next_entry, first)", "pass"),
        logs("a_replaced_entry_is_handed_out_again"),
    ),
    mutant(
        "match_falls_with_a_late_acknowledgement",
        9,
        "bakwc/PySyncObj#167",
        (Progress.acknowledge, "if index <= self.match:", "if index == self.match:"),
        known("bug_09_match_never_falls_and_next_stays_above_it"),
    ),
    mutant(
        "next_stays_behind_match",
        9,
        "etcd-io/raft#149",
        (Progress.acknowledge, "self.next = index + 1", "pass"),
        tracker("match_never_falls_and_next_stays_above_it"),
    ),
    mutant(
        "a_probe_goes_below_match",
        9,
        "rule T1",
        (
            Progress.reject,
            "max(min(rejected, hint + 1), self.match + 1)",
            "min(rejected, hint + 1)",
        ),
        tracker("a_probe_never_goes_below_match"),
    ),
    mutant(
        "a_stale_refusal_is_taken_while_replicating",
        9,
        "microsoft/CCF#5991",
        (Progress.reject, "if rejected <= self.match:", "if rejected < 0:"),
        tracker("a_late_rejection_is_ignored_while_replicating"),
    ),
    mutant(
        "a_refusal_of_another_probe_is_taken",
        9,
        "rule T2",
        (Progress.reject, "self.next - 1 != rejected or", ""),
        tracker("a_rejection_of_another_probe_is_ignored"),
    ),
    mutant(
        "a_quorum_is_counted_in_the_order_of_the_voters",
        10,
        "databendlabs/openraft#1802",
        (
            quorum.majority_index,
            "sorted([acked(voter) for voter in voters])",
            "[acked(voter) for voter in voters]",
        ),
        known("bug_10_the_quorum_does_not_depend_on_the_order_of_answers"),
    ),
    mutant(
        "half_of_an_even_number_commits",
        10,
        "section 5.3",
        (quorum.majority_index, "(count - 1) // 2", "count // 2"),
        named_in("raft/test_quorum.py")("half_of_an_even_number_is_no_majority"),
    ),
    mutant(
        "an_acknowledgement_commits_nothing",
        10,
        "RaftOS commitment_not_advanced",
        (replication.handle_append_response, "maybe_commit(raft)", "pass"),
        paper("5_3_an_entry_is_committed_when_a_majority_holds_it"),
    ),
    mutant(
        "an_append_truncates_behind_the_entry_before_it",
        11,
        "databendlabs/openraft, commit 9540c904",
        (
            RaftLog._first_new,
            "for position, entry in enumerate(entries):",
            "for position, entry in [(0, entries[0])]:\n            return 0",
        ),
        known("bug_11_an_append_truncates_only_at_a_conflict"),
    ),
    mutant(
        "an_entry_that_is_there_is_never_replaced",
        11,
        "section 5.3",
        (RaftLog._first_new, "or not self.matches(entry.index, entry.term)", ""),
        paper("5_3_a_follower_replaces_only_from_the_first_conflict_on"),
    ),
    mutant(
        "the_entry_before_an_append_is_not_looked_at",
        11,
        "section 5.3",
        (RaftLog.maybe_append, "if not self.matches(prev_index, prev_term):", "if False:"),
        paper("5_3_an_append_needs_its_predecessor"),
    ),
    mutant(
        "a_committed_entry_is_replaced",
        11,
        "rule F1",
        (RaftLog.maybe_append, "if first <= self.committed:", "if False:"),
        known("an_append_over_a_committed_entry_stops_the_replica"),
    ),
    mutant(
        "a_term_is_remembered_over_a_truncation",
        12,
        "cockroachdb/cockroach#63473",
        (Unstable.append, "self.base_term = None", "pass"),
        known("bug_12_what_is_remembered_follows_a_truncation"),
    ),
    mutant(
        "a_completion_counts_by_its_index_alone",
        12,
        "etcd-io/raft#8, rule U1",
        (Unstable.stable_to, "if self.entries[position].term != term:", "if False:"),
        raw_node("s18_a_completion_counts_for_nothing_that_has_taken_the_place_of_what_it_wrote"),
        logs("nothing_is_called_durable_that_the_disk_does_not_hold"),
    ),
    mutant(
        "a_part_of_what_follows_a_base_is_not_written",
        12,
        "ours",
        (Unstable.restore, "self.next_entry = self.offset", "pass"),
        logs("what_follows_a_base_is_handed_out_with_it_wherever_the_log_ended_before"),
    ),
    mutant(
        "what_replaces_the_end_calls_the_rest_durable",
        12,
        "redpanda-data/redpanda#16501",
        (Unstable.append, "if position > 0:", "if False:"),
        logs("what_lies_before_a_replaced_end_is_not_durable_by_that"),
    ),
    mutant(
        "a_read_without_entries_is_an_end",
        13,
        "databendlabs/openraft#1795",
        (
            RaftLog.slice,
            'assert stored, "storage returned no entries"',
            "if not stored: return []",
        ),
        known("bug_13_a_read_that_ends_early_never_becomes_an_append"),
    ),
    mutant(
        "a_read_may_begin_elsewhere",
        13,
        "databendlabs/openraft#1795",
        (RaftLog.slice, "assert stored[0].index == low,", "assert True,"),
        logs("a_short_read_of_storage_is_a_bug_not_an_end"),
    ),
    mutant(
        "a_read_may_have_a_gap",
        13,
        "databendlabs/openraft#1795",
        (
            RaftLog.slice,
            "assert stored[-1].index == low + len(stored) - 1,",
            "assert True,",
        ),
        logs("a_short_read_of_storage_is_a_bug_not_an_end"),
    ),
    mutant(
        "completions_come_in_any_order",
        13,
        "databendlabs/openraft#1960 #1964, rule N1",
        (RawNode.on_persisted, "assert flight.number == number,", "assert True,"),
        known("bug_13_completions_come_in_order"),
    ),
    mutant(
        "an_acknowledgement_leaves_at_once",
        14,
        "tikv/tikv#994",
        (Raft.post_ack, "self.outbox_durable.append(message)", "self.outbox.append(message)"),
        known("bug_14_no_answer_leaves_before_the_disk"),
    ),
    mutant(
        "a_commit_index_beyond_the_log_is_cut_short",
        14,
        "etcd-io/etcd#10817",
        (
            RaftLog.commit_to,
            "if index > self.last_index:",
            "index = min(index, self.last_index)\n        if False:",
        ),
        known("bug_14_a_commit_beyond_a_wiped_log_stops_the_replica_and_not_the_node"),
    ),
    mutant(
        "a_start_does_not_look_for_what_was_committed",
        14,
        "etcd-io/etcd#13509",
        (RaftLog.__init__, "if hard_state.commit > last:", "if False:"),
        logs("a_commit_beyond_the_log_is_refused"),
    ),
    mutant(
        "a_heartbeat_tells_more_than_the_follower_holds",
        14,
        "rule L3",
        (replication.broadcast_heartbeat, "min(progress.match, commit)", "commit"),
        known("bug_16_a_heartbeat_makes_no_follower_look_reverted"),
    ),
    mutant(
        "a_leader_counts_what_it_has_not_synced",
        14,
        "rule L1",
        (
            replication.own_disk_advanced,
            "own.acknowledge(raft.log.durable_index)",
            "own.acknowledge(raft.log.last_index)",
        ),
        raw_node("s13_the_own_disk_counts_as_far_as_it_has_reported"),
    ),
    mutant(
        "an_append_from_before_the_commit_index_is_refused",
        16,
        "rule F3",
        (follower.handle_append, "if message.index < log.committed:", "if False:"),
        raw_node("an_append_from_before_the_commit_index_is_answered_with_it"),
    ),
    mutant(
        "a_page_skips_what_it_had_no_room_for",
        15,
        "cockroachdb/cockroach#28918",
        (
            RaftLog.hand_out_committed,
            "self.applying = entries[-1].index",
            "self.applying = high - 1",
        ),
        known("bug_15_a_restart_goes_on_right_after_what_was_applied"),
    ),
    mutant(
        "a_restart_begins_behind_what_was_committed",
        15,
        "row 11",
        (RaftLog.__init__, "self.applying = applied", "self.applying = hard_state.commit"),
        known("bug_15_a_restart_goes_on_right_after_what_was_applied"),
    ),
    mutant(
        "entries_are_applied_before_the_own_disk_has_them",
        15,
        "safety S13",
        (
            RaftLog.hand_out_committed,
            "min(self.committed, self.durable_index,",
            "min(self.committed,",
        ),
        logs("s13_only_durable_entries_are_handed_out"),
    ),
    mutant(
        "an_append_with_a_gap_is_taken",
        13,
        "databendlabs/openraft#1795",
        (follower.check_append, "entry.index != index or", ""),
        known("an_append_that_contradicts_itself_changes_nothing"),
    ),
]
