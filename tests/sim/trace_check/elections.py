"""Terms, votes, and who leads (sections 5.1, 5.2 and 5.4.1)."""

from __future__ import annotations

from tests.sim.trace_check.events import NOBODY, Event, Message
from tests.sim.trace_check.history import History
from tests.sim.trace_check.model import CANDIDATE, FOLLOWER, LEADER, Promise, Replica
from tests.sim.trace_check.rules import Rule, demand


def became_follower(history: History, replica: Replica, event: Event) -> None:
    """UpdateTerm, or a candidate or leader that gives up."""
    demand(event.term >= replica.term, Rule.TERM, f"the term falls from {replica.term}")
    vote = replica.vote
    if event.term > replica.term:
        cause = replica.cause
        if cause is None or cause.term != event.term:
            demand(
                event.term in history.stood,
                Rule.UNTOLD_TERM,
                f"nobody has ever stood for term {event.term}",
            )
        vote = NOBODY
    demand(event.vote == vote, Rule.ONE_VOTE, f"the vote for {vote} became one for {event.vote}")
    replica.enter(event.term, vote, FOLLOWER)


def became_candidate(history: History, replica: Replica, event: Event) -> None:
    """Timeout."""
    demand(replica.role != LEADER, Rule.CANDIDACY, "a leader stands against itself")
    demand(
        event.term == replica.term + 1,
        Rule.CANDIDACY,
        f"it stands for term {event.term} and was in {replica.term}",
    )
    demand(event.vote == replica.node, Rule.CANDIDACY, f"it votes for {event.vote}")
    demand(
        replica.node in replica.conf.deciders,
        Rule.MAY_STAND,
        "it stands and does not vote in its configuration",
    )
    change = history.change_after(replica.log, replica.conf_index)
    demand(
        not 0 < change <= replica.commit,
        Rule.MAY_STAND,
        f"it stands and has not applied the committed change at {change}",
    )
    history.stood.add(event.term)
    replica.enter(event.term, replica.node, CANDIDATE)
    replica.cause = None


def became_leader(history: History, replica: Replica) -> None:
    """BecomeLeader."""
    term = replica.term
    demand(replica.role == CANDIDATE, Rule.MAJORITY_OF_VOTES, "it leads and did not stand")
    granted, conf = replica.granted, replica.conf
    elected_by_all = all(one in granted for one in conf.deciders)
    if not elected_by_all:
        demand(
            conf.majority(lambda one: one in granted),
            Rule.MAJORITY_OF_VOTES,
            f"only {sorted(granted)} have granted, of {_halves(replica)}",
        )
        demand(
            conf.majority(lambda one: one in granted and not granted[one][1]),
            Rule.DOUBTFUL_VOTE,
            f"without those in doubt {sorted(granted)} are no majority of {_halves(replica)}",
        )
    other = history.leaders.setdefault(term, replica.node)
    demand(other == replica.node, Rule.ELECTION_SAFETY, f"{other} leads in term {term}, too")
    boots = {one: boot for one, (boot, doubtful) in granted.items() if doubtful}
    replica.enter(term, replica.vote, LEADER)
    replica.heard.clear()
    replica.elected_boots = boots if elected_by_all else {}
    index = history.committed_up_to
    while index > replica.log.base and history.committed_in[index] >= term:
        index -= 1  # of a term that it was elected before
    if index > replica.log.base:
        history.holds_committed(replica, index)


def _halves(replica: Replica) -> str:
    return f"{sorted(replica.conf.voters)} and {sorted(replica.conf.outgoing)}"


def asks_for_vote(replica: Replica, message: Message) -> None:
    """RequestVote."""
    asked = (message.term, message.sender, message.log_term, message.index)
    own = (replica.term, replica.node, *replica.log.last_id())
    demand(
        replica.role == CANDIDATE and asked == own,
        Rule.CANDIDACY,
        f"{replica.role} {replica.node} asks with (term, who, last) {asked}, and is {own}",
    )
    replica.promises.append(Promise(message))


def answers_for_vote(replica: Replica, event: Event, message: Message) -> None:
    """HandleRequestVoteRequest; a candidate's answer to itself is its own vote."""
    own_stamp(replica, message)
    if message.sender == message.to:
        demand(replica.role == CANDIDATE, Rule.CANDIDACY, "it votes for itself and does not stand")
        return
    if message.reject:
        return
    cause = replica.cause
    asked = cause is not None and (cause.type, cause.sender) == ("MsgVote", message.to)
    demand(
        asked and cause is not None and message.term == replica.term == cause.term,
        Rule.ONE_VOTE,
        f"{message.to} is granted a vote in term {message.term} that it did not ask for",
    )
    assert cause is not None, "demanded"
    demand(
        replica.vote in {NOBODY, message.to},
        Rule.ONE_VOTE,
        f"{replica.node} has voted for {replica.vote} in term {replica.term}",
    )
    demand(replica.role == FOLLOWER, Rule.ONE_VOTE, f"a {replica.role} votes for another")
    demand(
        (cause.log_term, cause.index) >= replica.log.last_id(),
        Rule.UP_TO_DATE,
        f"a log that ends at {replica.log.last_id()} prefers {(cause.log_term, cause.index)}",
    )
    demand(replica.was_member, Rule.NEWCOMER, f"{replica.node} knows no configuration with itself")
    demand(event.vote == message.to, Rule.ONE_VOTE, f"granted, and noted for {event.vote}")
    replica.vote = message.to
    replica.cause = None
    replica.promises.append(Promise(message))


def own_stamp(replica: Replica, message: Message) -> None:
    """Who answers says which boot it is, and whether it is in doubt."""
    own = (replica.boot, replica.doubtful)
    demand(
        message.stamp == own,
        Rule.DOUBT_ENDS,
        f"it is {own} (boot, in doubt) and says {message.stamp}",
    )


def takes_vote(replica: Replica, message: Message) -> None:
    """HandleRequestVoteResponse."""
    if replica.role == CANDIDATE and message.term == replica.term and not message.reject:
        replica.granted.setdefault(message.sender, message.stamp)
