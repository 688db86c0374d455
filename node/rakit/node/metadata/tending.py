"""A group's configuration brought to what the registry says: the hands of `steps`.

Used for the metadata group and for partitions alike, always on the group's leader. One step is
decided from what the leader sees at that moment and carried out; refusals and lost leaderships are
not errors, since the next decision starts from what is then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum

from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.machine import node_of
from rakit.node.metadata import steps
from rakit.node.metadata.ports import GroupView, HostPort
from rakit.raft import Status

_log = logging.getLogger(__name__)


class Tended(Enum):
    """What came of looking after a group."""

    #: All is as it should be, or this node does not lead: nothing to do until something changes.
    DONE = 0
    #: A step was taken; there may be more.
    STEPPED = 1
    #: The next step must wait, for a learner to catch up or for a node to come up.
    WAITING = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a group should consist of."""

    replica_ids: tuple[int, ...]
    voters_count_max: int


async def tend(host: HostPort, group_id: int, wanted: Wanted) -> Tended:
    """Takes the next step of a group that this node leads."""
    group = host.group(group_id)
    if group is None or not group.ready:
        return Tended.DONE
    seen = _seen(host, group, wanted)
    if steps.settled(seen):
        return Tended.DONE
    step = steps.next_step(seen)
    try:
        match step:
            case None:
                return Tended.WAITING
            case steps.HandOver(replica_id):
                _log.info("group %d: leadership goes to replica %d", group_id, replica_id)
                host.transfer_leader(group_id, replica_id)
                return Tended.WAITING
            case steps.Propose(change, why):
                _log.info("group %d: %s", group_id, why)
                completion = await host.change_membership(group_id, change)
                return Tended.WAITING if completion.lost else Tended.STEPPED
    except ProposalRefusedError as error:
        _log.info("group %d: the change must wait: %s", group_id, error)
        return Tended.WAITING


def caught_up(status: Status) -> set[int]:
    """The members whose log is all but complete, as their leader sees it.

    They know of every change of members, and what is committed is there or on its way: what one of
    them lacks is no more than a window of appends and what waits for commit, both limited in bytes.
    """
    return {
        peer.id for peer in status.peers if peer.holds_changes and peer.next > status.basic.commit
    }


def _seen(host: HostPort, group: GroupView, wanted: Wanted) -> steps.Group:
    conf = group.conf_state
    everybody = {*conf.voters, *conf.learners, *wanted.replica_ids}
    return steps.Group(
        conf=conf,
        desired=wanted.replica_ids,
        leader=group.meta.replica_id,
        voters_count_max=wanted.voters_count_max,
        up={one for one in everybody if host.node_is_up(node_of(one))},
        caught_up=caught_up(group.status()),
    )
