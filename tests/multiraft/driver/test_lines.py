"""Who stands in line for a campaign gets its turn, whatever the others in line cannot do (S16)."""

from __future__ import annotations

import pytest

from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.machine import GroupKind, node_of, replica_id
from rakit.multiraft.succession import VISITS_PER_TICK_MAX
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, MessageType
from tests.multiraft.driver.cluster import GROUP, Cluster

CAP = 8
#: Each of them holds a place for twelve ticks when it stands: many more than there is room for.
HOPELESS = range(100, 200)


def led_by_node_3(group_id: int) -> Cluster:
    """Groups on nodes 1 to 3, and one on nodes 1, 3 and 4 that node 3 leads."""
    cluster = Cluster(4, config=DriverConfig(campaigns_count_max=CAP))
    for each in HOPELESS:
        cluster.create(each, (1, 2, 3))
    cluster.create(group_id, (1, 3, 4))
    cluster.run_until(lambda: all(cluster.leads(each) for each in [group_id, *HOPELESS]), 2_000)
    now = cluster.leader(group_id)
    assert now is not None
    if now is not cluster.nodes[3]:
        now.driver.transfer_leader(group_id, replica_id(3, 1))
        cluster.run_until(lambda: cluster.leader(group_id) is cluster.nodes[3])
    cluster.settle()
    return cluster


@pytest.mark.parametrize("group_id", [8, 9], ids=["a later voter", "a first voter"])
def test_s16_a_group_with_a_quorum_is_led_though_many_without_one_stand_in_line(
    group_id: int,
) -> None:
    cluster = led_by_node_3(group_id)
    # Only node 1 holds what is acknowledged, so only it can win, and node 4 asks as well.
    cluster.filter = lambda one: (
        not (
            one.group_id == group_id
            and node_of(one.to_replica) == 4
            and one.message.type is MessageType.APP
        )
    )
    cluster.propose(cluster.nodes[3], b"acknowledged", group=group_id)
    cluster.settle()
    for gone in (2, 3):
        cluster.crash(cluster.nodes[gone])
        cluster.report_down(cluster.nodes[gone])
    cluster.heal()
    cluster.run_until(lambda: cluster.leads(group_id), ticks=150)


def test_s16_the_metadata_group_stands_in_no_line() -> None:
    cluster = Cluster(5, config=DriverConfig(campaigns_count_max=1))
    cluster.create(1, (1, 4, 5), kind=GroupKind.METADATA)
    for each in HOPELESS:
        cluster.create(each, (1, 2, 3) if each % 2 else (2, 3, 4))
    cluster.run_until(lambda: all(cluster.leads(each) for each in [1, *HOPELESS]), 4_000)
    now = cluster.leader(1)
    assert now is not None
    if now is not cluster.nodes[5]:
        now.driver.transfer_leader(1, replica_id(5, 1))
        cluster.run_until(lambda: cluster.leader(1) is cluster.nodes[5])
    cluster.settle()
    for gone in (2, 3, 5):
        cluster.crash(cluster.nodes[gone])
        cluster.report_down(cluster.nodes[gone])
        cluster.tick(20)
    cluster.run_until(lambda: cluster.leads(1), ticks=20)


def test_s15_many_quiet_groups_ask_a_node_that_came_back_in_turns() -> None:
    cluster = Cluster(3)
    for each in HOPELESS:
        cluster.create(each)
    cluster.run_until(lambda: all(cluster.leads(each) for each in HOPELESS), 2_000)
    leader, away = cluster.nodes[1], cluster.nodes[3]
    for each in HOPELESS:
        now = cluster.leader(each)
        assert now is not None
        if now is not leader:
            now.driver.transfer_leader(each, replica_id(1, 1))
    cluster.run_until(lambda: all(cluster.leader(each) is leader for each in HOPELESS))
    cluster.run_until(lambda: all(each.quiet for each in leader.driver.groups.values()), 2_000)
    cluster.crash(away)
    cluster.report_down(away)
    cluster.run_until(lambda: all(each.quiet for each in leader.driver.groups.values()), 2_000)
    leader.driver.node_up(away.node_id)
    awake = sum(not each.quiet for each in leader.driver.groups.values())
    assert awake == VISITS_PER_TICK_MAX
    cluster.restart(away)
    cluster.run_until(
        lambda: all(away.driver.groups[each].raw.lead for each in HOPELESS), ticks=100
    )


def test_who_is_removed_while_it_stands_in_line_stops_standing() -> None:
    cluster = Cluster(3)
    leader = cluster.create_and_elect()
    removed, other = cluster.followers()
    removed.hung = True
    step = ConfChangeSingle(ConfChangeType.REMOVE, removed.group.meta.replica_id)
    leader.driver.propose_conf_change(GROUP, ConfChange((step,)), "token")
    cluster.settle()
    for one in (leader, other):
        removed.driver.node_down(one.node_id)
    cluster.isolate(removed)
    removed.hung = False
    cluster.pump()
    assert removed.group.meta.replica_id not in removed.group.conf_state.voters
    cluster.tick(100)
    assert not removed.driver._succession._agenda.has(GROUP)


@pytest.mark.parametrize("cap", [64, 1])
def test_reads_expire_though_their_replica_stands_in_line(cap: int) -> None:
    cluster = Cluster(3, config=DriverConfig(campaigns_count_max=cap))
    groups = [GROUP, *HOPELESS]
    for each in groups:
        cluster.create(each)
    cluster.run_until(lambda: all(cluster.leads(each) for each in groups), 4_000)
    cluster.settle()
    leader, follower = cluster.leader(), cluster.followers()[0]
    assert leader is not None
    cluster.filter = lambda one: (
        not (
            one.group_id == GROUP
            and node_of(one.to_replica) == follower.node_id
            and one.message.type is MessageType.APP
        )
    )
    cluster.propose(leader, b"x")
    cluster.pump()
    follower.driver.read_index(GROUP, "read")
    cluster.pump()
    for each in HOPELESS:
        follower.driver._floor.touch(follower.driver.groups[each])
    cluster.isolate(follower)
    cluster.run_until(lambda: bool(follower.reads), ticks=cluster.config.read_timeout_ticks + 20)
    assert follower.reads[0].lost
