"""Which damaged replicas a leader has replaced, and when it leaves them alone (S8)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.node.metadata import commands
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.evictions import Evictions, Ward, to_replace
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.registry import METADATA_GROUP_ID, PartitionInfo
from rakit.raft import ConfState, Status
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.support import Log
from tests.node.services.test_leadership import peer
from tests.raft.single import Single

A, B, C, D, E, NEW = range(1, 7)
THREE = ConfState((A, B, C))
FIVE = ConfState((A, B, C, D, E))
HELD = 9


def ward(conf: ConfState, damaged: set[int], **other: set[int] | tuple[int, ...]) -> Ward:
    """Everybody who is not damaged is up and holds everything, if not told otherwise."""
    whole = other.get("whole", {*conf.voters, *conf.learners} - damaged)
    desired = other.get("desired", conf.voters)
    return Ward(conf, tuple(desired), damaged, set(whole))


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        pytest.param(ward(THREE, set()), 0, id="nothing is damaged"),
        pytest.param(ward(THREE, {C}), C, id="the two others are well"),
        pytest.param(ward(THREE, {C}, whole={A, B, C}), C, id="its nodes up and its log is long"),
        pytest.param(ward(THREE, {C}, whole={A}), 0, id="another one is down or behind"),
        pytest.param(ward(THREE, {B, C}), 0, id="two of three are damaged"),
        pytest.param(ward(THREE, {B, C}, whole={A, B, C}), 0, id="and both look well"),
        pytest.param(ward(FIVE, {D, E}), D, id="two of five are damaged: one first"),
        pytest.param(ward(FIVE, {D}, whole={A, B, E}), D, id="one of five down"),
        pytest.param(ward(FIVE, {D, E}, whole={A, B}), 0, id="two of five damaged, one down"),
        pytest.param(ward(FIVE, {C, D, E}), 0, id="three of five are damaged"),
        pytest.param(ward(ConfState((A, B)), {B}), 0, id="one of two is no majority"),
        pytest.param(ward(ConfState((A,)), {A}), 0, id="nobody is left"),
        pytest.param(
            ward(ConfState((A, B, C), voters_outgoing=(A, B, D)), {C}), 0, id="a joint phase"
        ),
        pytest.param(ward(ConfState((A, B), voters_outgoing=(A, B, C)), {C}), 0, id="it is going"),
        pytest.param(
            ward(ConfState((A, B, C), learners_next=(D,)), {C}), 0, id="one is to learn next"
        ),
        pytest.param(
            ward(ConfState((A, B, C), learners=(NEW,)), {C}, desired=(A, B, NEW)),
            0,
            id="its successor learns",
        ),
        pytest.param(
            ward(ConfState((A, B, C), learners=(NEW,)), {B}, desired=(A, B, NEW)),
            0,
            id="another's successor learns",
        ),
        pytest.param(ward(THREE, {C}, desired=(A, B, NEW)), 0, id="its successor is named"),
        pytest.param(ward(THREE, {C}, desired=(A, B, C, NEW)), 0, id="one more is to come"),
        pytest.param(
            ward(ConfState((A, B, C), learners=(NEW,)), {C, NEW}, desired=(A, B, NEW)),
            NEW,
            id="its successor is damaged as well",
        ),
        pytest.param(
            ward(ConfState((A, B, C), learners=(NEW,)), {NEW}),
            0,
            id="a learner that is to go anyhow",
        ),
        pytest.param(
            ward(
                ConfState((A, B, C), learners=(NEW,), voters_outgoing=(A, B, D)),
                {NEW},
                desired=(A, B, NEW),
            ),
            0,
            id="a learner, in a joint phase",
        ),
    ],
)
def test_s8_a_replica_is_replaced_only_while_a_majority_is_well_without_it(
    seen: Ward, chosen: int
) -> None:
    assert to_replace(seen) == chosen


class Led:
    """A partition of three that a node leads; all of its voters hold everything."""

    ready = True
    term = 1
    applied = HELD

    def __init__(self, place: PartitionInfo) -> None:
        self.meta = GroupMeta(place.group_id, place.replica_ids[0], GroupKind.PARTITION)
        self.leader_replica = self.meta.replica_id
        self.conf_state = ConfState(place.replica_ids)
        self.peers = {each: peer(each, HELD) for each in place.replica_ids}

    def status(self) -> Status:
        status = Single().node.status()
        basic = replace(status.basic, commit=HELD)
        return replace(status, basic=basic, peers=tuple(self.peers.values()))


@dataclass
class Case:
    host: Leading
    evictions: Evictions
    led: Led

    async def looks(self) -> list[tuple[int, int]]:
        """What one look at the groups has replaced."""
        self.host.proposed.clear()
        await self.evictions.look()
        asked = [each.replace_replica for each in self.host.proposed]
        return [(each.group_id, each.replica_id) for each in asked]


class Leading(FakeHost):
    """Leads the only partition, and the metadata group."""

    def __init__(self, log: Log, led: Led) -> None:
        super().__init__(node_of(led.meta.replica_id), log)
        self.up = {1, 2, 3}
        self.here.ready = True
        self.here.conf_state = ConfState(tuple(replica_id(each, each) for each in (1, 2, 3)))
        self.leaders.leader = self.node_id
        self.led = led
        self.asked: list[int] = []
        #: What is heard while a majority answers.
        self.heard_late: list[tuple[int, int]] = []

    def group(self, group_id: int) -> GroupView | None:
        return self.led if group_id == self.led.meta.group_id else super().group(group_id)

    async def read_barrier(self, group_id: int) -> int:
        self.asked.append(group_id)
        self.shut_out += self.heard_late
        return await super().read_barrier(group_id)


@pytest.fixture
async def case() -> Case:
    log = Log().found(3)
    log.do(commands.create_topic(CreateTopicRequest(name="t", partition_count=1)))
    topic = log.registry.topic("t")
    assert topic is not None
    led = Led(topic.partitions[0])
    host = Leading(log, led)
    client = MetadataClient(host, log.registry, lambda: 5)
    return Case(host, Evictions(host, client), led)


async def test_s8_the_leader_has_a_damaged_replica_replaced_once(case: Case) -> None:
    host, led = case.host, case.led
    group_id, (_, second, third) = led.meta.group_id, led.conf_state.voters
    assert await case.looks() == []
    assert host.asked == [], "where nothing is damaged nobody is asked for anything"
    host.shut_out = [(group_id, third)]
    assert await case.looks() == [(group_id, third)]
    assert host.asked == [group_id], "a majority has answered since the damage was heard of"
    assert await case.looks() == [], "its successor is named by now"
    place = host.log.registry.partition(group_id)
    assert place is not None
    assert second in place.replica_ids
    assert third not in place.replica_ids


async def test_s8_a_replica_stays_while_too_few_are_well_without_it(case: Case) -> None:
    host, led = case.host, case.led
    group_id, (_, second, third) = led.meta.group_id, led.conf_state.voters
    host.shut_out = [(group_id, third)]
    sound = led.peers[second]
    for unfit in (
        replace(sound, match=HELD - 1),
        replace(sound, doubtful=True),
        replace(sound, lost_log=True),
    ):
        led.peers[second] = unfit
        assert await case.looks() == []
    led.peers[second] = sound
    host.up.discard(node_of(second))
    assert await case.looks() == []
    host.up.add(node_of(second))
    host.shut_out = [(group_id, second), (group_id, third)]
    assert await case.looks() == []
    host.shut_out = [(group_id, third)]
    host.barrier_fails = True
    assert await case.looks() == [], "the others may be gone, and a quiet group would not know"
    host.barrier_fails = False
    led.ready = False
    assert await case.looks() == [], "it may be a leader of the past (S14)"
    led.ready = True
    assert await case.looks() == [(group_id, third)]


async def test_s8_who_lost_its_log_is_replaced_only_while_it_counts_for_nothing(case: Case) -> None:
    """In a later leadership it does again, and may be what answered as the majority."""
    host, led = case.host, case.led
    group_id, (_, _, third) = led.meta.group_id, led.conf_state.voters
    host.had_losses = [group_id]
    assert await case.looks() == []
    assert host.asked == []
    led.peers[third] = replace(led.peers[third], lost_log=True)
    assert await case.looks() == [(group_id, third)]


async def test_s8_a_replica_that_another_leader_had_replaced_meanwhile_spares_the_next(
    case: Case,
) -> None:
    """Both decided from what they saw, and the first one's command came late."""
    host, led = case.host, case.led
    group_id, (_, second, third) = led.meta.group_id, led.conf_state.voters
    host.shut_out = [(group_id, third)]
    late = case.evictions._choose(group_id)
    assert late is not None
    host.shut_out = [(group_id, second)]
    assert await case.looks() == [(group_id, second)]
    place = host.log.registry.partition(group_id)
    await case.evictions._replace(late)
    assert host.log.registry.partition(group_id) == place


async def test_s8_what_is_heard_while_the_majority_answers_counts(case: Case) -> None:
    host, led = case.host, case.led
    group_id, (_, second, third) = led.meta.group_id, led.conf_state.voters
    host.shut_out = [(group_id, third)]
    host.heard_late = [(group_id, second)]
    assert await case.looks() == []
    assert host.asked == [group_id]


async def test_s8_a_replica_of_the_metadata_group_is_for_a_person(case: Case) -> None:
    host = case.host
    host.shut_out = [(METADATA_GROUP_ID, replica_id(2, 2)), (10_000, replica_id(2, 1))]
    assert await case.looks() == []
    assert host.asked == []


async def test_s8_a_metadata_group_without_a_leader_is_asked_again_at_the_next_look(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, led = case.host, case.led
    group_id, (_, _, third) = led.meta.group_id, led.conf_state.voters
    host.shut_out = [(group_id, third)]
    host.lose = True
    with monkeypatch.context() as brief:
        brief.setattr(MetadataClient.submit, "__defaults__", (0.05,))
        assert await case.looks()
    host.lose = False
    assert await case.looks() == [(group_id, third)]
