"""The rules of the Raft paper and dissertation, in their order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.raft import (
    ConfChange,
    ConfChangePendingError,
    Config,
    ConfState,
    MemoryStorage,
    Message,
    MessageType,
    NotLeaderError,
    RawNode,
    Role,
    TransferPendingError,
)
from tests.raft.network import Network
from tests.raft.script import parse_change
from tests.raft.single import Single, of_kind

APP, APP_RESP = MessageType.APP, MessageType.APP_RESP
VOTE, VOTE_RESP = MessageType.VOTE, MessageType.VOTE_RESP
HEARTBEAT, HEARTBEAT_RESP = MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP
FIVE = ConfState((1, 2, 3, 4, 5))


def change(text: str) -> ConfChange:
    return parse_change(text.split())


# 5.1 Raft basics: terms.


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_5_1_a_higher_term_makes_a_follower_of_everyone(role: Role) -> None:
    node = Single([1], pre_vote=False)
    if role is not Role.FOLLOWER:
        node.node.campaign()
        node.drain()
    if role is Role.LEADER:
        node.step(VOTE_RESP, 2)
    assert node.role() is role
    node.step(APP, 2, term=7, index=1, log_term=1)
    assert (node.role(), node.term) == (Role.FOLLOWER, 7)


def test_5_1_an_append_of_an_old_term_is_refused() -> None:
    node = Single([1, 1], term=5)
    (answer,) = node.append(2, (1, 2), 1, term=4)
    assert (answer.type, answer.term, answer.index, answer.reject) == (APP_RESP, 5, 0, False)
    assert node.terms() == [1, 1]


def test_5_1_a_term_and_its_vote_are_one_record_and_survive_a_restart() -> None:
    node = Single([1], term=3)
    (granted,) = node.step(VOTE, 2, term=4, index=1, log_term=1)
    assert not granted.reject
    node.crash()
    assert (node.term, node.node.basic_status().vote) == (4, 2)
    (refused,) = node.step(VOTE, 3, term=4, index=1, log_term=1)
    assert refused.reject


# 5.2 Leader election.


def test_5_2_everyone_starts_as_follower() -> None:
    assert Single().role() is Role.FOLLOWER


def test_5_2_a_leader_sends_heartbeats_at_its_interval() -> None:
    node = Single([1], heartbeat_tick=3)
    node.win()
    beats: list[Message] = []
    for _ in range(3):
        assert not beats
        node.node.tick()
        beats = of_kind(node.drain(), HEARTBEAT)
    assert sorted(beat.to for beat in beats) == [2, 3]


def test_5_2_a_follower_that_hears_nothing_campaigns_and_retries() -> None:
    node = Single([1], pre_vote=False)
    for _ in range(2):
        requests: list[Message] = []
        for _ in range(20):
            node.node.tick()
            requests = of_kind(node.drain(), VOTE)
            if requests:
                break
        assert sorted(request.to for request in requests) == [2, 3]
        assert node.role() is Role.CANDIDATE
    assert node.term == 3


@pytest.mark.parametrize(
    ("size", "granted", "expected"),
    [
        (1, [], Role.LEADER),
        (3, [2], Role.LEADER),
        (3, [2, 3], Role.LEADER),
        (5, [2], Role.CANDIDATE),
        (5, [2, 3], Role.LEADER),
        (5, [2, 3, 4, 5], Role.LEADER),
    ],
)
def test_5_2_a_majority_elects(size: int, granted: list[int], expected: Role) -> None:
    node = Single([1], conf=ConfState(tuple(range(1, size + 1))), pre_vote=False)
    node.node.campaign()
    node.drain()
    for voter in granted:
        node.step(VOTE_RESP, voter)
    assert node.role() is expected


def test_5_2_a_majority_of_refusals_ends_the_candidacy() -> None:
    node = Single([1], pre_vote=False)
    node.node.campaign()
    node.drain()
    node.step(VOTE_RESP, 2, reject=True)
    assert node.role() is Role.CANDIDATE
    node.step(VOTE_RESP, 3, reject=True)
    assert node.role() is Role.FOLLOWER


@pytest.mark.parametrize(("vote", "candidate", "granted"), [(0, 1, 1), (2, 2, 1), (2, 3, 0)])
def test_5_2_one_vote_in_a_term_first_come_first_served(
    vote: int, candidate: int, granted: int
) -> None:
    node = Single([1], replica_id=4, conf=FIVE, term=3, vote=vote)
    (answer,) = node.step(VOTE, candidate, index=1, log_term=1)
    assert answer.reject is not bool(granted)


def test_5_2_a_candidate_follows_a_leader_of_its_term() -> None:
    node = Single([1], pre_vote=False)
    node.node.campaign()
    node.drain()
    node.append(2, (1, 1), node.term)
    assert (node.role(), node.node.basic_status().lead) == (Role.FOLLOWER, 2)


def test_5_2_timeouts_are_random_within_one_and_two_times_the_base() -> None:
    config = Config(id=1, rng=random.Random(3), election_tick=10, heartbeat_tick=1)
    seen: set[int] = set()
    node = RawNode(config, MemoryStorage(ConfState((1, 2, 3))))
    for _ in range(300):
        node._raft.randomize_timeout()
        seen.add(node._raft.randomized_timeout)
    assert seen == set(range(10, 20))


def test_5_2_followers_rarely_time_out_together() -> None:
    collisions = 0
    for seed in range(200):
        network = Network((1, 2, 3, 4, 5), pre_vote=False)
        for replica_id, replica in network.replicas.items():
            replica.node._raft.rng = random.Random(seed * 10 + replica_id)
            replica.node._raft.randomize_timeout()
        timeouts = sorted(r.node._raft.randomized_timeout for r in network.replicas.values())
        collisions += timeouts[0] == timeouts[1]
    # Two of five draws from ten share the minimum in about 40 % of the cases.
    assert collisions < 120


# 5.3 Log replication.


def test_5_3_a_proposal_goes_to_everyone_and_commits_by_majority() -> None:
    node = Single([1])
    node.win()
    node.step(APP_RESP, 2, index=2)
    entry = node.node.propose(b"x")
    sent = of_kind(node.drain(), APP)
    assert [(m.to, m.index, m.log_term) for m in sent if m.to == 2] == [(2, 2, 2)]
    assert node.node.basic_status().commit == 2
    node.step(APP_RESP, 2, index=entry[1])
    assert node.node.basic_status().commit == entry[1]
    assert node.commands == [b"x"]


@pytest.mark.parametrize(
    ("size", "acks", "committed"),
    [(1, [], True), (3, [], False), (3, [2], True), (5, [2], False), (5, [2, 3], True)],
)
def test_5_3_an_entry_is_committed_when_a_majority_holds_it(
    size: int, acks: list[int], committed: bool
) -> None:
    node = Single([1], conf=ConfState(tuple(range(1, size + 1))))
    node.win() if size > 1 else (node.node.campaign(), node.drain())
    _, index = node.node.propose(b"x")
    node.drain()
    for peer in acks:
        node.step(APP_RESP, peer, index=index)
    assert (node.node.basic_status().commit == index) is committed


def test_5_3_a_commit_covers_the_entries_of_earlier_leaders() -> None:
    node = Single([1, 1, 2])
    node.win()
    node.step(APP_RESP, 2, index=4)
    assert [r.index for ready in node.readys for r in ready.committed_entries] == [1, 2, 3, 4]


def test_5_3_a_follower_applies_in_order_what_its_leader_has_committed() -> None:
    node = Single([1, 1], commit=0)
    node.append(2, (1, 2), 1, 1, commit=3)
    applied = [entry.index for ready in node.readys for entry in ready.committed_entries]
    assert applied == [1, 2, 3]
    assert node.node.basic_status().commit == 3


@pytest.mark.parametrize(
    ("prev", "rejected"),
    [((0, 0), False), ((1, 1), False), ((2, 2), False), ((1, 2), True), ((3, 3), True)],
)
def test_5_3_an_append_needs_its_predecessor(prev: tuple[int, int], rejected: bool) -> None:
    node = Single([1, 2], term=3)
    (answer,) = node.append(2, prev, term=3)
    assert answer.reject is rejected
    if rejected:
        assert answer.reject_hint <= 2


@pytest.mark.parametrize(
    ("prev", "run", "expected"),
    [
        ((2, 2), [3], [1, 2, 3]),
        ((1, 1), [3, 4], [1, 3, 4]),
        ((0, 0), [1], [1, 2]),
        ((0, 0), [3], [3]),
    ],
)
def test_5_3_a_follower_replaces_only_from_the_first_conflict_on(
    prev: tuple[int, int], run: list[int], expected: list[int]
) -> None:
    node = Single([1, 2], term=4)
    node.append(2, prev, *run, term=4)
    assert node.terms() == expected


LOGS = [
    [1, 1, 1, 4, 4, 5, 5, 6, 6],
    [1, 1, 1, 4],
    [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    [1, 1, 1, 4, 4, 4, 4],
    [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
]


@pytest.mark.parametrize("log", LOGS, ids=list("abcdef"))
def test_5_3_a_leader_brings_every_log_of_figure_7_into_agreement(log: list[int]) -> None:
    leader = Single([1, 1, 1, 4, 4, 5, 5, 6, 6, 6], term=8)
    follower = Single(log, replica_id=2)
    in_flight = leader.win()
    probes = 0
    while in_flight:
        message = in_flight.pop(0)
        if message.to == 2:
            follower.node.step(message)
            answers = follower.drain()
            probes += sum(answer.reject for answer in answers)
        else:
            answers = []
        for answer in answers:
            leader.node.step(answer)
        in_flight += leader.drain()
    assert follower.terms() == leader.terms()
    # One rejected probe for each term at most (last paragraphs of 5.3).
    assert probes <= len(set(log))


# 5.4 Safety.


@pytest.mark.parametrize(
    ("ours", "last", "granted"),
    [
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([2], (1, 5), False),
        ([1, 2], (2, 1), False),
    ],
)
def test_5_4_1_a_vote_goes_only_to_a_log_that_holds_as_much(
    ours: list[int], last: tuple[int, int], granted: bool
) -> None:
    node = Single(ours, term=3)
    (answer,) = node.step(VOTE, 2, term=4, log_term=last[0], index=last[1])
    assert answer.reject is not granted


def test_5_4_1_a_candidate_shows_the_end_of_its_log() -> None:
    node = Single([1, 2, 2], pre_vote=False)
    node.node.campaign()
    requests = of_kind(node.drain(), VOTE)
    assert {(m.to, m.log_term, m.index) for m in requests} == {(2, 2, 3), (3, 2, 3)}


def test_5_4_2_only_entries_of_the_own_term_are_committed_by_counting() -> None:
    """Figure 8: a majority that holds an entry of an earlier term does not commit it."""
    node = Single([1, 2])
    node.win()
    node.step(APP_RESP, 2, index=2)
    assert node.node.basic_status().commit == 0
    node.step(APP_RESP, 2, index=3)
    assert node.node.basic_status().commit == 3


def test_5_4_2_figure_8_cannot_lose_what_was_committed() -> None:
    """With five replicas: an entry of term 2, a rival of term 3, and their first leader again."""
    network = Network((1, 2, 3, 4, 5))
    network.elect(1)
    for far in (3, 4, 5):
        network.cut(1, far)
    network[1].propose(b"early")
    network.run()
    network.heal()
    # 5 is elected by 3 and 4, and its entry reaches nobody.
    network.isolate(1)
    network.isolate(2)
    network.filter = lambda message: message.type is not APP
    network.elect(5)
    network[5].propose(b"rival")
    network.run()
    # 1 leads again, without 5; its own entry of term 4 commits the one of term 2 with it.
    network.heal()
    network.pending.clear()
    network.isolate(5)
    network[1].step_down()
    network.elect(1)
    assert network.replicas[3].commands == [b"early"]
    # Now the rival cannot win any more, and its entry is replaced.
    network.heal()
    network.pending.clear()
    network[5].step_down()
    network[5].campaign()
    network.tick(40)
    assert all(replica.commands == [b"early"] for replica in network.replicas.values())


# 5.5, 5.6: retries are harmless.


def test_5_5_the_same_append_twice_changes_nothing() -> None:
    node = Single([1])
    first = node.append(2, (1, 1), 1, 1)
    second = node.append(2, (1, 1), 1, 1)
    assert [m.index for m in first + second] == [3, 3]
    assert node.terms() == [1, 1, 1]


def test_5_5_a_delayed_append_cuts_nothing_off() -> None:
    node = Single([1])
    node.append(2, (1, 1), 1, 1, 1)
    (answer,) = node.append(2, (1, 1), 1)
    assert answer.index == 2, "an answer speaks for its message, not for the log"
    assert node.terms() == [1, 1, 1, 1]


# 6 Membership changes (joint consensus, by application; dissertation 4.3).


def test_6_a_change_takes_effect_when_it_is_applied() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network.add(4, None)
    network[1].propose_conf_change(change("l4"))
    assert network[1].status().conf_state == ConfState((1, 2, 3))
    network.run()
    assert network[1].status().conf_state == ConfState((1, 2, 3), (4,))


def test_6_one_change_at_a_time() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose_conf_change(change("l4"))
    with pytest.raises(ConfChangePendingError):
        network[1].propose_conf_change(change("l5"))


def test_6_while_joint_both_majorities_decide_about_commits() -> None:
    network = Network((1, 2, 3), learners=(4, 5))
    network.elect(1)
    network[1].propose_conf_change(change("v4 v5 r2 r3 explicit"))
    network.run()
    assert network[1].status().conf_state.voters_outgoing == (1, 2, 3)
    commit = network[1].basic_status().commit
    for cut in ((4, 5), (2, 3)):
        for replica_id in cut:
            network.isolate(replica_id)
        network[1].propose(b"x")
        network.run()
        assert network[1].basic_status().commit == commit
        network.heal()
        network.pending.clear()
        network.tick(6)
        assert network[1].basic_status().commit > commit
        commit = network[1].basic_status().commit


def test_6_while_joint_both_majorities_decide_about_elections() -> None:
    node = Single([1], conf=ConfState((1, 4, 5), voters_outgoing=(1, 2, 3)), pre_vote=False)
    node.node.campaign()
    node.drain()
    node.step(VOTE_RESP, 4)
    assert node.role() is Role.CANDIDATE
    node.step(VOTE_RESP, 2)
    assert node.role() is Role.LEADER


def test_6_a_removed_leader_steps_down_when_it_applies_its_removal() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose_conf_change(change("r1"))
    network.run()
    status = network[1].basic_status()
    assert (status.role, status.is_member, status.removed) == (Role.FOLLOWER, False, True)
    assert network[2].status().conf_state == ConfState((2, 3))
    network.tick(40, ids=[2, 3])
    assert network.leader() in {2, 3}


def test_6_a_removed_replica_does_not_disturb_the_others() -> None:
    network = Network((1, 2, 3, 4))
    network.elect(1)
    network.isolate(4)
    network[1].propose_conf_change(change("r4"))
    network.run()
    network.heal()
    term = network.replicas[1].term
    network.tick(100)
    assert (network.leader(), network.replicas[1].term) == (1, term)


def test_6_a_learner_gets_everything_and_decides_nothing() -> None:
    network = Network((1, 2), learners=(3,))
    network.elect(1)
    network[1].propose(b"x")
    network.run()
    assert network.replicas[3].commands == [b"x"]
    assert not network[3].campaign()
    network.isolate(2)
    network[1].propose(b"y")
    network.run()
    assert network[1].basic_status().commit == 3


# 7 Log compaction.


def test_7_a_follower_that_is_too_far_behind_gets_a_base() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network.isolate(3)
    for command in (b"a", b"b", b"c"):
        network[1].propose(command)
        network.run()
    network.offer_base(1, 4)
    network.heal()
    network.pending.clear()
    network.tick(6)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]
    assert network.replicas[3].store.log.first_index() == 5


def test_7_a_base_that_the_log_holds_already_costs_no_entry() -> None:
    node = Single([1, 1, 1, 1], commit=1)
    base = Network((1, 2, 3)).replicas[1].store.log.snapshot(2)
    held = type(base)(3, 1, ConfState((1, 2, 3)))
    (answer,) = node.step(MessageType.SNAP, 2, snapshot=held)
    assert (answer.index, node.node.basic_status().commit) == (3, 3)
    assert node.terms() == [1, 1, 1, 1]


# 8 Client interaction.


def test_8_a_new_leader_appends_an_empty_entry_of_its_term() -> None:
    node = Single([1, 1])
    sent = of_kind(node.win(), APP)
    assert [[(e.term, e.data) for e in m.entries] for m in sent] == [[(2, b"")]] * 2


def test_8_only_the_leader_takes_proposals() -> None:
    node = Single([1])
    node.append(3, (1, 1), term=2)
    with pytest.raises(NotLeaderError) as caught:
        node.node.propose(b"x")
    assert caught.value.lead == 3


# Dissertation 3.10 Leadership transfer.


def test_3_10_leadership_goes_to_a_voter_that_is_level() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].transfer_leader(3)
    with pytest.raises(TransferPendingError):
        network[1].propose(b"x")
    network.run()
    assert network.leader() == 3


def test_3_10_a_transfer_that_fails_is_over_after_an_election_timeout() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network.isolate(3)
    network[1].transfer_leader(3)
    network.tick(9)
    with pytest.raises(TransferPendingError):
        network[1].propose(b"x")
    network[1].transfer_leader(3)
    network.tick(1)
    network[1].propose(b"x")
    network.run()
    assert network.replicas[2].commands == [b"x"]


# Dissertation 4.1 to 4.2: single steps, new members, removed ones.


def test_4_2_1_a_new_member_learns_before_it_votes() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose(b"x")
    network.run()
    network.add(4, None)
    network[1].propose_conf_change(change("l4"))
    network.run()
    network.tick(4)
    assert network.replicas[4].commands == [b"x"]
    network[1].propose_conf_change(change("v4"))
    network.run()
    assert network[4].status().conf_state == ConfState((1, 2, 3, 4))


def test_4_2_3_who_hears_a_leader_does_not_vote() -> None:
    node = Single([1], term=2)
    node.step(HEARTBEAT, 3)
    assert node.step(VOTE, 2, term=9, index=1, log_term=1) == []
    assert node.term == 2
    for _ in range(9):
        node.node.tick()
    assert node.step(VOTE, 2, term=9, index=1, log_term=1) == []
    node.node._raft.randomized_timeout = 99
    node.node.tick()
    (granted,) = node.step(VOTE, 2, term=9, index=1, log_term=1)
    assert not granted.reject


# Dissertation 6.2, 6.4: the leader must be one, reads must see it.


def test_6_2_a_leader_that_hears_no_quorum_steps_down() -> None:
    node = Single([1], conf=FIVE)
    node.win()
    for _ in range(10):
        node.node.tick()
        node.drain()
        node.step(HEARTBEAT_RESP, 2)
        node.step(HEARTBEAT_RESP, 3)
    assert node.is_leader
    for _ in range(20):
        node.node.tick()
        node.drain()
        if node.is_leader:
            node.step(HEARTBEAT_RESP, 2)
    assert not node.is_leader


def test_6_4_a_read_waits_for_a_quorum_that_heard_the_leader_after_it() -> None:
    node = Single([1])
    node.win()
    node.step(APP_RESP, 2, index=2)
    node.node.read_index(b"r")
    beats = of_kind(node.drain(), HEARTBEAT)
    assert {beat.to for beat in beats} == {2, 3}
    assert not any(ready.read_states for ready in node.readys)
    node.step(HEARTBEAT_RESP, 2, context=beats[0].context)
    (state,) = [s for ready in node.readys for s in ready.read_states]
    assert (state.index, state.context) == (2, b"r")


# Dissertation 9.6: pre-vote.


def test_9_6_a_pre_vote_changes_no_term_anywhere() -> None:
    network = Network((1, 2, 3))
    network.isolate(3)
    for _ in range(50):
        network.tick(1, ids=[3])
    assert network.replicas[3].term == 1
    assert network.replicas[3].role() is Role.PRE_CANDIDATE
    voter = Single([1], term=1)
    (granted,) = voter.step(MessageType.PRE_VOTE, 2, term=2, index=1, log_term=1)
    assert (granted.reject, granted.term, voter.term) == (False, 2, 1)
    assert voter.node.basic_status().vote == 0


@given(st.integers(2, 6))
def test_9_6_a_refusal_carries_the_term_of_who_refuses(term: int) -> None:
    voter = Single([1, 1], term=term)
    (refused,) = voter.step(MessageType.PRE_VOTE, 2, term=2, index=1, log_term=1)
    assert (refused.reject, refused.term) == (True, term)
