"""Founding, admission and replaced stores as the state machine decides them."""

from __future__ import annotations

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.machine import node_of, replica_id
from rakit.node.metadata import commands
from rakit.node.metadata.founding import first_voters
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import Change
from rakit.peer.v1 import metadata_command_pb2 as pb
from tests.node.metadata.support import Log, describe, register


def refused(log: Log, command: pb.MetadataCommand) -> NodeRefusedError:
    with pytest.raises(NodeRefusedError) as error:
        log.do(command)
    return error.value


def test_s26_founders_get_the_ids_that_they_gave_themselves() -> None:
    log = Log().found()
    members = [describe(f"n{number}") for number in (1, 2, 3)]
    voters = first_voters(pb.Founding(cluster_id="cluster", members=members))
    nodes = log.registry.nodes
    assert [nodes[one].name for one in (1, 2, 3)] == ["n1", "n2", "n3"]
    assert tuple(nodes[one].metadata_replica_id for one in (1, 2, 3)) == voters


def test_s26_a_second_founder_who_writes_the_founding_changes_nothing() -> None:
    log = Log().found()
    before = (log.registry.version, dict(log.registry.nodes))
    log.found()
    assert (log.registry.version, dict(log.registry.nodes)) == before


def test_a_node_is_admitted_once_however_often_it_asks() -> None:
    log = Log().found()
    first = log.do(register(describe("n4"))).node_registered
    again = log.do(register(describe("n4"))).node_registered
    assert first == again
    assert first.node_id == 4
    assert node_of(first.metadata_replica_id) == 4
    assert len(log.registry.nodes) == 4


def test_a_node_that_moved_is_the_same_node() -> None:
    log = Log().found()
    log.do(register(describe("n2", address="elsewhere:7071"), node_id=2))
    node = log.registry.nodes[2]
    assert node.peer_address == "elsewhere:7071"
    assert node.metadata_replica_id == replica_id(2, 2)
    version = log.registry.version
    log.do(register(describe("n2", address="elsewhere:7071"), node_id=2))
    assert log.registry.version == version


def test_s11_an_empty_disk_under_a_known_name_is_refused_unless_the_old_one_is_named_dead() -> None:
    log = Log().found()
    newcomer = describe("n2", store="fresh")
    error = refused(log, register(newcomer))
    assert error.refusal == pb.NODE_REFUSAL_NAME_TAKEN
    assert "two living nodes with one name" in error.message
    # The wrong store was found dead: somebody else took its place meanwhile.
    assert refused(log, register(newcomer, replaces="another")).refusal == error.refusal
    assert log.registry.nodes[2].store_uuid == "store-n2"


def test_s11_admission_of_a_new_store_kills_the_replicas_of_the_old_one_for_good() -> None:
    log = Log().found(4)
    log.do(commands.create_topic(CreateTopicRequest(name="t", partition_count=8)))
    topic = log.registry.topic("t")
    assert topic is not None
    before = {one.group_id: one for one in topic.partitions}
    touched = {group for group, one in before.items() if one.on_node(2) is not None}
    assert 0 < len(touched) < 8
    old_metadata = log.registry.nodes[2].metadata_replica_id
    changes: list[Change] = []
    log.registry.subscribe(changes.append)

    log.do(register(describe("n2", store="fresh"), replaces="store-n2"))

    node = log.registry.nodes[2]
    assert (node.store_uuid, node.former_store_uuids) == ("fresh", ("store-n2",))
    assert node.metadata_replica_id > old_metadata
    for group, was in before.items():
        now = log.registry.partition(group)
        assert now is not None
        if group not in touched:
            assert now == was
            continue
        fresh = now.on_node(2)
        assert fresh is not None
        assert fresh not in was.replica_ids
        assert fresh not in now.born_replica_ids, "it must not begin from the first configuration"
        assert now.replica_ids.index(fresh) == was.replica_ids.index(was.on_node(2) or 0)
    assert [set(change.group_ids) for change in changes] == [touched]
    assert log.registry.replica_count(2) == len(touched)


def test_s11_a_store_that_was_replaced_never_comes_back() -> None:
    log = Log().found()
    log.do(register(describe("n2", store="fresh"), replaces="store-n2"))
    for back in (
        register(describe("n2"), node_id=2),
        register(describe("n2")),
        register(describe("other", store="store-n2")),
    ):
        error = refused(log, back)
        assert error.refusal == pb.NODE_REFUSAL_STORE_REPLACED
        assert "move the directory away and start with an empty one" in error.message


def test_a_directory_under_another_name_is_refused() -> None:
    log = Log().found()
    error = refused(log, register(describe("new-name", store="store-n2")))
    assert error.refusal == pb.NODE_REFUSAL_IDENTITY_MISMATCH
    assert "belongs to node 2, called 'n2'" in error.message


def test_a_directory_that_claims_an_unknown_id_is_refused() -> None:
    log = Log().found()
    error = refused(log, register(describe("stranger"), node_id=9))
    assert error.refusal == pb.NODE_REFUSAL_IDENTITY_MISMATCH
    assert "the cluster knows no such node" in error.message


def test_former_stores_are_remembered_up_to_a_limit() -> None:
    log = Log().found()
    store = "store-n2"
    for number in range(20):
        log.do(register(describe("n2", store=f"s{number}"), replaces=store))
        store = f"s{number}"
    former = log.registry.nodes[2].former_store_uuids
    assert former == tuple(f"s{number}" for number in range(3, 19))


def test_replica_ids_are_never_used_twice() -> None:
    log = Log().found()
    log.do(commands.create_topic(CreateTopicRequest(name="t")))
    seen: set[int] = set()
    store = "store-n2"
    for number in range(5):
        topic = log.registry.topic("t")
        assert topic is not None
        current = topic.partitions[0].on_node(2)
        assert current is not None
        assert current not in seen
        seen.add(current)
        log.do(register(describe("n2", store=f"s{number}"), replaces=store))
        store = f"s{number}"
