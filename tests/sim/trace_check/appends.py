"""What a leader appends and sends, what a follower makes of it, and what answers claim (5.3, 7)."""

from __future__ import annotations

from tests.sim.trace_check import commits
from tests.sim.trace_check.elections import own_stamp
from tests.sim.trace_check.events import Event, Message
from tests.sim.trace_check.history import History
from tests.sim.trace_check.model import LEADER, Log, Promise, Replica
from tests.sim.trace_check.rules import BrokenRuleError, Rule, demand


def makes_entry(history: History, replica: Replica) -> int:
    """ClientRequest; returns the index of the new entry."""
    demand(replica.role == LEADER, Rule.APPEND_ONLY, f"a {replica.role} makes an entry")
    before, last = replica.log.last_id()
    history.made(last + 1, replica.term, before)
    replica.log.terms.append(replica.term)
    return last + 1


def sends(history: History, replica: Replica, message: Message) -> None:
    """AppendEntries, Heartbeat, SendSnapshot."""
    if replica.role != LEADER or message.term != replica.term:
        raise BrokenRuleError(
            Rule.OWN_LOG,
            f"a {replica.role} of term {replica.term} sends a leader's message of {message.term}",
        )
    if message.commit > replica.commit:
        raise BrokenRuleError(
            Rule.OWN_LOG, f"it sends commit {message.commit} and has {replica.commit}"
        )
    if message.type == "MsgHeartbeat":
        match = replica.voter(message.to).match
        demand(
            message.commit <= match,
            Rule.COVERED,
            f"a heartbeat says {message.commit} to one that acknowledged {match}",
        )
    elif message.type == "MsgApp":
        _sends_entries(replica, message)
    else:
        _sends_base(history, replica, message)


def _sends_entries(replica: Replica, message: Message) -> None:
    log, prev = replica.log, message.index
    stands = [log.term(prev + position) for position in range(len(message.terms) + 1)]
    claimed = [message.log_term, *message.terms]
    # What lies before the model's base is committed and was not told.
    same = all(
        own == term or (own is None and prev + position < log.base)
        for position, (own, term) in enumerate(zip(stands, claimed, strict=True))
    )
    demand(
        same and prev + len(message.terms) <= log.last,
        Rule.OWN_LOG,
        f"behind {prev} it sends the terms {claimed} and has {stands}",
    )
    if message.absolves:
        heard = replica.voter(message.to)
        held = min(heard.match, replica.commit)
        demand(
            heard.boot == message.absolves and heard.doubtful and held > heard.known_at,
            Rule.DOUBT_ENDS,
            f"{message.to} is told that its doubt is over; both hold {held} as committed, and"
            f" entries up to {heard.known_at} were there before the doubt was known",
        )


def _sends_base(history: History, replica: Replica, message: Message) -> None:
    assert message.base is not None, "a base message has a base"
    index, term = message.base
    demand(
        index <= replica.commit and history.committed.get(index) == term,
        Rule.BASE,
        f"({term}, {index}) is sent as a base, commit is {replica.commit}",
    )
    demand(
        message.conf == history.conf_as_of(index),
        Rule.BASE,
        f"a base at {index} with a configuration of another index",
    )


def answers(history: History, replica: Replica, event: Event, message: Message) -> None:
    """HandleAppendEntriesRequest, by the answer that it ends with."""
    demand(
        message.term == replica.term,
        Rule.COVERED,
        f"it answers in term {message.term} and is in {replica.term}",
    )
    if message.sender == message.to:
        demand(
            replica.role == LEADER and message.index == replica.log.last,
            Rule.COVERED,
            f"a {replica.role} tells itself of {message.index}, its log ends at {replica.log.last}",
        )
        return
    cause = replica.cause
    if cause is not None and (cause.sender, cause.term) != (message.to, message.term):
        cause = None
    if message.type == "MsgHeartbeatResp":
        if cause is not None and cause.type == "MsgHeartbeat":
            commits.follower(history, replica, event.commit, cause.commit, heartbeat=True)
            replica.cause = None
        return
    if message.reject:
        _rejects(replica, message, cause)
        own_stamp(replica, message)
        return
    covered = 0
    if cause is not None and cause.type == "MsgApp":
        covered = _takes_append(history, replica, event, cause)
        replica.cause = None
    elif cause is not None and cause.type == "MsgSnap":
        covered = _knows_base(history, replica, event, cause)
        replica.cause = None
    elif cause is not None and cause.type == "MsgHeartbeat":
        # In doubt it tells its leader so, before it answers the heartbeat.
        commits.follower(history, replica, event.commit, cause.commit, heartbeat=True)
    own_stamp(replica, message)
    place = (message.to, message.term)
    # Answers that wait for the disk are sent as one: the highest index says all.
    covered = replica.covered[place] = max(covered, replica.covered.get(place, 0))
    demand(
        message.index <= covered,
        Rule.COVERED,
        f"it acknowledges {message.index}, what it was sent covers {covered}",
    )
    if message.index:
        term = replica.log.term(message.index) or 0
        replica.promises.append(Promise(message, message.index, term))


