"""Commit indexes, and what is committed for ever (5.3, 5.4)."""

from __future__ import annotations

from tests.sim.trace_check.history import History
from tests.sim.trace_check.model import Replica
from tests.sim.trace_check.rules import Rule, demand


def leader(history: History, replica: Replica, index: int) -> None:
    """AdvanceCommitIndex. The leader's own disk counts like any other (S13)."""
    log, term = replica.log, replica.term
    demand(index > replica.commit, Rule.NOTHING_ELSE, f"commit goes to {index}")
    demand(
        log.term(index) == term,
        Rule.OWN_TERM,
        f"it leads in term {term} and counts an entry of term {log.term(index)} at {index}",
    )
    heard = replica.heard
    holders = {one for one, voter in heard.items() if voter.match >= index}
    demand(
        replica.conf.majority(lambda one: one in holders),
        Rule.MAJORITY_OF_LOGS,
        f"{index} counts as committed, acknowledged by {sorted(holders)} of"
        f" {sorted(replica.conf.voters)} and {sorted(replica.conf.outgoing)}",
    )
    demand(
        replica.conf.majority(lambda one: one in holders and heard[one].counts),
        Rule.DOUBTFUL_ACK,
        f"{index} counts as committed with the word of replicas in doubt",
    )
    for each in range(replica.commit + 1, index + 1):
        known = history.committed.setdefault(each, log.term(each) or 0)
        demand(
            known == log.term(each),
            Rule.STATE_MACHINE_SAFETY,
            f"({log.term(each)}, {each}) counts as committed, and term {known} was before",
        )
        history.committed_in.setdefault(each, term)
    history.committed_up_to = max(history.committed_up_to, index)
    for later in history.leading_after(term):
        history.holds_committed(later, index)
    replica.commit = index
    # Rule D4: it holds an entry of its own term that is committed.
    replica.doubtful = False


def follower(
    history: History, replica: Replica, index: int, bound: int, *, heartbeat: bool = False
) -> None:
    """A follower's commit index is `index` now; its message allowed `bound`."""
    demand(index >= replica.commit, Rule.COMMIT_OF_FOLLOWER, f"commit falls from {replica.commit}")
    if index == replica.commit:
        return
    demand(
        not (heartbeat and replica.doubtful),
        Rule.DOUBTFUL_COMMIT,
        f"commit goes from {replica.commit} to {index} by a heartbeat",
    )
    demand(
        index <= bound and index <= replica.log.last,
        Rule.COMMIT_OF_FOLLOWER,
        f"commit goes to {index}, the message covers {bound}, the log ends at {replica.log.last}",
    )
    for each in range(replica.commit + 1, index + 1):
        known = history.committed.get(each)
        demand(
            known == replica.log.term(each),
            Rule.STATE_MACHINE_SAFETY,
            f"({replica.log.term(each)}, {each}) counts as committed here;"
            f" the group has {'nothing' if known is None else f'term {known}'} there",
        )
    replica.commit = index
