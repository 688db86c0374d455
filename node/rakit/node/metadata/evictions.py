"""Replicas that are damaged for good, replaced without anybody's help (S8, S9).

A replica that is shut out for a loss of its own, or that came back without what it had
acknowledged, never counts again: its group has one failure less to spare until it is replaced. So
the leader of the group has the registry name another one in its place, on the same node. Its node
then buries it with its data and makes the new one (`replicas`); the leader lets that learn and
exchanges the two in one joint change (`tending`), as after a lost disk.

The decision is the leader's, never that of the damaged node: what is buried is gone, and only the
leader knows whether it can be spared. Rules:

- A voter goes only while a majority of all voters, not counting it, is on nodes that are up, is not
  damaged, and holds everything that is committed. Then nothing rests on what is buried.
- A majority must have answered since the damage was heard of, in which the damaged ones did not
  count: a group that is quiet has heard nothing of its members for long, and they may be damaged as
  well. Who is shut out does not answer; who lost its log counts for nothing while the core says so
  (`rakit.raft.doubt`, D5). In a later leadership it counts again, since it was sent what it lacks:
  then it is damaged no more, and stays.
- One at a time for each group: nothing is decided before the configuration is what the registry
  says, without a joint phase and without a learner that has still to catch up.
- A learner has no vote, and nothing was ever counted on it. It goes at once, since the voter whose
  place it is to take cannot go before.
- The metadata group is left out: it is for a person, as is a replica that contradicts the others
  (`rakit.multiraft.quarantine`), or one of which not even the id is known.

Two leaders may decide after each other, the first one's command still on its way: each names the
replicas that it saw, and the registry does nothing if they are others by then.

Where no such majority is left nothing is done, and the data stays where it is. There is no pause
between one replacement and the next: a disk that damages what it is given is filled again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from rakit.multiraft.errors import MultiraftError
from rakit.multiraft.machine import node_of
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.soundness import damaged_members, whole_members
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.raft import ConfState

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
#: A majority that does not answer within it is asked again at the next look.
_ANSWER_SECONDS: Final = 2.0
#: Groups looked at between two turns that other tasks get.
_BATCH_COUNT_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Ward:
    """A group as its leader sees it when some of its replicas are damaged."""

    conf: ConfState
    #: The replicas that the registry names.
    desired: tuple[int, ...]
    damaged: AbstractSet[int]
    #: Replicas on nodes that are up, that hold everything that is committed and vouch for it.
    whole: AbstractSet[int]


def to_replace(ward: Ward) -> int:
    """The replica that should have a successor now; 0: none."""
    conf = ward.conf
    if conf.voters_outgoing or conf.learners_next:
        return 0
    for learner in conf.learners:
        if learner in ward.desired and learner in ward.damaged:
            return learner
    if conf.learners or set(conf.voters) != set(ward.desired):
        return 0
    sound = [one for one in conf.voters if one in ward.whole and one not in ward.damaged]
    if 2 * len(sound) <= len(conf.voters):
        return 0
    return next((one for one in conf.voters if one in ward.damaged), 0)


class Evictions:
    """Has damaged replicas of the groups that this node leads replaced."""

    def __init__(self, host: HostPort, client: MetadataClient) -> None:
        self._host = host
        self._client = client

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Looks once at every group led here of which a replica is damaged."""
        for count, group_id in enumerate(self._host.damaged_groups, start=1):
            command = self._choose(group_id)
            # Chosen again after the majority has answered, from what is known then.
            if command and await self._answers(group_id) and self._choose(group_id) == command:
                await self._replace(command)
            elif count % _BATCH_COUNT_MAX == 0:
                await asyncio.sleep(0)

    def _choose(self, group_id: int) -> pb.ReplaceReplica | None:
        partition = self._client.registry.partition(group_id)
        group = self._host.group(group_id)
        # The metadata group is no partition.
        if partition is None or group is None or not group.ready:
            return None
        damaged, whole = damaged_members(self._host, group), whole_members(self._host, group)
        replica = to_replace(Ward(group.conf_state, partition.replica_ids, damaged, whole))
        if not replica:
            return None
        return pb.ReplaceReplica(
            group_id=group_id, replica_id=replica, seen_replica_ids=partition.replica_ids
        )

    async def _answers(self, group_id: int) -> bool:
        """Whether a majority confirms this leader; damaged replicas are no part of it."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._host.read_barrier(group_id)
        except (MultiraftError, TimeoutError) as error:
            _log.info("group %d: nothing is replaced without a majority: %s", group_id, error)
            return False
        return True

    async def _replace(self, command: pb.ReplaceReplica) -> None:
        group_id, replica = command.group_id, command.replica_id
        try:
            result = await self._client.submit(pb.MetadataCommand(replace_replica=command))
        except RakitError as error:
            _log.info("group %d: replica %d is not replaced yet: %s", group_id, replica, error)
            return
        if result.replica_replaced.replica_id == replica:
            _log.info("group %d: another replica than %d was replaced first", group_id, replica)
            return
        _log.warning(
            "group %d: replica %d on node %d is damaged for good, and a majority is well without"
            " it: a new one takes its place",
            group_id,
            replica,
            node_of(replica),
        )
