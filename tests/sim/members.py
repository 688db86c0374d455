"""Who belongs to which group: the registry of the simulated cluster, and who acts on it.

The nemesis changes what should be: a node without a replica takes the place of one that has one,
or joins, or a member leaves. The rest is as in the product: nodes make the replicas that they are
assigned, and each group's leader takes the steps of `rakit.node.metadata.steps` towards it, one by
one, through all faults. A replica that was let go stays where it is, as it does in the product,
and must not disturb anybody. No node ever gets a second replica of a group.
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
    # Every replica that was ever assigned, by node.
    replicas: dict[int, int] = field(default_factory=dict[int, int])


class Members:
    """The registry; nodes look at it when they start and when it changes."""

    def __init__(self, first_nodes: list[int], group_ids: list[int]) -> None:
        replicas = {node_id: replica_id(node_id, 1) for node_id in first_nodes}
        first = tuple(sorted(replicas.values()))
        self.groups = {
            group_id: Assigned(_kind(group_id), ConfState(voters=first), first, dict(replicas))
            for group_id in group_ids
        }
        self.steps_taken = 0

    def create_missing(self, node: SimNode) -> None:
        assert node.driver is not None, "a running node creates groups"
        for group_id, one in self.groups.items():
            replica = one.replicas.get(node.node_id)
            if replica is not None and node.driver.group(group_id) is None:
                conf = one.first if replica in one.first else None
                node.driver.create_group(GroupMeta(group_id, replica, one.kind), conf)

    def change(self, rng: random.Random, nodes: list[int]) -> None:
        """Wants one group to be different."""
        group_id = rng.choice(sorted(self.groups))
        one = self.groups[group_id]
        fresh = [node_id for node_id in nodes if node_id not in one.replicas]
        grow = bool(fresh) and (len(one.desired) < _MEMBERS_MAX or rng.random() < 0.5)
        shrink = len(one.desired) > _MEMBERS_MIN if not grow else rng.random() < 0.7
        desired = list(one.desired)
        if grow:
            node_id = rng.choice(fresh)
            one.replicas[node_id] = replica_id(node_id, len(one.replicas) + 1)
            desired.append(one.replicas[node_id])
        if shrink:
            desired.pop(rng.randrange(len(one.desired)))
        one.desired = tuple(desired)

    def tend(self, driver: Driver, up: set[int]) -> None:
        """Lets a node take the next step of every group that it leads."""
        for group_id, group in sorted(driver.groups.items()):
            one = self.groups[group_id]
            if group.ready and (step := steps.next_step(_seen(group, one, up))) is not None:
                try:
                    self._take(driver, group_id, step)
                except ProposalRefusedError:
                    continue  # the next look decides anew

    def _take(self, driver: Driver, group_id: int, step: steps.Step) -> None:
        if isinstance(step, steps.HandOver):
            driver.transfer_leader(group_id, step.replica_id)
        else:
            driver.propose_conf_change(group_id, step.change, (group_id, None))
            self.steps_taken += 1

    def members_of(self, group_id: int) -> list[int]:
        """The nodes that should have a voter of the group."""
        return sorted(node_of(replica) for replica in self.groups[group_id].desired)

    def is_settled(self, group_id: int, group: Group) -> bool:
        conf = group.conf_state
        return (
            set(conf.voters) == set(self.groups[group_id].desired)
            and not conf.voters_outgoing
            and not conf.learners
        )


def _kind(group_id: int) -> GroupKind:
    return GroupKind.METADATA if group_id == METADATA_GROUP_ID else GroupKind.PARTITION


def side_to_come(driver: Driver) -> tuple[ConfState, set[int]] | None:
    """A joint phase that the node leads, and the nodes that only its incoming half needs."""
    for group in driver.groups.values():
        conf = group.conf_state
        if conf.voters_outgoing and group.role is Role.LEADER:
            newcomers = set(conf.voters) - set(conf.voters_outgoing)
            return conf, {node_of(one) for one in (*newcomers, group.meta.replica_id)}
    return None


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
