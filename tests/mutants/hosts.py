"""The host of many groups: its disk, its checkpoints, its quiet groups."""

from __future__ import annotations

from rakit.multiraft import loading, quiesce, stepping
from rakit.multiraft.driver import Driver
from rakit.multiraft.floor import Floor
from rakit.multiraft.group import Group
from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.roster import Roster
from rakit.multiraft.store.rocks import RocksStore
from rakit.multiraft.stored_entries import decode_entry, encode_entry
from rakit.multiraft.succession import Succession
from rakit.multiraft.tail_cache import GroupTail, TailCache
from rakit.multiraft.waiters import Proposals
from rakit.raft import leader, raft, status
from rakit.raft.raw_node import RawNode
from tests.mutants import mutant, named_in

answers = named_in("multiraft/driver/test_answers.py")
capacity = named_in("multiraft/driver/test_capacity.py")
checkpoints = named_in("multiraft/driver/test_checkpoints.py")
joint_phase = named_in("multiraft/driver/test_joint_phase.py")
durability = named_in("multiraft/driver/test_durability.py")
cached = named_in("multiraft/driver/test_tail_cache.py")
raw_node = named_in("raft/test_raw_node.py")
log_storage = named_in("multiraft/driver/test_log_storage.py")
quarantine = named_in("multiraft/driver/test_quarantine.py")
quiet = named_in("multiraft/driver/test_quiesce.py")
core_quiet = named_in("raft/test_quiesce.py")

