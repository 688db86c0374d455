"""What leaders do beside replicating: reads, transfers, membership; and how elections differ."""

from __future__ import annotations

import pytest

from rakit.raft import (
    ConfChangeInvalidError,
    ConfChangePendingError,
    ConfigurationLostError,
    ConfState,
    DropKind,
    Message,
    MessageType,
    NotLeaderError,
    PeerStatus,
    ReadLimitError,
    Role,
    TransferPendingError,
    TransferRefusedError,
    TwoLeadersError,
)
from rakit.raft.messages import encode_stamp
from tests.raft.network import Network
from tests.raft.script import parse_change
from tests.raft.single import Single, append_message, of_kind

APP, APP_RESP = MessageType.APP, MessageType.APP_RESP
VOTE, VOTE_RESP = MessageType.VOTE, MessageType.VOTE_RESP
PRE_VOTE, PRE_VOTE_RESP = MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESP
HEARTBEAT, HEARTBEAT_RESP = MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP
READ_INDEX, READ_INDEX_RESP = MessageType.READ_INDEX, MessageType.READ_INDEX_RESP
TIMEOUT_NOW = MessageType.TIMEOUT_NOW


def leader(conf: ConfState | None = None, **options: int) -> Single:
    node = Single([1], conf=conf, **options)
    node.win()
    for peer in node.node.status().peers:
        if peer.id != 1:
            node.step(APP_RESP, peer.id, index=2)
    node.readys.clear()
    return node


def peer_status(network: Network, replica_id: int) -> PeerStatus:
    peers = network[network.leader()].status().peers
    return next(peer for peer in peers if peer.id == replica_id)


def read_states(node: Single) -> list[bytes]:
    return [state.context for ready in node.readys for state in ready.read_states]


def dropped_reads(node: Single) -> list[bytes]:
    return [
        drop.context
        for ready in node.readys
        for drop in ready.dropped
        if drop.kind is DropKind.READ
    ]


# Reads.


def test_a_sole_voter_answers_reads_at_once() -> None:
    network = Network((1,), learners=(2,))
    network[1].campaign()
    network.run()
    network[1].read_index(b"r")
    assert [s.context for ready in network.process(1) for s in ready.read_states] == [b"r"]


def test_a_follower_asks_its_leader_once_and_gets_an_answer() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[2].read_index(b"r")
    network.run()
    states = [s for ready in network.replicas[2].outcome for s in ready.read_states]
    assert [(s.context, s.index) for s in states] == [(b"r", 2)]


def test_a_replica_without_leader_refuses_reads() -> None:
    with pytest.raises(NotLeaderError):
        Single([1]).node.read_index(b"r")


def test_a_follower_forwards_to_nobody_but_its_leader() -> None:
    node = Single([1], term=2)
    node.step(HEARTBEAT, 3)
    (answer,) = node.step(READ_INDEX, 2, term=0, context=b"r")
    assert (answer.type, answer.to, answer.reject) == (READ_INDEX_RESP, 2, True)


def test_a_change_of_leader_drops_a_followers_reads() -> None:
    node = Single([1], term=2)
    node.step(HEARTBEAT, 3)
    node.node.read_index(b"r")
    node.drain()
    node.step(HEARTBEAT, 2, term=3)
    assert dropped_reads(node) == [b"r"]
    node.step(READ_INDEX_RESP, 3, term=3, index=5, context=b"r")
    assert read_states(node) == [], "what was given up stays given up"


def test_a_leader_that_steps_down_tells_its_own_and_its_followers_readers() -> None:
    node = leader()
    node.node.read_index(b"own")
    node.step(READ_INDEX, 2, term=0, context=b"theirs")
    node.node.step_down()
    answers = of_kind(node.drain(), READ_INDEX_RESP)
    assert [(a.to, a.context, a.reject) for a in answers] == [(2, b"theirs", True)]
    assert dropped_reads(node) == [b"own"]
    assert not node.node.has_ready()


