"""Topics and producers as the state machine decides them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable

import grpc
import pytest

from rakit.api.v1.topic_service_pb2 import (
    CreateTopicRequest,
    DeleteTopicRequest,
    TopicConfig,
    UpdateTopicRequest,
)
from rakit.multiraft.machine import node_of, replica_id
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands, tables
from rakit.node.metadata.registry import Change
from rakit.peer.v1 import metadata_command_pb2 as pb
from tests.node.metadata.support import Log, describe, register


def create(
    name: str = "t", partition_count: int = 0, replication_factor: int = 0, request_id: str = ""
) -> CreateTopicRequest:
    return CreateTopicRequest(
        name=name,
        partition_count=partition_count,
        replication_factor=replication_factor,
        request_id=request_id,
    )


def reason(error: pytest.ExceptionInfo[RakitError]) -> str:
    return reason_name(error.value.reason)


def test_a_topic_gets_new_groups_with_replicas_on_different_nodes() -> None:
    log = Log().found()
    result = log.do(commands.create_topic(create(partition_count=6)))
    topic = log.registry.topic("t")
    assert topic is not None
    assert result.topic_changed.topic_id == topic.topic_id
    assert (topic.replication_factor, len(topic.partitions)) == (3, 6)
    assert [one.group_id for one in topic.partitions] == [2, 3, 4, 5, 6, 7]
    for one in topic.partitions:
        assert {node_of(each) for each in one.replica_ids} == {1, 2, 3}
        assert log.registry.partition(one.group_id) is one
    assert Counter(node_of(one.replica_ids[0]) for one in topic.partitions) == {1: 2, 2: 2, 3: 2}
    assert [log.registry.replica_count(node) for node in (1, 2, 3)] == [6, 6, 6]


def test_defaults_follow_the_size_of_the_cluster() -> None:
    small = Log().found(1)
    small.do(commands.create_topic(create()))
    topic = small.registry.topic("t")
    assert topic is not None
    assert (topic.replication_factor, len(topic.partitions)) == (1, 1)
    large = Log().found(5)
    large.do(commands.create_topic(create()))
    topic = large.registry.topic("t")
    assert topic is not None
    assert topic.replication_factor == 3


def test_a_second_topic_of_one_name_is_refused_and_leaves_no_trace() -> None:
    log = Log().found()
    log.do(commands.create_topic(create()))
    before = log.machine.snapshot()
    with pytest.raises(RakitError, match="there is a topic 't' already") as error:
        log.do(commands.create_topic(create(partition_count=2)))
    assert reason(error) == "TOPIC_EXISTS"
    assert error.value.rule.code is grpc.StatusCode.ALREADY_EXISTS
    assert not error.value.may_be_applied
    assert log.machine.snapshot() == before


def test_more_replicas_than_nodes_are_refused_with_what_to_do() -> None:
    log = Log().found()
    with pytest.raises(RakitError) as error:
        log.do(commands.create_topic(create(replication_factor=4)))
    assert reason(error) == "REPLICATION_FACTOR_TOO_LARGE"
    assert error.value.rule.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "the cluster has 3 nodes, too few for a replication factor of 4" in error.value.message
    assert "add nodes, or ask for at most 3" in error.value.message


def test_the_cluster_has_a_limit_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rakit.node.metadata.topics.PARTITIONS_COUNT_MAX", 10)
    log = Log().found()
    log.do(commands.create_topic(create(partition_count=8)))
    with pytest.raises(RakitError, match="above its limit of 10") as error:
        log.do(commands.create_topic(create("more", partition_count=3)))
    assert reason(error) == "INVALID_PARTITION_COUNT"
    log.do(commands.create_topic(create("fits", partition_count=2)))


def test_a_repeated_request_gets_the_first_answer() -> None:
    log = Log().found()
    request_id = str(uuid.uuid4())
    first = log.do(commands.create_topic(create(request_id=request_id)))
    again = log.do(commands.create_topic(create(request_id=request_id)))
    assert again == first
    log.do(commands.delete_topic(DeleteTopicRequest(name="t")))
    assert log.do(commands.create_topic(create(request_id=request_id))) == first
    assert log.registry.topic("t") is None


def test_a_request_id_with_other_content_is_refused() -> None:
    log = Log().found()
    request_id = str(uuid.uuid4())
    log.do(commands.create_topic(create(request_id=request_id)))
    for other in (
        commands.create_topic(create(request_id=request_id, partition_count=2)),
        commands.delete_topic(DeleteTopicRequest(name="t", request_id=request_id)),
    ):
        with pytest.raises(RakitError, match="use a new UUID for each") as error:
            log.do(other)
        assert reason(error) == "REQUEST_ID_REUSED"
    assert log.registry.topic("t") is not None


def test_a_refused_request_may_succeed_later_under_the_same_id() -> None:
    log = Log().found()
    command = commands.create_topic(create(replication_factor=4, request_id=str(uuid.uuid4())))
    with pytest.raises(RakitError):
        log.do(command)
    log.do(register(describe("n4")))
    log.do(command)
    assert log.registry.topic("t") is not None


def test_answers_are_remembered_up_to_a_limit_oldest_first() -> None:
    answered = tables.AnsweredRequests(count_max=2)
    marks = [
        commands.delete_topic(DeleteTopicRequest(name=name)).delete_topic.mark for name in "abc"
    ]
    log = Log().found()
    result = log.do(commands.create_topic(create()))
    for mark in marks:
        answered.put(mark, result)
    assert answered.get(marks[0].request_id) is None
    assert answered.get(marks[2].request_id) is not None


def test_a_deleted_topic_leaves_its_groups_dead_for_ever() -> None:
    log = Log().found()
    log.do(commands.create_topic(create(partition_count=3)))
    log.do(commands.delete_topic(DeleteTopicRequest(name="t")))
    assert log.registry.topic("t") is None
    assert log.registry.partition_count == 0
    assert all(log.registry.is_dead_group(group) for group in (2, 3, 4))
    assert not log.registry.is_dead_group(5)
    # A topic of the same name is another topic, in groups of its own.
    log.do(commands.create_topic(create(partition_count=1)))
    topic = log.registry.topic("t")
    assert topic is not None
    assert topic.topic_id == 2
    assert [one.group_id for one in topic.partitions] == [5]
    assert [log.registry.replica_count(node) for node in (1, 2, 3)] == [1, 1, 1]


def test_deleting_what_does_not_exist_is_refused() -> None:
    log = Log().found()
    with pytest.raises(RakitError, match="there is no topic 'nope'") as error:
        log.do(commands.delete_topic(DeleteTopicRequest(name="nope")))
    assert reason(error) == "UNKNOWN_TOPIC"
    assert error.value.metadata == {"topic": "nope"}


def test_an_update_sets_and_resets_named_settings_only() -> None:
    log = Log().found()
    request = create()
    request.config.retention_ms = 5_000
    request.config.segment_ms = 2_000
    log.do(commands.create_topic(request))
    update = UpdateTopicRequest(name="t", config=TopicConfig(retention_bytes=1 << 30))
    log.do(commands.update_topic(update))
    topic = log.registry.topic("t")
    assert topic is not None
    assert topic.config.retention_bytes == 1 << 30
    assert topic.config.retention_ms == 5_000
    reset = UpdateTopicRequest(name="t")
    reset.update_mask.paths.append("retention_ms")
    log.do(commands.update_topic(reset))
    topic = log.registry.topic("t")
    assert topic is not None
    assert topic.config.retention_ms is None
    assert topic.config.effective.retention_ms == -1
    assert topic.config.segment_ms == 2_000


def test_an_update_is_judged_together_with_what_was_set_before() -> None:
    log = Log().found()
    request = create()
    request.config.batch_decompressed_bytes_max = 4 << 20
    log.do(commands.create_topic(request))
    update = UpdateTopicRequest(name="t", config=TopicConfig(batch_bytes_max=5 << 20))
    with pytest.raises(RakitError, match="raise the first or lower the second") as error:
        log.do(commands.update_topic(update))
    assert reason(error) == "INVALID_CONFIG"


def test_s24_a_producer_name_keeps_its_id_and_every_init_bumps_the_epoch() -> None:
    log = Log().found()
    first = log.do(commands.init_producer("p")).producer_ready
    second = log.do(commands.init_producer("p")).producer_ready
    other = log.do(commands.init_producer("q")).producer_ready
    assert (first.producer_id, first.epoch) == (1, 1)
    assert (second.producer_id, second.epoch) == (1, 2)
    assert (other.producer_id, other.epoch) == (2, 1)


def test_s24_a_producer_name_is_never_forgotten_whoever_comes_and_goes() -> None:
    """Else a producer that has been steady for weeks would lose its id, and with it its fence."""
    log = Log().found()
    log.registry.producers.count_max = 2
    month_ms = 30 * 24 * 3600 * 1000
    first = log.do(commands.init_producer("steady"), time_ms=0).producer_ready
    log.do(commands.init_producer("another"), time_ms=1)
    for number in range(5):
        # A leader whose clock is far ahead changes nothing either.
        log.do(commands.init_producer(""), time_ms=month_ms * number)
        log.apply(commands.init_producer(f"short-{number}"), time_ms=month_ms * number)
    again = log.do(commands.init_producer("steady"), time_ms=2).producer_ready
    assert (again.producer_id, again.epoch) == (first.producer_id, 2)


def test_s24_a_producer_without_a_name_gets_an_id_of_its_own_and_no_row() -> None:
    log = Log().found()
    named = log.do(commands.init_producer("p")).producer_ready
    nameless = [log.do(commands.init_producer("")).producer_ready for _ in range(3)]
    other = log.do(commands.init_producer("q")).producer_ready
    ids = [one.producer_id for one in (named, *nameless, other)]
    assert ids == [1, 2, 3, 4, 5]
    assert {one.epoch for one in nameless} == {1}
    assert [name for name, _ in log.registry.producers.items()] == ["p", "q"]


def test_a_full_producer_table_refuses_with_what_to_do() -> None:
    log = Log().found()
    log.registry.producers.count_max = 1
    log.do(commands.init_producer("p"))
    with pytest.raises(RakitError, match="use a name that exists, or none") as error:
        log.do(commands.init_producer("q"))
    assert reason(error) == "PRODUCER_NAMES_EXHAUSTED"
    assert not error.value.may_be_applied
    assert not error.value.rule.retriable, "no time heals it"
    assert error.value.metadata == {"limit": "1"}
    # Names that are known, and none, go on.
    assert log.do(commands.init_producer("p")).producer_ready.epoch == 2
    assert log.do(commands.init_producer("")).producer_ready.producer_id == 2


def test_topics_are_listed_by_name_in_pages() -> None:
    log = Log().found()
    for name in ("m", "a", "z", "k"):
        log.do(commands.create_topic(create(name)))
    log.do(commands.delete_topic(DeleteTopicRequest(name="k")))
    assert [one.name for one in log.registry.topics_after("", 2)] == ["a", "m"]
    assert [one.name for one in log.registry.topics_after("m", 2)] == ["z"]
    assert log.registry.topics_after("z", 2) == []


def test_dead_nodes_are_avoided_as_the_proposer_sees_them() -> None:
    log = Log().found(4)
    command = commands.create_topic(create(partition_count=8))
    command.create_topic.avoid_node_ids.append(2)
    log.do(command)
    assert log.registry.replica_count(2) == 0


def damaged(group_id: int, replica: int, seen: Iterable[int]) -> pb.MetadataCommand:
    return pb.MetadataCommand(
        replace_replica=pb.ReplaceReplica(
            group_id=group_id, replica_id=replica, seen_replica_ids=seen
        )
    )


def test_s8_a_damaged_replica_gets_a_successor_on_its_node_once_however_often_that_is_asked() -> (
    None
):
    log = Log().found(4)
    log.do(commands.create_topic(create(partition_count=3)))
    topic = log.registry.topic("t")
    assert topic is not None
    before = topic.partitions
    place = before[1]
    old = place.replica_ids[1]
    changes: list[Change] = []
    log.registry.subscribe(changes.append)
    first = log.do(damaged(place.group_id, old, place.replica_ids)).replica_replaced.replica_id
    assert node_of(first) == node_of(old)
    assert first > old
    known = {each for one in before for each in (*one.replica_ids, *one.born_replica_ids)}
    assert first not in known, "ids never come back, and it must not begin from the first members"
    now = log.registry.partition(place.group_id)
    assert now is not None
    assert now.replica_ids == (place.replica_ids[0], first, *place.replica_ids[2:])
    assert [change.group_ids for change in changes] == [(place.group_id,)]
    topic = log.registry.topic("t")
    assert topic is not None
    assert topic.partitions == (before[0], now, before[2])
    snapshot = log.machine.snapshot()
    again = damaged(place.group_id, old, place.replica_ids)
    assert log.do(again).replica_replaced.replica_id == first
    late = damaged(place.group_id, place.replica_ids[0], place.replica_ids)
    assert log.do(late).replica_replaced.replica_id == place.replica_ids[0], "one at a time"
    assert log.machine.snapshot() == snapshot
    assert len(changes) == 1, "nobody is told of nothing"
    second = log.do(damaged(place.group_id, first, now.replica_ids)).replica_replaced.replica_id
    assert second > first


def test_s8_of_an_unknown_replica_or_group_nothing_is_replaced() -> None:
    log = Log().found(4)
    log.do(commands.create_topic(create(replication_factor=3)))
    log.do(commands.create_topic(create(name="gone")))
    gone, topic = log.registry.topic("gone"), log.registry.topic("t")
    assert gone is not None
    assert topic is not None
    log.do(commands.delete_topic(DeleteTopicRequest(name="gone")))
    (place,) = topic.partitions
    (stranger,) = {1, 2, 3, 4} - {node_of(one) for one in place.replica_ids}
    snapshot = log.machine.snapshot()
    dead = gone.partitions[0]
    for group_id, replica, seen in (
        (dead.group_id, dead.replica_ids[0], dead.replica_ids),
        (10_000, place.replica_ids[0], place.replica_ids),
        (1, replica_id(1, 1), place.replica_ids),
        (place.group_id, replica_id(stranger, 1), place.replica_ids),
        (place.group_id, 0, place.replica_ids),
        (place.group_id, -5, place.replica_ids),
    ):
        assert log.do(damaged(group_id, replica, seen)).replica_replaced.replica_id == 0
    assert log.machine.snapshot() == snapshot


def test_s8_a_store_that_was_replaced_meanwhile_leaves_nothing_to_replace() -> None:
    log = Log().found()
    log.do(commands.create_topic(create()))
    topic = log.registry.topic("t")
    assert topic is not None
    (place,) = topic.partitions
    old = place.on_node(2)
    assert old is not None
    log.do(register(describe("n2", store="fresh"), replaces="store-n2"))
    snapshot = log.machine.snapshot()
    now = log.registry.partition(place.group_id)
    assert now is not None
    command = damaged(place.group_id, old, place.replica_ids)
    answer = log.do(command).replica_replaced.replica_id
    assert answer == now.on_node(2) != old
    assert log.machine.snapshot() == snapshot
