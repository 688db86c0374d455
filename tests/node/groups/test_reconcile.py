"""The next change of a group: P5 after each step, and a target that is reached."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rakit.node.groups.reconcile import Wishes, next_change, revoking
from rakit.node.groups.state import Groups, Key, key_of
from rakit.node.groups.subscriptions import View
from rakit.node.metadata.registry import PartitionInfo, TopicInfo
from rakit.node.metadata.topic_config import TopicConfig
from rakit.peer.v1.group_command_pb2 import GroupChange, MemberRecord, OwnedPartition

GROUP = "g"


class Topics:
    """A registry of topics that come, go and grow."""

    def __init__(self, **counts: int) -> None:
        self._next_id = 1
        self.infos: dict[str, TopicInfo] = {}
        for name, count in counts.items():
            self.create(name, count)

    def create(self, name: str, count: int, topic_id: int = 0) -> TopicInfo:
        """A new topic; with an id, an old one with another number of partitions."""
        if not topic_id:
            topic_id, self._next_id = self._next_id, self._next_id + 1
        places = tuple(PartitionInfo(topic_id, at, 100, (), (), 1) for at in range(count))
        self.infos[name] = TopicInfo(topic_id, name, 1, TopicConfig(), 0, places)
        return self.infos[name]

    def view(self) -> View:
        """Them as they are now."""
        return View(dict(self.infos).get, lambda: sorted(self.infos), lambda _node: "")


class World:
    """A group's state, driven by changes as the coordinator drives it."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.state = Groups()

    def step(self, wishes: Wishes) -> GroupChange | None:
        """Decides and applies one change."""
        group = self.state.groups.get(GROUP)
        change = next_change(GROUP, group, wishes, self.topics.view())
        if change is not None:
            assert self.state.change(change, 1), "what was decided is what applies"
        return change

    @property
    def members(self) -> dict[str, MemberRecord]:
        """By id."""
        group = self.state.groups.get(GROUP)
        return {} if group is None else group.members

    def join(self, *names: str, topics: Iterable[str] = ("t",), patterns: str = "") -> None:
        """Members come."""
        for name in names:
            record = MemberRecord(member_id=name, topics=topics)
            if patterns:
                record.topic_patterns.append(patterns)
            self.step(Wishes(joins={name: record}))

    def owned(self, name: str) -> set[Key]:
        """What a member owns."""
        return {key_of(each) for each in self.members[name].owned}

    def let_go(self, name: str) -> None:
        """A member answers what is revoked from it."""
        released = {(key_of(each), each.since_epoch) for each in revoking(self.members[name])}
        self.step(Wishes(releases={name: released}))

    def settle(self) -> None:
        """Everybody lets go until nothing is revoked."""
        for _ in range(100):
            busy = [name for name, member in self.members.items() if revoking(member)]
            if not busy:
                return
            self.let_go(busy[0])
        raise AssertionError("it never comes to rest")


def test_p5_a_partition_is_given_only_after_its_owner_has_let_go() -> None:
    world = World(Topics(t=4))
    world.join("a")
    assert len(world.owned("a")) == 4
    world.join("b")
    assert world.owned("b") == set()
    taken = {key_of(each) for each in revoking(world.members["a"])}
    assert len(taken) == 2
    assert len(world.owned("a")) == 4, "it owns them until it lets go"
    world.let_go("a")
    assert world.owned("b") == taken
    assert all(each.since_epoch == 3 for each in world.members["b"].owned)


def test_members_whose_partitions_stay_hear_nothing() -> None:
    world = World(Topics(t=6))
    world.join("a", "b")
    world.settle()
    world.join("c")
    world.settle()
    before = {name: member.epoch for name, member in world.members.items()}
    world.step(Wishes(leaves={"c"}))
    world.settle()
    assert len(world.owned("a")) == len(world.owned("b")) == 3
    world.topics.create("other", 3)
    assert world.step(Wishes(topics_changed=True)) is None, "nobody subscribes to it"
    world.join("d", topics=["other"])
    for name in ("a", "b"):
        assert world.members[name].epoch > before[name]
    quiet = {name: world.members[name].epoch for name in ("a", "b")}
    world.step(Wishes(leaves={"d"}))
    assert {name: world.members[name].epoch for name in ("a", "b")} == quiet


