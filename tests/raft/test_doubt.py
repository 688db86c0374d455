"""Replicas that cannot vouch for what they promised before their last start (safety S8)."""

from __future__ import annotations

import pytest

from rakit.raft import (
    ConfState,
    MessageType,
    Role,
    TransferRefusedError,
)
from rakit.raft.messages import decode_stamp, encode_boot, encode_stamp
from rakit.raft.tracker import Progress
from tests.raft.network import Network
from tests.raft.single import Single, of_kind

APP, APP_RESP = MessageType.APP, MessageType.APP_RESP
VOTE, VOTE_RESP = MessageType.VOTE, MessageType.VOTE_RESP
PRE_VOTE_RESP = MessageType.PRE_VOTE_RESP
HEARTBEAT, HEARTBEAT_RESP = MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP
FIVE = ConfState((1, 2, 3, 4, 5))

DOUBTFUL_7 = encode_stamp(7, doubtful=True)
CLEAR_7 = encode_stamp(7, doubtful=False)


def candidate(conf: ConfState | None = None, **options: int) -> Single:
    node = Single([1], conf=conf, pre_vote=False, **options)
    node.node.campaign()
    node.drain()
    return node


def test_stamps_survive_their_encoding_and_anything_else_is_boot_0() -> None:
    assert decode_stamp(DOUBTFUL_7) == (7, True)
    assert decode_stamp(CLEAR_7) == (7, False)
    assert decode_stamp(b"") == (0, False)
    assert decode_stamp(b"forced") == (0, False)
    assert encode_stamp(0, doubtful=False) == b""


# Rule D1: votes.


def test_s8_a_doubtful_vote_does_not_make_a_majority() -> None:
    node = candidate()
    node.step(VOTE_RESP, 2, context=DOUBTFUL_7)
    assert node.role() is Role.CANDIDATE


def test_s8_with_every_voter_granting_a_doubtful_vote_counts() -> None:
    node = candidate()
    node.step(VOTE_RESP, 2, context=DOUBTFUL_7)
    node.step(VOTE_RESP, 3)
    assert node.role() is Role.LEADER


def test_s8_one_refusal_makes_doubtful_votes_worthless() -> None:
    """The one who refuses may have the longer log, or have promised itself to somebody newer."""
    node = candidate()
    node.step(VOTE_RESP, 2, context=DOUBTFUL_7)
    node.step(VOTE_RESP, 3, reject=True)
    assert node.role() is Role.FOLLOWER


def test_s8_a_majority_that_is_not_in_doubt_needs_nobody_else() -> None:
    node = candidate(FIVE)
    node.step(VOTE_RESP, 2, context=DOUBTFUL_7)
    node.step(VOTE_RESP, 3)
    assert node.role() is Role.CANDIDATE
    node.step(VOTE_RESP, 4)
    assert node.role() is Role.LEADER


def test_s8_a_doubtful_candidate_counts_itself_as_doubtful() -> None:
    node = candidate(doubtful=True, boot=7)
    node.step(VOTE_RESP, 2)
    assert node.role() is Role.CANDIDATE
    node.step(VOTE_RESP, 3)
    assert node.role() is Role.LEADER


def test_s8_doubtful_voters_say_so() -> None:
    node = Single([1], doubtful=True, boot=7)
    (answer,) = node.step(VOTE, 2, term=5, log_term=1, index=1)
    assert (answer.reject, decode_stamp(answer.context)) == (False, (7, True))


def test_s8_planted_a_majority_of_doubtful_votes_loses_what_was_committed() -> None:
    """Without rule D1: 2 lost the entry that it acknowledged, 3 never had it, 1 is cut off."""
    network = lossy()
    for replica_id in (2, 3):
        network.replicas[replica_id].crash(doubtful=False)
    network[2].forget_leader()
    network[2].campaign()
    network.run()
    assert network.leader() == 2
    assert network.replicas[2].commands == []


def test_s8_a_majority_of_doubtful_votes_elects_nobody() -> None:
    network = lossy()
    network.tick(60, ids=[2, 3])
    assert network.leader() == 1 or network.leader() == 0
    assert network.replicas[2].commands == []
    network.heal()
    network.pending.clear()
    network.tick(60)
    assert [r.commands for r in network.replicas.values()] == [[b"kept"]] * 3
    assert not any(r.node.basic_status().doubtful for r in network.replicas.values())


