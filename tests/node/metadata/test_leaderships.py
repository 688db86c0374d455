# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from dataclasses import dataclass, replace
from unittest.mock import patch

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.node.metadata import commands
from rakit.node.metadata.leaderships import (
    HANDED_OVER_COUNT_MAX,
    LOOKED_AT_COUNT_MAX,
    STEADY_MS,
    Leaderships,
    Preference,
)
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.registry import PartitionInfo
from rakit.raft import ConfState, Status
from tests.node.metadata.doubles import FakeHost, FakeLeaders
from tests.node.metadata.support import Log
from tests.node.services.test_leadership import peer
from tests.raft.single import Single


def test_a_leadership_goes_only_to_a_node_that_has_been_fit_for_some_time() -> None:
    preference = Preference()
    assert preference.choose({7}, 0) == []
    assert preference.choose({7}, STEADY_MS - 1) == []
    assert preference.choose({7}, STEADY_MS) == [7]


def test_a_break_starts_the_time_anew() -> None:
    preference = Preference()
    preference.choose({7}, 0)
    preference.choose(set(), 1_000)
    assert preference.choose({7}, STEADY_MS) == []
    assert preference.choose({7}, 2 * STEADY_MS) == [7]


def test_a_transfer_that_failed_is_not_repeated_at_once() -> None:
    preference = Preference()
    preference.choose({7}, 0)
    assert preference.choose({7}, STEADY_MS) == [7]
    assert preference.choose({7}, STEADY_MS + 1_000) == []
    assert preference.choose({7}, 2 * STEADY_MS) == [7]


def test_few_leaderships_move_at_a_time_and_none_is_forgotten() -> None:
    preference = Preference()
    waiting = set(range(1, 26))
    preference.choose(waiting, 0)
    seen: list[list[int]] = []
    now_ms = STEADY_MS
    while waiting:
        chosen = preference.choose(waiting, now_ms)
        seen.append(chosen)
        waiting -= set(chosen)
        now_ms += 1_000
    assert [len(one) for one in seen] == [HANDED_OVER_COUNT_MAX, HANDED_OVER_COUNT_MAX, 5]


class Handing(FakeHost):
    """Notes what is handed over; nothing of it succeeds."""

    def __init__(self) -> None:
        super().__init__(1, Log())
        self.handed: list[int] = []

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        del to_replica
        self.handed.append(group_id)


def test_thousands_of_groups_led_for_others_are_looked_at_in_turn_and_all_have_theirs() -> None:
    host = Handing()
    leaderships = Leaderships(host, host.log.registry)
    leaderships._astray = dict.fromkeys(range(5 * LOOKED_AT_COUNT_MAX))
    looked_at: list[int] = []

    def heir(group_id: int, *, is_full: bool) -> int:
        assert not is_full
        looked_at.append(group_id)
        return 2 << 24 | 1 if group_id % 2 else 0

    with patch.object(leaderships, "_heir", heir):
        for second in range(200):
            looked_at.clear()
            leaderships._look(1000 * second)
            assert len(looked_at) <= LOOKED_AT_COUNT_MAX + HANDED_OVER_COUNT_MAX
    assert {*host.handed} == {one for one in leaderships._astray if one % 2}
    leaderships.close()


class Led:
    """A partition that a node leads; all of its three voters have everything."""

    ready = True
    term = applied = 1

    def __init__(self, node_id: int, place: PartitionInfo) -> None:
        (self.leader_replica,) = [each for each in place.replica_ids if node_of(each) == node_id]
        self.meta = GroupMeta(place.group_id, self.leader_replica, GroupKind.PARTITION)
        self.conf_state = ConfState(place.replica_ids)
        self.peers = {node_of(each): peer(each, 9) for each in place.replica_ids}

    def status(self) -> Status:
        return replace(Single().node.status(), peers=tuple(self.peers.values()))


@dataclass
class LedHere(FakeLeaders):
    group_id: int = 0

    def led_here(self) -> dict[int, int]:
        return {self.group_id: 1}


