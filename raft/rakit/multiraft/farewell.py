"""A leader's word to its members that it leads no more, so that they need not wait for a time-out.

Sent by a replica that is shut out, removed or made to step down while it leads (safety S13, S15): a
quiet follower is not ticked and would otherwise never notice. It travels as the context of a
heartbeat answer, which the receiving driver takes out before the core sees it, and it promises
nothing: whoever gets it forgets this leader and campaigns in its turn, under Raft's rules.
"""

from __future__ import annotations

from typing import Final

from rakit.multiraft.effects import Envelope
from rakit.multiraft.group import Group
from rakit.multiraft.quiesce import members
from rakit.raft import Message, MessageType, Role

_CONTEXT: Final = b"farewell"


def envelopes(group: Group) -> list[Envelope]:
    """Returns the farewells of a replica that leads; nothing if it does not."""
    status = group.raw.basic_status()
    if status.role is not Role.LEADER:
        return []
    group_id, own = group.meta.group_id, group.meta.replica_id
    return [
        Envelope(
            group_id,
            own,
            replica,
            Message(MessageType.HEARTBEAT_RESP, replica, own, status.term, context=_CONTEXT),
        )
        for replica in members(group.conf_state)
        if replica != own
    ]


def is_farewell(message: Message) -> bool:
    """Tells whether a message is a leader's farewell."""
    return message.type is MessageType.HEARTBEAT_RESP and message.context == _CONTEXT
