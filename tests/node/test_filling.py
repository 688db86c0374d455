"""A node that lost its disk is not whole before its replicas vote again; who kept it is at once."""

from __future__ import annotations

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest, DeleteTopicRequest
from rakit.multiraft.machine import GroupKind, GroupMeta
from rakit.multiraft.quarantine import Quarantined
from rakit.node.filling import Filling
from rakit.node.metadata import commands
from rakit.node.metadata.caretaker import VOTERS_COUNT_MAX
from rakit.node.metadata.ports import GroupView
from rakit.node.metadata.registry import METADATA_GROUP_ID, PartitionInfo
from rakit.raft import ConfState
from tests.node.metadata.doubles import FakeGroup, FakeHost
from tests.node.metadata.support import Log, describe, register

NODES = 3


class Holder(FakeHost):
    """Node 1, with the replicas that it was given."""

    def __init__(self, log: Log) -> None:
        super().__init__(1, log)
        self.held: dict[int, FakeGroup] = {}

    def group(self, group_id: int) -> GroupView | None:
        return self.held.get(group_id)

    def gives(self, group_id: int, *voters: int, learners: tuple[int, ...] = ()) -> None:
        held = self.held[group_id] = FakeGroup(self.node_id)
        held.meta = GroupMeta(group_id, held.meta.replica_id, GroupKind.PARTITION)
        held.conf_state = ConfState(voters=voters, learners=learners)


def metadata_replicas(log: Log) -> tuple[int, ...]:
    return tuple(each.metadata_replica_id for each in log.registry.nodes.values())


def partition(log: Log) -> PartitionInfo:
    topic = log.registry.topic("t")
    assert topic is not None
    return topic.partitions[0]


def world() -> tuple[Log, Holder, Filling]:
    """Three nodes, a topic on all, and node 1 with everything that it should have."""
    log = Log().found(NODES)
    request = CreateTopicRequest(name="t", partition_count=1, replication_factor=NODES)
    log.do(commands.create_topic(request))
    host = Holder(log)
    host.gives(METADATA_GROUP_ID, *metadata_replicas(log))
    host.gives(partition(log).group_id, *partition(log).replica_ids)
    return log, host, Filling(host, log.registry)


def loses_its_disk(log: Log, host: Holder) -> None:
    log.do(register(describe("n1", store="another"), replaces="store-n1"))
    host.held.clear()


def test_a_node_that_kept_its_disk_misses_nothing() -> None:
    _log, _host, filling = world()
    assert filling.missing_count() == 0


def test_a_replica_that_is_filled_again_is_missing_until_it_votes() -> None:
    log, host, filling = world()
    before = partition(log).replica_ids
    loses_its_disk(log, host)
    assert filling.missing_count() == 2, "the metadata group's and the topic's"
    host.gives(METADATA_GROUP_ID, *metadata_replicas(log))
    assert filling.missing_count() == 1
    (mine,) = set(partition(log).replica_ids) - set(before)
    host.gives(partition(log).group_id, *before, learners=(mine,))
    assert filling.missing_count() == 1
    host.gives(partition(log).group_id, *partition(log).replica_ids)
    assert filling.missing_count() == 0


def test_a_replica_of_the_lost_disk_does_not_count_for_the_new_one() -> None:
    log, host, filling = world()
    before = partition(log).replica_ids
    loses_its_disk(log, host)
    host.gives(METADATA_GROUP_ID, *metadata_replicas(log))
    host.gives(partition(log).group_id, *before)
    assert filling.missing_count() == 1


def test_partitions_that_are_born_later_do_not_make_a_node_unfit() -> None:
    log, _host, filling = world()
    assert filling.missing_count() == 0
    request = CreateTopicRequest(name="later", partition_count=4, replication_factor=NODES)
    log.do(commands.create_topic(request))
    assert filling.missing_count() == 0


def test_partitions_of_other_nodes_are_not_waited_for() -> None:
    log, _host, filling = world()
    request = CreateTopicRequest(name="few", partition_count=NODES, replication_factor=1)
    log.do(commands.create_topic(request))
    assert filling.missing_count() == 1, "one of three is node 1's"


def test_a_partition_that_cannot_be_filled_is_waited_for_until_its_topic_is_deleted() -> None:
    """Two of three disks are gone: nobody leads it, so nothing of it comes back."""
    log, host, filling = world()
    loses_its_disk(log, host)
    host.gives(METADATA_GROUP_ID, *metadata_replicas(log))
    assert filling.missing_count() == 1
    log.do(commands.delete_topic(DeleteTopicRequest(name="t")))
    assert filling.missing_count() == 0


def test_s9_a_replica_that_is_shut_out_is_not_waited_for() -> None:
    log, host, filling = world()
    group_id = partition(log).group_id
    del host.held[group_id]
    assert filling.missing_count() == 1
    host.quarantined[group_id] = Quarantined(0, "damage")
    assert filling.missing_count() == 0


def test_of_many_nodes_some_only_learn_the_registry() -> None:
    log, host, filling = world()
    for number in range(NODES + 1, VOTERS_COUNT_MAX + 2):
        log.do(register(describe(f"n{number}")))
    mine, *others = metadata_replicas(log)
    host.gives(METADATA_GROUP_ID, *others[: VOTERS_COUNT_MAX - 1], learners=(mine,))
    assert filling.missing_count() == 1, "a voter is still to be made"
    of_a_lost_disk = 999
    voters = (*others[: VOTERS_COUNT_MAX - 1], of_a_lost_disk)
    host.gives(METADATA_GROUP_ID, *voters, learners=(mine,))
    assert filling.missing_count() == 1, "one votes in name only"
    host.gives(METADATA_GROUP_ID, *others, learners=(mine,))
    assert filling.missing_count() == 0
