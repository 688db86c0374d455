"""Who belongs to which group: the registry of the simulated cluster, and who acts on it.

The nemesis changes what should be: a node without a replica takes the place of one that has one,
or joins, or a member leaves. The rest is as in the product: nodes make the replicas that they are
assigned, and each group's leader takes the steps of `rakit.node.metadata.steps` towards it, one by
one, through all faults. A replica that was let go stays where it is, as it does in the product,
and must not disturb anybody. A node gets a second replica of a group only in the place of one that
is shut out there.

A damaged replica that is shut out may be replaced, on its node or on one that has none (`damage`).
A group may be deleted: each node buries its replica when it learns of that, and none may come back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from rakit.multiraft.driver import Driver
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.group import Group
from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.node.metadata import steps
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.tending import caught_up
from rakit.raft import ConfState, Role
from tests.sim.node import SimNode

_MEMBERS_MIN = 3
_MEMBERS_MAX = 5


@dataclass(slots=True)
class Assigned:
    """What the registry says of one group."""

    kind: GroupKind
    first: ConfState
    desired: tuple[int, ...]
    # The newest replica that was assigned to each node.
    replicas: dict[int, int] = field(default_factory=dict[int, int])
    # How many were ever assigned.
    assigned: int = 1
    # Replicas that were found damaged.
    damaged: set[int] = field(default_factory=set[int])

    def assign(self, node_id: int) -> int:
        """Gives a node a replica, with an id that nobody had."""
        self.assigned += 1
        replica = self.replicas[node_id] = replica_id(node_id, self.assigned)
        return replica


class Members:
    """The registry; nodes look at it when they start and when it changes."""

    def __init__(self, first_nodes: list[int], group_ids: list[int]) -> None:
        replicas = {node_id: replica_id(node_id, 1) for node_id in first_nodes}
        first = tuple(sorted(replicas.values()))
        self.groups = {
            group_id: Assigned(_kind(group_id), ConfState(voters=first), first, dict(replicas))
            for group_id in group_ids
        }
        self.deleted: list[int] = []

    def settle(self, node: SimNode) -> None:
        """Makes the replicas that a node lacks, and buries those of deleted groups."""
        driver = node.driver
        assert driver is not None, "a running node has groups"
        for group_id in self.deleted:
            driver.remove_group(group_id)
        for group_id, one in self.groups.items():
            replica = one.replicas.get(node.node_id)
            if replica is None or replica in one.damaged or driver.group(group_id) is not None:
                continue
            shut_out = driver.quarantined.get(group_id)
            if shut_out is None or shut_out.replica_id < replica:
                conf = one.first if replica in one.first else None
                driver.create_group(GroupMeta(group_id, replica, one.kind), conf)

    def change(self, rng: random.Random, nodes: list[int], group_id: int = 0) -> None:
        """Wants one group to be different; without an id, any."""
        one = self.groups[group_id or rng.choice(sorted(self.groups))]
        fresh = [node_id for node_id in nodes if node_id not in one.replicas]
        grow = bool(fresh) and (len(one.desired) < _MEMBERS_MAX or rng.random() < 0.5)
        shrink = len(one.desired) > _MEMBERS_MIN if not grow else rng.random() < 0.7
        desired = list(one.desired)
        if grow:
            desired.append(one.assign(rng.choice(fresh)))
        if shrink:
            desired.pop(rng.randrange(len(one.desired)))
        one.desired = tuple(desired)

    def replace(self, rng: random.Random, group_id: int, old: int, nodes: list[int]) -> int:
        """Assigns a new replica in the place of a damaged one; returns its node."""
        one = self.groups[group_id]
        fresh = [node_id for node_id in nodes if node_id not in one.replicas]
        new = one.assign(rng.choice([*fresh, node_of(old)]))
        one.desired = tuple(new if replica == old else replica for replica in one.desired)
        return node_of(new)

    def delete(self, group_id: int) -> None:
        """Wants a group to be nowhere."""
        del self.groups[group_id]
        self.deleted.append(group_id)

    def tend(self, driver: Driver, up: set[int]) -> None:
        """Lets a node take the next step of every group that it leads."""
        for group_id, group in driver.groups.items():
            one = self.groups.get(group_id)
            if one is None or not group.ready:
                continue
            step = steps.next_step(_seen(group, one, up))
            if step is not None:
                try:
                    _take(driver, group_id, step)
                except ProposalRefusedError:
                    continue  # the next look decides anew

    def members_of(self, group_id: int) -> list[int]:
        """The nodes that should have a working voter of the group."""
        one = self.groups[group_id]
        return sorted(node_of(replica) for replica in one.desired if replica not in one.damaged)

    def is_settled(self, group_id: int, group: Group) -> bool:
        conf = group.conf_state
        return (
            set(conf.voters) == set(self.groups[group_id].desired)
            and not conf.voters_outgoing
            and not conf.learners
        )


def _kind(group_id: int) -> GroupKind:
    return GroupKind.METADATA if group_id == METADATA_GROUP_ID else GroupKind.PARTITION


def joint_group(driver: Driver) -> Group | None:
    """A group in a joint phase that the node leads."""
    for group in driver.groups.values():
        if group.conf_state.voters_outgoing and group.role is Role.LEADER:
            return group
    return None


def side_to_come(group: Group) -> set[int]:
    """The leader's node and those that only the incoming half of a joint phase needs."""
    conf = group.conf_state
    newcomers = set(conf.voters) - set(conf.voters_outgoing)
    return {node_of(one) for one in (*newcomers, group.meta.replica_id)}


def _take(driver: Driver, group_id: int, step: steps.Step) -> None:
    if isinstance(step, steps.HandOver):
        driver.transfer_leader(group_id, step.replica_id)
    else:
        driver.propose_conf_change(group_id, step.change, (group_id, None))


def _seen(group: Group, one: Assigned, up: set[int]) -> steps.Group:
    conf = group.conf_state
    everybody = {*conf.voters, *conf.learners, *one.desired}
    return steps.Group(
        conf=conf,
        desired=one.desired,
        leader=group.meta.replica_id,
        voters_count_max=len(one.desired),
        up={replica for replica in everybody if node_of(replica) in up},
        caught_up=caught_up(group.status()),
    )