def test_what_a_member_is_to_get_later_is_no_news_to_it() -> None:
    world = World(Topics(t=3))
    world.join("a")
    world.join("b")
    first = world.members["b"].epoch
    world.join("c")
    assert world.members["b"].epoch == first, "its target changed at most"
    world.settle()
    assert {len(world.owned(name)) for name in "abc"} == {1}


def test_partitions_of_a_member_that_is_gone_are_free_at_once() -> None:
    world = World(Topics(t=4))
    world.join("a", "b")
    world.settle()
    world.step(Wishes(leaves={"a"}))
    assert len(world.owned("b")) == 4


def test_a_topic_that_comes_grows_and_goes() -> None:
    world = World(Topics(t=1))
    world.join("a", topics=["t", "later"])
    info = world.topics.create("later", 2)
    world.step(Wishes(topics_changed=True))
    assert world.owned("a") == {(1, 0), (2, 0), (2, 1)}
    world.topics.create("later", 3, info.topic_id)
    world.step(Wishes(topics_changed=True))
    assert (2, 2) in world.owned("a")
    del world.topics.infos["later"]
    world.step(Wishes(topics_changed=True))
    assert {key_of(each) for each in revoking(world.members["a"])} == {(2, 0), (2, 1), (2, 2)}
    world.settle()
    assert world.owned("a") == {(1, 0)}


def test_a_topic_that_was_made_anew_is_another_topic() -> None:
    world = World(Topics(t=1))
    world.join("a")
    world.topics.create("t", 1)
    world.step(Wishes(topics_changed=True))
    assert {key_of(each) for each in revoking(world.members["a"])} == {(1, 0)}
    world.settle()
    assert world.owned("a") == {(2, 0)}


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [("orders.*", {"orders.eu", "orders.us"}), ("*", None), ("or?ers.eu", {"orders.eu"})],
)
def test_a_pattern_is_a_glob(pattern: str, hit: set[str] | None) -> None:
    topics = Topics(**{"orders.eu": 1, "orders.us": 1, "bills": 1})
    world = World(topics)
    world.join("a", topics=[], patterns=pattern)
    names = {info.topic_id: name for name, info in topics.infos.items()}
    assert {names[key[0]] for key in world.owned("a")} == (hit or set(names.values()))


def test_one_who_takes_anothers_place_has_its_partitions_under_a_new_epoch() -> None:
    world = World(Topics(t=4))
    world.join("old", "other")
    world.settle()
    had, others = world.owned("old"), world.members["other"].epoch
    record = MemberRecord(member_id="new", topics=["t"])
    change = world.step(Wishes(joins={"new": record}, replaces={"new": "old"}))
    assert change is not None
    assert list(change.removed_member_ids) == ["old"]
    assert world.owned("new") == had
    assert {each.since_epoch for each in world.members["new"].owned} == {change.epoch}
    assert world.members["other"].epoch == others


def test_a_release_of_an_older_ownership_frees_nothing() -> None:
    world = World(Topics(t=1))
    world.join("a")
    assert world.step(Wishes(releases={"a": {((1, 0), 7)}})) is None
    assert world.owned("a") == {(1, 0)}


def test_the_state_refuses_a_second_owner_whatever_its_proposer_thought() -> None:
    world = World(Topics(t=1))
    world.join("a")
    group = world.state.groups[GROUP]
    thief = MemberRecord(
        member_id="b", epoch=2, owned=[OwnedPartition(topic_id=1, partition=0, since_epoch=2)]
    )
    change = GroupChange(group=GROUP, expected_epoch=group.epoch, epoch=2, members=[thief])
    assert not world.state.change(change, 1)
    change.removed_member_ids.append("a")
    assert world.state.change(change, 1)