def test_a_refused_read_of_a_follower_is_dropped() -> None:
    node = Single([1], term=2)
    node.step(HEARTBEAT, 3)
    node.node.read_index(b"r")
    node.step(READ_INDEX_RESP, 3, context=b"r", reject=True)
    assert dropped_reads(node) == [b"r"]


def test_reads_are_bounded() -> None:
    node = leader(max_pending_reads=2)
    node.node.read_index(b"a")
    node.node.read_index(b"b")
    with pytest.raises(ReadLimitError):
        node.node.read_index(b"c")
    answers = node.step(READ_INDEX, 2, term=0, context=b"d")
    assert [a.reject for a in of_kind(answers, READ_INDEX_RESP)] == [True]


def test_a_follower_whose_questions_are_lost_can_always_ask_another() -> None:
    node = Single([1], term=2, max_pending_reads=2)
    node.step(HEARTBEAT, 3)
    for number in range(5):
        node.node.read_index(b"%d" % number)
    node.drain()
    assert dropped_reads(node) == [b"0", b"1", b"2"], "the oldest make room"
    for number in range(5):
        node.step(READ_INDEX_RESP, 3, context=b"%d" % number, index=1)
    assert read_states(node) == [b"3", b"4"]


def test_a_smaller_quorum_answers_reads_that_waited() -> None:
    node = leader(ConfState((1, 2, 3, 4, 5)))
    node.node.read_index(b"r")
    beat = of_kind(node.drain(), HEARTBEAT)[0]
    node.step(HEARTBEAT_RESP, 2, context=beat.context)
    assert read_states(node) == []
    node.node.apply_conf_change(parse_change(["r4", "r5"]))
    assert read_states(node) == []
    node.node.apply_conf_change(parse_change([]))
    node.drain()
    assert read_states(node) == [b"r"]


def test_reads_do_not_repeat_probes() -> None:
    """Rule T3: only the answer to a tick's heartbeat lets one more append through."""
    node = leader()
    node.node.propose(b"x")
    node.drain()
    sent: list[Message] = []
    for _ in range(5):
        node.node.read_index(b"r")
        beat = of_kind(node.drain(), HEARTBEAT)[0]
        sent += node.step(HEARTBEAT_RESP, 2, context=beat.context)
    assert len(of_kind(sent, APP)) == 1
    node.node.tick()
    node.drain()
    assert len(of_kind(node.step(HEARTBEAT_RESP, 2), APP)) == 1
    assert of_kind(node.step(HEARTBEAT_RESP, 2), APP) == []


def test_reads_do_not_put_off_what_repeats_a_lost_append() -> None:
    """Rule T3: a tick's heartbeats come in their time, however often somebody reads."""
    network = Network((1, 2, 3), election_tick=20, heartbeat_tick=5)
    network.elect(1)
    network.run()
    network[1].read_index(b"first")
    network.run()
    network.filter = lambda message: message.type is not APP
    _, index = network[1].propose(b"x")
    network.run()
    network.heal()
    for _ in range(4):
        for number in range(5):
            network[1].read_index(b"%d" % number)
            network.run()
            network.tick()
    assert network[1].basic_status().commit == index


# Transfer.


def test_the_target_is_told_when_it_is_level_and_not_before() -> None:
    node = leader()
    node.node.propose(b"x")
    node.node.transfer_leader(2)
    assert of_kind(node.drain(), TIMEOUT_NOW) == []
    sent = of_kind(node.step(APP_RESP, 2, index=3), TIMEOUT_NOW)
    assert [m.to for m in sent] == [2]


@pytest.mark.parametrize("target", [1, 4, 9], ids=["itself", "a learner", "a stranger"])
def test_only_another_voter_can_be_the_target(target: int) -> None:
    node = leader(ConfState((1, 2, 3), (4,)))
    with pytest.raises(TransferRefusedError):
        node.node.transfer_leader(target)
    node.node.propose(b"x")


def test_a_follower_hands_over_nothing() -> None:
    with pytest.raises(NotLeaderError):
        Single([1]).node.transfer_leader(2)


