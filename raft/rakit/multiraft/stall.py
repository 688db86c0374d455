"""Getting leadership away from a node whose disk hangs (safety S13).

A commit needs a majority of disks, not the leader's; but what is committed is applied and answered
only when it is durable here too, so a leader with a hung disk keeps heartbeating and answers
nobody. It hands its groups to the most advanced voter that is up; what has not gone by the deadline
is stepped down from.

A replica may be shut out (S9) though its node is up, and what it has acknowledged be as much as
anybody's. Its leader has not heard of it lately: another one comes first.
"""

from __future__ import annotations

from collections.abc import Callable

from rakit.multiraft.group import Group
from rakit.multiraft.machine import node_of


class StallWatch:
    """Whether the disk hangs, and since which tick."""

    def __init__(self, patience_ticks: int) -> None:
        self._patience_ticks = patience_ticks
        self._since: int | None = None

    def begin(self, now: int) -> None:
        """Notes a hang; a repeated report does not extend the deadline."""
        if self._since is None:
            self._since = now

    def end(self) -> None:
        """Notes that a sync came back."""
        self._since = None

    def overdue(self, now: int) -> bool:
        """Tells whether transfers have had their time."""
        return self._since is not None and now - self._since >= self._patience_ticks


def successor(group: Group, is_up: Callable[[int], bool]) -> int:
    """Returns the living voter with the longest log that may lead after this one; 0: nobody."""
    voters = group.conf_state.voters
    fit = [
        peer
        for peer in group.status().peers
        if peer.id in voters
        and peer.id != group.meta.replica_id
        and not (peer.doubtful or peer.lost_log)
        and is_up(node_of(peer.id))
    ]
    best = max(fit, key=lambda peer: (peer.match, peer.recent_active), default=None)
    return 0 if best is None else best.id
