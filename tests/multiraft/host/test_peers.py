"""What streams, pings and announcements mean for the groups: everything is passed on."""

from __future__ import annotations

import random

from rakit.multiraft.config import HostConfig
from rakit.multiraft.hello import CONTROL, DATA, NodeIdentity, StoreMemory
from rakit.multiraft.inbox import Inbox
from rakit.multiraft.machine import replica_id
from rakit.multiraft.peers import SHUT_OUT_COUNT_MAX, Peers, Surroundings
from rakit.multiraft.quarantine import Quarantined
from rakit.peer.v1 import raft_service_pb2 as wire
from tests.multiraft.host.support import DictDisk


class Groups:
    """The driver's ear: writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.quarantined: dict[int, Quarantined] = {}

    def node_up(self, node_id: int) -> None:
        self.heard.append(("up", node_id))

    def node_down(self, node_id: int) -> None:
        self.heard.append(("down", node_id))

    def leader_ended(self, group_id: int) -> None:
        self.heard.append(("leader ended", group_id))

    def unreachable(self, group_id: int, replica_id: int) -> None:
        self.heard.append(("unreachable", group_id, replica_id))

    def link_lost(self, node_id: int) -> None:
        self.heard.append(("link lost", node_id))

    def lane_shut(self, node_id: int) -> None:
        self.heard.append(("shut", node_id))

    def lane_open(self, node_id: int) -> None:
        self.heard.append(("open", node_id))


class Parts:
    def __init__(self) -> None:
        self.groups = Groups()
        self.wakes = 0
        self.is_full = False
        around = Surroundings(
            groups=self.groups,
            inbox=Inbox(1000, self.wake),
            memory=StoreMemory(DictDisk()),
            wake=self.wake,
            clock_ms=lambda: 0,
            now_ms=lambda: 0,
            synced_counter=lambda: 1,
            responsive=lambda: True,
            low_space=lambda: self.is_full,
        )
        identity = NodeIdentity("cluster", 1, "store-1", boot_epoch=1, opened_counter=1)
        self.peers = Peers(identity, HostConfig(), around, random.Random(1))

    def wake(self) -> None:
        self.wakes += 1


async def test_appends_on_a_data_lane_that_broke_are_sent_again_at_once() -> None:
    parts = Parts()
    parts.peers.disconnected(2, CONTROL)
    assert parts.groups.heard == [], "what was on it is repeated by itself"
    parts.peers.disconnected(2, DATA)
    assert parts.groups.heard == [("link lost", 2)]
    assert parts.wakes == 1


async def test_s15_a_leader_that_a_peer_no_longer_is_is_told_to_its_group() -> None:
    parts = Parts()
    led = wire.Leaderships(complete=True, group_ids=[5, 6], terms=[3, 3])
    parts.peers.announced(2, led)
    assert parts.groups.heard == []
    parts.peers.announced(2, wire.Leaderships(ended_group_ids=[5]))
    assert parts.groups.heard == [("leader ended", 5)]
    assert parts.wakes == 1
    # A complete list says it of everything that is not in it.
    parts.peers.announced(2, wire.Leaderships(complete=True))
    assert parts.groups.heard == [("leader ended", 5), ("leader ended", 6)]


async def test_s17_a_lane_without_room_is_told_and_one_with_room_makes_a_turn() -> None:
    parts = Parts()
    parts.peers.lane_changed(2, has_room=False)
    assert (parts.groups.heard, parts.wakes) == ([("shut", 2)], 0)
    parts.peers.lane_changed(2, has_room=True)
    assert (parts.groups.heard, parts.wakes) == ([("shut", 2), ("open", 2)], 1)


async def test_s12_a_disk_that_is_nearly_full_is_told_with_every_sign_of_life() -> None:
    parts = Parts()
    for is_full in (True, False):
        parts.is_full = is_full
        pong = parts.peers.pinged(2, wire.Ping(number=1))
        assert pong is not None
        parts.peers.ponged(2, pong)
        assert parts.peers.low_space == ({2} if is_full else set())


async def test_s12_a_node_that_is_gone_from_the_cluster_lacks_no_room() -> None:
    parts = Parts()
    parts.peers.ponged(2, wire.Ping(number=1, low_space=True))
    parts.peers.set_peer(2, None)
    assert not parts.peers.low_space


def up(parts: Parts, *node_ids: int) -> None:
    """Lets other nodes answer."""
    for node_id in node_ids:
        parts.peers.set_peer(node_id, f"127.0.0.1:{node_id}")
        parts.peers.liveness.hello(node_id, 1, 0)
        parts.peers.liveness.pong(node_id, 1, 1, (0, 0), 0)


def named(parts: Parts, asking: int) -> dict[int, int]:
    """What the answer to a node's ping names as shut out."""
    pong = parts.peers.pinged(asking, wire.Ping(number=1))
    assert pong is not None
    return dict(zip(pong.shut_out_group_ids, pong.shut_out_replica_ids, strict=True))


async def test_s8_what_is_shut_out_for_a_loss_of_its_own_is_named_to_its_groups_leader() -> None:
    parts = Parts()
    up(parts, 2, 3)
    parts.peers.announced(2, wire.Leaderships(complete=True, group_ids=[5, 6, 7, 8], terms=[1] * 4))
    parts.peers.announced(3, wire.Leaderships(complete=True, group_ids=[9], terms=[1]))
    own = replica_id(1, 4)
    parts.groups.quarantined = {
        5: Quarantined(own, "damage"),
        6: Quarantined(own, "applying entry 3", for_good=False),
        7: Quarantined(own, "two leaders", at_fault=False),
        8: Quarantined(0, "no row says whose it was"),
        9: Quarantined(own, "damage"),
        10: Quarantined(own, "damage where nobody leads"),
    }
    assert named(parts, 2) == {5: own}
    assert named(parts, 3) == {9: own}
    # Who leads it now can have it replaced now.
    parts.peers.announced(3, wire.Leaderships(group_ids=[5], terms=[2]))
    assert named(parts, 2) == {}
    assert named(parts, 3) == {5: own, 9: own}


async def test_s8_an_answer_names_a_bounded_number_and_the_next_answer_the_others() -> None:
    parts = Parts()
    up(parts, 2)
    many = range(10, 10 + 2 * SHUT_OUT_COUNT_MAX)
    led = wire.Leaderships(complete=True, group_ids=many, terms=[1] * len(many))
    parts.peers.announced(2, led)
    parts.groups.quarantined = {each: Quarantined(replica_id(1, 1), "damage") for each in many}
    first, second = named(parts, 2), named(parts, 2)
    assert len(first) == len(second) == SHUT_OUT_COUNT_MAX
    assert first.keys() | second.keys() == {*many}, "those that stay take nobody's place"


async def test_s8_a_node_names_its_own_replicas_and_no_more_than_fit() -> None:
    parts = Parts()
    own, anothers = replica_id(2, 1), replica_id(3, 1)
    parts.peers.ponged(
        2, wire.Ping(shut_out_group_ids=[5, 6], shut_out_replica_ids=[own, anothers])
    )
    assert parts.peers.shut_out[2] == {5: own}
    many = range(1000)
    flood = wire.Ping(shut_out_group_ids=many, shut_out_replica_ids=[own] * len(many))
    parts.peers.ponged(2, flood)
    assert len(parts.peers.shut_out[2]) == SHUT_OUT_COUNT_MAX
    parts.peers.ponged(2, wire.Ping(number=2))
    assert not parts.peers.shut_out[2], "what it said last holds"