MEMBERS = st.sampled_from("abcde")
TOPIC_NAMES = st.sampled_from(["t", "u", "v.1", "v.2"])


class Rebalances(RuleBasedStateMachine):
    """Joins, leaves, expiries, releases, topics and new coordinators, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Topics(t=3))
        self.since: dict[Key, tuple[str, int]] = {}
        self.epoch = 0

    @rule(
        name=MEMBERS, topics=st.sets(TOPIC_NAMES, max_size=3), pattern=st.sampled_from(["", "v.*"])
    )
    def join(self, name: str, topics: set[str], pattern: str) -> None:
        self.world.join(name, topics=sorted(topics), patterns=pattern)

    @rule(names=st.sets(MEMBERS, min_size=1, max_size=2))
    def expire(self, names: set[str]) -> None:
        self.world.step(Wishes(leaves=names))

    @rule(name=MEMBERS, joins=MEMBERS)
    def leave_and_join_at_once(self, name: str, joins: str) -> None:
        record = MemberRecord(member_id=joins, topics=["t", "u"])
        self.world.step(Wishes(joins={joins: record}, leaves={name} - {joins}))

    @precondition(lambda self: self.world.members)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.world.let_go(data.draw(st.sampled_from(sorted(self.world.members))))

    @precondition(lambda self: self.world.members)
    @rule(data=st.data())
    def let_go_of_anything(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.members)))
        owned = self.world.members[name].owned
        some = {(key_of(each), each.since_epoch) for each in owned if data.draw(st.booleans())}
        self.world.step(Wishes(releases={name: some}))

    @precondition(lambda self: self.world.members)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(sorted(self.world.members)))
        new = f"{old}+"
        record = MemberRecord(member_id=new, topics=["t", "u"])
        if new not in self.world.members and len(new) < 4:
            self.world.step(Wishes(joins={new: record}, replaces={new: old}))

    @rule(name=TOPIC_NAMES, count=st.integers(1, 5))
    def topic_comes_or_grows(self, name: str, count: int) -> None:
        known = self.world.topics.infos.get(name)
        if known is None:
            self.world.topics.create(name, count)
        elif count > len(known.partitions):
            self.world.topics.create(name, count, known.topic_id)
        self.world.step(Wishes(topics_changed=True))

    @rule(name=TOPIC_NAMES)
    def topic_goes(self, name: str) -> None:
        self.world.topics.infos.pop(name, None)
        self.world.step(Wishes(topics_changed=True))

    @rule()
    def new_coordinator(self) -> None:
        data = self.world.state.encode(3, 2)
        fresh = Groups()
        assert fresh.decode(data) == (3, 2)
        assert fresh == self.world.state
        assert fresh.encode(3, 2) == data
        self.world.state = fresh
        assert self.world.step(Wishes(topics_changed=True)) is None, "it would decide the same"

    @invariant()
    def p5(self) -> None:
        group = self.world.state.groups.get(GROUP)
        if group is None:
            return
        owners: dict[Key, tuple[str, int]] = {}
        for name, member in group.members.items():
            for one in member.owned:
                assert key_of(one) not in owners, "two owners"
                owners[key_of(one)] = name, one.since_epoch
                assert one.since_epoch <= member.epoch <= group.epoch
        assert owners == group.owners
        for key, (name, since) in owners.items():
            if (before := self.since.get(key)) is not None and before[0] != name:
                assert since > before[1], "a new owner begins a new epoch"
        self.since |= owners

    def teardown(self) -> None:
        self.world.settle()
        for member in self.world.members.values():
            assert [key_of(each) for each in member.owned] == [
                key_of(each) for each in member.target
            ], "it has come to its target"
        assert self.world.step(Wishes(topics_changed=True)) is None


TestRebalances = Rebalances.TestCase
TestRebalances.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.filter_too_much],
)