def test_members_change_by_nobody_but_a_leader_that_is_to_stay() -> None:
    """Rule K2: what it appends, the target of the transfer would lack."""
    change = parse_change(["l4"])
    with pytest.raises(NotLeaderError):
        Single([1]).node.propose_conf_change(change)
    node = leader()
    node.node.propose(b"x")
    node.node.transfer_leader(2)
    with pytest.raises(TransferPendingError):
        node.node.propose_conf_change(change)


@pytest.mark.parametrize("steps", ["r3", "l3"])
def test_removing_or_demoting_the_target_ends_the_transfer(steps: str) -> None:
    node = leader()
    node.node.transfer_leader(3)
    with pytest.raises(TransferPendingError):
        node.node.propose(b"x")
    node.node.apply_conf_change(parse_change([steps]))
    assert node.node.basic_status().lead_transferee == 0
    node.node.propose(b"x")


def test_a_transfer_has_a_whole_election_timeout_however_late_it_is_asked_for() -> None:
    node = leader(check_quorum=False)
    for _ in range(9):
        node.node.tick()
    node.node.transfer_leader(2)
    for _ in range(9):
        node.node.tick()
    assert node.node.basic_status().lead_transferee == 2
    node.node.tick()
    assert node.node.basic_status().lead_transferee == 0


def test_a_transfer_that_is_over_tells_nobody_to_stand() -> None:
    """The target would lack what was proposed since."""
    node = leader(check_quorum=False)
    node.node.transfer_leader(2)
    for _ in range(10):
        node.node.tick()
    node.node.propose(b"x")
    assert of_kind(node.drain(), TIMEOUT_NOW) == []


def test_who_follows_another_leader_by_now_tells_nobody_to_stand() -> None:
    """The target would lack what that leader wrote; the word would leave beside its entries."""
    node = leader()
    last = (node.term, node.node.basic_status().last_index)
    node.node.transfer_leader(2)
    node.node.step(append_message(node, 3, last, node.term + 1, term=node.term + 1))
    assert of_kind(node.drain(), TIMEOUT_NOW) == []


def test_a_target_that_was_replaced_is_not_told_to_stand() -> None:
    node = leader()
    node.node.transfer_leader(2)
    node.node.transfer_leader(3)
    assert [each.to for each in of_kind(node.drain(), TIMEOUT_NOW)] == [3]


def test_another_target_replaces_the_first() -> None:
    node = leader()
    node.node.propose(b"x")
    node.node.transfer_leader(2)
    node.node.transfer_leader(3)
    assert node.node.basic_status().lead_transferee == 3
    assert of_kind(node.step(APP_RESP, 2, index=3), TIMEOUT_NOW) == []


def test_a_target_that_must_not_stand_stays_a_follower() -> None:
    node = Single([1], replica_id=3, conf=ConfState((1, 2), (3,)), term=2)
    assert of_kind(node.step(TIMEOUT_NOW, 1), VOTE) == []
    assert node.role() is Role.FOLLOWER


def test_a_transfer_skips_the_pre_vote_and_passes_the_lease() -> None:
    target = Single([1], replica_id=2, term=2)
    target.step(HEARTBEAT, 1)
    requests = of_kind(target.step(TIMEOUT_NOW, 1), VOTE)
    assert {m.to for m in requests} == {1, 3}
    voter = Single([1], replica_id=3, term=2)
    voter.step(HEARTBEAT, 1)
    voter.node.step(next(m for m in requests if m.to == 3))
    (answer,) = voter.drain()
    assert (answer.type, answer.reject) == (VOTE_RESP, False)


# Membership.


def test_an_automatic_joint_phase_is_ended_by_a_new_leader_too() -> None:
    network = Network((1, 2, 3), learners=(4,))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["v4", "r3"]))
    network.process(1)
    # The end of the joint phase does not get out; its leader is lost.
    network.filter = lambda m: not any(e.index > 3 for e in m.entries)
    network.run()
    assert network[2].status().conf_state.voters_outgoing == (1, 2, 3)
    network.heal()
    network.pending.clear()
    network.replicas[1].alive = False
    network.replicas[1].node.step_down()
    network.tick(80, ids=[2, 3, 4])
    assert network.leader() in {2, 4}
    assert network[network.leader()].status().conf_state == ConfState((1, 2, 4))


