"""Bases: when one is sent, when it is taken, and the replica that is not in it (S1, S2)."""

from __future__ import annotations

import pytest

from rakit.raft import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    ProgressState,
    Role,
    Snapshot,
    SnapshotTemporarilyUnavailableError,
    StepMalformedError,
)
from tests.raft.network import Network
from tests.raft.script import parse_change
from tests.raft.single import Single, of_kind

APP, APP_RESP, SNAP = MessageType.APP, MessageType.APP_RESP, MessageType.SNAP
HEARTBEAT, HEARTBEAT_RESP = MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP
VOTE, PRE_VOTE = MessageType.VOTE, MessageType.PRE_VOTE
THREE = ConfState((1, 2, 3))


def behind() -> Network:
    """A group whose third member lacks entries that the leader has dropped."""
    network = Network((1, 2, 3))
    network.elect(1)
    network.isolate(3)
    for command in (b"a", b"b", b"c"):
        network[1].propose(command)
        network.run()
    network.offer_base(1, 4)
    network.heal()
    network.pending.clear()
    return network


def peer(network: Network, replica_id: int) -> tuple[ProgressState, int]:
    (status,) = [p for p in network[1].status().peers if p.id == replica_id]
    return status.state, status.match


def test_s1_a_base_is_followed_by_ordinary_appends() -> None:
    network = behind()
    seen: list[tuple[MessageType, int, int]] = []

    def watch(message: Message) -> bool:
        if message.to == 3:
            seen.append((message.type, message.index, len(message.entries)))
        return True

    network.filter = watch
    network.tick(4)
    kinds = [item for item in seen if item[0] in (SNAP, APP) and (item[0] is SNAP or item[2])]
    assert kinds == [(SNAP, 0, 0), (APP, 4, 1)]
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


def test_a_base_is_not_sent_to_a_peer_that_is_silent() -> None:
    network = behind()
    network[1]._raft.tracker.progress[3].recent_active = False
    network[1]._raft.tracker.progress[3].become_probe()
    network[1].propose(b"d")
    assert not any(m.type is SNAP for ready in network.process(1) for m in ready.messages)


def test_a_base_that_is_being_made_is_asked_for_again() -> None:
    network = behind()
    log = network.replicas[1].store.log
    offered, log.offered = log.offered, None
    with pytest.raises(SnapshotTemporarilyUnavailableError):
        log.snapshot(3)
    network.tick(4)
    assert network.replicas[3].commands == []
    log.offered = offered
    network.tick(4)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


def test_a_lost_base_is_sent_again_without_a_report() -> None:
    network = behind()
    network.filter = lambda m: m.type is not SNAP
    network.tick(4)
    assert peer(network, 3)[0] is ProgressState.SNAPSHOT
    network.heal()
    network.tick(30)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


def test_a_base_has_a_whole_period_to_arrive() -> None:
    """Rule L4: the end of the one in which it was sent says nothing."""
    network = behind()
    network.isolate(3)
    network.tick(7, ids=[1, 2])
    network.heal()
    sent: list[Message] = []

    def lose_bases(message: Message) -> bool:
        if message.type is SNAP:
            sent.append(message)
        return message.type is not SNAP

    network.filter = lose_bases
    network.tick(7, ids=[1, 2])
    assert len(sent) == 1
    network.tick(8, ids=[1, 2])
    assert len(sent) == 2


def test_a_base_that_is_being_fetched_is_not_lost() -> None:
    network = behind()
    network.filter = lambda m: m.type is not SNAP
    network.tick(4)
    (index,) = [one.pending_snapshot for one in network[1].status().peers if one.id == 3]
    for _ in range(40):
        network[1].report_base_moves(3, index)
        network.tick(1)
    assert peer(network, 3)[0] is ProgressState.SNAPSHOT
    network[1].report_base_gone(3, index - 1)
    assert peer(network, 3)[0] is ProgressState.SNAPSHOT, "that was another base"
    network[1].report_base_gone(3, index)
    assert peer(network, 3)[0] is ProgressState.PROBE
    network.heal()
    network.tick(2)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("term", "index", "conf", "wanted"),
    [
        (4, 9, THREE, True),
        (5, 9, THREE, True),
        (3, 9, THREE, False),
        (4, 1, THREE, False),
        (4, 9, ConfState((2, 3)), False),
    ],
    ids=["news", "a new leader's", "an old leader's", "committed here", "without this replica"],
)
def test_a_host_learns_whether_a_base_would_be_taken(
    term: int, index: int, conf: ConfState, *, wanted: bool
) -> None:
    node = Single([1], commit=1, term=4)
    node.drain()
    message = Message(SNAP, 1, 2, term, snapshot=Snapshot(index, 1, conf))
    assert node.node.would_restore(message) is wanted
    node.step(SNAP, 2, term=term, snapshot=message.snapshot)
    assert (node.node.basic_status().commit == index > 1) is wanted


