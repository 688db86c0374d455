"""Leaderships brought back to where placement wanted them, so that load stays even after restarts.

The first replica of a partition is its preferred leader. A node that leads a partition in place of
another hands it over when that one has been up, voting and caught up for some seconds without a
break. Few are handed over per second: each costs its writers a moment, and a node that has just
come back must not get everything at once.

A node whose disk is nearly full takes no records as a leader, while others may have the room. So it
hands over everything for which there is another voter that is fit, at once, since its writers are
kept waiting anyway; and no leadership goes back to it before it has had room for some seconds.

A follower writes down what it is sent until its disk is full and its node ends. One may: what is
committed needs a majority. So where a majority of the voters has no room, nobody takes records,
whoever leads; else one disk with room would end the nodes of the others, and the group with them.

`Preference` decides, without effects and without a clock; the task around it looks once a second.
It looks at some of the groups that this node would give away, in turn: while a node is down, others
may lead thousands in its place.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from rakit.multiraft.effects import RoleChange
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.machine import node_of
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.registry import METADATA_GROUP_ID, Change, Registry
from rakit.node.metadata.tending import caught_up
from rakit.raft import ConfState, Role

_log = logging.getLogger(__name__)

#: Without a break, before a leadership goes there.
STEADY_MS: Final = 5_000
#: Leaderships given away by one node in one look.
HANDED_OVER_COUNT_MAX: Final = 10
#: Groups that are looked at; enough to find so many that are fit, one steady time after the other.
LOOKED_AT_COUNT_MAX: Final = 2 * HANDED_OVER_COUNT_MAX * STEADY_MS // 1000
_LOOK_SECONDS: Final = 1.0


@dataclass(slots=True)
class Preference:
    """Since when each partition's preferred leader is fit to lead."""

    _fit_since_ms: dict[int, int] = field(default_factory=dict[int, int])

    def choose(self, fit: set[int], now_ms: int) -> list[int]:
        """The groups to hand over now, given those whose preferred leader is fit at the moment."""
        self._fit_since_ms = {one: self._fit_since_ms.get(one, now_ms) for one in sorted(fit)}
        ripe = [
            group_id
            for group_id, since_ms in self._fit_since_ms.items()
            if now_ms - since_ms >= STEADY_MS
        ]
        ripe.sort(key=lambda group_id: (self._fit_since_ms[group_id], group_id))
        chosen = ripe[:HANDED_OVER_COUNT_MAX]
        for group_id in chosen:
            # A transfer that fails is tried again only after another steady time.
            self._fit_since_ms[group_id] = now_ms
        return chosen


