"""One test for each bug that another implementation shipped, by its number in the checklist.

The numbers are those of docs/RAFT.md, by which the core's comments cite known bugs; each test names
what would go wrong. Those marked "planted" put the bug in and show that its check notices.
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

import rakit.raft
from rakit.raft import (
    CommittedConflictError,
    ConfChangeInvalidError,
    ConfChangePendingError,
    ConfState,
    Entry,
    EntryType,
    HardState,
    LogLostError,
    Message,
    MessageType,
    ProgressState,
    Role,
    Snapshot,
    StepMalformedError,
    StepPeerNotFoundError,
    StepWrongReplicaError,
)
from rakit.raft.log_unstable import Unstable
from rakit.raft.quorum import JointConfig
from rakit.raft.state import Raft
from tests.raft.network import Network
from tests.raft.script import parse_change
from tests.raft.single import Single, append_message, of_kind

APP, APP_RESP, SNAP = MessageType.APP, MessageType.APP_RESP, MessageType.SNAP
VOTE, VOTE_RESP = MessageType.VOTE, MessageType.VOTE_RESP
PRE_VOTE = MessageType.PRE_VOTE
HEARTBEAT, HEARTBEAT_RESP = MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP


def committed(node: Single) -> int:
    return node.node.basic_status().commit


# Votes and terms.


def second_vote(node: Single) -> bool:
    """Votes for 2, loses its leader in every way there is, and is asked by 3 in the same term."""
    node.step(VOTE, 2, term=5, log_term=1, index=1)
    node.step(HEARTBEAT, 2, term=5)
    node.node.forget_leader()
    node.node.campaign()
    node.drain()
    node.step(HEARTBEAT, 2, term=5)
    node.node.forget_leader()
    node.crash()
    (answer,) = node.step(VOTE, 3, term=5, log_term=1, index=1)
    return not answer.reject


def test_bug_01_a_vote_is_never_cleared_within_its_term() -> None:
    assert not second_vote(Single([1], term=4))


def test_bug_01_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = Raft.reset

    def forgetful(self: Raft, term: int) -> None:
        reset(self, term)
        self.vote = 0

    monkeypatch.setattr(Raft, "reset", forgetful)
    assert second_vote(Single([1], term=4))


def test_bug_02_term_and_vote_survive_when_everyone_restarts() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose(b"kept")
    network.run()
    terms = {i: (r.term, r.node.basic_status().vote) for i, r in network.replicas.items()}
    for replica in network.replicas.values():
        replica.crash()
    assert terms == {i: (r.term, r.node.basic_status().vote) for i, r in network.replicas.items()}
    network.tick(40)
    assert network.leader()
    assert all(replica.commands == [b"kept"] for replica in network.replicas.values())


def test_bug_03_a_new_term_is_stored_without_the_old_vote() -> None:
    node = Single([1], term=4, vote=3)
    node.append(2, (1, 1), term=6)
    assert node.synced.log.hard_state == HardState(6, 0, 0)


def test_bug_03_a_vote_whose_write_fails_is_never_given() -> None:
    """The host does not report the Ready; neither the grant nor anything after it leaves."""
    node = Single([1], term=4)
    raft = node.node
    raft.step(Single([1], replica_id=2, term=4, pre_vote=False).requests()[0])
    ready = node.take()
    assert ready.must_sync
    assert not ready.messages
    assert [m.type for m in ready.messages_after_persist] == [VOTE_RESP]
    raft.step(Single([1], replica_id=2, term=4, pre_vote=False).requests()[0])
    again = node.take()
    assert not again.messages, "the repeated grant must wait for the first write too"


def test_bug_04_a_repeated_request_is_granted_again_with_the_requests_term() -> None:
    node = Single([1], term=4)
    answers = [
        answer for _ in range(2) for answer in node.step(VOTE, 2, term=5, log_term=1, index=1)
    ]
    assert [(a.reject, a.term) for a in answers] == [(False, 5), (False, 5)]


def test_bug_04_an_old_vote_elects_nobody() -> None:
    node = Single([1], pre_vote=False)
    node.node.campaign()
    node.drain()
    node.node.campaign()
    node.drain()
    node.step(VOTE_RESP, 2, term=2)
    assert (node.role(), node.term) == (Role.CANDIDATE, 3)


def test_bug_04_a_term_never_falls() -> None:
    node = Single([1, 1], term=7)
    for kind in (APP, HEARTBEAT, SNAP, VOTE, VOTE_RESP, APP_RESP):
        base = Snapshot(1, 1, ConfState((1, 2, 3)))
        node.step(kind, 2, term=3, snapshot=base if kind is SNAP else None)
        assert node.term == 7


def test_bug_05_and_28_the_core_has_no_threads_and_never_waits() -> None:
    forbidden = {"asyncio", "threading", "concurrent", "time", "socket", "os", "multiprocessing"}
    for path in Path(rakit.raft.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, (ast.Await, ast.AsyncFunctionDef)), path
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]}
            else:
                continue
            assert not names & forbidden, f"{path.name} imports {names & forbidden}"


def test_bug_06_a_majority_of_the_union_elects_nobody() -> None:
    joint = JointConfig((1, 2, 3), (1, 4, 5, 6, 7))
    votes: dict[int, bool] = {1: True, 2: True, 3: True, 4: True}
    assert len(votes) > len(joint.ids) // 2
    assert joint.vote_result(votes).name == "PENDING"


# Commit.


def test_bug_07_entries_of_an_earlier_term_are_not_committed_by_counting() -> None:
    node = Single([1, 2])
    node.win()
    node.step(APP_RESP, 2, index=2)
    node.step(APP_RESP, 3, index=2)
    assert committed(node) == 0
    node.step(APP_RESP, 3, index=3)
    assert committed(node) == 3


def test_bug_08_a_follower_commits_only_what_the_message_covers() -> None:
    node = Single([1, 1, 1], term=2)
    node.append(2, (1, 1), commit=3)
    assert committed(node) == 1, "entries 2 and 3 may be of a leader that lost"
    (answer,) = node.append(2, (1, 1), 1, commit=3)
    assert (answer.index, committed(node)) == (2, 2)
    node.append(2, (1, 1), commit=1)
    assert committed(node) == 2, "a commit index never falls"


def test_bug_08_a_late_completion_confirms_nothing_of_a_newer_term() -> None:
    node = Single([1], term=1)
    node.node.step(append_message(node, 2, (1, 1), 1, 1, term=1))
    node.take()
    node.node.step(append_message(node, 3, (1, 1), 2, 2, term=2))
    node.take()
    answers = node.persist()
    assert [m.term for m in answers] == [1]
    assert node.node.basic_status().durable_index == 1
    assert [(m.term, m.index) for m in node.persist()] == [(2, 3)]
    assert node.node.basic_status().durable_index == 3


def test_bug_09_match_never_falls_and_next_stays_above_it() -> None:
    node = Single([1, 1])
    node.win()
    peer = node.node._raft.tracker.progress[2]
    for index, reject, hint in (
        (3, False, 0),
        (2, False, 0),
        (3, True, 0),
        (2, True, 1),
        (1, False, 0),
    ):
        node.step(APP_RESP, 2, index=index, reject=reject, reject_hint=hint)
        assert peer.match == 3
        assert peer.next > peer.match


def test_bug_09_a_stale_rejection_takes_back_nothing_that_is_committed() -> None:
    node = Single([1, 1])
    node.win()
    node.step(APP_RESP, 2, index=3)
    node.step(APP_RESP, 2, index=2, reject=True, reject_hint=1)
    sent = node.drain()
    assert committed(node) == 3
    assert all(m.index >= 3 for m in of_kind(sent, APP) if m.to == 2)


def test_bug_10_the_quorum_does_not_depend_on_the_order_of_answers() -> None:
    for order in itertools.permutations([(2, 3), (3, 5), (4, 2), (5, 4)]):
        node = Single([1, 1, 1, 1], conf=ConfState((1, 2, 3, 4, 5)))
        node.win()
        for peer, index in order:
            node.step(APP_RESP, peer, index=index)
        assert committed(node) == 0, "matches 5 5 4 3 2: a majority holds 4, not yet the own 5"
        node.step(APP_RESP, 5, index=5)
        assert committed(node) == 5


# The log.


def test_bug_11_an_append_truncates_only_at_a_conflict() -> None:
    node = Single([1])
    node.append(2, (1, 1), 1, 1, 1)
    node.append(2, (1, 1))
    node.append(2, (0, 0), 1)
    node.append(2, (1, 2), 1)
    assert node.terms() == [1, 1, 1, 1]


def test_bug_12_what_is_remembered_follows_a_truncation() -> None:
    unstable = Unstable(4, 2)
    assert unstable.term(3) == 2
    unstable.append([Entry(5, 3)])
    assert unstable.term(3) == 5
    assert unstable.term(2) is None, "the term before the end is not known any more"


def aba(node: Single, *, planted: bool = False) -> int:
    """Entry 3 of term 2 is written, replaced by one of term 3, and written again in term 4.

    Returns what counts as durable when only the first two writes have completed.
    """
    raft = node.node
    raft.step(append_message(node, 2, (1, 1), 2, 2, term=2))
    node.take()
    raft.step(append_message(node, 3, (1, 1), 3, 3, term=3))
    node.take()
    raft.step(append_message(node, 2, (1, 1), 2, 2, term=4))
    if planted:
        # The bug: the completion does not ask whether the term has moved.
        flights = raft._flights
        for flight in flights:
            object.__setattr__(flight, "term", 4)
    node.take()
    node.persist(2)
    return raft.basic_status().durable_index


def test_bug_12_a_completion_of_replaced_entries_counts_for_nothing() -> None:
    """The disk holds 3 of term 3 when the first two writes are done (etcd-io/raft#8)."""
    node = Single([1], term=1)
    assert aba(node) == 1
    assert [node.synced.log.term(i) for i in (2, 3)] == [3, 3]
    node.persist()
    assert node.node.basic_status().durable_index == 3


def test_bug_12_planted() -> None:
    assert aba(Single([1], term=1), planted=True) == 3


def test_bug_13_a_read_that_ends_early_never_becomes_an_append(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(*_: int) -> list[Entry]:
        return []

    node = Single([1, 1, 1, 1])
    node.win()
    node.step(APP_RESP, 2, index=4, reject=True, reject_hint=1)
    monkeypatch.setattr(node.store.log, "entries", nothing)
    node.node.step(_reject(node, 3, 4, 1))
    with pytest.raises(AssertionError, match="no entries"):
        node.drain()


def _reject(node: Single, sender: int, index: int, hint: int) -> Message:
    return Message(APP_RESP, node.id, sender, node.term, index=index, reject=True, reject_hint=hint)


def test_bug_13_completions_come_in_order() -> None:
    node = Single([1])
    node.node.step(append_message(node, 2, (1, 1), 1, term=1))
    first = node.take()
    node.node.step(append_message(node, 2, (1, 2), 1, term=1))
    second = node.take()
    with pytest.raises(AssertionError, match="N1"):
        node.node.on_persisted(second.number)
    assert first.number < second.number


def test_bug_14_no_answer_leaves_before_the_disk() -> None:
    node = Single([1])
    node.node.step(append_message(node, 2, (1, 1), 1, term=1))
    ready = node.take()
    assert not ready.messages
    # The same append again, while the write is under way: nothing to write, still no answer.
    node.node.step(append_message(node, 2, (1, 1), 1, term=1))
    again = node.take()
    assert not again.must_sync
    assert not again.messages
    assert [m.type for m in again.messages_after_persist] == [APP_RESP]


def test_bug_14_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that leaves at once promises an entry that a crash loses."""

    def hasty(self: Raft, message: Message) -> None:
        self.outbox.append(message)

    monkeypatch.setattr(Raft, "post_ack", hasty)
    node = Single([1])
    node.node.step(append_message(node, 2, (1, 1), 1, term=1))
    ready = node.take()
    assert [m.index for m in ready.messages] == [2]
    node.crash()
    assert node.terms() == [1]


def test_bug_14_a_commit_beyond_a_wiped_log_stops_the_replica_and_not_the_node() -> None:
    node = Single([1], term=2)
    with pytest.raises(LogLostError, match="9 is committed"):
        node.step(HEARTBEAT, 2, commit=9)


def test_bug_15_a_restart_goes_on_right_after_what_was_applied() -> None:
    node = Single([1] * 8, commit=8, max_committed_bytes_per_ready=30)
    node.drain()
    pages = [[e.index for e in r.committed_entries] for r in node.readys if r.committed_entries]
    assert pages == [[1], [2], [3], [4], [5], [6], [7], [8]]
    half = Single([1] * 8, commit=8, max_committed_bytes_per_ready=30)
    for _ in range(4):
        half.take()
        half.persist()
    half.store.applied = half.synced.applied = 4
    half.crash()
    assert half.take().committed_entries[0].index == 5


def test_bug_16_a_heartbeat_makes_no_follower_look_reverted() -> None:
    """It names no predecessor, and a commit index that the follower is known to hold."""
    node = Single([1, 1, 1])
    node.win()
    node.step(APP_RESP, 2, index=4)
    node.node.tick()
    beats = of_kind(node.drain(), HEARTBEAT)
    assert {(beat.to, beat.index, beat.commit) for beat in beats} == {(2, 0, 4), (3, 0, 0)}
    empty = Single([], replica_id=3, term=1)
    (answer,) = empty.step(HEARTBEAT, 1, term=node.term)
    assert not answer.reject


# Pre-vote, check-quorum, liveness.


def test_bug_17_a_high_term_with_a_short_log_does_not_block_elections() -> None:
    """etcd-io/etcd#8501: 3 has the higher term, 1 and 2 the longer log, and nobody leads."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.isolate(3)
    network[1].propose(b"x")
    network.run()
    behind = network.replicas[3]
    behind.store.log.set_hard_state(HardState(9, 3, behind.store.log.hard_state.commit))
    behind.synced.log.set_hard_state(behind.store.log.hard_state)
    for replica in network.replicas.values():
        replica.crash()
    network.heal()
    network.pending.clear()
    network.tick(60)
    assert network.leader() in {1, 2}
    assert network.replicas[3].commands == [b"x"]


def test_bug_17_pre_candidates_do_not_refuse_each_other_for_ever() -> None:
    """etcd-io/etcd#8334 and its kin: 2 and 3 ask at once, and neither holds on to its leader."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.replicas[1].alive = False
    for replica_id in (2, 3):
        while network.replicas[replica_id].role() is Role.FOLLOWER:
            network[replica_id].tick()
        network.process(replica_id)
    network.deliver_all()
    answers = [ready.messages[0] for id_ in (2, 3) for ready in network.process(id_)]
    assert [answer.reject for answer in answers] == [False, False]
    network.tick(60, ids=[2, 3])
    assert network.leader() in {2, 3}


def test_bug_17_a_leader_of_an_old_term_learns_the_new_one() -> None:
    node = Single([1], term=6)
    for kind in (APP, HEARTBEAT, SNAP):
        base = Snapshot(1, 1, ConfState((1, 2, 3))) if kind is SNAP else None
        (answer,) = node.step(kind, 2, term=3, snapshot=base)
        assert (answer.type, answer.term, answer.index) == (APP_RESP, 6, 0)
    (answer,) = node.step(PRE_VOTE, 2, term=4, log_term=1, index=1)
    assert (answer.reject, answer.term) == (True, 6)


@pytest.mark.parametrize(("a", "b"), [(1, 2), (1, 3), (2, 3)])
def test_bug_18_with_one_link_cut_a_leader_stays_and_serves(a: int, b: int) -> None:
    """The partial partition of 2020: everyone hears somebody, 1 and 2 do not hear each other."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.cut(a, b)
    network.tick(60)
    leaders: set[tuple[int, int]] = set()
    for _ in range(100):
        network.tick()
        leader = network.leader()
        leaders.add((leader, network.replicas[leader].term))
    assert len(leaders) == 1, "leadership goes back and forth"
    leader = network.leader()
    before = network[leader].basic_status().commit
    network[leader].propose(b"x")
    network.run()
    assert network[leader].basic_status().commit == before + 1


@pytest.mark.parametrize("steps", ["r4", "l4"])
def test_bug_19_a_removed_or_demoted_replica_with_a_high_term_disturbs_nobody(
    steps: str,
) -> None:
    network = Network((1, 2, 3, 4), pre_vote=False)
    network.elect(1)
    network.isolate(4)
    network[1].propose_conf_change(parse_change([steps]))
    network.run()
    for _ in range(60):
        network.tick(1, ids=[4])
    assert network.replicas[4].term > network.replicas[1].term
    network.pending.clear()
    network.heal()
    # It asks for votes once more; nobody who hears the leader follows its term.
    requests = [m for m in network.replicas[4].outcome[-1].messages_after_persist if m.type is VOTE]
    for request in requests:
        network.deliver(request)
    network.run()
    assert network.leader() == 1


# Reads.


def test_bug_20_a_read_waits_for_the_first_commit_of_the_term() -> None:
    node = Single([1, 1])
    node.win()
    node.node.read_index(b"early")
    beats = of_kind(node.drain(), HEARTBEAT)
    assert beats == []
    node.node.tick()
    for beat in of_kind(node.drain(), HEARTBEAT):
        node.step(HEARTBEAT_RESP, beat.to, context=beat.context)
    assert not any(ready.read_states for ready in node.readys)
    round_ = of_kind(node.step(APP_RESP, 2, index=3), HEARTBEAT)[0]
    node.step(HEARTBEAT_RESP, 2, context=round_.context)
    assert [s.index for ready in node.readys for s in ready.read_states] == [3]


def test_bug_20_equal_contexts_of_two_callers_do_not_confirm_each_other() -> None:
    node = Single([1])
    node.win()
    node.step(APP_RESP, 2, index=2)
    first = of_kind(node.step(MessageType.READ_INDEX, 2, term=0, context=b"same"), HEARTBEAT)[0]
    node.step(HEARTBEAT_RESP, 2, context=first.context)
    node.step(MessageType.READ_INDEX, 3, term=0, context=b"same")
    answers = node.step(HEARTBEAT_RESP, 2, context=first.context)
    assert of_kind(answers, MessageType.READ_INDEX_RESP) == []


def test_bug_20_a_deposed_leader_answers_no_read() -> None:
    node = Single([1])
    node.win()
    node.step(APP_RESP, 2, index=2)
    node.node.read_index(b"r")
    beat = of_kind(node.drain(), HEARTBEAT)[0]
    node.append(3, (2, 2), term=9)
    node.step(HEARTBEAT_RESP, 2, term=2, context=beat.context)
    assert not any(ready.read_states for ready in node.readys)
    assert [d.context for ready in node.readys for d in ready.dropped if d.context] == [b"r"]


# Membership and bases.


def test_bug_21_no_change_before_the_new_leader_has_applied_its_first_entry() -> None:
    node = Single([1])
    node.win()
    with pytest.raises(ConfChangePendingError):
        node.node.propose_conf_change(parse_change(["r3"]))
    node.step(APP_RESP, 2, index=2)
    node.node.propose_conf_change(parse_change(["r3"]))


def test_bug_21_no_second_promotion_before_the_first_is_applied() -> None:
    node = Single([1], conf=ConfState((1, 2, 3), (4, 5)))
    node.win()
    for peer in (2, 4, 5):
        node.step(APP_RESP, peer, index=2)
    node.node.propose_conf_change(parse_change(["v4"]))
    with pytest.raises(ConfChangePendingError):
        node.node.propose_conf_change(parse_change(["v5"]))


def test_bug_21_a_learner_votes_when_it_is_asked() -> None:
    """etcd-io/etcd#10998: the candidate knows of a promotion that the learner has not applied."""
    node = Single([1], replica_id=3, conf=ConfState((1, 2), (3,)))
    (answer,) = node.step(VOTE, 1, term=2, log_term=1, index=1)
    assert not answer.reject


def test_bug_21_a_learner_starts_and_keeps_being_one_after_a_restart() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network.add(4, None)
    network[1].propose_conf_change(parse_change(["l4"]))
    network.run()
    network.tick(4)
    network.replicas[4].crash()
    assert 4 in network[4].status().conf_state.learners


def test_bug_21_a_voter_becomes_a_learner_by_a_base() -> None:
    node = Single([1], replica_id=3, commit=1)
    node.drain()
    base = Snapshot(9, 2, ConfState((1, 2), (3,)))
    node.step(SNAP, 1, term=2, snapshot=base)
    assert node.node.status().conf_state == ConfState((1, 2), (3,))
    assert not node.node.campaign()


def test_bug_21_nobody_stands_while_a_base_is_pending() -> None:
    node = Single([1], replica_id=3, commit=1)
    node.drain()
    base = Snapshot(9, 2, ConfState((1, 2, 3)))
    node.node.step(Message(SNAP, 3, 1, 2, snapshot=base))
    for _ in range(50):
        node.node.tick()
    assert node.role() is Role.FOLLOWER
    node.drain()
    assert node.node.campaign()


def test_bug_21_only_a_joint_configuration_can_be_left() -> None:
    node = Single([1])
    node.win()
    node.step(APP_RESP, 2, index=2)
    with pytest.raises(ConfChangeInvalidError, match="not joint"):
        node.node.propose_conf_change(parse_change([]))
    assert node.terms() == [1, 2], "a refused change leaves no entry behind"


def test_bug_21_a_committed_change_that_is_not_applied_forbids_to_stand() -> None:
    node = Single([1], commit=1)
    node.drain()
    data = parse_change(["v4"]).encode()
    entry = Entry(1, 2, EntryType.CONF_CHANGE, data)
    node.node.step(Message(APP, 1, 2, 1, 1, 1, (entry,), commit=2))
    node.take()
    node.node.forget_leader()
    assert node.node.basic_status().commit == 2
    assert not node.node.campaign()
    node.persist()
    node.drain()
    assert node.node.campaign()


def test_bug_21_an_uncommitted_change_is_in_no_base() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose(b"x")
    network.run()
    network.isolate(1)
    network[1].propose_conf_change(parse_change(["l4"]))
    network.run()
    base = network.offer_base(1, network.replicas[1].store.applied)
    assert base.conf_state == ConfState((1, 2, 3))


def test_bug_22_messages_for_another_replica_or_from_oneself_are_refused() -> None:
    node = Single([1])
    with pytest.raises(StepWrongReplicaError):
        node.node.step(Message(HEARTBEAT, 7, 2, 1))
    for sender in (1, 0):
        with pytest.raises(StepWrongReplicaError):
            node.node.step(Message(HEARTBEAT, 1, sender, 1))
    node.win()
    with pytest.raises(StepPeerNotFoundError):
        node.step(APP_RESP, 9, index=1)


def test_bug_23_a_base_at_the_end_of_the_log_ends_the_probing() -> None:
    """etcd-io/etcd#10308: the peer acknowledges exactly the base, with nothing after it."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.isolate(3)
    network[1].propose(b"a")
    network.run()
    network.offer_base(1, 3)
    network.heal()
    network.pending.clear()
    network.tick(4)
    (peer,) = [p for p in network[1].status().peers if p.id == 3]
    assert (peer.state, peer.match) == (ProgressState.REPLICATE, 3)


def test_bug_23_a_full_window_whose_entries_were_compacted_ends_in_a_base() -> None:
    network = Network((1, 2, 3), max_inflight_messages=1)
    network.elect(1)
    network.cut(1, 3)
    for command in (b"a", b"b", b"c"):
        network[1].propose(command)
        network.run()
    network.offer_base(1, 5)
    network.pending.clear()
    network.heal()
    network.tick(6)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


def test_bug_23_a_window_of_lost_messages_does_not_stay_full() -> None:
    """etcd-io/etcd#14633."""
    network = Network((1, 2, 3), max_inflight_messages=2)
    network.elect(1)
    network.filter = lambda m: m.type is not APP or m.to != 3
    for command in (b"a", b"b", b"c"):
        network[1].propose(command)
        network.run()
    network.heal()
    network.tick(6)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


# What damaged or forged messages must not do.


@pytest.mark.parametrize(
    "entries",
    [
        (Entry(1, 3),),
        (Entry(1, 2), Entry(1, 4)),
        (Entry(2, 2), Entry(1, 3)),
        (Entry(3, 2),),
    ],
    ids=["a gap before", "a gap inside", "a falling term", "a term above the message's"],
)
def test_an_append_that_contradicts_itself_changes_nothing(entries: tuple[Entry, ...]) -> None:
    node = Single([1], term=1)
    with pytest.raises(StepMalformedError):
        node.node.step(Message(APP, 1, 2, 2, 1, 1, entries))
    assert (node.terms(), node.term) == ([1], 1)


def test_an_append_over_a_committed_entry_stops_the_replica() -> None:
    node = Single([1, 1], commit=2, term=1)
    node.drain()
    with pytest.raises(CommittedConflictError):
        node.node._raft.log.maybe_append((1, 1), (Entry(2, 2),), 0)


def test_an_acknowledgement_beyond_the_log_is_refused() -> None:
    node = Single([1])
    node.win()
    with pytest.raises(StepMalformedError):
        node.step(APP_RESP, 2, index=99)
    assert committed(node) == 0