def test_a_base_of_somebody_else_in_the_term_of_a_leader_would_not_be_taken() -> None:
    node = Single([1], commit=1, term=4)
    message = Message(SNAP, 1, 2, 4, snapshot=Snapshot(9, 1, THREE))
    assert node.node.would_restore(message)
    node.step(HEARTBEAT, 3)
    assert not node.node.would_restore(message)


def test_a_failed_base_is_sent_again_after_a_heartbeat() -> None:
    network = behind()
    network.filter = lambda m: m.type is not SNAP
    network.tick(4)
    network.heal()
    network[1].report_snapshot(3, ok=False)
    assert peer(network, 3)[0] is ProgressState.PROBE
    network.tick(2)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]


@pytest.mark.parametrize("report", ["unreachable", "reachable"])
def test_news_of_the_peers_node_end_the_waiting_for_a_base(report: str) -> None:
    network = behind()
    network.filter = lambda m: m.type is not SNAP
    network.tick(4)
    assert peer(network, 3)[0] is ProgressState.SNAPSHOT
    network.heal()
    if report == "reachable":
        network[1].report_reachable(3)
        network.run()
    else:
        network[1].report_unreachable(3)
        network.run()
        assert not network.replicas[3].commands, "nothing goes out before it has answered"
        network.tick(2)
    assert network.replicas[3].commands == [b"a", b"b", b"c"]
    network[1].report_snapshot(3, ok=False)
    assert peer(network, 3)[0] is ProgressState.REPLICATE, "the report is late"


def test_an_acknowledgement_below_the_base_ends_the_waiting() -> None:
    """Rule T4: the peer got what it needed from somebody else."""
    node = Single([1] * 9, commit=9)
    node.drain()
    node.win()
    node.store.log.compact(4)
    progress = node.node._raft.tracker.progress[2]
    progress.become_snapshot(9)
    node.step(APP_RESP, 2, index=3)
    assert progress.pending_snapshot == 9, "entry 4 is gone"
    node.step(APP_RESP, 2, index=4)
    assert progress.pending_snapshot == 0
    assert progress.state is ProgressState.REPLICATE


def test_an_old_base_changes_nothing() -> None:
    node = Single([1] * 5, commit=5)
    node.drain()
    for kept in (5, 1):
        node.store.log.compact(5 - kept)
        (answer,) = node.step(SNAP, 2, snapshot=Snapshot(3, 1, THREE))
        assert (answer.type, answer.index, answer.reject) == (APP_RESP, 5, False)
        assert node.terms() == [1] * kept


def test_a_base_replaces_a_log_that_does_not_hold_it() -> None:
    node = Single([1] * 5, commit=2)
    node.drain()
    answer = of_kind(
        node.step(SNAP, 2, term=4, snapshot=Snapshot(4, 3, ConfState((1, 2)), b"4 x")), APP_RESP
    )[0]
    assert answer.index == 4
    assert node.terms() == []
    assert node.node.status().conf_state == ConfState((1, 2))
    assert node.store.applied == 4
    assert node.commands == [b"x"]


def test_the_answer_to_a_base_waits_for_the_disk_and_nothing_is_applied_before() -> None:
    node = Single([1] * 5, commit=2)
    node.drain()
    node.node.step(Message(SNAP, 1, 2, 4, snapshot=Snapshot(9, 3, THREE)))
    ready = node.take()
    assert ready.must_sync
    assert ready.snapshot is not None
    assert not ready.messages
    assert not ready.committed_entries
    node.node.step(Message(APP, 1, 2, 4, 3, 9, (), commit=9))
    assert not node.take().committed_entries
    node.persist(2)
    assert node.node.basic_status().applied == 9


