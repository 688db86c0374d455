"""Going quiet (S15): when a leader may, what a quiet clock does, and how a group wakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rakit.raft import ConfState, Message, MessageType, RawNode, Role
from tests.raft.network import Network
from tests.raft.script import parse_change
from tests.raft.single import Single, of_kind

APP_RESP, HEARTBEAT = MessageType.APP_RESP, MessageType.HEARTBEAT


def at_rest() -> Network:
    network = Network((1, 2, 3))
    network.elect(1)
    return network


def test_s15_a_group_that_is_level_may_go_quiet() -> None:
    status = at_rest()[1].can_quiesce()
    assert status.quiet
    assert (status.term, status.commit) == (2, 2)
    assert status.peers == (2, 3)


def test_s15_only_a_leader_asks_its_group_to_go_quiet() -> None:
    status = at_rest()[2].can_quiesce()
    assert not status.idle
    assert status.reason == "does not lead"
    assert status.peers == ()


def uncommitted(node: RawNode) -> None:
    node.propose(b"x")


def transferring(node: RawNode) -> None:
    node._raft.tracker.progress[3].match = 1
    node.transfer_leader(3)


def reading(node: RawNode) -> None:
    node.read_index(b"r")


def changing(node: RawNode) -> None:
    node._raft.pending_conf_index = 99


def in_doubt(node: RawNode) -> None:
    node._raft.doubtful = True


@pytest.mark.parametrize(
    ("disturb", "reason"),
    [
        (uncommitted, "entries wait for commit"),
        (transferring, "a transfer is under way"),
        (reading, "reads wait"),
        (changing, "a configuration change is under way"),
        (in_doubt, "doubts its log"),
    ],
)
def test_s15_whatever_is_under_way_keeps_the_group_awake(
    disturb: Callable[[RawNode], None], reason: str
) -> None:
    node = at_rest()[1]
    disturb(node)
    assert node.can_quiesce().reason == reason


def test_s15_entries_that_wait_for_the_disk_or_for_the_application_keep_it_awake() -> None:
    node = Single([1])
    node.win()
    node.step(APP_RESP, 2, index=2)
    node.step(APP_RESP, 3, index=2)
    node.node.propose(b"x")
    node.take()
    for peer in (2, 3):
        node.node.step(Message(APP_RESP, 1, peer, 2, index=3))
    assert node.node.can_quiesce().reason == "entries wait to be applied"
    node.drain()
    node.persist(len(node.flights))
    node.drain()
    assert node.node.can_quiesce().quiet


def test_s15_a_joint_configuration_keeps_it_awake() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network[1].propose_conf_change(parse_change(["r3", "explicit"]))
    network.run()
    assert network[1].can_quiesce().reason == "a configuration change is under way"
    network[1].propose_conf_change(parse_change([]))
    network.run()
    assert network[1].can_quiesce().idle


def test_s15_peers_that_lag_are_listed_and_left_to_the_host() -> None:
    network = at_rest()
    network.isolate(3)
    network[1].propose(b"x")
    network.run()
    status = network[1].can_quiesce()
    assert status.idle
    assert not status.quiet
    assert status.lagging == (3,)


def test_s15_a_dead_node_that_returns_is_brought_up_to_date_without_a_heartbeat() -> None:
    network = at_rest()
    network.isolate(3)
    network[1].propose(b"x")
    network.run()
    network.pending.clear()
    network.heal()
    network[1].report_reachable(3)
    network.run()
    assert network.replicas[3].commands == [b"x"]
    assert network[1].can_quiesce().quiet


def test_a_quiet_replica_neither_campaigns_nor_sends() -> None:
    network = at_rest()
    for _ in range(500):
        for replica in network.replicas.values():
            replica.node.tick_quiesced()
    assert not any(replica.node.has_ready() for replica in network.replicas.values())


def test_a_follower_that_wakes_has_time_to_hear_its_leader() -> None:
    node = Single([1], term=1)
    node.step(HEARTBEAT, 2)
    node.node._raft.randomized_timeout = 10
    for _ in range(500):
        node.node.tick_quiesced()
    for _ in range(4):
        node.node.tick()
    assert node.role() is Role.FOLLOWER
    node.node.tick()
    assert node.role() is Role.PRE_CANDIDATE, "half of the time has passed while it was quiet"


def test_a_leader_that_wakes_sends_a_heartbeat_first_and_is_not_deposed_by_the_silence() -> None:
    node = Single([1], heartbeat_tick=5)
    node.win()
    # The second period, in which nobody is heard, is well under way.
    for _ in range(17):
        node.node.tick()
    node.drain()
    node.node.tick_quiesced()
    node.node.tick()
    assert len(of_kind(node.drain(), HEARTBEAT)) == 2
    for _ in range(8):
        node.node.tick()
    assert node.is_leader


def test_s16_followers_that_know_their_leader_dead_elect_at_once() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    network.replicas[1].alive = False
    network[2].campaign()
    network.run()
    assert network.replicas[2].role() is not Role.LEADER, "3 still trusts its leader"
    for replica_id in (2, 3):
        network[replica_id].forget_leader()
    assert network[2].campaign()
    network.run()
    assert network.replicas[2].role() is Role.LEADER


def test_a_quiet_group_of_one_is_quiet() -> None:
    node = Single([1], conf=ConfState((1,)))
    node.node.campaign()
    node.drain()
    assert node.node.can_quiesce().quiet
