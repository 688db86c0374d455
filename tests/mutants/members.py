"""Reads, members and bases, in the core: families 20 to 23."""

from __future__ import annotations

from rakit.raft import confchange, election, follower, leader, membership, raft, reads, replication
from rakit.raft.log import RaftLog
from rakit.raft.quorum import JointConfig
from rakit.raft.state import Raft
from rakit.raft.tracker import Membership, Progress, Tracker
from tests.mutants import mutant, named_in

known = named_in("raft/test_known_bugs.py")
paper = named_in("raft/test_paper.py")
leadership = named_in("raft/test_leadership.py")
bases = named_in("raft/test_snapshot.py")
changes = named_in("raft/test_confchange.py")
joint_phase = named_in("multiraft/driver/test_joint_phase.py")

MUTANTS = [
    mutant(
        "a_read_does_not_wait_for_the_first_commit",
        20,
        "etcd-io/etcd#7331",
        (reads._accept, "if raft.log.committed < raft.term_start:", "if False:"),
        known("bug_20_a_read_waits_for_the_first_commit_of_the_term"),
    ),
    mutant(
        "a_read_needs_no_round",
        20,
        "6.4",
        (reads._accept, "elif raft.tracker.is_sole_voter(raft.id):", "elif True:"),
        paper("6_4_a_read_waits_for_a_quorum_that_heard_the_leader_after_it"),
    ),
    mutant(
        "a_leader_that_steps_down_keeps_its_reads",
        20,
        "row 17",
        (Raft._give_up_leadership, "self.reads.abandon()", "[]"),
        known("bug_20_a_deposed_leader_answers_no_read"),
    ),
    mutant(
        "a_leader_changes_members_before_its_first_commit",
        21,
        "raft-dev, 2015",
        (
            leader.become_leader,
            "raft.pending_conf_index = raft.term_start",
            "raft.pending_conf_index = 0",
        ),
        known("bug_21_no_change_before_the_new_leader_has_applied_its_first_entry"),
    ),
    mutant(
        "a_change_does_not_wait_for_the_last_one",
        21,
        "redpanda-data/redpanda#17675",
        (membership._append, "raft.pending_conf_index = index", "pass"),
        known("bug_21_no_second_promotion_before_the_first_is_applied"),
        paper("6_one_change_at_a_time"),
    ),
    mutant(
        "a_learner_refuses_to_vote",
        21,
        "etcd-io/etcd#10998",
        (election.handle_request, "raft.is_member or", "raft.promotable or"),
        known("bug_21_a_learner_votes_when_it_is_asked"),
    ),
    mutant(
        "a_removed_replica_refuses_to_vote",
        21,
        "rule E7",
        (election.handle_request, "(raft.is_member or raft.removed)", "raft.is_member"),
        leadership("a_removed_replica_helps_those_who_have_not_learned_of_it"),
    ),
    mutant(
        "a_newcomer_votes",
        21,
        "rule E7, safety S2",
        (election.handle_request, "(raft.is_member or raft.removed)", "True"),
        bases("s2_it_does_not_vote_before_its_addition_is_applied"),
    ),
    mutant(
        "learners_are_missing_from_the_stored_configuration",
        21,
        "etcd-io/etcd#9087",
        (Membership.conf_state, "learners=self.learners", "learners=()"),
        known("bug_21_a_learner_starts_and_keeps_being_one_after_a_restart"),
    ),
    mutant(
        "learners_to_be_are_missing_from_the_stored_configuration",
        21,
        "etcd-io/etcd#9498",
        (Membership.conf_state, "learners_next=self.learners_next", "learners_next=()"),
        changes("every_configuration_survives_being_stored"),
        joint_phase(
            "a_demoted_voter_is_one_in_the_joint_phase_and_a_learner_after_it_over_crashes"
        ),
    ),
    mutant(
        "a_voter_stays_one_over_a_base_that_has_it_as_learner",
        21,
        "etcd-io/etcd#10864",
        (Raft.install_membership, "kept.is_learner = id_ in learners", "pass"),
        known("bug_21_a_voter_becomes_a_learner_by_a_base"),
    ),
    mutant(
        "a_replica_stands_while_a_base_is_pending",
        21,
        "etcd-io/etcd#12163",
        (Raft.promotable, "and self.log.unstable.snapshot is None", ""),
        known("bug_21_nobody_stands_while_a_base_is_pending"),
        bases("a_second_base_may_overtake_the_first_on_its_way_to_the_disk"),
    ),
    mutant(
        "what_is_not_joint_is_left",
        21,
        "cockroachdb/cockroach#137268",
        (confchange.leave_joint, "if not current.voters.is_joint:", "if False:"),
        known("bug_21_only_a_joint_configuration_can_be_left"),
    ),
    mutant(
        "a_replica_stands_with_an_unapplied_change",
        21,
        "rule M3",
        (election.campaign, "or _has_unapplied_change(raft)", ""),
        known("bug_21_a_committed_change_that_is_not_applied_forbids_to_stand"),
    ),
    mutant(
        "a_change_that_is_not_durable_is_not_seen",
        21,
        "rule M3",
        (
            RaftLog.holds_conf_change,
            "any(entry.type is EntryType.CONF_CHANGE for entry in waiting)",
            "False",
        ),
        known("bug_21_a_committed_change_that_is_not_applied_forbids_to_stand"),
    ),
    mutant(
        "a_change_counts_when_it_is_appended",
        21,
        "row 20",
        (
            membership._append,
            "return raft.term, index",
            "apply(raft, change); return raft.term, index",
        ),
        paper("6_a_change_takes_effect_when_it_is_applied"),
    ),
    mutant(
        "a_demoted_leader_leads_on",
        21,
        "rule M4",
        (membership._after_change, "if not raft.promotable and", "if not raft.is_member and"),
        leadership("a_leader_that_is_demoted_steps_down_when_it_applies_it"),
    ),
    mutant(
        "a_removed_leader_leads_on",
        21,
        "rule M4",
        (membership._after_change, "if not raft.promotable and", "if False and"),
        paper("6_a_removed_leader_steps_down_when_it_applies_its_removal"),
    ),
    mutant(
        "a_smaller_quorum_does_not_commit_what_waited",
        21,
        "rule M6",
        (membership._after_change, "maybe_commit(raft)", "pass"),
        leadership("a_smaller_quorum_commits_what_waited"),
    ),
    mutant(
        "a_smaller_quorum_does_not_answer_the_reads_that_waited",
        21,
        "rule M6",
        (membership._after_change, "reads.release_confirmed(raft)", "pass"),
        leadership("a_smaller_quorum_answers_reads_that_waited"),
    ),
    mutant(
        "a_target_that_votes_no_more_keeps_the_transfer_open",
        21,
        "row 19",
        (membership._after_change, "end_transfer(raft)", "pass"),
        leadership("removing_or_demoting_the_target_ends_the_transfer"),
    ),
    mutant(
        "members_change_while_leadership_is_handed_over",
        21,
        "rule K2",
        (membership.propose, "check_can_propose(raft)", "pass"),
        leadership("members_change_by_nobody_but_a_leader_that_is_to_stay"),
    ),
    mutant(
        "the_end_of_a_joint_phase_is_proposed_again_and_again",
        21,
        "rule M5",
        (
            membership.maybe_leave_joint,
            "or raft.log.applied < raft.pending_conf_index",
            "",
        ),
        leadership("the_end_of_a_joint_phase_is_proposed_once"),
    ),
    mutant(
        "a_learner_that_is_behind_holds_up_every_change",
        21,
        "rule M7",
        (membership.propose, "id_ in follows.voters.incoming and", ""),
        leadership("a_learner_that_is_behind_holds_up_no_change_but_its_own"),
    ),
    mutant(
        "a_learner_that_does_not_know_of_its_addition_gets_a_vote",
        21,
        "rule M7",
        (membership.propose, "and not holds_changes(raft, id_)", "and False"),
        leadership("s2_a_learner_gets_no_vote_before_it_knows_that_it_belongs_to_the_group"),
    ),
    mutant(
        "a_new_leader_does_not_end_the_joint_phase",
        21,
        "rule M5",
        (raft.tick, "if raft.tracker.membership.auto_leave:", "if False:"),
        leadership("the_end_of_a_joint_phase_waits_for_a_transfer_and_then_comes"),
    ),
    mutant(
        "two_voters_change_without_a_joint_phase",
        21,
        "rule C1",
        (confchange.simple, "> 1:", "> 2:"),
        changes("two_voters_do_not_change_directly"),
    ),
    mutant(
        "a_demoted_voter_is_gone_after_the_joint_phase",
        21,
        "rule C2",
        (confchange.leave_joint, "draft.learners |= draft.learners_next", "pass"),
        changes("a_demoted_voter_learns_only_after_the_joint_phase"),
        joint_phase(
            "a_demoted_voter_is_one_in_the_joint_phase_and_a_learner_after_it_over_crashes"
        ),
    ),
    mutant(
        "a_demoted_voter_decides_no_more_in_the_joint_phase",
        21,
        "rule C2",
        (
            JointConfig.committed_index,
            "if self.outgoing:",
            "if False:",
        ),
        joint_phase("in_the_joint_phase_a_demoted_voter_still_decides_and_afterwards_it_does_not"),
    ),
    mutant(
        "members_come_in_the_order_of_a_set",
        21,
        "row 23",
        (
            Membership.ids,
            "tuple(sorted({*self.voters.incoming, *self.voters.outgoing, *self.learners}))",
            "tuple({*self.voters.incoming, *self.voters.outgoing, *self.learners})",
        ),
        named_in("raft/test_tracker.py")(
            "members_and_peers_come_in_order_whatever_order_they_are_kept_in"
        ),
    ),
    mutant(
        "peers_come_in_the_order_in_which_they_are_kept",
        21,
        "row 23",
        (Tracker.install, "for id_ in sorted(progress) if", "for id_ in progress if"),
        named_in("raft/test_tracker.py")(
            "members_and_peers_come_in_order_whatever_order_they_are_kept_in"
        ),
    ),
    mutant(
        "voters_come_in_the_order_of_a_set",
        21,
        "row 23",
        (
            JointConfig.ids,
            "tuple(sorted({*self.incoming, *self.outgoing}))",
            "tuple({*self.incoming, *self.outgoing})",
        ),
        named_in("raft/test_quorum.py")("ids_are_sorted_and_without_repeats"),
    ),
    mutant(
        "a_message_for_another_replica_is_taken",
        22,
        "cockroachdb/cockroach#21146",
        (raft._check, "message.to != raft.id or", ""),
        known("bug_22_messages_for_another_replica_or_from_oneself_are_refused"),
    ),
    mutant(
        "a_message_from_nobody_is_taken",
        22,
        "row 14",
        (raft._check, "or message.from_ < 1", ""),
        known("bug_22_messages_for_another_replica_or_from_oneself_are_refused"),
    ),
    mutant(
        "a_member_takes_a_base_that_does_not_know_it",
        22,
        "rule F5",
        (
            follower._restore,
            "if raft.is_member and raft.id not in base.conf_state:",
            "if False:",
        ),
        bases("s2_a_member_takes_no_base_that_does_not_know_it"),
    ),
    mutant(
        "the_base_of_another_leader_is_fetched",
        23,
        "rule F4",
        (
            follower.would_restore,
            "if message.term == raft.term and raft.lead not in {0, message.from_}:",
            "if False:",
        ),
        bases("a_base_of_somebody_else_in_the_term_of_a_leader_would_not_be_taken"),
    ),
    mutant(
        "a_base_at_the_end_of_the_log_does_not_end_the_waiting",
        23,
        "etcd-io/etcd#10308",
        (
            replication.handle_append_response,
            "if progress.match + 1 >= raft.log.first_index:",
            "if progress.match > progress.pending_snapshot:",
        ),
        known("bug_23_a_base_at_the_end_of_the_log_ends_the_probing"),
    ),
    mutant(
        "an_acknowledgement_below_the_base_does_not_end_the_waiting",
        23,
        "etcd-io/raft#110, rule T4",
        (
            replication.handle_append_response,
            "if progress.match + 1 >= raft.log.first_index:",
            "if progress.match >= progress.pending_snapshot:",
        ),
        bases("an_acknowledgement_below_the_base_ends_the_waiting"),
    ),
    mutant(
        "no_base_follows_where_the_entry_before_a_window_is_gone",
        23,
        "etcd-io/raft#31",
        (replication._send_append, "_send_snapshot(raft, id_, progress)", "pass"),
        known("bug_23_a_full_window_whose_entries_were_compacted_ends_in_a_base"),
    ),
    mutant(
        "no_base_follows_where_entries_are_gone",
        23,
        "section 7",
        (replication._read, "_send_snapshot(raft, id_, progress)", "pass"),
        bases("s1_a_base_is_followed_by_ordinary_appends"),
    ),
    mutant(
        "an_acknowledgement_frees_nothing_in_the_window",
        23,
        "row 8",
        (
            replication.handle_append_response,
            "progress.inflights.free_to(message.index)",
            "pass",
        ),
        named_in("raft/test_raw_node.py")("an_acknowledgement_makes_room_in_the_window"),
    ),
    mutant(
        "a_lost_base_is_waited_for_for_ever",
        23,
        "rule L4",
        (leader._end_period, "and not progress.base_is_fresh", "and False"),
        bases("a_lost_base_is_sent_again_without_a_report"),
    ),
    mutant(
        "a_base_is_sent_again_at_the_end_of_the_period",
        23,
        "rule L4",
        (Progress.become_snapshot, "self.base_is_fresh = True", "pass"),
        bases("a_base_has_a_whole_period_to_arrive"),
    ),
    mutant(
        "a_base_lies_below_what_is_committed",
        23,
        "rule F4",
        (follower._restore, "if base.index <= log.committed:", "if False:"),
        bases("an_old_base_changes_nothing"),
    ),
    mutant(
        "after_a_base_the_probe_begins_before_it",
        23,
        "etcd-io/etcd#10308",
        (Progress.become_probe, "max(self.match, snapshot) + 1", "self.match + 1"),
        named_in("raft/test_tracker.py")("after_a_base_the_probe_starts_behind_it"),
    ),
]