def test_an_explicit_joint_phase_waits_for_its_caller() -> None:
    network = Network((1, 2, 3), learners=(4,))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["v4", "r3", "explicit"]))
    network.run()
    network.tick(10)
    assert network[1].status().conf_state.voters_outgoing == (1, 2, 3)
    network[1].propose_conf_change(parse_change([]))
    network.run()
    assert network[1].status().conf_state == ConfState((1, 2, 4))


def test_the_end_of_a_joint_phase_waits_for_a_transfer_and_then_comes() -> None:
    network = Network((1, 2, 3), learners=(4,))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["v4", "r3"]))
    network[1]._raft.lead_transferee = 2
    network.filter = lambda m: m.type is not TIMEOUT_NOW
    network.run()
    assert network[1].status().conf_state.voters_outgoing
    assert network[1].ticks_left() == 1, "the next tick may be the one"
    network.tick(20)
    assert network[1].status().conf_state == ConfState((1, 2, 4))


def test_the_end_of_a_joint_phase_is_proposed_once() -> None:
    network = Network((1, 2, 3), learners=(4,))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["v4", "r3"]))
    network.filter = lambda m: not any(e.index > 3 for e in m.entries)
    network.run()
    network.tick(6)
    assert network[1].status().conf_state.voters_outgoing
    assert network[1].basic_status().last_index == 4, "it waits for its commit"


def test_a_removed_replica_helps_those_who_have_not_learned_of_it() -> None:
    """The end of the joint phase is committed, its leader is out, and 2 has not heard of it."""
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["r1", "r3"]))
    network.filter = lambda message: message.to != 2 or message.commit < 4
    network.run()
    assert network[1].basic_status().removed
    assert network[2].status().conf_state.voters_outgoing == (1, 2, 3)
    network.heal()
    network.pending.clear()
    network.replicas[3].alive = False
    network.tick(60, ids=[2])
    assert network.leader() == 2
    assert network[2].status().conf_state == ConfState((2,))


def test_a_leader_that_is_demoted_steps_down_when_it_applies_it() -> None:
    """Rule M4: it stays a member, and may lead no more."""
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["l1"]))
    network.run()
    assert network[1].status().conf_state == ConfState((2, 3), (1,))
    assert network.replicas[1].role() is Role.FOLLOWER
    network.tick(60)
    assert network.leader() in {2, 3}


def test_an_invalid_change_is_refused_before_it_is_an_entry() -> None:
    node = leader(ConfState((1,)))
    with pytest.raises(ConfChangeInvalidError):
        node.node.propose_conf_change(parse_change(["r1"]))
    assert node.terms() == [1, 2]


def test_s2_a_learner_gets_no_vote_before_it_knows_that_it_belongs_to_the_group() -> None:
    """Until then it does not vote: after one more failure nobody is elected who could tell it."""
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose_batch([b"%d" % number for number in range(9)])
    network.run()
    network.replicas[3].alive = False  # it is to be replaced
    network.offer_base(1, 8)
    network.add(4, None)
    network[1].propose_conf_change(parse_change(["l4"]))
    # The base arrives; what follows, the addition among it, is on its way for a while.
    network.filter = lambda m: not (m.to == 4 and m.entries)
    network.run()
    network.tick(4)
    assert peer_status(network, 4).match == 8
    with pytest.raises(ConfChangePendingError, match="4"):
        network[1].propose_conf_change(parse_change(["v4", "r3"]))
    network.heal()
    network.tick(4)
    network[1].propose_conf_change(parse_change(["v4", "r3"]))
    network.run()
    network.tick(20)
    assert network[1].status().conf_state == ConfState((1, 2, 4))
    network.replicas[1].alive = False
    network.tick(60, ids=[2, 4])
    assert network.leader() in {2, 4}


