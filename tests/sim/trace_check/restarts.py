"""What a replica starts from: at its birth, and after each crash (figure 2, persistent state).

A crash may take back all that had not left yet, and the newest commit indexes, and nothing else: a
promise counts from when somebody has received it. One that the start does not keep must not have
arrived, and never arrives later.

Deviation (S8): a replica that says it is in doubt may have lost what it promised.
"""

from __future__ import annotations

from tests.sim.trace_check.confs import Conf, read_conf
from tests.sim.trace_check.events import NOBODY, Event
from tests.sim.trace_check.history import History
from tests.sim.trace_check.model import Log, Promise, Replica
from tests.sim.trace_check.rules import Rule, demand


def starts(history: History, event: Event) -> None:
    """Restart, or the first start of a replica."""
    base, base_term = event.prop["base"]
    log = Log(base, base_term, list(event.prop["terms"]))
    boot, doubtful = event.prop["stamp"]
    conf = read_conf(event.prop["members"])
    demand(
        event.last == log.last and base <= event.commit <= log.last,
        Rule.DURABLE,
        f"applied {base}, commit {event.commit}, {len(log.terms)} entries, last {event.last}",
    )
    demand(
        log.last_id()[0] <= event.term,
        Rule.DURABLE,
        f"a log that ends in term {log.last_id()[0]} beside a vote record of {event.term}",
    )
    known = history.replicas.get(event.node)
    replica = Replica(
        event.node, event.term, event.vote, event.commit, log, conf, boot, doubtful, conf_index=base
    )
    replica.was_member = event.node in conf.everybody
    if known is None:
        _is_born(history, replica)
    elif not doubtful:
        replica.promises = _kept(history, known, replica)
    _is_part_of(history, replica)
    history.replicas[event.node] = replica


def _is_born(history: History, replica: Replica) -> None:
    log = replica.log
    begins = (log.base, log.base_term, tuple(log.terms), replica.commit, replica.term, replica.conf)
    demand(replica.vote == NOBODY, Rule.BIRTH, f"{replica.node} is born with a vote")
    if not history.replicas:
        history.begins = begins
        history.stood.add(replica.term)
        history.confs[log.base] = replica.conf
        for index in range(log.base, replica.commit + 1):
            history.committed[index] = log.term(index) or 0
            history.committed_in[index] = replica.term
        history.committed_up_to = replica.commit
        before = log.base_term
        for position, term in enumerate(log.terms):
            history.entries[log.base + 1 + position, term] = before
            before = term
        return
    demand(
        begins in {history.begins, (0, 0, (), 0, 0, Conf())},
        Rule.BIRTH,
        f"{replica.node} is born with a log up to {log.last}, commit {replica.commit} and term"
        f" {replica.term}",
    )


def _kept(history: History, before: Replica, after: Replica) -> list[Promise]:
    """Judges what was promised in the life that has ended; returns what stays promised."""
    kept: list[Promise] = []
    for promise in before.promises:
        message = promise.message
        if _keeps(promise, before, after):
            kept.append(promise)
            continue
        demand(
            message not in history.arrived,
            Rule.DURABLE,
            f"{message.type} of term {message.term} to {message.to}, index {promise.index}, had"
            f" arrived; it starts with term {after.term}, vote {after.vote}, last {after.log.last}",
        )
        history.void.add(message)
    votes = [one for one in kept if not one.index and one.message.term == after.term]
    acknowledged = [one for one in kept if one.index]
    highest = max(acknowledged, key=lambda one: one.index, default=None)
    return votes if highest is None else [*votes, highest]


def _keeps(promise: Promise, before: Replica, after: Replica) -> bool:
    message = promise.message
    if after.term != message.term and not promise.index:
        return after.term > message.term
    if promise.index:
        index, term = promise.index, promise.term
        # An entry that a later leader replaced is promised no more.
        return after.term >= message.term and (
            before.log.term(index) != term
            or index <= after.log.base
            or after.log.term(index) == term
        )
    voted_for = message.to if message.type == "MsgVoteResp" else message.sender
    return after.vote == voted_for


def _is_part_of(history: History, replica: Replica) -> None:
    """A start invents nothing: its log, commit index and configuration are the group's."""
    log = replica.log
    before = log.base_term
    demand(
        history.committed.get(log.base, 0) == before,
        Rule.STATE_MACHINE_SAFETY,
        f"({before}, {log.base}) is applied, and term {history.committed.get(log.base)} committed",
    )
    changes: list[int] = []
    for position, term in enumerate(log.terms):
        index = log.base + 1 + position
        demand(
            history.entries.get((index, term)) == before,
            Rule.LOG_MATCHING,
            f"entry {index} of term {term} stands behind term {before}",
        )
        if index <= replica.commit:
            demand(
                history.committed.get(index) == term,
                Rule.STATE_MACHINE_SAFETY,
                f"({term}, {index}) is committed here only",
            )
        elif (index, term) in history.changes:
            changes.append(index)
        before = term
    demand(
        len(changes) < 2, Rule.ONE_CHANGE, f"the changes at {changes} lie above its commit index"
    )
    demand(
        replica.conf == history.conf_as_of(log.base) or log.base == 0,
        Rule.CHANGE_APPLIED,
        f"its configuration is not the one as of {log.base}",
    )