def lossy() -> Network:
    """1 and 2 have committed `kept`; then 2 loses the end of its log and 1 is cut off."""
    network = Network((1, 2, 3), number_boots=True)
    network.elect(1)
    network.isolate(3)
    network[1].propose(b"kept")
    network.run()
    assert network.replicas[1].commands == [b"kept"]
    loser = network.replicas[2].synced
    entries = loser.log.entries(2, 3, 1 << 20)
    base = loser.log.offered
    assert base is not None
    term = loser.log.hard_state.term
    loser.log.install(base)
    loser.log.append(entries)
    loser.log.set_hard_state(type(loser.log.hard_state)(term, 1, 2))
    loser.applied, loser.commands = 2, []
    network.heal()
    network.pending.clear()
    network.isolate(1)
    for replica_id in (2, 3):
        network.replicas[replica_id].crash(doubtful=True)
    return network


# Rules D2 and D3: acknowledgements.


def leader_of_five() -> Single:
    node = Single([1], conf=FIVE, boot=1)
    node.win()
    for peer in (2, 3):
        node.step(APP_RESP, peer, index=2)
    return node


def peer(node: Single, replica_id: int) -> Progress:
    return node.node._raft.tracker.progress[replica_id]


def test_s8_what_was_acknowledged_before_the_start_is_void() -> None:
    node = leader_of_five()
    assert peer(node, 2).match == 2
    node.step(APP_RESP, 2, index=1, context=DOUBTFUL_7)
    assert peer(node, 2).match == 1


def test_s8_answers_of_an_earlier_boot_are_ignored() -> None:
    node = leader_of_five()
    node.step(APP_RESP, 2, index=1, context=DOUBTFUL_7)
    node.step(APP_RESP, 2, index=2, context=encode_stamp(6, doubtful=False))
    node.step(APP_RESP, 2, index=2)
    assert peer(node, 2).match == 1


def test_s8_a_restart_without_doubt_keeps_what_was_acknowledged() -> None:
    node = leader_of_five()
    node.step(APP_RESP, 2, index=1, context=CLEAR_7)
    assert peer(node, 2).match == 2


def test_s8_doubtful_acknowledgements_commit_nothing() -> None:
    node = leader_of_five()
    for replica_id in (4, 5):
        node.step(APP_RESP, replica_id, index=2, context=DOUBTFUL_7)
    _, index = node.node.propose(b"x")
    node.drain()
    before = node.node.basic_status().commit
    for replica_id in (4, 5):
        node.step(APP_RESP, replica_id, index=index, context=DOUBTFUL_7)
    assert node.node.basic_status().commit == before
    node.step(APP_RESP, 2, index=index)
    node.step(APP_RESP, 3, index=index)
    assert node.node.basic_status().commit == index


def test_s8_a_doubtful_replica_confirms_no_read() -> None:
    node = Single([1], doubtful=True, boot=7)
    answers = node.step(HEARTBEAT, 2, term=2, context=(5).to_bytes(8, "big"))
    assert of_kind(answers, HEARTBEAT_RESP)[0].context == b""
    (told,) = of_kind(answers, APP_RESP)
    assert (told.index, decode_stamp(told.context)) == (0, (7, True))


def test_s8_a_doubtful_replica_is_not_stopped_by_an_old_commit_index() -> None:
    """Its leader may not know yet that it restarted, and count on entries that are gone."""
    node = Single([1], doubtful=True, boot=7)
    node.step(HEARTBEAT, 2, term=2, commit=9)
    assert node.node.basic_status().commit == 0


def test_s8_a_doubtful_replica_takes_no_commit_index_from_a_heartbeat() -> None:
    """Its entries 2 and 3 of term 2 are back; what it acknowledged in term 3 had replaced them."""
    node = Single([1, 2, 2], commit=1, doubtful=True, boot=7)
    node.step(HEARTBEAT, 2, term=3, commit=3)
    assert node.node.basic_status().commit == 1
    node.append(2, (1, 1), 3, 3, term=3, commit=3)
    assert node.node.basic_status().commit == 3, "an append compares the logs first"


def test_s8_what_a_cut_brings_back_is_not_committed_by_the_leaders_old_view() -> None:
    network = Network((1, 2, 3), number_boots=True)
    network.elect(2)
    network.isolate(2)
    network[2].propose_batch([b"x", b"y", b"z"])
    network.process(2)
    network.pending.clear()
    network.elect(1)
    network[1].propose_batch([b"p", b"q"])
    network.run()
    network.heal()
    second = network.replicas[2]
    written = len(second.history)
    network.tick(4)
    assert second.commands == [b"p", b"q"], "x, y and z are replaced"
    second.lose(len(second.history) - written)
    second.crash(doubtful=True)
    network.pending.clear()
    network.tick(3)
    network[1].propose(b"new")
    network.run()
    assert [r.commands for r in network.replicas.values()] == [[b"p", b"q", b"new"]] * 3