class Leading(FakeHost):
    """The node at this place among the replicas of the only partition leads it."""

    def __init__(self, rank: int) -> None:
        log = Log().found()
        request = CreateTopicRequest(name="t", partition_count=1, replication_factor=3)
        log.do(commands.create_topic(request))
        topic = log.registry.topic("t")
        assert topic is not None
        (place,) = topic.partitions
        #: In the order in which they should lead.
        self.order = [node_of(each) for each in place.replica_ids]
        super().__init__(self.order[rank], log)
        self.up = {*self.order}
        self.leaders = LedHere(group_id=place.group_id)
        self.led = Led(self.node_id, place)
        #: Whom leadership was given to.
        self.heirs: list[int] = []

    def group(self, group_id: int) -> GroupView | None:
        return self.led if group_id == self.led.meta.group_id else None

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        assert group_id == self.led.meta.group_id
        self.heirs.append(node_of(to_replica))


def test_s12_p7_a_node_whose_disk_is_nearly_full_has_others_lead_that_have_room() -> None:
    host = Leading(rank=0)
    first, second, third = host.order
    leaderships = Leaderships(host, host.log.registry)
    for full, heir in (
        (set[int](), 0),
        ({first}, second),
        (set[int](), 0),
        ({first, third}, 0),
        ({first, second}, 0),
        ({first, second, third}, 0),
        (set[int](), 0),
    ):
        host.full = full
        host.heirs.clear()
        leaderships._look(0)
        assert host.heirs == ([heir] if heir else [])
        assert leaderships.leaves(host.led.meta.group_id) is bool(heir)
    leaderships.close()


def test_s12_leadership_goes_past_a_voter_that_could_not_take_it() -> None:
    """Writers would wait for an heir that never leads, while another one could."""
    host = Leading(rank=0)
    first, second, third = host.order
    host.full = {first}
    leaderships = Leaderships(host, host.log.registry)
    sound = host.led.peers[second]
    for unfit in (
        replace(sound, doubtful=True),
        replace(sound, lost_log=True),
        # Shut out on a node that is up: it does not answer.
        replace(sound, recent_active=False),
    ):
        host.led.peers[second] = unfit
        host.heirs.clear()
        leaderships._look(0)
        assert host.heirs == [third]
    host.up.remove(third)
    leaderships._look(0)
    assert host.heirs == [third, second], "not heard of lately, in a quiet group, and the only one"
    host.led.peers[second] = replace(sound, doubtful=True)
    assert not leaderships.leaves(host.led.meta.group_id)
    leaderships.close()


def test_s12_nobody_takes_records_where_a_majority_has_no_room_for_them() -> None:
    """The followers' nodes would end on full disks, and start again only to be filled up again."""
    host = Leading(rank=0)
    first, second, third = host.order
    group_id = host.led.meta.group_id
    leaderships = Leaderships(host, host.log.registry)
    for full, lacks_room in (
        (set[int](), False),
        ({third}, False),
        ({second, third}, True),
        ({first}, True),
        ({99}, False),
    ):
        host.full = full
        assert leaderships.lacks_room(group_id) is lacks_room
    assert not leaderships.lacks_room(group_id + 1), "no group of this node's: told elsewhere"
    # While voters change, both halves are asked.
    host.full = {second, third}
    voters = host.led.conf_state.voters
    host.led.conf_state = ConfState((replica_id(first, 1),), voters_outgoing=voters)
    assert leaderships.lacks_room(group_id)
    leaderships.close()


def test_s12_room_that_comes_back_during_a_look_costs_nothing() -> None:
    host = Leading(rank=0)
    host.full = {host.order[0]}
    leaderships = Leaderships(host, host.log.registry)
    asked: list[int] = []

    def has_room(node_id: int) -> bool:
        asked.append(node_id)
        return node_id != host.node_id or asked.count(node_id) > 1

    with patch.object(host, "has_room", has_room):
        leaderships._look(0)
    assert host.heirs == [host.order[1]]
    leaderships.close()


def test_s12_no_leadership_goes_back_to_a_disk_that_is_nearly_full() -> None:
    host = Leading(rank=1)
    leaderships = Leaderships(host, host.log.registry)
    host.full = {host.order[0]}
    for now_ms in (0, STEADY_MS, 2 * STEADY_MS):
        leaderships._look(now_ms)
    assert host.heirs == []
    host.full.clear()
    leaderships._look(3 * STEADY_MS)
    assert host.heirs == []
    leaderships._look(4 * STEADY_MS)
    assert host.heirs == [host.order[0]]
    leaderships.close()