class Leaderships:
    """Gives away what others should lead."""

    def __init__(self, host: HostPort, registry: Registry) -> None:
        self._host = host
        self._registry = registry
        self._preference = Preference()
        # Groups led here that others should lead, in the order in which they are looked at; a dict
        # because it keeps that.
        self._astray: dict[int, None] = {}
        # Whether that is all of them, for want of room, as of the last look.
        self._is_full = False
        self._unsubscribe = [
            host.on_role(self._role_changed),
            registry.subscribe(self._registry_changed),
        ]
        self._sort_all()

    def close(self) -> None:
        """Ends the subscriptions."""
        while self._unsubscribe:
            self._unsubscribe.pop()()

    async def run(self) -> None:
        """Works until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._look(int(loop.time() * 1000))
            await asyncio.sleep(_LOOK_SECONDS)

    def leaves(self, group_id: int) -> bool:
        """Whether this node has too little room to lead a group, and somebody else is to."""
        is_full = not self._host.has_room(self._host.node_id)
        return is_full and self._heir(group_id, is_full=True) != 0

    def lacks_room(self, group_id: int) -> bool:
        """Whether a group led here is to take no records, for want of room. Asked for each one."""
        host = self._host
        if not host.somebody_lacks_room:
            return False
        if not host.has_room(host.node_id):
            return True
        group = host.group(group_id)
        return group is not None and not self._has_room(group.conf_state)

    def _has_room(self, conf: ConfState) -> bool:
        """Whether what is appended can be committed without filling a disk up."""
        return all(
            2 * sum(self._host.has_room(node_of(voter)) for voter in voters) > len(voters)
            for voters in (conf.voters, conf.voters_outgoing)
            if voters
        )

    def _look(self, now_ms: int) -> None:
        is_full = not self._host.has_room(self._host.node_id)
        if is_full is not self._is_full:
            self._is_full = is_full
            if is_full:
                _log.warning("the disk is nearly full: others are to lead what this node leads")
            else:
                _log.warning("the disk has room again")
            self._sort_all()
        heirs = dict[int, int]()
        for group_id in tuple(islice(self._astray, LOOKED_AT_COUNT_MAX)):
            if heir := self._heir(group_id, is_full=is_full):
                heirs[group_id] = heir
            else:
                self._look_at_others_first(group_id)
        ripe = self._preference.choose(set() if is_full else {*heirs}, now_ms)
        for group_id in heirs if is_full else ripe:
            self._hand_over(group_id, heirs[group_id])

    def _hand_over(self, group_id: int, heir: int) -> None:
        self._look_at_others_first(group_id)
        why = "which has room" if self._is_full else "its place"
        _log.info("group %d: leadership goes to node %d, %s", group_id, node_of(heir), why)
        try:
            self._host.transfer_leader(group_id, heir)
        except ProposalRefusedError as error:
            _log.info("group %d: the leadership stays for now: %s", group_id, error)

    def _look_at_others_first(self, group_id: int) -> None:
        del self._astray[group_id]
        self._astray[group_id] = None

    def _heir(self, group_id: int, *, is_full: bool) -> int:
        """Who should lead in place of this node, if somebody is fit to; else 0.

        Whoever would be refused is not: it doubts its log, or has lost it. One that is shut out
        (S9) may have all that anybody has; its leader has not heard of it lately, and others come
        first.
        """
        partition = self._registry.partition(group_id)
        group = self._host.group(group_id)
        if partition is None or group is None or not group.ready:
            return 0
        conf = group.conf_state
        if is_full and not self._has_room(conf):
            return 0
        wanted = partition.replica_ids if is_full else partition.replica_ids[:1]
        status = group.status()
        others = caught_up(status) - {group.meta.replica_id}
        peers = {
            peer.id: peer
            for peer in status.peers
            if peer.id in others and not (peer.doubtful or peer.lost_log)
        }
        fit = [
            replica
            for replica in (() if conf.voters_outgoing else wanted)
            if replica in conf.voters and replica in peers and self._is_there(node_of(replica))
        ]
        return min(fit, key=lambda replica: not peers[replica].recent_active, default=0)

    def _is_there(self, node_id: int) -> bool:
        return self._host.node_is_up(node_id) and self._host.has_room(node_id)

    def _sort(self, group_id: int, *, led: bool) -> None:
        partition = self._registry.partition(group_id)
        preferred = 0 if partition is None else node_of(partition.replica_ids[0])
        if led and preferred and (self._is_full or preferred != self._host.node_id):
            self._astray[group_id] = None
        else:
            self._astray.pop(group_id, None)

    def _sort_all(self) -> None:
        self._astray.clear()
        for group_id in self._host.leaders.led_here():
            self._sort(group_id, led=True)

    def _role_changed(self, change: RoleChange) -> None:
        if change.group_id != METADATA_GROUP_ID:
            self._sort(change.group_id, led=change.ready and change.role is Role.LEADER)

    def _registry_changed(self, change: Change) -> None:
        if change.everything:
            self._sort_all()
        elif change.group_ids or change.dead_group_ids:
            led = self._host.leaders.led_here()
            for group_id in (*change.group_ids, *change.dead_group_ids):
                self._sort(group_id, led=group_id in led)
