"""What the checker knows of a group as a whole: all that was ever sent, made and committed."""

from __future__ import annotations

from tests.sim.trace_check.confs import Change, Conf
from tests.sim.trace_check.events import Message
from tests.sim.trace_check.model import LEADER, Log, Replica
from tests.sim.trace_check.rules import Rule, demand


class History:
    """One group."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self.sent: set[Message] = set()
        #: Promises that have arrived, and those that a crash took back before they could leave.
        self.arrived: set[Message] = set()
        self.void: set[Message] = set()
        #: Terms that somebody has stood for.
        self.stood: set[int] = set()
        self.leaders: dict[int, str] = {}
        #: (index, term) of every entry -> the term of the one before it.
        self.entries: dict[tuple[int, int], int] = {}
        self.changes: dict[tuple[int, int], Change] = {}
        #: What is committed: index -> its term, and the term in which it was committed first.
        self.committed: dict[int, int] = {}
        self.committed_in: dict[int, int] = {}
        self.committed_up_to = 0
        #: What the first replicas were born with: base, terms, commit, term, configuration.
        self.begins: tuple[int, int, tuple[int, ...], int, int, Conf] = (0, 0, (), 0, 0, Conf())
        #: Index -> the configuration from there on.
        self.confs: dict[int, Conf] = {}

    def made(self, index: int, term: int, before: int) -> None:
        """A leader has made an entry."""
        demand(
            (index, term) not in self.entries,
            Rule.LOG_MATCHING,
            f"entry {index} of term {term} is made twice",
        )
        self.entries[index, term] = before

    def conf_as_of(self, index: int) -> Conf:
        """Returns the configuration that follows from the committed changes up to an index."""
        found = [at for at in self.confs if at <= index]
        return self.confs[max(found)] if found else Conf()

    def took_conf(self, index: int, conf: Conf) -> None:
        """Somebody has applied the change at an index."""
        demand(
            self.confs.setdefault(index, conf) == conf,
            Rule.CHANGE_APPLIED,
            f"the change at {index} led to another configuration elsewhere",
        )

    def change_after(self, log: Log, index: int) -> int:
        """Returns where the next change of members stands in a log behind an index; 0: nowhere."""
        for position in range(max(index, log.base) - log.base, len(log.terms)):
            if (log.base + position + 1, log.terms[position]) in self.changes:
                return log.base + position + 1
        return 0

    def holds_committed(self, replica: Replica, index: int) -> None:
        """A leader's log holds what is committed at an index, or begins behind it."""
        term = self.committed[index]
        demand(
            index <= replica.log.base or replica.log.term(index) == term,
            Rule.LEADER_COMPLETENESS,
            f"{replica.node} leads in term {replica.term} without ({term}, {index}), which was"
            f" committed in term {self.committed_in[index]}",
        )

    def leading_after(self, term: int) -> list[Replica]:
        """Returns who leads in a later term."""
        return [one for one in self.replicas.values() if one.role == LEADER and one.term > term]
