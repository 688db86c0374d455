"""A transport that refuses at once, as one with a full or missing link does (S17).

It tells the driver so within the same step. What the driver sends in answer is refused again, and
this must come to an end by itself: no tick and no message is taken before it does.
"""

from __future__ import annotations

import pytest

from rakit.multiraft import keys
from rakit.multiraft.machine import replica_id
from rakit.raft import MessageType
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

ROUNDS_MAX = 20


def refuse_all(cluster: Cluster, node: Node, replica: int) -> list[MessageType]:
    """Carries out what a node wants while a replica's link refuses; tells what was refused."""
    refused: list[MessageType] = []
    for _ in range(ROUNDS_MAX):
        effects = node.driver.advance()
        if effects is None:
            return refused
        node.effects.append(effects)
        node.disk.write(effects.batch)
        node.driver.written(effects.number)
        if effects.must_sync:
            node.unsynced = effects.number
        for each in effects.sends:
            if each.to_replica == replica:
                refused.append(each.message.type)
                node.driver.unreachable(GROUP, replica)
            else:
                cluster.network.append(each)
    raise AssertionError(f"the driver does not come to rest: {refused}")


def follower_without_the_log(cluster: Cluster, leader: Node) -> Node:
    """A follower of which the leader, new in its term, knows nothing: it needs the base."""
    follower = cluster.followers()[0]
    cluster.crash(follower)
    cluster.report_down(follower)
    for item in (b"a", b"checkpoint", b"b", b"trim", b"c"):
        cluster.propose(leader, item)
        cluster.pump()
    cluster.settle()
    assert leader.group.storage.first_index() > follower_end(follower)
    return follower


def follower_end(follower: Node) -> int:
    return max(
        (
            keys.number_of(key)
            for key, _ in follower.disk.scan(*keys.group_range(keys.ENTRY, GROUP))
        ),
        default=0,
    )


@pytest.mark.parametrize("base", [False, True])
def test_s17_a_link_that_refuses_everything_does_not_hold_the_node_up(*, base: bool) -> None:
    cluster = Cluster()
    leader = cluster.create_and_elect()
    follower = follower_without_the_log(cluster, leader) if base else cluster.followers()[0]
    replica = replica_id(follower.node_id, 1)
    leader.driver.node_up(follower.node_id)
    cluster.propose(leader, b"d")
    refused = refuse_all(cluster, leader, replica)
    assert refused == [MessageType.SNAP if base else MessageType.APP] * len(refused)
    assert 1 <= len(refused) <= 3
    if base:
        cluster.restart(follower)
    cluster.await_applied(follower, leader)
    assert cluster.check_replicas_agree()[-1] == b"d"
