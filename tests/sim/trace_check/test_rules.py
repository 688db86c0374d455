"""Each rule can fail: for each a trace by hand, good up to its last event, which breaks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.sim.trace_check.group import GroupCheck
from tests.sim.trace_check.rules import BrokenRuleError, Rule
from tests.sim.trace_check.script import CANDIDATE, FOLLOWER, LEADER, NOBODY, Script

IN_DOUBT = {"prop": {"stamp": [2, True]}}
BROKEN: dict[Rule, Callable[[Script], None]] = {}


def breaks(rule: Rule) -> Callable[[Callable[[Script], None]], Callable[[Script], None]]:
    def enter(story: Callable[[Script], None]) -> Callable[[Script], None]:
        BROKEN[rule] = story
        return story

    return enter


@breaks(Rule.NOTHING_ELSE)
def a_log_that_grows_by_itself(script: Script) -> None:
    script.tell("1", "Ready", log=2)


@breaks(Rule.SENT)
def a_message_that_nobody_sent(script: Script) -> None:
    script.receive("MsgVote", "2", "1", at=2, index=1, logTerm=1)


@breaks(Rule.TERM)
def a_term_that_falls(script: Script) -> None:
    script.elected()
    script.tell("1", "BecomeFollower", term=1, vote="0", role=FOLLOWER)


@breaks(Rule.DURABLE)
def a_vote_that_a_crash_takes_back(script: Script) -> None:
    script.elected()
    script.start("2")


@breaks(Rule.BIRTH)
def a_replica_that_is_born_with_a_log(script: Script) -> None:
    script.start("4", base=[5, 1])


@breaks(Rule.CANDIDACY)
def a_candidate_that_skips_a_term(script: Script) -> None:
    script.tell("1", "BecomeCandidate", term=3, vote="1", role=CANDIDATE)


@breaks(Rule.ONE_VOTE)
def a_second_vote_in_one_term(script: Script) -> None:
    script.elected()
    script.stand("3", ask=("2",))
    script.receive("MsgVote", "2", "3", index=1, logTerm=1)
    script.send("MsgVoteResp", "2", "3", vote="3")


@breaks(Rule.UP_TO_DATE)
def a_vote_for_a_shorter_log(script: Script) -> None:
    script.elected()
    script.replicate("1", "2")
    script.tell("3", "BecomeFollower", term=2)
    script.stand("3", ask=("2",))
    script.receive("MsgVote", "2", "3", at=3, index=1, logTerm=1)
    script.tell("2", "BecomeFollower", term=3, vote="0")
    script.send("MsgVoteResp", "2", "3", vote="3")


@breaks(Rule.MAJORITY_OF_VOTES)
def a_leader_by_its_own_vote(script: Script) -> None:
    script.stand("1", ask=("2", "3"))
    script.tell("1", "BecomeLeader", role=LEADER)


def everybody_forgets_and_elects_3(script: Script, term: int) -> None:
    """1 and 2 come back in doubt, and 3 stands: with every vote even theirs count."""
    for node in ("1", "2"):
        script.start(node, stamp=[2, True])
    for step in range(2, term):
        script.tell("3", "BecomeFollower", term=step)
    script.stand("3", ask=("1", "2"))
    for node in ("1", "2"):
        script.vote(node, "3", **IN_DOUBT)
    script.tell("3", "BecomeLeader", role=LEADER)


@breaks(Rule.ELECTION_SAFETY)
def a_second_leader_by_the_votes_of_those_who_forgot(script: Script) -> None:
    script.elected()
    everybody_forgets_and_elects_3(script, 2)


@breaks(Rule.APPEND_ONLY)
def a_follower_that_makes_an_entry(script: Script) -> None:
    script.tell("2", "Replicate")


@breaks(Rule.OWN_LOG)
def a_leader_that_sends_what_it_has_not(script: Script) -> None:
    script.elected()
    script.send("MsgApp", "1", "2", index=1, logTerm=1, prop={"terms": [1]})


@breaks(Rule.LOG_OF_FOLLOWER)
def an_append_that_is_acknowledged_and_not_taken(script: Script) -> None:
    script.elected()
    fields: dict[str, Any] = {"index": 1, "logTerm": 1, "prop": {"terms": [2]}}
    script.send("MsgApp", "1", "2", **fields)
    script.receive("MsgApp", "2", "1", **fields)
    script.send("MsgAppResp", "2", "1", index=2)


@breaks(Rule.COVERED)
def an_acknowledgement_of_more_than_was_sent(script: Script) -> None:
    script.elected()
    fields: dict[str, Any] = {"index": 1, "logTerm": 1, "prop": {"terms": [2]}}
    script.send("MsgApp", "1", "2", **fields)
    script.receive("MsgApp", "2", "1", **fields)
    script.send("MsgAppResp", "2", "1", index=3, log=2)


@breaks(Rule.LOG_MATCHING)
def an_entry_that_nobody_made(script: Script) -> None:
    script.start("2", terms=(1,))


@breaks(Rule.MAJORITY_OF_LOGS)
def a_commit_without_a_majority(script: Script) -> None:
    script.elected()
    script.own_disk("1")
    script.tell("1", "Commit", commit=2)


@breaks(Rule.OWN_TERM)
def an_entry_of_an_earlier_term_that_is_counted(script: Script) -> None:
    script.elected()
    script.replicate("1", "2")
    script.tell("1", "BecomeFollower", role=FOLLOWER)
    script.stand("1", ask=("2", "3"))
    script.vote("2", "1")
    script.lead("1")
    script.own_disk("1")
    script.tell("1", "Commit", commit=2)


@breaks(Rule.COMMIT_OF_FOLLOWER)
def a_follower_that_commits_more_than_it_was_told(script: Script) -> None:
    script.committed()
    script.send("MsgHeartbeat", "1", "2", commit=1)
    script.receive("MsgHeartbeat", "2", "1", commit=1)
    script.send("MsgHeartbeatResp", "2", "1", commit_shown=2)


@breaks(Rule.LEADER_COMPLETENESS)
def a_leader_without_what_is_committed(script: Script) -> None:
    script.committed()
    everybody_forgets_and_elects_3(script, 3)


@breaks(Rule.STATE_MACHINE_SAFETY)
def a_start_that_counts_as_committed_what_nobody_has_committed(script: Script) -> None:
    script.elected()
    script.replicate("1", "2")
    script.start("2", terms=(2,), term=2, vote="1", commit=2)


@breaks(Rule.BASE)
def a_base_that_is_not_committed(script: Script) -> None:
    script.elected()
    script.send("MsgSnap", "1", "3", prop={"base": [2, 2], "members": NOBODY})


@breaks(Rule.CHANGE_APPLIED)
def a_configuration_out_of_nowhere(script: Script) -> None:
    script.tell("1", "ApplyConfChange", prop={"cc": {"newconf": ["1"]}, "members": NOBODY})


@breaks(Rule.ONE_CHANGE)
def a_change_before_the_last_one_is_applied(script: Script) -> None:
    script.elected()
    cc = {"changes": [{"nid": "4", "action": "AddLearner"}]}
    script.tell("1", "ChangeConf", prop={"cc": cc, "joint": False, "auto_leave": True})
    script.tell("1", "ChangeConf", log=3, prop={"cc": cc, "joint": False, "auto_leave": True})


@breaks(Rule.MAY_STAND)
def a_newcomer_that_stands(script: Script) -> None:
    script.start("4", base=[0, 0], members=NOBODY, term=0)
    script.tell("4", "BecomeCandidate", term=1, vote="4", role=CANDIDATE)


@breaks(Rule.UNTOLD_TERM)
def a_term_that_nobody_has_stood_for(script: Script) -> None:
    script.tell("2", "BecomeFollower", term=9)


@breaks(Rule.NEWCOMER)
def a_newcomer_that_votes(script: Script) -> None:
    script.start("4", base=[0, 0], members=NOBODY, term=0)
    script.stand("1", ask=("4",))
    script.receive("MsgVote", "4", "1", at=2, index=1, logTerm=1)
    script.tell("4", "BecomeFollower", term=2)
    script.send("MsgVoteResp", "4", "1", vote="1")


@breaks(Rule.DOUBTFUL_VOTE)
def a_leader_by_a_vote_in_doubt(script: Script) -> None:
    script.start("2", stamp=[2, True])
    script.stand("1", ask=("2", "3"))
    script.vote("2", "1", **IN_DOUBT)
    script.tell("1", "BecomeLeader", role=LEADER)


@breaks(Rule.DOUBTFUL_ACK)
def a_commit_by_an_acknowledgement_in_doubt(script: Script) -> None:
    script.elected()
    script.start("3", stamp=[2, True])
    script.tell("3", "BecomeFollower", term=2)
    script.replicate("1", "3", **IN_DOUBT)
    script.own_disk("1")
    script.tell("1", "Commit", commit=2)


@breaks(Rule.DOUBT_ENDS)
def a_doubt_that_ends_by_itself(script: Script) -> None:
    script.start("2", stamp=[2, True])
    script.stand("1", ask=("2", "3"))
    script.receive("MsgVote", "2", "1", at=2, index=1, logTerm=1)
    script.tell("2", "BecomeFollower", term=2)
    script.send("MsgVoteResp", "2", "1", vote="1", prop={"stamp": [2, False]})


@breaks(Rule.DOUBTFUL_COMMIT)
def a_heartbeat_that_is_believed_in_doubt(script: Script) -> None:
    script.committed()
    script.start("2", stamp=[2, True], terms=(2,), term=2, vote="1", commit=1)
    script.send("MsgHeartbeat", "1", "2", commit=2)
    script.receive("MsgHeartbeat", "2", "1", commit=2)
    script.send("MsgHeartbeatResp", "2", "1", commit_shown=2)


def check(script: Script) -> None:
    judge = GroupCheck()
    for event in script.events:
        judge.take(event)


@pytest.mark.parametrize("rule", list(Rule))
def test_a_trace_by_hand_breaks_the_rule_with_its_last_event(rule: Rule) -> None:
    script = Script()
    BROKEN[rule](script)
    with pytest.raises(BrokenRuleError) as broken:
        check(script)
    assert (broken.value.rule, broken.value.line) == (rule, len(script.events)), broken.value


@pytest.mark.parametrize("rule", list(Rule))
def test_without_its_last_event_the_trace_is_good(rule: Rule) -> None:
    script = Script()
    BROKEN[rule](script)
    del script.events[-1]
    check(script)


def test_a_good_trace_by_hand_passes() -> None:
    script = Script()
    script.committed()
    script.send("MsgHeartbeat", "1", "2", commit=2)
    script.receive("MsgHeartbeat", "2", "1", commit=2)
    script.send("MsgHeartbeatResp", "2", "1", commit_shown=2)
    script.receive("MsgHeartbeatResp", "1", "2")
    check(script)
