"""Letting idle groups go quiet, so that they cost nothing until somebody wants something.

A leader whose group has been idle sends every living member a heartbeat with a *mark*: its term,
its commit index (which is its last index) and the members it holds for dead. A member whose own
log says the same goes quiet with it; one that does not answers like any heartbeat, and the answer,
which carries the mark back, wakes the leader. Quiet replicas are not ticked at all.

What stands in for the heartbeats is the liveness of node pairs (safety S15). A node that goes down
wakes the groups that it led, whose followers campaign, and those that have no living quorum left. A
node that comes back is looked for by the leaders of all groups with a member on it. Nothing is safe
only because of it: votes, acknowledgements and reads follow Raft's rules whether a group was quiet
or not. A replica that wakes alone hears nothing, asks for a pre-vote after an election timeout, and
thereby wakes its leader.

Rules:

- Rule Q1: a leader goes quiet only when nothing is under way: no entry that is not committed and
  applied, no request that waits, no joint configuration, no change of leader, every living member
  level with it, and a quorum alive.
- Rule Q2: a follower goes quiet only on a mark that equals its own term, leader, last index and
  commit: an old mark, delayed in the network, matches nothing (cockroachdb/cockroach#26911).
- Rule Q3: a follower that takes a member for alive which the mark lists as dead stays awake: that
  member may need the leader, which is told so by the answer. So does one that takes the leader
  itself for dead: nobody would tell it of the leader's end.
- Rule Q4: dead members keep nobody awake, nor does their death wake anybody who has a leader and a
  living quorum: with 10,000 groups the elections of a third of them need all there is of a node.
  The leader that sees them return wakes the group.
- Rule Q5: the metadata group never goes quiet: everyone waits for it.

A group that was woken by what happens around it, and that nobody wants anything of, rests again
after a heartbeat: everyone had the chance to say that it lacks something.

Left out: a handshake in which every member agrees first. The mark is one message, and the answer
of whoever disagrees undoes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rakit.multiraft.group import Group
from rakit.multiraft.machine import GroupKind, node_of
from rakit.raft import ConfState, Message, MessageType, Role

_PREFIX: Final = b"quiesce:"
_HEAD: Final = struct.Struct(">QQH")
_REPLICA: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class QuiesceMark:
    """What a leader says about the state in which its group rests."""

    term: int
    commit: int
    dead_replicas: tuple[int, ...]

    def encode(self) -> bytes:
        """Returns the context of the heartbeat that carries the mark."""
        head = _HEAD.pack(self.term, self.commit, len(self.dead_replicas))
        dead = [_REPLICA.pack(replica) for replica in self.dead_replicas]
        return b"".join((_PREFIX, head, *dead))

    @staticmethod
    def decode(context: bytes) -> QuiesceMark | None:
        """Reads a mark; None if the context is something else."""
        if not context.startswith(_PREFIX):
            return None
        start = len(_PREFIX)
        try:
            term, commit, count = _HEAD.unpack_from(context, start)
            start += _HEAD.size
            dead = struct.unpack_from(f">{count}Q", context, start)
        except struct.error:
            return None
        return QuiesceMark(term, commit, dead)


def members(conf: ConfState) -> tuple[int, ...]:
    """Returns every replica of a configuration, ascending."""
    return tuple(sorted({*conf.voters, *conf.learners, *conf.voters_outgoing}))


def rest_mark(group: Group, is_up: Callable[[int], bool]) -> QuiesceMark | None:
    """Returns the mark with which this leader's group may rest now; None if it may not (Q1)."""
    if group.meta.kind is GroupKind.METADATA or not group.ready:
        return None
    if group.flights or len(group.proposals) or len(group.reads) or group.raw.has_ready():
        return None
    status = group.raw.can_quiesce()
    if not status.idle:
        return None
    dead = tuple([peer for peer in status.peers if not is_up(node_of(peer))])
    if any(replica not in dead for replica in status.lagging):
        return None
    if not has_living_quorum(group, is_up):
        return None
    return QuiesceMark(status.term, status.commit, dead)


def has_living_quorum(group: Group, is_up: Callable[[int], bool]) -> bool:
    """Tells whether a majority of a settled group's voters is on nodes that are up."""
    voters = group.conf_state.voters
    living = [voter for voter in voters if is_up(node_of(voter))]
    return 2 * len(living) > len(voters)


def rest_messages(group: Group, mark: QuiesceMark) -> list[Message]:
    """Returns the heartbeats that tell every living member to rest."""
    own = group.meta.replica_id
    context = mark.encode()
    return [
        Message(
            MessageType.HEARTBEAT,
            replica,
            own,
            mark.term,
            commit=mark.commit,
            context=context,
        )
        for replica in members(group.conf_state)
        if replica != own and replica not in mark.dead_replicas
    ]


def may_rest(group: Group, message: Message, is_up: Callable[[int], bool]) -> bool:
    """Tells whether this follower rests on its leader's mark (Q2, Q3)."""
    mark = QuiesceMark.decode(message.context)
    if mark is None or message.type is not MessageType.HEARTBEAT:
        return False
    if group.flights or len(group.reads) or group.raw.has_ready():
        return False
    status = group.raw.basic_status()
    level = (
        status.role is Role.FOLLOWER
        and not status.doubtful
        and status.term == mark.term == message.term
        and status.lead == message.from_
        and status.last_index == status.commit == status.applied == mark.commit
    )
    return (
        level
        and is_up(node_of(message.from_))
        and not any(is_up(node_of(replica)) for replica in mark.dead_replicas)
    )


def disturbs(group: Group, message: Message) -> bool:
    """Tells whether a message wakes a quiet replica.

    Everything does, except what a leader's last heartbeats before the rest still bring back: a
    plain answer of its own term says nothing that the leader did not know when it went to rest.
    """
    if message.type is MessageType.HEARTBEAT and group.role is Role.FOLLOWER:
        # The same mark again (a duplicate) changes nothing.
        mark = QuiesceMark.decode(message.context)
        return mark is None or mark.term != group.term or mark.commit != group.applied
    return not (
        message.type is MessageType.HEARTBEAT_RESP
        and group.role is Role.LEADER
        and message.term == group.term
        and not message.context
        and message.from_ not in group.dead_at_rest
    )
