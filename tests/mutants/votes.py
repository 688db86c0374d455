"""Terms, votes, and who leads: families 1 to 6 and 17 to 19."""

from __future__ import annotations

from rakit.raft import RawNode, election, follower, leader, quorum, raft
from rakit.raft.quorum import JointConfig
from rakit.raft.state import Raft
from rakit.raft.tracker import Tracker
from tests.mutants import mutant, named_in

known = named_in("raft/test_known_bugs.py")
paper = named_in("raft/test_paper.py")
leadership = named_in("raft/test_leadership.py")

MUTANTS = [
    mutant(
        "a_vote_is_cleared_when_its_term_begins_again",
        1,
        "etcd-io/etcd#2461",
        (Raft.reset, "if term > self.term:", "if term >= self.term:"),
        known("bug_01_a_vote_is_never_cleared_within_its_term"),
    ),
    mutant(
        "a_vote_is_given_to_whoever_asks",
        1,
        "rule E1",
        (election.handle_request, "(raft.vote == 0 and raft.lead == 0)", "True"),
        paper("5_2_one_vote_in_a_term_first_come_first_served"),
    ),
    mutant(
        "a_vote_is_given_in_the_term_of_a_leader",
        1,
        "rule E1",
        (election.handle_request, "(raft.vote == 0 and raft.lead == 0)", "raft.vote == 0"),
        leadership("who_follows_a_leader_gives_no_vote_in_its_term"),
    ),
    mutant(
        "a_changed_vote_asks_for_no_sync",
        2,
        "bakwc/PySyncObj#201",
        (RawNode._change_hard_state, "return votes_differ", "return False"),
        known("bug_03_a_vote_whose_write_fails_is_never_given"),
    ),
    mutant(
        "a_new_term_keeps_the_old_vote",
        3,
        "nats-io/nats-server#7956",
        (Raft.reset, "self.vote = 0", "pass"),
        known("bug_03_a_new_term_is_stored_without_the_old_vote"),
    ),
    mutant(
        "an_answer_waits_for_its_own_write_only",
        3,
        "nats-io/nats-server#8290, rule N4",
        (RawNode._take_off, "if self._syncs:", "if ready.must_sync:"),
        known("bug_03_a_vote_whose_write_fails_is_never_given"),
    ),
    mutant(
        "a_vote_of_an_earlier_term_counts",
        4,
        "nats-io/nats-server#5021",
        (
            raft.step,
            "if message.term < raft.term:",
            "if message.term < raft.term and kind is not MessageType.VOTE_RESP:",
        ),
        known("bug_04_an_old_vote_elects_nobody"),
    ),
    mutant(
        "a_candidate_that_asks_again_is_refused",
        4,
        "vesoft-inc/nebula#2419",
        (
            election.handle_request,
            "raft.vote == message.from_\n        or (raft.vote",
            "(raft.vote",
        ),
        known("bug_04_a_repeated_request_is_granted_again_with_the_requests_term"),
    ),
    mutant(
        "a_term_falls_with_an_old_append",
        4,
        "nats-io/nats-server#5671",
        (raft.step, "if message.term < raft.term:", "if False:"),
        known("bug_04_a_term_never_falls"),
        also=(raft.step, "if message.term > raft.term and", "if message.term != raft.term and"),
    ),
    mutant(
        "a_majority_of_the_union_elects",
        6,
        "microsoft/CCF#3837",
        (
            JointConfig.vote_result,
            "incoming = majority_vote(self.incoming, votes)",
            "return majority_vote(self.ids, votes)",
        ),
        known("bug_06_a_majority_of_the_union_elects_nobody"),
    ),
    mutant(
        "a_majority_of_the_union_commits",
        6,
        "rule Q1",
        (
            JointConfig.committed_index,
            "min(index, majority_index(self.outgoing, acked))",
            "majority_index(self.ids, acked)",
        ),
        paper("6_while_joint_both_majorities_decide_about_commits"),
    ),
    mutant(
        "the_quorum_check_asks_one_half",
        6,
        "rule Q1",
        (
            Tracker.quorum_recently_active,
            "self.voters.vote_result(heard)",
            "JointConfig(self.voters.incoming).vote_result(heard)",
        ),
        named_in("raft/test_tracker.py")("a_quorum_is_heard_in_both_halves"),
    ),
    mutant(
        "half_of_an_even_number_elects",
        10,
        "section 5.2",
        (quorum.majority_vote, "len(voters) // 2 + 1", "(len(voters) + 1) // 2"),
        named_in("raft/test_quorum.py")("half_of_an_even_number_is_no_majority"),
    ),
    mutant(
        "a_pre_candidate_holds_on_to_its_leader",
        17,
        "etcd-io/etcd#8334",
        (
            election._become_pre_candidate,
            "raft.reset(raft.term)",
            "lead = raft.lead; raft.reset(raft.term); raft.lead = lead",
        ),
        known("bug_17_pre_candidates_do_not_refuse_each_other_for_ever"),
    ),
    mutant(
        "a_lease_holds_without_a_leader",
        17,
        "etcd-io/etcd#9586",
        (election.in_lease, "and raft.lead != 0", ""),
        known("bug_17_pre_candidates_do_not_refuse_each_other_for_ever"),
    ),
    mutant(
        "a_pre_vote_of_an_old_term_is_not_answered",
        17,
        "etcd-io/etcd#8501",
        (raft._answer_old_term, "elif message.type in _VOTE_REQUESTS:", "elif False:"),
        known("bug_17_a_leader_of_an_old_term_learns_the_new_one"),
    ),
    mutant(
        "a_leader_of_an_old_term_is_not_answered",
        17,
        "section 5.1",
        (raft._answer_old_term, "if message.type in _LEADERS:", "if False:"),
        known("bug_17_a_leader_of_an_old_term_learns_the_new_one"),
    ),
    mutant(
        "a_refusal_carries_the_term_that_was_asked_for",
        17,
        "rule E4",
        (election.refuse, "raft.term,", "message.term,"),
        paper("9_6_a_refusal_carries_the_term_of_who_refuses"),
    ),
    mutant(
        "a_refused_pre_candidate_does_not_follow_the_newer_term",
        17,
        "section 5.1",
        (
            raft._follow_new_term,
            "if kind is MessageType.PRE_VOTE_RESP and not message.reject:",
            "if kind is MessageType.PRE_VOTE_RESP:",
        ),
        leadership("a_pre_candidate_that_is_refused_with_a_higher_term_follows_it"),
    ),
    mutant(
        "a_pre_vote_is_refused_by_who_has_voted",
        17,
        "rule E4",
        (election.handle_request, "or (pre_vote and message.term > raft.term)", ""),
        leadership("who_has_voted_in_its_term_grants_a_pre_vote_for_the_next"),
    ),
    mutant(
        "a_refused_pre_candidate_waits_on",
        17,
        "rule E4",
        (
            election.handle_response,
            "if pre_vote and not message.reject and message.term",
            "if pre_vote and message.term",
        ),
        leadership("a_majority_of_refusals_ends_a_pre_candidacy"),
    ),
    mutant(
        "a_pre_vote_is_given_for_a_term_with_a_vote",
        17,
        "rule E4",
        (election.handle_request, "message.term > raft.term", "message.term >= raft.term"),
        leadership("who_has_voted_grants_no_pre_vote_for_its_own_term"),
    ),
    mutant(
        "who_gives_its_vote_does_not_wait_for_the_candidate",
        17,
        "section 5.2",
        (election.handle_request, "raft.election_elapsed = 0", "pass"),
        leadership("who_gives_its_vote_waits_for_a_whole_timeout"),
    ),
    mutant(
        "there_is_a_lease_without_a_quorum_check",
        17,
        "rule E5",
        (election.in_lease, "raft.config.check_quorum\n        and", ""),
        leadership("without_a_quorum_check_there_is_no_lease"),
    ),
    mutant(
        "a_pre_vote_changes_the_term",
        17,
        "rule E4",
        (raft._follow_new_term, "if kind is MessageType.PRE_VOTE:", "if False:"),
        paper("9_6_a_pre_vote_changes_no_term_anywhere"),
    ),
    mutant(
        "a_transfer_waits_for_a_pre_vote",
        17,
        "3.10",
        (follower.handle_timeout_now, "pre_vote=False", "pre_vote=True"),
        leadership("a_transfer_skips_the_pre_vote_and_passes_the_lease"),
    ),
    mutant(
        "there_is_no_quorum_check",
        18,
        "the outage of 2020",
        (leader.tick, "raft.config.check_quorum and not heard", "False"),
        paper("6_2_a_leader_that_hears_no_quorum_steps_down"),
    ),
    mutant(
        "there_is_no_vote_lease",
        18,
        "rule E5",
        (election.in_lease, "raft.config.check_quorum", "False"),
        paper("4_2_3_who_hears_a_leader_does_not_vote"),
    ),
    mutant(
        "who_hears_a_leader_follows_a_higher_term",
        19,
        "hashicorp/raft#524",
        (
            raft._follow_new_term,
            "if kind in _VOTE_REQUESTS and not",
            "if kind is MessageType.PRE_VOTE and not",
        ),
        known("bug_19_a_removed_or_demoted_replica_with_a_high_term_disturbs_nobody"),
    ),
    mutant(
        "a_demoted_replica_stands",
        19,
        "rule E6",
        (Raft.promotable, "and not own.is_learner", ""),
        known("bug_21_a_voter_becomes_a_learner_by_a_base"),
        leadership("a_target_that_must_not_stand_stays_a_follower"),
    ),
    mutant(
        "a_word_of_a_transfer_is_no_excuse",
        19,
        "rule E5",
        (raft._follow_new_term, "not election.is_forced(message)", "True"),
        leadership("a_transfer_skips_the_pre_vote_and_passes_the_lease"),
    ),
]