def test_a_second_base_may_overtake_the_first_on_its_way_to_the_disk() -> None:
    node = Single([1], commit=1)
    node.drain()
    for index in (9, 20):
        node.node.step(Message(SNAP, 1, 2, 4, snapshot=Snapshot(index, 3, THREE)))
        node.take()
    node.persist()
    assert not node.node.campaign(), "the second base is pending"
    node.persist()
    assert node.node.basic_status().applied == 20
    assert node.node.campaign()


def test_a_message_without_its_base_is_refused() -> None:
    with pytest.raises(StepMalformedError):
        Single([1]).node.step(Message(SNAP, 1, 2, 4))


@pytest.mark.parametrize(("index", "term"), [(0, 3), (-1, 3), (9, 0), (9, 5)])
def test_a_base_that_contradicts_its_message_changes_nothing(index: int, term: int) -> None:
    """Its term above the message's would be a log that is newer than its vote record (S5)."""
    node = Single([1])
    with pytest.raises(StepMalformedError):
        node.node.step(Message(SNAP, 1, 2, 4, snapshot=Snapshot(index, term, THREE)))
    assert (node.terms(), node.term) == ([1], 1)


def test_a_base_with_an_impossible_configuration_is_refused() -> None:
    node = Single([1])
    base = Snapshot(9, 3, ConfState((1, 2), (2,)))
    with pytest.raises(StepMalformedError, match="impossible"):
        node.node.step(Message(SNAP, 1, 2, 4, snapshot=base))
    assert node.terms() == [1]


# A replica that is not in the base (S2).


def newborn() -> Single:
    """Replica 4 knows nothing, and its leader has sent it a base from before its addition."""
    node = Single([], replica_id=4, conf=ConfState())
    node.step(SNAP, 1, term=2, snapshot=Snapshot(5, 1, THREE))
    return node


def add_itself(node: Single) -> None:
    addition = Entry(2, 6, EntryType.CONF_CHANGE, parse_change(["l4"]).encode())
    node.node.step(Message(APP, 4, 1, node.term, 1, 5, (addition,), commit=6))
    node.drain()


def test_s2_a_base_without_the_replica_is_taken_by_one_that_was_never_a_member() -> None:
    node = newborn()
    status = node.node.basic_status()
    assert (status.commit, status.applied, status.is_member) == (5, 5, False)
    assert node.node.status().conf_state == THREE


def test_s2_it_does_not_stand_before_its_addition_is_applied() -> None:
    node = newborn()
    for _ in range(60):
        node.node.tick()
        assert node.drain() == []
    assert node.role() is Role.FOLLOWER
    assert not node.node.campaign()


@pytest.mark.parametrize("kind", [VOTE, PRE_VOTE])
def test_s2_it_does_not_vote_before_its_addition_is_applied(kind: MessageType) -> None:
    node = newborn()
    node.node.forget_leader()
    (answer,) = node.step(kind, 2, term=3, log_term=9, index=99)
    assert answer.reject
    add_itself(node)
    node.node.forget_leader()
    (answer,) = node.step(kind, 2, term=node.term + 1, log_term=9, index=99)
    assert not answer.reject


def test_s2_it_is_not_removed_before_it_was_added() -> None:
    node = newborn()
    assert not node.node.basic_status().removed
    node.crash()
    assert not node.node.basic_status().removed
    add_itself(node)
    assert node.node.basic_status().is_member
    assert not node.node.basic_status().removed
    node.node.apply_conf_change(parse_change(["r4"]))
    assert node.node.basic_status().removed


def test_s2_a_member_takes_no_base_that_does_not_know_it() -> None:
    node = Single([1], commit=1, replica_id=3)
    node.drain()
    node.step(SNAP, 1, term=4, snapshot=Snapshot(9, 3, ConfState((1, 2))))
    assert node.node.basic_status().commit == 1
    assert node.node.status().conf_state == THREE


def test_s2_a_new_replica_catches_up_and_is_promoted() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    for command in (b"a", b"b"):
        network[1].propose(command)
    network.run()
    network.offer_base(1, 3)
    network.add(4, None)
    network[1].propose_conf_change(parse_change(["l4"]))
    network.run()
    network.tick(4)
    network[1].propose_conf_change(parse_change(["v4", "r3"]))
    network.run()
    assert network[4].status().conf_state == ConfState((1, 2, 4))
    network.isolate(1)
    for replica_id in (2, 4):
        network[replica_id].forget_leader()
    network[4].campaign()
    network.run()
    assert network.replicas[4].role() is Role.LEADER
