"""Checkpoints: the whole state, the same bytes everywhere, and how much log is kept."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2
from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    DeleteTopicRequest,
    TopicConfig,
    UpdateTopicRequest,
)
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import replica_id
from rakit.node import checkpoints
from rakit.node.metadata import commands, state
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.registry import Change, Registry
from rakit.node.metadata.tables import AnsweredRequests, DeadGroups, Producer
from rakit.peer.v1 import metadata_command_pb2 as pb
from tests.node.metadata.support import Log, describe, register


def create(name: str, count: int) -> pb.MetadataCommand:
    return commands.create_topic(CreateTopicRequest(name=name, partition_count=count))


def update(name: str, value: int) -> pb.MetadataCommand:
    config = TopicConfig(retention_ms=value)
    return commands.update_topic(UpdateTopicRequest(name=name, config=config))


def delete(name: str) -> pb.MetadataCommand:
    return commands.delete_topic(DeleteTopicRequest(name=name))


def replaced(store: str, old: str) -> pb.MetadataCommand:
    return register(describe("n2", store=store), replaces=old)


def damaged(group_id: int, nodes: list[int], which: int) -> pb.MetadataCommand:
    """One of the replicas that a partition is born with."""
    seen = [replica_id(node_id, at) for at, node_id in enumerate(nodes, start=1)]
    return pb.MetadataCommand(
        replace_replica=pb.ReplaceReplica(
            group_id=group_id, replica_id=seen[which], seen_replica_ids=seen
        )
    )


def joined(name: str) -> pb.MetadataCommand:
    return register(describe(f"more-{name}"))


def any_command() -> st.SearchStrategy[pb.MetadataCommand]:
    names = st.sampled_from(["a", "b", "c"])
    stores = st.sampled_from(["store-n2", "s1", "s2"])
    return st.one_of(
        st.builds(create, names, st.integers(1, 4)),
        st.builds(update, names, st.integers(1, 9)),
        st.builds(delete, names),
        st.builds(commands.init_producer, st.sampled_from(["", "a", "b", "c"])),
        st.builds(replaced, stores, stores),
        st.builds(joined, names),
        st.builds(damaged, st.integers(2, 5), st.permutations([1, 2, 3]), st.integers(0, 2)),
    )


def without_marks(of: MetadataMachine) -> bytes:
    """The state without the indexes of its checkpoints."""
    state = pb.MetadataState.FromString(of.snapshot())
    state.ClearField("checkpoint_index")
    state.ClearField("previous_checkpoint_index")
    return state.SerializeToString(deterministic=True)


@given(st.lists(any_command(), max_size=25), st.integers(0, 25))
@settings(max_examples=100, deadline=None)
def test_a_restored_machine_goes_on_exactly_like_the_original(
    given_commands: list[pb.MetadataCommand], cut: int
) -> None:
    log = Log().found()
    log_commands = given_commands[:cut]
    for command in log_commands:
        log.apply(command)
    restored = MetadataMachine()
    index = log.entries[-1].index
    restored.restore(log.machine.snapshot(), index)
    assert without_marks(restored) == without_marks(log.machine)
    for command in given_commands[cut:]:
        result = log.apply(command)
        assert restored.apply(log.entries[-1], WriteBatch()) == result
    assert without_marks(restored) == without_marks(log.machine)
    for topic in log.registry.topics():
        assert restored.registry.topic(topic.name) == topic
    for node_id in log.registry.nodes:
        counts = log.registry.replica_count(node_id), log.registry.preferred_count(node_id)
        again = restored.registry
        assert (again.replica_count(node_id), again.preferred_count(node_id)) == counts


@given(st.lists(any_command(), max_size=25))
@settings(max_examples=50, deadline=None)
def test_p9_replicas_that_apply_the_same_log_are_byte_identical(
    given_commands: list[pb.MetadataCommand],
) -> None:
    log = Log().found()
    for command in given_commands:
        log.apply(command)
    replica = MetadataMachine()
    for entry in log.entries:
        replica.apply(entry, WriteBatch())
    assert replica.snapshot() == log.machine.snapshot()


def test_the_log_is_kept_between_the_last_two_checkpoints() -> None:
    log = Log(checkpoint_entries_count=10).found()
    assert log.machine.trim_index() == 0
    trims: list[int] = []
    for _ in range(29):
        log.do(commands.init_producer("p"))
        trims.append(log.machine.trim_index())
    indexes = [index for index, _ in log.checkpoints]
    assert indexes == [11, 21, 31]
    assert sorted(set(trims)) == [0, 11, 21]
    assert log.machine.trim_targets() == (31,), "where the next one lets the log begin"
    # A replica that starts from any of them takes the next ones at the same entries.
    for index, data in log.checkpoints[:2]:
        late = MetadataMachine(10)
        late.restore(data, index)
        due: list[tuple[int, bytes]] = []
        for entry in log.entries:
            if entry.index > index:
                late.apply(entry, WriteBatch())
                if late.checkpoint_due():
                    due.append((entry.index, late.snapshot()))
        assert due == [one for one in log.checkpoints if one[0] > index]


def test_many_bytes_are_a_reason_for_a_checkpoint_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_BYTES", 600)
    log = Log().found()
    for number in range(10):
        log.do(commands.init_producer(f"{number}" * 200))
    assert 2 <= len(log.checkpoints) <= 5


def test_a_newborn_machine_is_empty_and_tells_its_subscribers() -> None:
    log = Log().found()
    changes: list[Change] = []
    log.registry.subscribe(changes.append)
    version = log.registry.version
    log.machine.restore(b"", 1)
    assert log.registry.cluster_id == ""
    assert not log.registry.nodes
    assert [change.everything for change in changes] == [True]
    assert changes[0].version == log.registry.version == version + 1


def test_a_subscriber_can_leave() -> None:
    log = Log().found()
    changes: list[Change] = []
    leave = log.registry.subscribe(changes.append)
    leave()
    log.do(commands.create_topic(CreateTopicRequest(name="t")))
    assert changes == []


def test_a_command_of_the_future_stops_the_replica() -> None:
    """A version that knows it applies it: a refusal here would be a difference between replicas."""
    log = Log().found()
    future = pb.MetadataCommand.FromString(b"\x92\x03\x00")
    assert future.WhichOneof("command") is None
    with pytest.raises(AssertionError, match="a command that this version does not know"):
        log.apply(future)


def founding(*members: pb.NodeDescription, cluster_id: str = "cluster") -> pb.MetadataCommand:
    begun = pb.Founding(cluster_id=cluster_id, members=members)
    return pb.MetadataCommand(found_cluster=pb.FoundCluster(founding=begun))


def marked(request_id: str) -> pb.RequestMark:
    return pb.RequestMark(request_id=request_id)


NONSENSE = {
    "nothing": pb.MetadataCommand(),
    "an unmarked creation": pb.MetadataCommand(create_topic=pb.CreateTopic(name="t")),
    "an unmarked update": pb.MetadataCommand(update_topic=pb.UpdateTopic(name="t")),
    "an unmarked deletion": pb.MetadataCommand(delete_topic=pb.DeleteTopic(name="t")),
    "a mark that would fill the state": pb.MetadataCommand(
        create_topic=pb.CreateTopic(name="u", mark=marked("x" * 46))
    ),
    "another cluster": founding(describe("n1"), cluster_id="another"),
    "a founding of nobody": founding(),
    "a founding without an id": founding(describe("n1"), cluster_id=""),
    "founders in disorder": founding(describe("n2"), describe("n1")),
    "one founder twice": founding(describe("n1"), describe("n1")),
    "two founders of one name": founding(describe("n1", store="a"), describe("n1", store="b")),
    "a founder without a name": founding(pb.NodeDescription(store_uuid="s")),
    "a node without a name": register(pb.NodeDescription(store_uuid="s")),
    "a node without a store": register(pb.NodeDescription(name="n4")),
    "a node that would fill the state": register(describe("n4", rack="r" * (16 << 10))),
}


@pytest.mark.parametrize("case", NONSENSE)
@pytest.mark.parametrize("founded", [True, False])
def test_a_command_that_makes_no_sense_is_refused_and_stops_no_replica(
    case: str, founded: bool
) -> None:
    """The log is applied by every replica, now and at each start: it must never kill them all."""
    log = Log()
    if founded:
        log.found()
        log.do(create("t", 1))
    before = without_marks(log.machine)
    result = log.apply(NONSENSE[case])
    if not founded and case == "another cluster":
        assert result.cluster_founded.cluster_id == "another", "nobody was first"
        return
    expected = {error_pb2.ERROR_REASON_INVALID_REQUEST, error_pb2.ERROR_REASON_NO_QUORUM}
    assert result.refusal.reason in expected
    assert without_marks(log.machine) == before
    replica = MetadataMachine()
    for entry in log.entries:
        replica.apply(entry, WriteBatch())
    assert replica.snapshot() == log.machine.snapshot()


@pytest.mark.parametrize(
    "command",
    [register(describe("n4")), commands.init_producer("p"), create("t", 1)],
    ids=["a node", "a producer", "a topic"],
)
def test_s26_nothing_comes_before_the_founding(command: pb.MetadataCommand) -> None:
    """Founders gave themselves the first ids; nobody may have taken them."""
    log = Log()
    assert log.apply(command).refusal.reason == error_pb2.ERROR_REASON_NO_QUORUM
    log.found()
    assert sorted(log.registry.nodes) == [1, 2, 3]
    assert log.registry.nodes[1].name == "n1"


@given(st.permutations(list(range(2, 12))), st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_dead_groups_are_a_set_however_they_come(order: list[int], count: int) -> None:
    dead = DeadGroups()
    for group in order[:count]:
        dead.add(group)
    expected = set(order[:count])
    assert {group for group in range(14) if group in dead} == expected
    # The ranges neither touch nor overlap, also after a checkpoint.
    assert DeadGroups(dead.bounds).bounds == dead.bounds


def test_the_internal_topic_is_made_once_hidden_and_part_of_the_state() -> None:
    log = Log().found()
    command = pb.MetadataCommand(create_group_partitions=pb.CreateGroupPartitions())
    first = log.apply(command).topic_changed
    assert log.apply(command).topic_changed == first, "nothing is to be done where it exists"
    registry = log.machine.registry
    replica = MetadataMachine()
    replica.restore(log.machine.snapshot(), 3)
    for known in (registry, replica.registry):
        topic = known.internal_topic("__groups")
        assert topic is not None
        assert len(topic.partitions) == first.partition_count == 16
        assert known.topic("__groups") is None
        assert known.topics_after("", 10) == []
        assert (known.topic_count, known.partition_count) == (0, 0)
        assert all(known.is_internal(each) for each in topic.partitions)


def test_a_checkpoint_encodes_what_has_changed_and_reads_as_if_all_had() -> None:
    """At 200,000 names a whole encoding holds a node up for a quarter of a second."""
    log = Log().found()
    for number in range(3 * state.NAMES_COUNT + 5):
        log.registry.producers.put(f"p{number}", Producer(number + 1, 1))
    for topic in ("a", "b", "c"):
        log.do(create(topic, 2))
    log.machine.snapshot()
    with patch.object(state, "bytes_of", wraps=state.bytes_of) as encoded:
        log.do(commands.init_producer("p7"))
        log.do(create("d", 2))
        data = log.machine.snapshot()
    # The head, the newest names, the epochs, one topic and its answer.
    assert encoded.call_count <= 5
    for again in (MetadataMachine(), MetadataMachine()):
        again.restore(data, 0)
        assert again.snapshot() == data
        assert dict(again.registry.producers.items()) == dict(log.registry.producers.items())
        assert again.registry.producers.get("p7") == Producer(8, 2)
        assert [each.name for each in again.registry.topics_after("", 9)] == ["a", "b", "c", "d"]


def test_p9_a_request_id_that_comes_again_later_is_encoded_with_its_new_answer() -> None:
    registry = Registry()
    registry.answered = AnsweredRequests(2)

    def answer(request_id: str, fingerprint: int) -> None:
        mark = pb.RequestMark(request_id=request_id, fingerprint=fingerprint)
        registry.answered.put(mark, pb.MetadataResult())

    answer("a", 1)
    answer("b", 1)
    encoder = state.Encoder()
    encoder.encode(registry, 1, 0)
    answer("c", 1)  # "a" gives way
    answer("a", 2)
    assert encoder.encode(registry, 2, 1) == state.Encoder().encode(registry, 2, 1)