def test_a_learner_that_is_behind_holds_up_no_change_but_its_own() -> None:
    node = Single([1], conf=ConfState((1, 2, 3), (4,)))
    node.win()
    node.step(APP_RESP, 2, index=2)
    with pytest.raises(ConfChangePendingError, match="4"):
        node.node.propose_conf_change(parse_change(["v4"]))
    node.node.propose_conf_change(parse_change(["r3"]))


def test_a_learner_in_doubt_gets_no_vote() -> None:
    """Its acknowledgements would not count, nor its vote unless everybody else voted as well."""
    node = Single([1], conf=ConfState((1, 2, 3), (4,)), boot=1)
    node.win()
    for peer in (2, 3):
        node.step(APP_RESP, peer, index=2)
    node.step(APP_RESP, 4, index=2, context=encode_stamp(7, doubtful=True))
    with pytest.raises(ConfChangePendingError, match="4"):
        node.node.propose_conf_change(parse_change(["v4"]))
    node.step(APP_RESP, 4, index=2, context=encode_stamp(7, doubtful=False))
    node.node.propose_conf_change(parse_change(["v4"]))


def test_a_configuration_that_makes_no_sense_stops_the_replica() -> None:
    with pytest.raises(ConfigurationLostError, match="stored"):
        Single([1], conf=ConfState((1, 2), (2,)))
    with pytest.raises(ConfigurationLostError, match="not joint"):
        Single([1]).node.apply_conf_change(parse_change([]))


def test_a_smaller_quorum_commits_what_waited() -> None:
    node = leader(ConfState((1, 2, 3, 4)))
    node.node.propose(b"x")
    node.drain()
    node.step(APP_RESP, 2, index=3)
    assert node.node.basic_status().commit == 2
    node.node.apply_conf_change(parse_change(["r4"]))
    assert node.node.basic_status().commit == 3


def test_a_new_member_is_probed_at_once_and_counts_as_heard() -> None:
    node = leader()
    node.node.apply_conf_change(parse_change(["l9"]))
    sent = [m for m in of_kind(node.drain(), APP) if m.to == 9]
    assert [(m.index, m.log_term) for m in sent] == [(2, 2)]
    (status,) = [p for p in node.node.status().peers if p.id == 9]
    assert status.recent_active


def test_a_whole_set_of_voters_may_be_replaced_at_once() -> None:
    """etcd-io/raft#372: legal here; whether the data is safe is asked above the core."""
    network = Network((1, 2, 3), learners=(4, 5, 6))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["v4", "v5", "v6", "r1", "r2", "r3"]))
    network.run()
    network.tick(80, ids=[4, 5, 6])
    assert network.leader() in {4, 5, 6}
    assert network[4].status().conf_state == ConfState((4, 5, 6))


# Elections.


def test_a_pre_candidate_that_is_refused_with_a_higher_term_follows_it() -> None:
    node = Single([1], term=2)
    node.node.campaign()
    node.drain()
    node.step(PRE_VOTE_RESP, 2, term=7, reject=True)
    assert (node.role(), node.term) == (Role.FOLLOWER, 7)


def test_a_majority_of_refusals_ends_a_pre_candidacy() -> None:
    node = Single([1], term=2)
    node.node.campaign()
    node.drain()
    node.step(PRE_VOTE_RESP, 2, reject=True)
    assert node.role() is Role.PRE_CANDIDATE
    node.step(PRE_VOTE_RESP, 3, reject=True)
    assert (node.role(), node.term) == (Role.FOLLOWER, 2)


def test_a_pre_vote_for_another_term_does_not_count() -> None:
    node = Single([1], term=2)
    node.node.campaign()
    node.drain()
    node.step(PRE_VOTE_RESP, 2, term=9)
    assert node.role() is Role.PRE_CANDIDATE
    node.step(PRE_VOTE_RESP, 2, term=3)
    assert node.role() is Role.CANDIDATE


def test_the_first_answer_of_a_voter_counts() -> None:
    node = Single([1], conf=ConfState((1, 2, 3, 4, 5)), pre_vote=False)
    node.node.campaign()
    node.drain()
    for _ in range(3):
        node.step(VOTE_RESP, 2)
    assert node.role() is Role.CANDIDATE


