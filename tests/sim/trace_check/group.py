"""One group: takes the events of its replicas in order, and judges each by its rules."""

from __future__ import annotations

from typing import Any

from tests.sim.trace_check import appends, commits, elections, members, restarts
from tests.sim.trace_check.events import Event, Message, read_event
from tests.sim.trace_check.history import History
from tests.sim.trace_check.model import LEADER, Promise, Replica
from tests.sim.trace_check.rules import BrokenRuleError, Rule, demand


class GroupCheck:
    """Judges one group."""

    def __init__(self) -> None:
        self.history = History()
        self.events = 0

    def take(self, raw: dict[str, Any], line: int = 0) -> None:
        """Takes the next event; raises `FormatError` or `BrokenRuleError`."""
        event = read_event(raw)
        self.events += 1
        try:
            self._judge(event)
        except BrokenRuleError as broken:
            broken.line = line or self.events
            broken.event = _text(event)
            raise

    def _judge(self, event: Event) -> None:
        history, name = self.history, event.name
        if name == "InitState":
            restarts.starts(history, event)
            self._as_expected(history.replicas[event.node], event)
            return
        replica = history.replicas.get(event.node)
        demand(replica is not None, Rule.BIRTH, f"{event.node} acts and was never started")
        assert replica is not None, "demanded"
        if replica.role == LEADER and event.commit > replica.commit:
            # Whatever it is told with: a leader's index moves by counting.
            commits.leader(history, replica, event.commit)
        if name.startswith("Receive"):
            self._as_expected(replica, event)
            self._receives(replica, event)
        elif name.startswith("Send"):
            self._sends(replica, event)
        else:
            self._acts(replica, event)

    def _acts(self, replica: Replica, event: Event) -> None:
        history = self.history
        match event.name:
            case "BecomeFollower":
                elections.became_follower(history, replica, event)
            case "BecomeCandidate":
                elections.became_candidate(history, replica, event)
            case "BecomeLeader":
                elections.became_leader(history, replica)
            case "Replicate":
                self._as_expected(replica, event)
                appends.makes_entry(history, replica)
                return
            case "ChangeConf":
                self._as_expected(replica, event)
                members.changes(history, replica, event)
                return
            case "ApplyConfChange":
                halves = (replica.conf.voters, replica.conf.outgoing)
                self._shows(replica, event, halves)
                members.applies(history, replica, event)
                return
            case "Commit":
                demand(replica.role == LEADER, Rule.MAJORITY_OF_LOGS, "who does not lead counts")
            case _:
                assert event.name == "Ready", f"{event.name} is not judged"
        self._as_expected(replica, event)

    def _receives(self, replica: Replica, event: Event) -> None:
        history, message = self.history, event.message
        assert message is not None, "who receives gets a message"
        demand(message.to == replica.node, Rule.SENT, f"it was for {message.to}")
        if message.sender == message.to:
            self._promised_itself(replica, message)
        else:
            demand(message in history.sent, Rule.SENT, f"nobody has sent this {message.type}")
            demand(
                message not in history.void,
                Rule.DURABLE,
                f"{message.sender} had forgotten this {message.type} at its next start",
            )
            if message.type in {"MsgAppResp", "MsgVoteResp", "MsgVote"}:
                history.arrived.add(message)
        replica.cause = message
        if message.type == "MsgVoteResp":
            elections.takes_vote(replica, message)
        elif message.type == "MsgAppResp":
            appends.takes_answer(replica, message)

    def _promised_itself(self, replica: Replica, message: Message) -> None:
        """A replica's own disk answers: a leader's entries, a candidate's vote."""
        demand(
            message.term == replica.term and message.index <= replica.log.last,
            Rule.COVERED,
            f"its disk holds ({message.term}, {message.index})",
        )
        self.history.arrived.add(message)
        index = message.index
        replica.promises.append(Promise(message, index, replica.log.term(index) or 0))

    def _sends(self, replica: Replica, event: Event) -> None:
        history, message = self.history, event.message
        assert message is not None, "who sends has a message"
        demand(message.sender == replica.node, Rule.SENT, f"it says to be from {message.sender}")
        if message.type in {"MsgApp", "MsgHeartbeat", "MsgSnap"}:
            appends.sends(history, replica, message)
        elif message.type in {"MsgAppResp", "MsgHeartbeatResp"}:
            appends.answers(history, replica, event, message)
        elif message.type == "MsgVote":
            elections.asks_for_vote(replica, message)
        else:
            elections.answers_for_vote(replica, event, message)
        self._as_expected(replica, event)
        history.sent.add(message)
        history.void.discard(message)

    def _as_expected(self, replica: Replica, event: Event) -> None:
        conf = replica.conf
        self._shows(replica, event, (conf.voters, conf.outgoing))
        if event.last != replica.log.last:
            raise BrokenRuleError(Rule.NOTHING_ELSE, f"the log ended at {replica.log.last}")
        if event.commit != replica.commit:
            raise BrokenRuleError(Rule.COMMIT_OF_FOLLOWER, f"commit was {replica.commit}")

    def _shows(
        self, replica: Replica, event: Event, halves: tuple[frozenset[str], frozenset[str]]
    ) -> None:
        shown = (event.term, event.vote, event.role, event.voters, event.outgoing)
        if shown == (replica.term, replica.vote, replica.role, *halves):
            return  # the texts below cost more than the look
        demand(event.term == replica.term, Rule.TERM, f"the term was {replica.term}")
        demand(
            event.vote == replica.vote,
            Rule.ONE_VOTE,
            f"the vote in term {event.term} was for {replica.vote}",
        )
        demand(event.role == replica.role, Rule.NOTHING_ELSE, f"it was a {replica.role}")
        demand(
            (event.voters, event.outgoing) == halves,
            Rule.CHANGE_APPLIED,
            f"its voters were {sorted(halves[0])} and {sorted(halves[1])}",
        )


def _text(event: Event) -> str:
    text = f"{event.node} {event.name} (term {event.term}, vote {event.vote}, commit"
    text += f" {event.commit}, last {event.last}, {event.role.removeprefix('State')})"
    if event.message is not None:
        kind = event.message.type
        text += f" {kind} {event.message.sender}->{event.message.to}"
    return text
