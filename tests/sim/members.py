"""Who belongs to which group: the registry of the simulated cluster, and who acts on it.

The nemesis changes what should be: a node without a replica takes the place of one that has one,
or joins, or a member leaves. The rest is as in the product: nodes make the replicas that they are
assigned, and each group's leader takes the steps of `rakit.node.metadata.steps` towards it, one by
one, through all faults. In some runs they change several voters at once, which the core allows and
the product does not ask for. In some only the first three of those that should be there are to vote
(`Votes`), as where the product keeps replicas of its registry that learn for good: who is put
further back is demoted, where several are changed at once. A replica that was let go stays where it
is, as in the product, and must not disturb anybody. A node gets a second replica of a group only in
the place of one that is shut out there.

A damaged replica that is shut out may be replaced, on its node or on one that has none (`damage`).
A group may be deleted: each node buries its replica when it learns of that, and none may come back.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field

from rakit.multiraft.driver import Driver
from rakit.multiraft.errors import GroupRefusedError, ProposalRefusedError
from rakit.multiraft.group import Group
from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.node.metadata import steps
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.metadata.tending import caught_up
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, ConfState, Role
from tests.sim.node import SimNode

_MEMBERS_MIN = 3
_MEMBERS_MAX = 5
_EVERYBODY = 100
#: Of the runs in which members come and go, those with more members than voters.
_LEARNERS_FOR_GOOD = 0.3
_LEAVERS_LEARN = 0.5
_SWAPS = 0.6


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


@dataclass(slots=True)
class Votes:
    """Who of a group is to vote."""

    count_max: int = _EVERYBODY
    #: Whether voters that are let go learn first, when several are changed at once.
    leavers_learn: bool = False

    @staticmethod
    def drawn(seed: int) -> Votes:
        """By a generator of its own: a run without learners is what it was."""
        rng = random.Random(f"the votes of {seed}")
        if rng.random() < _LEARNERS_FOR_GOOD:
            return Votes(_MEMBERS_MIN, rng.random() < _LEAVERS_LEARN)
        return Votes()

    def of(self, desired: tuple[int, ...]) -> tuple[int, ...]:
        """The first ones."""
        return desired[: self.count_max]


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
        #: Whether leaders wait until everybody who is to come is ready, and change them at once.
        self.bold = False
        self.votes = Votes()
        # The replicas that deleted groups had, by group and node.
        self._late: dict[int, dict[int, GroupMeta]] = {}

    def settle(self, node: SimNode) -> bool:
        """Makes the replicas that a node lacks, and buries those of deleted groups.

        Returns whether some are shut out for this start only.
        """
        driver = node.driver
        assert driver is not None, "a running node has groups"
        for group_id in self.deleted:
            driver.remove_group(group_id)
        for group_id, one in self.groups.items():
            replica = one.replicas.get(node.node_id)
            if replica is None or replica in one.damaged or driver.group(group_id) is not None:
                continue
            shut_out = driver.quarantined.get(group_id)
            if shut_out is None or 0 < shut_out.replica_id < replica:
                conf = one.first if replica in one.first else None
                try:
                    driver.create_group(GroupMeta(group_id, replica, one.kind), conf)
                except GroupRefusedError:
                    # It is here, and a read that failed has hidden it at the start.
                    if group_id not in driver.quarantined:
                        raise
        return any(not shut_out.for_good for shut_out in driver.quarantined.values())

    def change(self, rng: random.Random, nodes: list[int], group_id: int = 0) -> None:
        """Wants one group to be different; without an id, any."""
        one = self.groups[group_id or rng.choice(sorted(self.groups))]
        for _ in range(2 if self.bold else 1):
            self._change_one(rng, one, nodes)

    def _change_one(self, rng: random.Random, one: Assigned, nodes: list[int]) -> None:
        if self.votes.count_max < len(one.desired) and rng.random() < _SWAPS:
            one.desired = tuple(rng.sample(one.desired, len(one.desired)))
            return
        fresh = [node_id for node_id in nodes if node_id not in one.replicas]
        grow = bool(fresh) and (len(one.desired) < _MEMBERS_MAX or rng.random() < 0.5)
        shrink = len(one.desired) > _MEMBERS_MIN if not grow else rng.random() < 0.7
        desired = list(one.desired)
        if shrink:
            desired.pop(rng.randrange(len(one.desired)))
        if grow:
            desired.append(one.assign(rng.choice(fresh)))
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
        late = self.groups.pop(group_id)
        self.deleted.append(group_id)
        self._late[group_id] = {
            node_id: GroupMeta(group_id, replica, late.kind)
            for node_id, replica in late.replicas.items()
        }

    def settle_as_before(self, node: SimNode) -> None:
        """Makes the replicas that a node had before their groups were deleted."""
        driver = node.driver
        assert driver is not None, "a running node has groups"
        for metas in self._late.values():
            meta = metas.get(node.node_id)
            if meta is not None and meta.group_id not in driver.quarantined:
                with suppress(GroupRefusedError):  # its tombstone is remembered
                    driver.create_group(meta, None)

    def tend(self, driver: Driver, up: set[int]) -> None:
        """Lets a node take the next step of every group that it leads."""
        for group_id, group in driver.groups.items():
            one = self.groups.get(group_id)
            if one is None or group.role is not Role.LEADER:
                continue
            # As soon as it leads: who looks to it that earlier changes are over is the core.
            seen = _seen(group, one, up, self.votes.count_max)
            step = steps.next_step(seen)
            if self.bold:
                step = _at_once(seen, step, self.votes)
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
        conf, desired = group.conf_state, self.groups[group_id].desired
        first = set(self.votes.of(desired))
        return (
            {*conf.voters, *conf.learners} == set(desired)
            and not conf.voters_outgoing
            and (set(conf.voters) == first if self.bold else len(conf.voters) >= len(first))
        )


def _kind(group_id: int) -> GroupKind:
    return GroupKind.METADATA if group_id == METADATA_GROUP_ID else GroupKind.PARTITION


def joint_group(driver: Driver) -> Group | None:
    """A group in a joint phase that the node leads."""
    for group in driver.groups.values():
        if group.conf_state.voters_outgoing and group.role is Role.LEADER:
            return group
    return None


def side_to_come(group: Group, *, with_leavers: bool) -> set[int]:
    """The leader's node and those that only one half of a joint phase needs: the incoming one.

    With those that leave it may be a majority of all, though not of each half.
    """
    conf = group.conf_state
    incoming, outgoing = set(conf.voters), set(conf.voters_outgoing)
    side = incoming ^ outgoing if with_leavers else incoming - outgoing
    return {node_of(one) for one in (*side, group.meta.replica_id)}


def _at_once(seen: steps.Group, step: steps.Step | None, votes: Votes) -> steps.Step | None:
    """Where several are to come or voters to learn, one joint change, once every one is ready."""
    conf, first = seen.conf, votes.of(seen.desired)
    come = sorted(set(first) - set(conf.voters))
    go = sorted(set(conf.voters) - set(first))
    demoted = [one for one in go if one in seen.desired or votes.leavers_learn]
    if conf.voters_outgoing or conf.learners_next or (len(come) < 2 and not demoted):
        return step
    if not set(come) <= seen.caught_up & set(conf.learners):
        adds = isinstance(step, steps.Propose) and all(
            one.type is ConfChangeType.ADD_LEARNER for one in step.change.changes
        )
        return step if adds else _add_learner(seen, come)
    changes = [
        *(ConfChangeSingle(ConfChangeType.ADD_VOTER, one) for one in come),
        *(ConfChangeSingle(ConfChangeType.ADD_LEARNER, one) for one in demoted),
        *(ConfChangeSingle(ConfChangeType.REMOVE, one) for one in go if one not in demoted),
    ]
    return steps.Propose(ConfChange(tuple(changes)), "all at once")


def _add_learner(seen: steps.Group, come: list[int]) -> steps.Step | None:
    for one in come:
        if one not in seen.conf.learners:
            change = ConfChangeSingle(ConfChangeType.ADD_LEARNER, one)
            return steps.Propose(ConfChange((change,)), "to come with the others")
    return None


def _take(driver: Driver, group_id: int, step: steps.Step) -> None:
    if isinstance(step, steps.HandOver):
        driver.transfer_leader(group_id, step.replica_id)
    else:
        driver.propose_conf_change(group_id, step.change, (group_id, None))


def _seen(group: Group, one: Assigned, up: set[int], voters_count_max: int) -> steps.Group:
    conf = group.conf_state
    everybody = {*conf.voters, *conf.learners, *one.desired}
    return steps.Group(
        conf=conf,
        desired=one.desired,
        leader=group.meta.replica_id,
        voters_count_max=min(voters_count_max, len(one.desired)),
        up={replica for replica in everybody if node_of(replica) in up},
        caught_up=caught_up(group.status()),
    )
