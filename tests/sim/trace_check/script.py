"""Traces that are made by hand, event by event: three replicas, born with one committed entry.

`Script` keeps what each replica would show, and leaves it to the test whether that is right.
"""

from __future__ import annotations

from typing import Any

FOLLOWER, CANDIDATE, LEADER = "StateFollower", "StateCandidate", "StateLeader"
VOTERS = ["1", "2", "3"]
MEMBERS: dict[str, Any] = {
    "voters": VOTERS,
    "outgoing": [],
    "learners": [],
    "learners_next": [],
    "auto_leave": False,
}
NOBODY: dict[str, Any] = {**MEMBERS, "voters": []}
_ENDS = {
    "MsgApp": "AppendEntriesRequest",
    "MsgHeartbeat": "AppendEntriesRequest",
    "MsgSnap": "AppendEntriesRequest",
    "MsgAppResp": "AppendEntriesResponse",
    "MsgHeartbeatResp": "AppendEntriesResponse",
    "MsgVote": "RequestVoteRequest",
    "MsgVoteResp": "RequestVoteResponse",
}


class Script:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.shown: dict[str, dict[str, Any]] = {}
        #: (replica, index) -> term of the entries behind the first.
        self.made: dict[tuple[str, int], int] = {}
        for node in VOTERS:
            self.start(node)

    def start(self, node: str, *, terms: tuple[int, ...] = (), **state: Any) -> None:
        """A first start, or one after a crash."""
        stamp, members = state.pop("stamp", [0, False]), state.pop("members", MEMBERS)
        base = state.pop("base", [1, 1])
        self.shown[node] = {"term": 1, "vote": "0", "commit": base[0], "role": FOLLOWER}
        self.shown[node] |= {"log": base[0] + len(terms), "conf": [members["voters"], []]}
        prop = {"base": base, "terms": list(terms), "members": members, "stamp": stamp}
        self.tell(node, "InitState", prop=prop, **state)

    def tell(self, node: str, name: str, **state: Any) -> None:
        """One event, with what changes in the state that the replica shows."""
        extra: dict[str, Any] = {key: state.pop(key) for key in ("msg", "prop") if key in state}
        shown = self.shown[node]
        shown |= state
        event: dict[str, Any] = {
            "name": name,
            "nid": node,
            "role": shown["role"],
            "log": shown["log"],
        }
        event["conf"] = shown["conf"]
        event["state"] = {key: shown[key] for key in ("term", "vote", "commit")}
        self.events.append({**event, **extra})

    def send(self, kind: str, node: str, to: str, **state: Any) -> None:
        self._message("Send", node, kind, (node, to), state)

    def receive(self, kind: str, node: str, sender: str, **state: Any) -> None:
        self._message("Receive", node, kind, (sender, node), state)

    def _message(
        self, way: str, node: str, kind: str, ends: tuple[str, str], state: dict[str, Any]
    ) -> None:
        sender, to = ends
        fields = {"logTerm": 0, "index": 0, "commit": 0, "reject": False, "rejectHint": 0}
        asked = {key: state.pop(key) for key in list(state) if key in fields}
        if "commit_shown" in state:
            state["commit"] = state.pop("commit_shown")
        prop = state.get("prop", {})
        entries = prop["base"][0] if "base" in prop else len(prop.get("terms", ()))
        term = state.pop("at", self.shown[node]["term"])
        msg = {"type": kind, "term": term, "from": sender, "to": to, "vote": "0", **fields, **asked}
        self.tell(node, way + _ENDS[kind], msg={**msg, "entries": entries}, **state)

    # What belongs together.

    def stand(self, node: str, *, ask: tuple[str, ...]) -> None:
        """Stands for the next term, and asks."""
        self.tell(
            node,
            "BecomeCandidate",
            term=self.shown[node]["term"] + 1,
            vote=node,
            role=CANDIDATE,
        )
        last = self.shown[node]["log"]
        for to in ask:
            self.send("MsgVote", node, to, index=last, logTerm=self.term_at(node, last))
        self.receive("MsgVoteResp", node, node)

    def term_at(self, node: str, index: int) -> int:
        return 1 if index == 1 else self.made[node, index]

    def vote(self, voter: str, candidate: str, **stamp: Any) -> None:
        """Grants a vote, and the candidate hears of it."""
        term, last = self.shown[candidate]["term"], self.shown[candidate]["log"]
        asked = {"index": last, "logTerm": self.term_at(candidate, last)}
        self.receive("MsgVote", voter, candidate, at=term, **asked)
        if self.shown[voter]["term"] < term:
            self.tell(voter, "BecomeFollower", term=term, vote="0", role=FOLLOWER)
        self.send("MsgVoteResp", voter, candidate, vote=candidate, **stamp)
        self.receive("MsgVoteResp", candidate, voter, **stamp)

    def lead(self, node: str) -> None:
        """Takes office and makes the first entry."""
        self.tell(node, "BecomeLeader", role=LEADER)
        self.append(node)

    def append(self, node: str) -> None:
        shown = self.shown[node]
        self.tell(node, "Replicate")
        shown["log"] += 1
        self.made[node, shown["log"]] = shown["term"]

    def replicate(self, leader: str, to: str, **stamp: Any) -> None:
        """The leader's last entry arrives, is taken and acknowledged."""
        last = self.shown[leader]["log"]
        term = self.made[leader, last]
        fields: dict[str, Any] = {"index": last - 1, "logTerm": self.term_at(leader, last - 1)}
        fields["prop"] = {"terms": [term]}
        self.send("MsgApp", leader, to, commit=1, **fields)
        self.receive("MsgApp", to, leader, commit=1, **fields)
        self.made[to, last] = term
        self.send("MsgAppResp", to, leader, index=last, log=last, **stamp)
        self.receive("MsgAppResp", leader, to, index=last, **stamp)

    def own_disk(self, leader: str) -> None:
        self.receive("MsgAppResp", leader, leader, index=self.shown[leader]["log"])

    def elected(self) -> None:
        """1 leads in term 2, by the vote of 2."""
        self.stand("1", ask=("2", "3"))
        self.vote("2", "1")
        self.lead("1")

    def committed(self) -> None:
        """1 leads in term 2 and has committed its first entry, 2, with 2."""
        self.elected()
        self.replicate("1", "2")
        self.own_disk("1")
        self.tell("1", "Commit", commit=2)
