"""Which node leads which group, as far as this node knows: the table that requests are routed by.

It is fed from two sides: by the role changes of the replicas that live here, and by peers that
announce which groups they lead (all of them when a stream begins, then what changes). A peer
announces a group when it has applied an entry of its own term there, so whoever is routed to it is
served (S14).

Rules:

- It is a hint. Nothing rests on it for safety; the leader itself refuses what it does not lead.
- A lower term never replaces a higher one. In one term there is one leader, so equal terms agree.
- A leader on a node that is down is not given out, but kept: when the node answers again, nothing
  need be announced anew. A process that was started again begins with a complete list, which
  wipes what its predecessor announced.
- One entry for a group, and nothing but that: no task, no timer. Waiters cost while they wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from rakit.multiraft.effects import RoleChange
from rakit.multiraft.machine import node_of
from rakit.raft import Role


@dataclass(frozen=True, slots=True)
class LeaderInfo:
    """The node that leads a group, and since which term."""

    node_id: int
    term: int


LeaderCallback: TypeAlias = Callable[[int, LeaderInfo | None], None]


class Leaders:
    """Group to leader; owned by the event loop's thread."""

    def __init__(self, node_id: int, is_up: Callable[[int], bool]) -> None:
        self._node_id = node_id
        self._is_up = is_up
        self._known: dict[int, LeaderInfo] = {}
        #: Groups that this node leads and has announced, with the term.
        self._own: dict[int, int] = {}
        self._waiters: dict[int, set[asyncio.Future[LeaderInfo]]] = {}
        self._callbacks: list[LeaderCallback] = []

    def get(self, group_id: int) -> LeaderInfo | None:
        """Returns the leader of a group, unless none is known or its node is down."""
        info = self._known.get(group_id)
        if info is None or not (info.node_id == self._node_id or self._is_up(info.node_id)):
            return None
        return info

    async def wait(self, group_id: int, timeout_seconds: float) -> LeaderInfo:
        """Returns the leader as soon as one is known; raises `TimeoutError`."""
        info = self.get(group_id)
        if info is not None:
            return info
        waiter: asyncio.Future[LeaderInfo] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(group_id, set())
        waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await waiter
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(group_id) is waiters:
                del self._waiters[group_id]

    def on_change(self, callback: LeaderCallback) -> Callable[[], None]:
        """Has every change of a group's leader told; returns what ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def led_here(self) -> dict[int, int]:
        """Returns the groups that this node leads and may serve, with their terms."""
        return dict(self._own)

    def role_changed(self, change: RoleChange) -> int | None:
        """Takes in what a replica of this node has become.

        Returns what peers must be told: the term that this node leads the group in, 0 when it leads
        no longer, or None for nothing.
        """
        group_id, term = change.group_id, change.term
        if change.role is Role.LEADER and change.ready:
            news = None if self._own.get(group_id) == term else term
            self._own[group_id] = term
            self._learn(group_id, LeaderInfo(self._node_id, term))
            return news
        led = self._own.pop(group_id, None)
        if change.leader_replica and change.role is not Role.LEADER:
            self._learn(group_id, LeaderInfo(node_of(change.leader_replica), term))
        else:
            self._unlearn(group_id, up_to_term=term)
        return None if led is None else 0

    def group_removed(self, group_id: int) -> int | None:
        """Forgets a group that has no replica here any more; returns as `role_changed` does."""
        return None if self._own.pop(group_id, None) is None else 0

    def announced(
        self, node_id: int, led: Iterable[tuple[int, int]], ended: Iterable[int], *, complete: bool
    ) -> list[int]:
        """Takes in what a peer says: (group, term) that it leads, and what it led until now.

        Returns the groups of which it was taken for the leader and is not any more.
        """
        led = list(led)
        deposed: list[int] = []
        gone = set(ended)
        if complete:
            still = {group_id for group_id, _term in led}
            gone |= {
                group_id
                for group_id, info in self._known.items()
                if info.node_id == node_id and group_id not in still
            }
        for group_id in sorted(gone):
            info = self._known.get(group_id)
            if info is not None and info.node_id == node_id:
                self._unlearn(group_id, up_to_term=info.term)
                deposed.append(group_id)
        for group_id, term in led:
            self._learn(group_id, LeaderInfo(node_id, term))
        return deposed

    def node_changed(self, node_id: int) -> None:
        """Tells anew what is led by a node that came or went."""
        led = [group_id for group_id, info in self._known.items() if info.node_id == node_id]
        for group_id in led:
            self._tell(group_id)

    def _learn(self, group_id: int, info: LeaderInfo) -> None:
        known = self._known.get(group_id)
        if known == info or (known is not None and known.term > info.term):
            return
        self._known[group_id] = info
        self._tell(group_id)

    def _unlearn(self, group_id: int, up_to_term: int) -> None:
        known = self._known.get(group_id)
        if known is not None and known.term <= up_to_term:
            del self._known[group_id]
            self._tell(group_id)

    def _tell(self, group_id: int) -> None:
        info = self.get(group_id)
        if info is not None:
            for waiter in self._waiters.pop(group_id, ()):
                if not waiter.done():
                    waiter.set_result(info)
        for callback in list(self._callbacks):
            callback(group_id, info)