def test_who_follows_a_leader_gives_no_vote_in_its_term() -> None:
    node = Single([1], term=2)
    node.step(HEARTBEAT, 2)
    (answer,) = node.step(VOTE, 3, log_term=1, index=1)
    assert answer.reject


def test_who_has_voted_in_its_term_grants_a_pre_vote_for_the_next() -> None:
    node = Single([1], term=4, vote=3)
    (answer,) = node.step(PRE_VOTE, 2, term=5, log_term=1, index=1)
    assert (answer.reject, answer.term) == (False, 5)
    assert node.node.basic_status().vote == 3


def test_who_has_voted_grants_no_pre_vote_for_its_own_term() -> None:
    node = Single([1], term=5, vote=3)
    (answer,) = node.step(PRE_VOTE, 2, log_term=1, index=1)
    assert (answer.reject, answer.term) == (True, 5)


def test_who_gives_its_vote_waits_for_a_whole_timeout() -> None:
    """5.2: also where the term is not a new one."""
    node = Single([1], term=2)
    for _ in range(9):
        node.node.tick()
    (answer,) = node.step(VOTE, 2, log_term=1, index=1)
    assert not answer.reject
    for _ in range(9):
        node.node.tick()
    assert node.role() is Role.FOLLOWER


def test_without_a_quorum_check_there_is_no_lease() -> None:
    """A leader that nobody answers would lead on, and nobody could be elected."""
    node = Single([1], term=2, check_quorum=False)
    node.step(HEARTBEAT, 3)
    (answer,) = node.step(VOTE, 2, term=3, log_term=1, index=1)
    assert not answer.reject


def test_an_old_request_for_a_vote_is_answered_with_our_term() -> None:
    node = Single([1], term=6)
    (answer,) = node.step(VOTE, 2, term=4, log_term=9, index=9)
    assert (answer.reject, answer.term) == (True, 6)


def test_a_stranger_may_ask_for_votes_but_strangers_answers_do_not_count() -> None:
    node = Single([1], term=2)
    (answer,) = node.step(VOTE, 9, term=3, log_term=2, index=5)
    assert not answer.reject


def test_a_leader_ignores_a_request_to_stand() -> None:
    node = leader()
    assert not node.node.campaign()
    node.step(TIMEOUT_NOW, 2)
    assert node.is_leader


def test_s7_two_leaders_in_one_term_stop_the_replica_that_meets_them() -> None:
    """A disk that went back in time gives its vote again; that must not end every group here."""
    node = leader()
    with pytest.raises(TwoLeadersError):
        node.node.step(append_message(node, 2, (2, 2), term=node.term))
    follower = Single([1], term=2)
    follower.step(HEARTBEAT, 2)
    with pytest.raises(TwoLeadersError):
        follower.node.step(Message(HEARTBEAT, 1, 3, 2))


def test_s7_votes_of_a_candidacy_that_the_disk_forgot_do_not_make_a_leader() -> None:
    """They come before the requests of this one have left, which wait for the own vote (E3)."""
    node = Single([1], pre_vote=False)
    node.node.campaign()
    for voter in (2, 3):
        node.node.step(Message(MessageType.VOTE_RESP, 1, voter, node.term))
    assert node.role() is Role.CANDIDATE
    node.drain()
    assert node.role() is Role.CANDIDATE
    node.step(MessageType.VOTE_RESP, 2)
    assert node.is_leader


def test_s13_a_leader_with_a_stuck_disk_hands_over() -> None:
    """Its entries are durable on the others: the target is level, whatever the own disk does."""
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose(b"x")
    network.process(1, persist=False)
    network.deliver_all()
    for replica_id in (2, 3):
        network.process(replica_id)
    network.deliver_all()
    assert network[1].basic_status().commit == 3
    network[1].transfer_leader(2)
    network.process(1, persist=False)
    network.deliver_all()
    network.process(2)
    network.deliver_all()
    network.process(3)
    network.deliver_all()
    assert network.replicas[2].role() is Role.LEADER
