"""Changes of the configuration: made by leaders, applied by everyone when committed (6)."""

from __future__ import annotations

from tests.sim.trace_check.appends import makes_entry, takes_base
from tests.sim.trace_check.confs import follow, read_conf
from tests.sim.trace_check.events import Event, read_change
from tests.sim.trace_check.history import History
from tests.sim.trace_check.model import Replica
from tests.sim.trace_check.rules import Rule, demand


def changes(history: History, replica: Replica, event: Event) -> None:
    """AddNewServer, DeleteServer, AddLearner, or a joint change, or its end."""
    pending = history.change_after(replica.log, replica.conf_index)
    demand(
        pending == 0,
        Rule.ONE_CHANGE,
        f"a change is made while the one at {pending} is not applied",
    )
    index = makes_entry(history, replica)
    history.changes[index, replica.term] = read_change(event.prop)


def applies(history: History, replica: Replica, event: Event) -> None:
    """ApplyConfChange, or the configuration of a base."""
    conf = read_conf(event.prop["members"])
    cause = replica.cause
    base = cause.base if cause is not None else None
    if cause is not None and base is not None and event.commit == base[0] > replica.commit:
        takes_base(replica, event, cause)
    else:
        demand(
            (event.last, event.commit) == (replica.log.last, replica.commit),
            Rule.NOTHING_ELSE,
            f"(last, commit) were {(replica.log.last, replica.commit)}",
        )
        index = history.change_after(replica.log, replica.conf_index)
        demand(
            0 < index <= replica.commit,
            Rule.CHANGE_APPLIED,
            f"commit is {replica.commit}, the next change stands at {index}",
        )
        term = replica.log.term(index)
        assert term is not None, "an entry behind the base has a term"
        replica.conf = follow(replica.conf, history.changes[index, term])
        replica.conf_index = index
        history.took_conf(index, replica.conf)
    demand(
        conf == replica.conf,
        Rule.CHANGE_APPLIED,
        f"{sorted(conf.voters)} are to vote, {sorted(replica.conf.voters)} should",
    )
    replica.was_member |= replica.node in replica.conf.everybody