MUTANTS = [
    mutant(
        "a_voter_that_a_joint_phase_ends_never_stands",
        21,
        "the paper's section 6",
        (
            Succession._take_turn,
            "voters = () if group is None else electors(group.conf_state)",
            "voters = () if group is None else group.conf_state.voters",
        ),
        joint_phase("a_voter_that_the_joint_phase_ends_stands_where_only_it_can_win"),
    ),
    mutant(
        "a_replaced_tail_stays_on_the_disk",
        12,
        "row 5",
        (
            GroupLog.append,
            "batch.delete_range(",
            "(lambda *_: None)(",
        ),
        durability("a_replaced_tail_is_deleted_in_the_batch_that_replaces_it"),
    ),
    mutant(
        "the_tail_in_memory_is_not_truncated",
        12,
        "cockroachdb/cockroach#63473",
        (GroupTail.truncate, "del held[keep:]", "pass"),
        log_storage("the_log_equals_a_list"),
    ),
    mutant(
        "what_is_to_be_applied_is_dropped_from_memory_like_anything",
        12,
        "decision 0026",
        (TailCache._drop_oldest, "if index >= needed_from[tail]:", "if False:"),
        cached("the_cache_drops_first_what_its_group_needs_no_more"),
    ),
    mutant(
        "what_is_needed_takes_any_amount_of_memory",
        12,
        "contract 5",
        (TailCache._evict, " or self.size_bytes > self._needed_bytes_max", ""),
        cached("what_is_needed_may_take_more_but_not_any_amount"),
    ),
    mutant(
        "a_full_cache_asks_with_each_append_what_is_needed",
        12,
        "decision 0026",
        (TailCache._next_look, "self.size_bytes + self._bytes_max // 8", "self.size_bytes"),
        cached("a_full_cache_asks_seldom_and_few_what_they_need"),
    ),
    mutant(
        "what_a_log_has_lost_stands_before_what_others_need_no_more",
        12,
        "decision 0026",
        (TailCache._drop_oldest, "min(index, tail.last_index)", "index"),
        cached("what_a_log_has_let_go_of_keeps_nothing"),
    ),
    mutant(
        "so_many_small_appends_go_at_a_time",
        12,
        "contract 5",
        (
            TailCache._drop_oldest,
            "len(needed) <= kept_count_max:",
            "len(needed) + len(through) <= kept_count_max:",
        ),
        cached("small_appends_stay_within_the_bound_as_well"),
    ),
    mutant(
        "a_look_is_as_far_away_as_it_was_when_more_was_needed",
        12,
        "decision 0026",
        (TailCache.removed, "min(self._evicts_above, self._next_look())", "self._evicts_above"),
        cached("what_is_needed_no_more_makes_room"),
    ),
    mutant(
        "a_closed_log_is_held_by_who_spoke_for_it",
        12,
        "decision 0026",
        (GroupLog.close, "        self._tail.needed_from = nothing\n", ""),
        log_storage("a_closed_log_lets_go_of_who_spoke_for_it"),
    ),
    mutant(
        "a_member_that_is_down_keeps_entries_in_memory",
        12,
        "decision 0026",
        (RawNode.unsent_from, " if peer.recent_active", ""),
        raw_node("what_is_still_to_be_sent_is_told_by_the_leader"),
    ),
    mutant(
        "nobody_says_what_is_to_be_sent",
        12,
        "decision 0026",
        (Group._needed_from, "self.raw.unsent_from(first)", "1 << 64"),
        capacity("what_is_still_to_be_sent_stays_in_memory"),
    ),
    mutant(
        "terms_are_remembered_over_a_truncation",
        12,
        "cockroachdb/cockroach#63473",
        (GroupLog._truncate, "del self._terms[-1]", "break"),
        log_storage("the_log_equals_a_list"),
    ),
    mutant(
        "a_missing_entry_is_an_end",
        13,
        "databendlabs/openraft#1795",
        (GroupLog._durable_entries, "if lo < hi:", "if False:"),
        log_storage("a_read_never_ends_early_because_an_entry_is_missing"),
    ),
    mutant(
        "a_ready_completes_before_its_sync",
        14,
        "tikv/tikv#994",
        (stepping._take_off, "if flight.must_sync or group.flights:", "if group.flights:"),
        durability("a_follower_acknowledges_nothing_before_its_sync"),
    ),
    mutant(
        "a_sync_completes_what_was_written_after_it",
        14,
        "safety S18",
        (
            stepping.land,
            "flights[0].number <= synced_number",
            "flights[0].number <= synced_number + 1",
        ),
        durability("s18_a_sync_completes_what_was_written_before_it_and_nothing_else"),
    ),
    mutant(
        "a_log_that_ends_before_its_commit_index_is_opened",
        14,
        "etcd-io/etcd#20269",
        (loading._load_log, "if state.commit > last:", "if False:"),
        quarantine("s5_s9_s10_a_damaged_replica_takes_no_part"),
    ),
    mutant(
        "a_part_of_a_large_write_has_the_whole_commit_index",
        14,
        "ours",
        (
            stepping._write_remainder,
            "min(state.commit, chunk[-1].index)",
            "state.commit",
        ),
        capacity("a_crash_within_a_ready_that_took_several_batches_leaves_a_legal_log"),
    ),
    mutant(
        "a_checkpoint_that_is_not_durable_is_cut_at",
        15,
        "safety S1",
        (
            stepping._trim,
            "min(group.machine.trim_index(), group.durable_checkpoint)",
            "group.machine.trim_index()",
        ),
        checkpoints("s1_the_log_is_not_trimmed_to_a_checkpoint_that_is_not_durable"),
    ),
    mutant(
        "a_proposal_that_was_replaced_counts_as_applied",
        8,
        "row 22",
        (
            Proposals.applied,
            "lost = (term, index) != (entry.term, entry.index)",
            "lost = index != entry.index",
        ),
        answers("a_replaced_proposal_is_not_taken_for_what_took_its_place"),
    ),
    mutant(
        "a_message_for_a_dead_replica_is_taken",
        22,
        "rabbitmq/ra#528",
        (Driver.receive, "or envelope.to_replica != group.meta.replica_id", ""),
        answers("messages_for_another_replica_are_dropped"),
    ),
    mutant(
        "a_dead_replica_is_made_again",
        22,
        "etcd, doc.go",
        (Roster._make_way, "if replica <= dead:", "if False:"),
        checkpoints("a_removed_replica_leaves_nothing_but_its_tombstone"),
    ),
    mutant(
        "a_flipped_bit_of_an_entry_is_not_noticed",
        24,
        "nats-io/nats-server#7549",
        (
            decode_entry,
            "if entry_crc32c(group_id, index, term, kind, data) != checksum:",
            "if False:",
        ),
        log_storage("damage_to_any_part_of_an_entry_is_noticed_whatever_its_size"),
    ),
    mutant(
        "an_entry_is_stored_behind_the_head_of_another",
        24,
        "safety P9",
        (encode_entry, " and value[:ENTRY_HEAD_BYTES] == head", ""),
        log_storage("a_view_of_something_else_is_not_taken_for_the_stored_value"),
    ),
    mutant(
        "a_damaged_replica_is_made_anew_under_its_id",
        24,
        "safety S10",
        (Roster._make_way, "if not 0 < shut_out.replica_id < replica:", "if False:"),
        quarantine("s10_a_replica_without_a_birth_record_gives_way_to_one_with_a_higher_id"),
    ),
    mutant(
        "a_sync_that_failed_is_tried_again",
        26,
        "ATC 2020",
        (RocksStore._refuse_if_failed, "if self._failed is not None:", "if False:"),
        named_in("multiraft/store/test_rocks.py")("s12_any_other_error_poisons_the_store"),
    ),
    # Quiet groups: whatever the leader must have waited for, and whoever must not follow.
    mutant(
        "a_leader_rests_with_an_entry_that_is_not_committed",
        27,
        "rule Q1",
        (status._not_idle, "elif log.committed != last:", "elif False:"),
        core_quiet("s15_whatever_is_under_way_keeps_the_group_awake"),
    ),
    mutant(
        "a_leader_that_wakes_is_deposed_by_its_own_silence",
        27,
        "safety S15",
        (leader.tick_quiesced, "raft.election_elapsed = 0", "pass"),
        core_quiet("a_leader_that_wakes_sends_a_heartbeat_first_and_is_not_deposed_by_the_silence"),
    ),
    mutant(
        "a_leader_that_wakes_sends_no_heartbeat_at_once",
        27,
        "safety S15",
        (leader.tick_quiesced, "raft.heartbeat_elapsed = raft.config.heartbeat_tick", "pass"),
        core_quiet("a_leader_that_wakes_sends_a_heartbeat_first_and_is_not_deposed_by_the_silence"),
    ),
    mutant(
        "a_follower_that_wakes_campaigns_at_once",
        27,
        "safety S15",
        (
            raft.tick_quiesced,
            "elif 2 * raft.election_elapsed < raft.config.election_tick:",
            "else:",
        ),
        core_quiet("a_follower_that_wakes_has_time_to_hear_its_leader"),
    ),
    mutant(
        "the_clock_of_a_quiet_follower_stands_still",
        27,
        "safety S15",
        (raft.tick_quiesced, "raft.election_elapsed += 1", "pass"),
        core_quiet("a_follower_that_wakes_has_time_to_hear_its_leader"),
    ),
    mutant(
        "a_leader_rests_with_a_transfer_under_way",
        27,
        "rule Q1",
        (status._not_idle, "elif raft.lead_transferee:", "elif False:"),
        core_quiet("s15_whatever_is_under_way_keeps_the_group_awake"),
    ),
    mutant(
        "a_leader_rests_with_reads_that_wait",
        27,
        "rule Q1",
        (status._not_idle, "elif len(raft.reads):", "elif False:"),
        core_quiet("s15_whatever_is_under_way_keeps_the_group_awake"),
    ),
    mutant(
        "a_leader_rests_in_a_joint_configuration",
        27,
        "rule Q1",
        (status._not_idle, "elif not membership.is_settled(raft):", "elif False:"),
        core_quiet("s15_a_joint_configuration_keeps_it_awake"),
    ),
    mutant(
        "a_leader_rests_though_a_living_member_lags",
        27,
        "rule Q1",
        (
            quiesce.rest_mark,
            "if any(replica not in dead for replica in status.lagging):",
            "if False:",
        ),
        quiet("a_leader_does_not_rest_while_a_living_member_lags"),
    ),
    mutant(
        "a_leader_rests_without_a_living_quorum",
        27,
        "rule Q1",
        (quiesce.rest_mark, "if not has_living_quorum(group, is_up):", "if False:"),
        quiet("a_leader_does_not_rest_where_it_takes_a_majority_for_dead"),
    ),
    mutant(
        "the_metadata_group_rests",
        27,
        "rule Q5",
        (quiesce.rest_mark, "group.meta.kind is GroupKind.METADATA or", ""),
        quiet("the_metadata_group_never_goes_quiet"),
    ),
    mutant(
        "a_follower_rests_on_an_old_mark",
        27,
        "cockroachdb/cockroach#26911, rule Q2",
        (
            quiesce.may_rest,
            "status.last_index == status.commit == status.applied == mark.commit",
            "status.last_index == status.commit == status.applied",
        ),
        quiet("a_follower_does_not_rest_on_an_old_mark"),
    ),
    mutant(
        "a_follower_rests_on_the_mark_of_another_term",
        27,
        "rule Q2",
        (
            quiesce.may_rest,
            "status.term == mark.term == message.term",
            "mark.term == message.term",
        ),
        quiet("a_follower_rests_on_the_mark_of_its_own_term_and_leader_only"),
    ),
    mutant(
        "a_follower_rests_on_the_word_of_somebody_else",
        27,
        "rule Q2",
        (quiesce.may_rest, "and status.lead == message.from_", ""),
        quiet("a_follower_rests_on_the_mark_of_its_own_term_and_leader_only"),
    ),
    mutant(
        "a_follower_rests_though_a_dead_member_lives",
        27,
        "rule Q3",
        (
            quiesce.may_rest,
            "and not any(is_up(node_of(replica)) for replica in mark.dead_replicas)",
            "",
        ),
        quiet("a_follower_that_takes_a_dead_member_for_alive_keeps_the_leader_awake"),
    ),
    mutant(
        "a_follower_rests_on_the_word_of_who_it_takes_for_dead",
        27,
        "tikv/tikv#16429, rule Q3",
        (quiesce.may_rest, "and is_up(node_of(message.from_))", ""),
        quiet("s15_who_holds_the_leader_for_dead_does_not_rest_on_its_word"),
    ),
    mutant(
        "a_replica_in_doubt_rests",
        27,
        "safety S8",
        (quiesce.may_rest, "and not status.doubtful", ""),
        quiet("s8_a_replica_in_doubt_does_not_rest"),
    ),
    mutant(
        "a_member_that_does_not_rest_wakes_nobody",
        27,
        "rule Q3",
        (quiesce.disturbs, "and not message.context", ""),
        quiet("a_quiet_leader_wakes_for_everything_but_late_answers_to_its_heartbeats"),
    ),
    mutant(
        "a_dead_member_that_returns_wakes_nobody",
        27,
        "rule Q3",
        (quiesce.disturbs, "and message.from_ not in group.dead_at_rest", ""),
        quiet("a_quiet_leader_wakes_for_everything_but_late_answers_to_its_heartbeats"),
    ),
    mutant(
        "an_answer_of_a_newer_term_wakes_nobody",
        27,
        "safety S15",
        (quiesce.disturbs, "and message.term == group.term", ""),
        quiet("a_quiet_leader_wakes_for_everything_but_late_answers_to_its_heartbeats"),
    ),
    mutant(
        "nobody_looks_for_a_leader_whose_node_is_down",
        27,
        "tikv/tikv#16429",
        (Succession.node_down, "elif group.raw.lead == replica or not (", "elif not ("),
        quiet("s15_s16_the_loss_of_the_leaders_node_wakes_and_elects"),
    ),
    mutant(
        "a_quiet_leader_that_loses_its_quorum_rests_on",
        27,
        "tikv/tikv#16429",
        (
            Succession.node_down,
            "if group.quiet and quiesce.has_living_quorum(group, self.is_up):",
            "if group.quiet:",
        ),
        quiet("without_a_living_majority_nothing_goes_quiet"),
    ),
    mutant(
        "a_dead_follower_wakes_its_group",
        27,
        "rule Q4",
        (
            Succession.node_down,
            "if group.quiet and quiesce.has_living_quorum(group, self.is_up):",
            "if False:",
        ),
        quiet("s15_one_dead_node_keeps_no_group_awake"),
    ),
    mutant(
        "a_node_that_returns_is_not_asked_where_it_is",
        27,
        "safety S15",
        (Succession._visit, "group.raw.report_reachable(replica)", "pass"),
        quiet("s15_a_node_that_returns_is_asked_at_once_where_it_is"),
    ),
    mutant(
        "a_proposal_does_not_wake_a_quiet_group",
        27,
        "safety S15",
        (Floor.stir, "self.wake(group)", "pass"),
        quiet("a_proposal_wakes_a_quiet_group_though_it_is_lost_on_the_way"),
    ),
    mutant(
        "the_end_of_a_leader_wakes_nobody",
        27,
        "safety S15",
        (Driver.leader_ended, "self._floor.stir(group)", "pass"),
        quiet("s15_a_quiet_group_whose_farewell_was_lost_is_woken_by_the_announcement"),
    ),
]
