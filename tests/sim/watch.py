"""What nodes see of each other, and who leads longer than it should.

Pings would tell a refused connection at once and silence after a second; here the world tells.
Beside it the watch holds a promise that no log shows: who leads and is heard by no majority stops
leading, so that its clients look elsewhere (6.2; rule K4 of the core). Whether it can be heard is
judged by the network, not by what it believes.
"""

from __future__ import annotations

from rakit.multiraft.effects import RoleChange
from rakit.multiraft.group import Group
from rakit.multiraft.machine import node_of
from rakit.raft import Role
from tests.sim.events import Events
from tests.sim.network import Network
from tests.sim.node import SimNode
from tests.sim.violations import Invariant, ViolationError

SILENCE_MS = 1000
#: Looks in a row: enough to notice the silence, for two periods of the longest election timeout,
#: and for slow clocks.
DEAF_LOOKS_MAX = 10


class Watch:
    """The views of all nodes."""

    def __init__(self, nodes: dict[int, SimNode], network: Network, events: Events) -> None:
        self.nodes = nodes
        self.network = network
        self.events = events
        # (node, other) -> up, boot, last heard
        self.views: dict[tuple[int, int], tuple[bool, int, int]] = {}
        # (node, group) of those that have said that they lead.
        self.leading: set[tuple[int, int]] = set()
        # (node, group, boot, term) of leaders that no majority can be heard by -> looks in a row
        self.deaf: dict[tuple[int, int, int, int], int] = {}

    def up(self, node_id: int) -> set[int]:
        """The nodes that one takes for up, itself among them."""
        views = self.views
        return {
            one
            for one in self.nodes
            if one == node_id or views.get((node_id, one), (False, 0, 0))[0]
        }

    def refused(self, node_id: int, other_id: int) -> None:
        """Tells a node that another one is down, without the wait for its silence."""
        up, boot, heard_ms = self.views.get((node_id, other_id), (False, 0, 0))
        driver = self.nodes[node_id].driver
        assert driver is not None, "events of a node that is down are dropped"
        if up:
            driver.node_down(other_id)
            self.views[node_id, other_id] = (False, boot, heard_ms)

    def look(self, node_id: int) -> None:
        """Tells a node what it would have noticed by now."""
        driver = self.nodes[node_id].driver
        assert driver is not None, "events of a node that is down are dropped"
        now_ms = self.events.now_ms
        for other_id, other in self.nodes.items():
            if other_id == node_id:
                continue
            up, boot, heard_ms = self.views.get((node_id, other_id), (False, 0, 0))
            reachable = self.network.connected(node_id, other_id)
            if reachable and other.answers(now_ms):
                if up and other.boot != boot:
                    driver.node_down(other_id)
                if not up or other.boot != boot:
                    driver.node_up(other_id)
                self.views[node_id, other_id] = (True, other.boot, now_ms)
            elif up and ((reachable and not other.up) or now_ms - heard_ms > SILENCE_MS):
                driver.node_down(other_id)
                self.views[node_id, other_id] = (False, boot, heard_ms)
        for group_id, group in driver.groups.items():
            if group.role is Role.LEADER:
                self._may_lead(node_id, group_id, group)

    def _may_lead(self, node_id: int, group_id: int, group: Group) -> None:
        node = self.nodes[node_id]
        key = (node_id, group_id, node.boot, group.term)
        if self._heard_by_a_majority(node_id, group):
            self.deaf.pop(key, None)
            return
        looks = self.deaf[key] = self.deaf.get(key, 0) + 1
        if looks > DEAF_LOOKS_MAX:
            raise ViolationError(
                Invariant.QUORUM_CHECK,
                f"node {node_id} leads group {group_id} in term {group.term}, and for {looks} looks"
                " no majority can have told it so",
            )

    def _heard_by_a_majority(self, node_id: int, group: Group) -> bool:
        def hears(voter: int) -> bool:
            other_id = node_of(voter)
            other = self.nodes[other_id]
            return other_id == node_id or (
                other.answers(self.events.now_ms) and self.network.connected(node_id, other_id)
            )

        conf = group.conf_state
        return all(
            2 * sum(map(hears, half)) > len(half)
            for half in (conf.voters, conf.voters_outgoing)
            if half
        )

    def ended(self, node_id: int, change: RoleChange) -> bool:
        """Takes in a change of role; tells whether a leadership has ended by it."""
        key = (node_id, change.group_id)
        if change.role is Role.LEADER:
            self.leading.add(key)
            return False
        led = key in self.leading
        self.leading.discard(key)
        return led
