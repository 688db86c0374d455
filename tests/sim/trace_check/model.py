"""What the checker knows of a replica: the state that it must be in, and why it may change."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sim.trace_check.confs import Conf
from tests.sim.trace_check.events import Message

FOLLOWER, CANDIDATE, LEADER = "StateFollower", "StateCandidate", "StateLeader"


class Log:
    """The terms of the entries behind a base; what the base stands for is committed."""

    def __init__(self, base: int, base_term: int, terms: list[int]) -> None:
        self.base = base
        self.base_term = base_term
        self.terms = terms

    @property
    def last(self) -> int:
        return self.base + len(self.terms)

    def term(self, index: int) -> int | None:
        """Returns the term at an index; None where it is not known or nothing is there."""
        position = index - self.base - 1
        if position == -1:
            return self.base_term
        return self.terms[position] if 0 <= position < len(self.terms) else None

    def last_id(self) -> tuple[int, int]:
        return (self.terms[-1] if self.terms else self.base_term), self.last

    def first_conflict(self, after: int, terms: tuple[int, ...]) -> int:
        """Returns the position of the first of the terms that is not here behind `after`."""
        for position, term in enumerate(terms):
            if self.term(after + 1 + position) != term:
                return position
        return len(terms)

    def replace_from(self, index: int, terms: tuple[int, ...]) -> None:
        del self.terms[index - self.base - 1 :]
        self.terms.extend(terms)


@dataclass(slots=True)
class Promise:
    """A message that says what its sender's disk holds."""

    message: Message
    #: The entry that it acknowledges; 0 if it is about a vote.
    index: int = 0
    term: int = 0


@dataclass(slots=True)
class Voter:
    """What a leader has heard of one member in its term."""

    match: int = 0
    boot: int = -1
    doubtful: bool = False
    #: Its acknowledgements count.
    counts: bool = True
    #: End of the leader's log when it heard of the doubt.
    known_at: int = 0


@dataclass(slots=True)
class Replica:
    """One replica, within one life of its process."""

    node: str
    term: int
    vote: str
    commit: int
    log: Log
    conf: Conf
    boot: int
    doubtful: bool
    role: str = FOLLOWER
    #: Index up to which `conf` is what the log says.
    conf_index: int = 0
    #: It has been in its own configuration.
    was_member: bool = False
    #: The message that is being taken in, until it is answered.
    cause: Message | None = None
    #: Leader and term -> the highest index that an answer may speak of.
    covered: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    promises: list[Promise] = field(default_factory=list[Promise])
    #: A candidate's: who has granted, with which stamp.
    granted: dict[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    #: A leader's: what it has heard of whom, and the boots whose doubt its election overcame.
    heard: dict[str, Voter] = field(default_factory=dict[str, Voter])
    elected_boots: dict[str, int] = field(default_factory=dict[str, int])

    def enter(self, term: int, vote: str, role: str) -> None:
        self.term, self.vote, self.role = term, vote, role
        self.granted.clear()
        if role != LEADER:
            self.heard.clear()
            self.elected_boots.clear()

    def voter(self, node: str) -> Voter:
        known = self.heard.get(node)
        if known is None:
            known = self.heard[node] = Voter()
        return known