def test_s8_doubtful_replicas_are_no_quorum_for_a_leader() -> None:
    node = leader_of_five()
    for replica_id in (2, 3, 4):
        node.step(APP_RESP, replica_id, index=1, context=DOUBTFUL_7)
    for _ in range(20):
        node.node.tick()
        node.drain()
        for replica_id in (2, 3, 4):
            if node.is_leader:
                node.step(HEARTBEAT_RESP, replica_id)
    assert not node.is_leader


def test_s8_leadership_is_not_handed_to_a_doubtful_replica() -> None:
    node = leader_of_five()
    node.step(APP_RESP, 2, index=2, context=DOUBTFUL_7)
    with pytest.raises(TransferRefusedError, match="S8"):
        node.node.transfer_leader(2)


def test_s8_a_target_that_restarted_in_doubt_is_not_told_to_stand() -> None:
    """It would depose its leader for an election that only every voter's grant could win."""
    node = leader_of_five()
    node.node.propose(b"x")
    end = node.node.basic_status().last_index
    node.node.transfer_leader(2)
    sent = node.step(APP_RESP, 2, index=1, context=DOUBTFUL_7)
    sent += node.step(APP_RESP, 2, index=end, context=DOUBTFUL_7)
    assert peer(node, 2).match == node.node.basic_status().last_index
    assert of_kind(sent, MessageType.TIMEOUT_NOW) == []


def test_s8_a_target_that_lost_its_log_meanwhile_is_not_told_to_stand() -> None:
    node = leader_of_five()
    node.node.propose(b"x")
    end = node.node.basic_status().last_index
    node.node.transfer_leader(2)
    sent = node.step(APP_RESP, 2, index=2, reject=True, reject_hint=1, context=CLEAR_7)
    assert peer(node, 2).lost_log
    sent += node.step(APP_RESP, 2, index=end, context=CLEAR_7)  # it was given a base
    assert of_kind(sent, MessageType.TIMEOUT_NOW) == []


def test_s8_a_replica_that_lost_its_log_confirms_no_read() -> None:
    node = leader_of_five()
    node.node.read_index(b"r")
    beat = of_kind(node.drain(), HEARTBEAT)[0]
    node.step(APP_RESP, 2, index=2, reject=True, reject_hint=1, context=CLEAR_7)
    assert peer(node, 2).lost_log
    node.step(HEARTBEAT_RESP, 2, context=beat.context)
    node.step(HEARTBEAT_RESP, 3, context=beat.context)
    assert not any(ready.read_states for ready in node.readys)
    node.step(HEARTBEAT_RESP, 4, context=beat.context)
    assert [one.context for ready in node.readys for one in ready.read_states] == [b"r"]


# Rule D4: how it ends.


def test_s8_the_doubt_ends_by_an_entry_that_others_committed() -> None:
    node = leader_of_five()
    sent = node.step(APP_RESP, 4, index=1, context=DOUBTFUL_7)
    end = node.node.basic_status().last_index
    assert end == 3, "the leader appends an entry that the absolution rests on"
    assert all(m.context == b"" for m in of_kind(sent, APP))
    sent = node.step(APP_RESP, 4, index=end, context=DOUBTFUL_7)
    assert all(m.context == b"" for m in of_kind(sent, APP)), "not committed by others yet"
    node.step(APP_RESP, 2, index=end)
    sent = node.step(APP_RESP, 3, index=end)
    absolved = [m for m in of_kind(sent, APP) if m.to == 4]
    assert [m.context for m in absolved] == [encode_boot(7)]
    node.step(APP_RESP, 4, index=end, context=CLEAR_7)
    assert peer(node, 4).counts
    assert not peer(node, 4).doubtful


def test_s8_the_entry_waits_while_leadership_is_handed_over() -> None:
    """Who is told to stand would lack it (rule K2); a transfer that failed must not cost it."""
    node = Single([1], conf=FIVE, boot=1, check_quorum=False)
    node.win()
    end = node.node.basic_status().last_index
    node.node.transfer_leader(2)
    node.step(APP_RESP, 4, index=1, context=DOUBTFUL_7)
    node.step(APP_RESP, 4, index=end, context=DOUBTFUL_7)
    assert node.node.basic_status().last_index == end
    for _ in range(10):
        node.node.tick()
    assert node.node.basic_status().last_index == end + 1
    node.step(APP_RESP, 4, index=end, context=DOUBTFUL_7)
    assert node.node.basic_status().last_index == end + 1, "one is enough"


