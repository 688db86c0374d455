"""What GetCluster says of damage that one node knows of."""

from __future__ import annotations

from dataclasses import dataclass, field

from rakit.api.v1.cluster_service_pb2 import (
    DAMAGE_KIND_LOG_LOST,
    DAMAGE_KIND_STORE_UNCOMPACTED,
    DAMAGE_KIND_STORE_WENT_BACK,
)
from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.hello import Rollback
from rakit.multiraft.machine import replica_id
from rakit.multiraft.quarantine import Quarantined
from rakit.node.metadata import commands
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.services.damage import SHOWN_COUNT_MAX, damages
from tests.node.metadata.support import Log


@dataclass
class DamagedHost:
    node_id: int = 1
    quarantined: dict[int, Quarantined] = field(default_factory=dict[int, Quarantined])
    lost_logs: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    rolled_back_stores: list[Rollback] = field(default_factory=list[Rollback])

    damaged_store: str = ""

    def quarantined_count(self, node_id: int) -> int:
        del node_id
        return len(self.quarantined)


def test_s7_a_store_that_went_back_is_shown_until_another_has_taken_its_place() -> None:
    log = Log().found(2)
    replaced = Rollback(1, "a store of the past", 7, 5)
    host = DamagedHost(rolled_back_stores=[replaced, Rollback(2, "store-n2", 500, 400)])
    (damage,) = damages(host, log.registry)
    assert damage.kind == DAMAGE_KIND_STORE_WENT_BACK
    assert (damage.node_id, damage.store_uuid) == (2, "store-n2")
    assert "had synced 500 writes and came back with 400" in damage.message
    assert "start it with an empty one" in damage.message


def test_s9_a_store_that_rewrites_no_tables_is_shown() -> None:
    log = Log().found(2)
    (damage,) = damages(DamagedHost(damaged_store="a bad block"), log.registry)
    assert damage.kind == DAMAGE_KIND_STORE_UNCOMPACTED
    assert damage.node_id == 1
    node = log.registry.nodes[1]
    assert damage.store_uuid == node.store_uuid
    assert "a bad block" in damage.message
    assert "start it with an empty data directory" in damage.message


def test_a_log_that_was_lost_names_its_partition() -> None:
    log = Log().found(2)
    request = CreateTopicRequest(name="t", partition_count=3, replication_factor=1)
    log.do(commands.create_topic(request))
    topic = log.registry.topic("t")
    assert topic is not None
    lost = [(METADATA_GROUP_ID, replica_id(2, 1)), (topic.partitions[2].group_id, replica_id(2, 1))]
    registry, partition = damages(DamagedHost(lost_logs=lost), log.registry)
    assert registry.kind == partition.kind == DAMAGE_KIND_LOG_LOST
    assert registry.node_id == partition.node_id == 2
    assert (registry.topic, registry.group_id) == ("", METADATA_GROUP_ID)
    assert (partition.topic, partition.partition) == ("t", 2)


def test_an_answer_stays_small_on_a_disk_that_is_damaged_all_over() -> None:
    shut_out = {group_id: Quarantined(0, "damage") for group_id in range(2, 20_000)}
    shown = list(damages(DamagedHost(quarantined=shut_out), Log().found(1).registry))
    assert len(shown) == SHOWN_COUNT_MAX


def test_s9_what_is_shut_out_for_now_is_not_told_to_lose_its_data() -> None:
    for_good = Quarantined(replica_id(1, 1), "entry 3 fails its checksum")
    for_now = Quarantined(replica_id(1, 1), "applying entry 3", for_good=False)
    host = DamagedHost(quarantined={5: for_good, 6: for_now})
    lost, kept = damages(host, Log().found(1).registry)
    assert "with an empty data directory" in lost.message
    assert "restart that node with its data" in kept.message
    assert "empty" not in kept.message


def test_s9_a_replica_that_contradicts_the_others_is_said_to_stay() -> None:
    disputed = Quarantined(replica_id(1, 1), "term 3 has two leaders", at_fault=False)
    (damage,) = damages(DamagedHost(quarantined={5: disputed}), Log().found(1).registry)
    assert "nothing replaces it by itself" in damage.message
    assert "Keep a copy of that node's data directory" in damage.message
