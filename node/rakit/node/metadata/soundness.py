"""Which members of a group its leader may build on, when another copy is to go.

Used for one damaged replica (`evictions`) and for a whole store (`sparing`). What a leader knows of
a quiet group may be old: who builds on it has a majority answer first.
"""

from __future__ import annotations

from rakit.multiraft.machine import node_of
from rakit.node.metadata.ports import GroupView, HostPort


def damaged_members(host: HostPort, group: GroupView) -> set[int]:
    """Those that are shut out for a loss of their own, or lost what they had acknowledged."""
    lost = {peer.id for peer in group.status().peers if peer.lost_log}
    return host.shut_out_elsewhere(group.meta.group_id) | lost


def whole_members(host: HostPort, group: GroupView) -> set[int]:
    """Those on nodes that are up that hold all that is committed, vouch for it, and are sound."""
    status = group.status()
    return {
        peer.id
        for peer in status.peers
        if peer.match >= status.basic.commit
        and not peer.doubtful
        and host.node_is_up(node_of(peer.id))
    } - damaged_members(host, group)