def test_s8_transfers_one_after_another_do_not_put_the_entry_off() -> None:
    """What the doubtful replica answers may always find the next one under way."""
    node = Single([1], conf=FIVE, boot=1, check_quorum=False)
    node.win()
    end = node.node.basic_status().last_index
    node.node.transfer_leader(2)
    node.step(APP_RESP, 4, index=end, context=DOUBTFUL_7)
    node.node.transfer_leader(3)
    assert node.node.basic_status().last_index == end + 1
    sent = node.step(APP_RESP, 3, index=end)
    assert of_kind(sent, MessageType.TIMEOUT_NOW) == []
    sent = node.step(APP_RESP, 3, index=end + 1)
    assert [each.to for each in of_kind(sent, MessageType.TIMEOUT_NOW)] == [3]


def test_s8_each_start_in_doubt_needs_an_entry_of_its_own() -> None:
    """The entry that a first absolution rested on may be what the second cut took away."""
    node = leader_of_five()
    node.step(APP_RESP, 4, index=1, context=DOUBTFUL_7)
    first = node.node.basic_status().last_index
    for voter in (2, 3):
        node.step(APP_RESP, voter, index=first)
    again = encode_stamp(8, doubtful=True)
    sent = node.step(APP_RESP, 4, index=first, context=again)
    second = node.node.basic_status().last_index
    assert second == first + 1
    assert [m.context for m in of_kind(sent, APP) if m.context] == []
    for voter in (2, 3):
        node.step(APP_RESP, voter, index=second)
    sent = node.step(APP_RESP, 4, index=second, context=again)
    assert [m.context for m in of_kind(sent, APP) if m.to == 4] == [encode_boot(8)]


def test_s8_the_word_is_repeated_until_it_has_arrived() -> None:
    """The group is idle: nothing but the heartbeats would carry it."""
    node = leader_of_five()
    node.step(APP_RESP, 4, index=1, context=DOUBTFUL_7)
    end = node.node.basic_status().last_index
    for voter in (2, 3):
        node.step(APP_RESP, voter, index=end)
    node.step(APP_RESP, 4, index=end, context=DOUBTFUL_7)
    for _ in range(3):  # its answer to a heartbeat, since the append did not reach it
        sent = node.step(APP_RESP, 4, index=0, context=DOUBTFUL_7)
        assert [(m.to, m.context) for m in of_kind(sent, APP)] == [(4, encode_boot(7))]
    assert of_kind(node.step(APP_RESP, 4, index=end, context=CLEAR_7), APP) == []


def test_s8_only_the_word_for_this_boot_ends_the_doubt() -> None:
    node = Single([1], doubtful=True, boot=7)
    node.append(2, (1, 1), 2, term=2, context=encode_boot(6))
    assert node.node.basic_status().doubtful
    node.append(2, (1, 9), 2, term=2, context=encode_boot(7))
    assert node.node.basic_status().doubtful, "the append did not fit"
    (answer,) = node.append(2, (2, 2), term=2, context=encode_boot(7))
    assert not node.node.basic_status().doubtful
    assert decode_stamp(answer.context) == (7, False)


def test_s8_a_doubtful_leader_that_not_all_have_elected_does_not_count_itself() -> None:
    node = candidate(FIVE, doubtful=True, boot=7)
    for voter in (2, 3, 4):
        node.step(VOTE_RESP, voter)
    assert node.role() is Role.LEADER
    for voter in (2, 3):
        node.step(APP_RESP, voter, index=2)
    assert node.node.basic_status().commit == 0
    node.step(APP_RESP, 4, index=2)
    assert node.node.basic_status().commit == 2


def test_s8_a_leader_counts_itself_once_its_own_term_is_committed() -> None:
    node = candidate(FIVE, doubtful=True, boot=7)
    for voter in (2, 3, 4):
        node.step(VOTE_RESP, voter)
    assert peer(node, 1).doubtful
    for voter in (2, 3, 4):
        node.step(APP_RESP, voter, index=2)
    assert not peer(node, 1).doubtful
    _, index = node.node.propose(b"x")
    node.drain()
    node.step(APP_RESP, 2, index=index)
    assert node.node.basic_status().commit == 2
    node.step(APP_RESP, 3, index=index)
    assert node.node.basic_status().commit == index, "1 makes the majority with 2 and 3"


