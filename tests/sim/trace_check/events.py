"""The lines of a trace, as values; a line that is none raises `FormatError`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.sim.trace_check.confs import Change, Conf, read_conf

NAMES = frozenset(
    {
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
    }
)
#: Which types of messages the ends of the names may go with.
_TYPES = {
    "AppendEntriesRequest": {"MsgApp", "MsgHeartbeat", "MsgSnap"},
    "AppendEntriesResponse": {"MsgAppResp", "MsgHeartbeatResp"},
    "RequestVoteRequest": {"MsgVote"},
    "RequestVoteResponse": {"MsgVoteResp"},
    "Snapshot": {"MsgSnap"},
}
ROLES = frozenset({"StateFollower", "StateCandidate", "StateLeader"})
NOBODY = "0"


class FormatError(Exception):
    """The line is not one of a trace."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message; equal ones are the same to the network."""

    type: str
    term: int
    sender: str
    to: str
    log_term: int
    index: int
    commit: int
    reject: bool
    reject_hint: int
    terms: tuple[int, ...]
    #: (index, term) of a base, and the configuration as of it.
    base: tuple[int, int] | None
    conf: Conf | None
    #: (boot, in doubt) of who answers.
    stamp: tuple[int, bool]
    #: The boot whose doubt an append ends; 0: none.
    absolves: int


class Event(NamedTuple):
    """An event, and the state that it shows."""

    name: str
    node: str
    term: int
    vote: str
    commit: int
    role: str
    last: int
    voters: frozenset[str]
    outgoing: frozenset[str]
    message: Message | None
    prop: dict[str, Any]


def read_event(raw: dict[str, Any]) -> Event:
    """Reads what stands under "event"."""
    try:
        name, role, state, conf = raw["name"], raw["role"], raw["state"], raw["conf"]
        prop: dict[str, Any] = raw.get("prop", {})
        if name not in NAMES or role not in ROLES:
            raise FormatError(f"{name} of a {role} is no event")
        msg = raw.get("msg")
        told = name.startswith(("Send", "Receive"))
        if told != (msg is not None):
            raise FormatError(f"{name} {'without' if told else 'with'} a message")
        message = None if msg is None else _read_message(name, msg, prop)
        return Event(
            name,
            raw["nid"],
            state["term"],
            state["vote"],
            state["commit"],
            role,
            raw["log"],
            frozenset(conf[0]),
            frozenset(conf[1]),
            message,
            prop,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise FormatError(f"{type(error).__name__}: {error}") from error


def _read_message(name: str, msg: dict[str, Any], prop: dict[str, Any]) -> Message:
    kind = msg["type"]
    if kind not in _TYPES[name.removeprefix("Send").removeprefix("Receive")]:
        raise FormatError(f"{name} with a message of type {kind}")
    terms = tuple(prop.get("terms", ()))
    base = prop.get("base")
    if msg["entries"] != (base[0] if base else len(terms)):
        raise FormatError(f"{kind} of {msg['entries']} entries tells the terms of {len(terms)}")
    if (kind == "MsgSnap") != (base is not None):
        raise FormatError(f"{kind} and its base do not go together")
    boot, doubtful = prop.get("stamp", (0, False))
    return Message(
        kind,
        msg["term"],
        msg["from"],
        msg["to"],
        msg["logTerm"],
        msg["index"],
        msg["commit"],
        msg["reject"],
        msg["rejectHint"],
        terms,
        (base[0], base[1]) if base else None,
        read_conf(prop["members"]) if base else None,
        (boot, doubtful),
        prop.get("absolves", 0),
    )


def read_change(prop: dict[str, Any]) -> Change:
    """Reads the change that a leader appends."""
    steps = tuple((step["action"], step["nid"]) for step in prop["cc"]["changes"])
    return Change(steps, bool(prop["joint"]), bool(prop["auto_leave"]))
