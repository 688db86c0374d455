"""What a replica did, as events: for whoever checks a run against the specification of Raft.

The format is that of etcd's core (etcd-io/raft, `state_trace.go`): each event names what happened
and shows the replica's state at that moment. etcd's own specification was not run on our traces;
what it would not accept is below.

    {"tag":"trace","event":{"name":"BecomeCandidate","nid":"2",
      "state":{"term":2,"vote":"2","commit":3},"role":"StateCandidate","log":3,
      "conf":[["1","2","3"],[]],"msg":{...},"prop":{...}}}

`log` is the index of the last entry, `conf` the voters of both halves; ids are text. When an event
is told, relative to what it is about:

    before it   Receive..., Replicate (once for each entry), ChangeConf, ApplyConfChange
    after it    InitState, BecomeFollower, BecomeCandidate, BecomeLeader, Commit, Send..., Ready

A message counts as sent when the algorithm has made it; it may leave only after a sync, or never. A
replica writes to itself what it promises itself: its own vote, and what it acknowledges as a
leader; those arrive when its disk has synced them. As in etcd, a base travels as an append request
of type `MsgSnap`, whose `entries` are the base's index; the names `SendSnapshot` and
`ReceiveSnapshot` are reserved for it and not used.

Where rakit needs more than etcd tells, it stands in `prop`, which etcd's specification does not
look at: the terms of the entries that an append carries; what a replica starts from (`base` as
[index, term], the `terms` behind it, `members`); the rest of a configuration; the base that is
sent; the stamps and the word of `doubt`. etcd's `match` and `next` of the sender itself are left
out, since they say nothing. The end of a joint phase is an event here and none in etcd.

What the specification does not know is mapped to nothing. Pre-votes change neither term, vote, log
nor commit index (rule E4), so a pre-candidate is a follower and its messages are not told; so are
transfers and reads. Where such a message tells a higher term, BecomeFollower shows that.

The core only calls its tracer (`Config.tracer`), with one event as plain values, in the middle of
a step: the tracer keeps it or writes it, and calls nothing here. Without a tracer an event costs
the look at one attribute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from rakit.raft import messages
from rakit.raft.types import (
    ConfChange,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
)

if TYPE_CHECKING:
    from rakit.raft.state import Raft
    from rakit.raft.tracker import Membership

#: One event, as it stands in a line.
TraceEvent: TypeAlias = dict[str, object]
Tracer: TypeAlias = Callable[[TraceEvent], None]

#: All names that a trace may hold.
EVENT_NAMES: Final = (
    "InitState",
    "BecomeCandidate",
    "BecomeFollower",
    "BecomeLeader",
    "Commit",
    "Replicate",
    "ChangeConf",
    "ApplyConfChange",
    "Ready",
    "SendAppendEntriesRequest",
    "ReceiveAppendEntriesRequest",
    "SendAppendEntriesResponse",
    "ReceiveAppendEntriesResponse",
    "SendRequestVoteRequest",
    "ReceiveRequestVoteRequest",
    "SendRequestVoteResponse",
    "ReceiveRequestVoteResponse",
    "SendSnapshot",
    "ReceiveSnapshot",
)
_ROLES: Final = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
#: What of the messages is told: the end of the event's name, and etcd's name of the kind.
_KINDS: Final = {
    MessageType.APP: ("AppendEntriesRequest", "MsgApp"),
    MessageType.HEARTBEAT: ("AppendEntriesRequest", "MsgHeartbeat"),
    MessageType.SNAP: ("AppendEntriesRequest", "MsgSnap"),
    MessageType.APP_RESP: ("AppendEntriesResponse", "MsgAppResp"),
    MessageType.HEARTBEAT_RESP: ("AppendEntriesResponse", "MsgHeartbeatResp"),
    MessageType.VOTE: ("RequestVoteRequest", "MsgVote"),
    MessageType.VOTE_RESP: ("RequestVoteResponse", "MsgVoteResp"),
}
_STAMPED: Final = frozenset({MessageType.APP_RESP, MessageType.VOTE_RESP})
_ACTIONS: Final = {
    ConfChangeType.ADD_VOTER: "AddNewServer",
    ConfChangeType.REMOVE: "RemoveServer",
    ConfChangeType.ADD_LEARNER: "AddLearner",
}


def line(event: TraceEvent, group_id: int = 0) -> str:
    """Returns the line that an event is written as; `group_id` tells the groups of a file apart."""
    return json.dumps({"tag": "trace", "group": group_id, "event": event}, separators=(",", ":"))


def init_state(raft: Raft) -> None:
    """Tells what a replica starts from: its disk, as far as what it has applied does not say it."""
    log = raft.log
    base = log.applied
    terms = [log.term(index) for index in range(base + 1, log.last_index + 1)]
    _tell(
        raft,
        "InitState",
        prop={
            "base": [base, log.term(base)],
            "terms": terms,
            "members": _members(raft.tracker.membership.conf_state()),
            "stamp": [raft.config.boot, raft.doubtful],
        },
    )


def became(raft: Raft) -> None:
    """Tells the role that a replica has taken, in the term that it shows."""
    role = Role.FOLLOWER if raft.role is Role.PRE_CANDIDATE else raft.role
    _tell(raft, f"Become{role.name.capitalize()}")


def commit(raft: Raft) -> None:
    """Tells that a leader has counted its commit index up."""
    _tell(raft, "Commit")


def ready(raft: Raft) -> None:
    """Tells that a Ready was taken."""
    _tell(raft, "Ready")


def append_own(raft: Raft, entries: Sequence[Entry]) -> None:
    """Tells what a leader is about to append; a change has told of itself (`change_conf`)."""
    last = raft.log.last_index
    for entry in entries:
        if entry.type is EntryType.NORMAL:
            _tell(raft, "Replicate", last=last)
            last += 1


def change_conf(raft: Raft, change: ConfChange) -> None:
    """Tells the change of members that a leader is about to append."""
    changes = [
        {"nid": str(step.replica_id), "action": _ACTIONS[step.type]} for step in change.changes
    ]
    _tell(
        raft,
        "ChangeConf",
        prop={
            "cc": {"changes": changes},
            "joint": change.enters_joint,
            "auto_leave": change.auto_leave,
        },
    )


def apply_conf_change(raft: Raft, membership: Membership) -> None:
    """Tells the configuration that a replica is about to take over, by a change or by a base."""
    newconf = [str(id_) for id_ in membership.voters.incoming]
    _tell(
        raft,
        "ApplyConfChange",
        prop={"cc": {"newconf": newconf}, "members": _members(membership.conf_state())},
    )


def sent(raft: Raft, message: Message) -> None:
    """Tells a message that was made."""
    if message.type in _KINDS:
        _tell(raft, f"Send{_KINDS[message.type][0]}", message)


def received(raft: Raft, message: Message) -> None:
    """Tells a message that is about to be taken in."""
    if message.type in _KINDS:
        _tell(raft, f"Receive{_KINDS[message.type][0]}", message)


def own_ack(raft: Raft, index: int) -> Message:
    """Returns what a leader acknowledges to itself."""
    return messages.append_ack(raft.id, raft.id, raft.term, index, raft.stamp)


def own_vote(raft: Raft) -> Message:
    """Returns the vote that a candidate gives itself."""
    return messages.vote_response(
        raft.id, raft.id, raft.term, pre_vote=False, reject=False, stamp=raft.stamp
    )


def _tell(
    raft: Raft,
    name: str,
    message: Message | None = None,
    prop: dict[str, object] | None = None,
    last: int | None = None,
) -> None:
    voters = raft.tracker.voters
    event: TraceEvent = {
        "name": name,
        "nid": str(raft.id),
        "state": {"term": raft.term, "vote": str(raft.vote), "commit": raft.log.committed},
        "role": _ROLES[raft.role],
        "log": raft.log.last_index if last is None else last,
        "conf": [[str(id_) for id_ in voters.incoming], [str(id_) for id_ in voters.outgoing]],
    }
    if message is not None:
        event["msg"] = _message(message)
        prop = _carried(message)
    if prop:
        event["prop"] = prop
    assert raft.tracer is not None, "events are told where there is a tracer"
    raft.tracer(event)


def _message(message: Message) -> dict[str, object]:
    base = message.snapshot
    return {
        "type": _KINDS[message.type][1],
        "term": message.term,
        "from": str(message.from_),
        "to": str(message.to),
        "entries": len(message.entries) if base is None else base.index,
        "logTerm": message.log_term,
        "index": message.index,
        "commit": message.commit,
        "vote": "0",
        "reject": message.reject,
        "rejectHint": message.reject_hint,
    }


def _carried(message: Message) -> dict[str, object]:
    """Returns what etcd's event does not say of a message."""
    carried: dict[str, object] = {}
    base = message.snapshot
    if message.entries:
        carried["terms"] = [entry.term for entry in message.entries]
    elif base is not None:
        carried["base"] = [base.index, base.term]
        carried["members"] = _members(base.conf_state)
    if message.context and message.type in _STAMPED:
        carried["stamp"] = list(messages.decode_stamp(message.context))
    elif message.context and message.type is MessageType.APP:
        carried["absolves"] = messages.decode_boot(message.context)
    return carried


def _members(state: ConfState) -> dict[str, object]:
    return {
        "voters": [str(id_) for id_ in state.voters],
        "outgoing": [str(id_) for id_ in state.voters_outgoing],
        "learners": [str(id_) for id_ in state.learners],
        "learners_next": [str(id_) for id_ in state.learners_next],
        "auto_leave": state.auto_leave,
    }