def _rejects(replica: Replica, message: Message, cause: Message | None) -> None:
    demand(
        cause is not None and cause.type == "MsgApp" and message.index == cause.index,
        Rule.COVERED,
        f"it rejects {message.index}, which nobody has sent",
    )
    assert cause is not None, "demanded"
    joins = cause.index <= replica.commit or (
        replica.log.term(cause.index) == cause.log_term and cause.index > replica.log.base
    )
    demand(
        not joins, Rule.LOG_OF_FOLLOWER, f"it rejects ({cause.log_term}, {cause.index}) and has it"
    )
    replica.cause = None


def _takes_append(history: History, replica: Replica, event: Event, cause: Message) -> int:
    """Plays an append through; returns what it covers."""
    log, prev = replica.log, cause.index
    if prev < replica.commit:
        # Rule F3: what is committed agrees by definition.
        commits.follower(history, replica, event.commit, replica.commit)
        return replica.commit
    demand(
        log.term(prev) == cause.log_term,
        Rule.LOG_OF_FOLLOWER,
        f"it takes entries behind ({cause.log_term}, {prev}) and has {log.term(prev)} there",
    )
    position = log.first_conflict(prev, cause.terms)
    first = prev + 1 + position
    if position < len(cause.terms):
        demand(
            first > replica.commit,
            Rule.STATE_MACHINE_SAFETY,
            f"entry {first} of term {cause.terms[position]} replaces a committed one",
        )
        demand(
            history.entries.get((first, cause.terms[position])) == log.term(first - 1),
            Rule.LOG_MATCHING,
            f"entry {first} of term {cause.terms[position]} had another predecessor",
        )
        log.replace_from(first, cause.terms[position:])
    demand(
        event.last == log.last,
        Rule.LOG_OF_FOLLOWER,
        f"behind {prev} it was sent {len(cause.terms)} entries; its log must end at {log.last}",
    )
    covered = prev + len(cause.terms)
    if cause.absolves and cause.absolves == replica.boot:
        replica.doubtful = False
    commits.follower(history, replica, event.commit, min(cause.commit, covered))
    return covered


def _knows_base(history: History, replica: Replica, event: Event, cause: Message) -> int:
    """A base that was taken has told of itself (`takes_base`); another may show what is here."""
    assert cause.base is not None, "a base message has a base"
    index, term = cause.base
    here = replica.log.term(index) == term
    commits.follower(history, replica, event.commit, index if here else replica.commit)
    return replica.commit


def takes_base(replica: Replica, event: Event, cause: Message) -> None:
    """A follower replaces its whole log by a base (section 7); what it lacks must call for it.

    Deviation: the base need not know the replica, unless the replica knows itself (S2, rule F5).
    """
    assert cause.base is not None, "a base message has a base"
    assert cause.conf is not None, "a base message has a configuration"
    index, term = cause.base
    demand(
        index > replica.commit and replica.log.term(index) != term,
        Rule.BASE,
        f"a base at {index} replaces a log that is committed up to {replica.commit}",
    )
    demand(
        replica.node not in replica.conf.everybody or replica.node in cause.conf.everybody,
        Rule.BASE,
        f"{replica.node} takes a base as of a time after its removal",
    )
    replica.log = Log(index, term, [])
    replica.conf, replica.conf_index = cause.conf, index
    demand(
        (event.last, event.commit) == (index, index),
        Rule.BASE,
        f"a base at {index} leaves (last, commit) {(event.last, event.commit)}",
    )
    replica.commit = index


def takes_answer(replica: Replica, message: Message) -> None:
    """HandleAppendEntriesResponse: what a leader may count on, with the rules of doubt (D2, D3)."""
    if replica.role != LEADER or message.term != replica.term or message.type != "MsgAppResp":
        return
    heard = replica.voter(message.sender)
    boot, doubtful = message.stamp
    if boot < heard.boot:
        return  # of an earlier life
    if boot > heard.boot:
        heard.boot = boot
        heard.counts = True
        if doubtful:
            heard.match = 0
            heard.counts = replica.elected_boots.get(message.sender) == boot
            heard.known_at = replica.log.last
    heard.doubtful = doubtful
    if not doubtful:
        heard.counts = True
    if not message.reject:
        heard.match = max(heard.match, message.index)