def test_s8_after_a_unanimous_election_doubtful_replicas_count_for_that_leader() -> None:
    node = candidate(doubtful=True, boot=7)
    for voter in (2, 3):
        node.step(VOTE_RESP, voter, context=DOUBTFUL_7)
    assert node.role() is Role.LEADER
    node.step(APP_RESP, 2, index=2, context=DOUBTFUL_7)
    assert node.node.basic_status().commit == 2
    assert not node.node.basic_status().doubtful, "its own entry is committed"


def test_s8_a_start_after_the_election_is_not_covered_by_it() -> None:
    node = candidate(FIVE)
    for voter in (2, 3, 4, 5):
        node.step(VOTE_RESP, voter, context=DOUBTFUL_7)
    assert node.role() is Role.LEADER
    again = encode_stamp(8, doubtful=True)
    for voter in (2, 3):
        node.step(APP_RESP, voter, index=2, context=again)
    assert node.node.basic_status().commit == 0


@pytest.mark.parametrize("survivors", [(1,), (1, 2), (2, 3)])
def test_s8_a_group_recovers_when_every_voter_is_back(survivors: tuple[int, ...]) -> None:
    """A power cut of every node at once: all in doubt, whoever lost nothing leads."""
    network = Network((1, 2, 3), number_boots=True)
    network.elect(1)
    network[1].propose(b"kept")
    network.run()
    for replica_id, replica in network.replicas.items():
        replica.crash(doubtful=True)
        replica.alive = replica_id in survivors
    network.pending.clear()
    network.tick(60)
    assert network.leader() == 0, "not before everyone has answered"
    for replica in network.replicas.values():
        replica.alive = True
    network.tick(80)
    assert network.leader()
    assert all(r.commands == [b"kept"] for r in network.replicas.values())
    assert not any(r.node.basic_status().doubtful for r in network.replicas.values())


def test_a_host_that_numbers_no_boots_sends_no_stamps() -> None:
    node = Single([1])
    answers = node.append(2, (1, 1), 1, term=1) + node.step(VOTE, 3, term=5, index=9, log_term=1)
    assert {answer.context for answer in answers} == {b""}


# Rule D5: a loss that the replica does not know of.


def test_a_peer_that_lost_its_log_without_knowing_gives_itself_away() -> None:
    node = Single([1], boot=1)
    node.win()
    node.step(APP_RESP, 2, index=2, context=encode_stamp(6, doubtful=False))
    assert peer(node, 2).match == 2
    node.step(APP_RESP, 2, index=2, reject=True, reject_hint=1, context=CLEAR_7)
    (status,) = [p for p in node.node.status().peers if p.id == 2]
    assert status.lost_log
    _, index = node.node.propose(b"x")
    node.drain()
    node.step(APP_RESP, 2, index=index, context=CLEAR_7)
    assert node.node.basic_status().commit == 2, "it does not count any more"
    node.step(APP_RESP, 3, index=index)
    assert node.node.basic_status().commit == index


def test_a_peer_that_lost_its_log_is_asked_again_with_a_heartbeat_only() -> None:
    node = Single([1], boot=1)
    node.win()
    node.step(APP_RESP, 2, index=2, context=encode_stamp(6, doubtful=False))
    node.node.report_reachable(2)
    node.node.report_unreachable(2)
    node.drain()
    lost = {"index": 2, "reject": True, "reject_hint": 1, "context": CLEAR_7}
    for _ in range(3):
        # Its answer would be the same, as fast as the network is.
        assert of_kind(node.step(APP_RESP, 2, **lost), APP) == []
        node.node.tick()
        node.drain()
        assert len(of_kind(node.step(HEARTBEAT_RESP, 2), APP)) == 1


def test_leadership_is_not_handed_to_a_peer_that_lost_its_log() -> None:
    node = Single([1], boot=1)
    node.win()
    node.step(APP_RESP, 2, index=2, context=encode_stamp(6, doubtful=False))
    node.step(APP_RESP, 2, index=2, reject=True, reject_hint=1, context=CLEAR_7)
    with pytest.raises(TransferRefusedError, match="lost"):
        node.node.transfer_leader(2)


def test_a_rejection_that_is_only_late_is_no_sign_of_a_loss() -> None:
    node = Single([1], boot=1)
    node.win()
    late = {"index": 2, "reject": True, "reject_hint": 1, "context": CLEAR_7}
    node.step(APP_RESP, 2, index=1, context=CLEAR_7)
    node.step(APP_RESP, 2, **late)
    node.step(APP_RESP, 2, index=2, context=CLEAR_7)
    node.step(APP_RESP, 2, **late)
    assert not peer(node, 2).lost_log
    assert peer(node, 2).counts
