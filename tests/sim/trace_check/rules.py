"""Every rule that an event can break, with the section of the paper that it is from.

The paper is "In Search of an Understandable Consensus Algorithm"; "diss." is Ongaro's dissertation.
"""

from __future__ import annotations

from enum import Enum


class Rule(Enum):
    """(section, what it demands)"""

    NOTHING_ELSE = ("figure 2", "a replica's state changes only by an event that may change it")
    SENT = ("5.1", "the network loses, repeats and reorders messages, and invents none")
    TERM = ("5.1", "a term never falls, and rises by standing for election or by being told")
    DURABLE = ("figure 2", "what a message promised is on the disk before it leaves")
    BIRTH = ("diss. 4.1", "a new replica begins with nothing, or with what its group began with")

    CANDIDACY = ("5.2", "who stands raises its term by one and votes for itself, as it then asks")
    ONE_VOTE = ("5.2", "a vote is given once in a term, and never taken back")
    UP_TO_DATE = ("5.4.1", "a vote goes to a log that holds at least what the voter's does")
    MAJORITY_OF_VOTES = (
        "5.2, 6",
        "a leader was granted votes by a majority, of each half if joint",
    )
    ELECTION_SAFETY = ("5.2", "a term has one leader")

    APPEND_ONLY = ("5.3", "only a leader makes entries: of its term, behind its last one")
    OWN_LOG = ("5.3", "a leader sends what stands in its log, and no commit index above its own")
    LOG_OF_FOLLOWER = ("5.3", "an append is taken where it joins; only a conflict truncates")
    COVERED = ("5.3", "an answer speaks of what its message covered")
    LOG_MATCHING = ("5.3", "an index and a term name one entry and one predecessor")

    MAJORITY_OF_LOGS = ("5.3, 6", "a leader commits what a majority acknowledged, of each half")
    OWN_TERM = ("5.4.2", "a leader counts up to entries of its own term only")
    COMMIT_OF_FOLLOWER = (
        "5.3",
        "a follower commits what its leader has, as far as a message shows",
    )
    LEADER_COMPLETENESS = ("5.4", "what is committed is in the log of every later leader")
    STATE_MACHINE_SAFETY = ("5.4.3", "nobody holds another entry as committed at one index")

    BASE = ("7", "a base is a committed prefix of the log, with the configuration as of its end")

    # Where rakit does as etcd does, or has rules that the paper has not.

    #: The paper switches when a change is appended; etcd and rakit when it is applied. That is
    #: safe with these three (diss. 4.1 asks for one change at a time, too).
    CHANGE_APPLIED = (
        "etcd, for 6",
        "a configuration follows the one before it by a committed change",
    )
    ONE_CHANGE = ("etcd, for 6", "a log holds one change that is not applied, or not committed")
    MAY_STAND = ("etcd, for 6", "who stands votes in its own configuration and has applied it")
    #: Pre-votes, transfers and reads are not told, and their messages carry terms as well.
    UNTOLD_TERM = ("rakit", "what is not told can tell only a term that somebody has stood for")
    #: A base may be older than the replica that gets it: its own configuration lacks it until it
    #: has applied its addition. Until then others may count on it or not, so it must not vote.
    NEWCOMER = ("rakit S2", "who was never in its own configuration does not vote")
    #: A replica whose disk may have lost a tail says so. It is let off `DURABLE` at its start, and
    #: others rely on it under these rules (`rakit.raft.doubt`).
    DOUBTFUL_VOTE = ("rakit S8, D1", "a doubtful vote counts only when every voter has granted")
    DOUBTFUL_ACK = (
        "rakit S8, D2",
        "a doubtful acknowledgement counts only for who all have elected",
    )
    DOUBT_ENDS = ("rakit S8, D4", "a doubt ends by an entry appended, held and committed since")
    DOUBTFUL_COMMIT = ("rakit S8, D6", "in doubt no commit index is taken from a heartbeat")

    @property
    def section(self) -> str:
        return self.value[0]

    @property
    def text(self) -> str:
        return self.value[1]


class BrokenRuleError(AssertionError):
    """A step that the specification does not have."""

    def __init__(self, rule: Rule, what: str) -> None:
        super().__init__(rule, what)
        self.rule = rule
        self.what = what
        #: Where it happened; filled in by whoever reads the trace.
        self.line = 0
        self.event = ""

    def __str__(self) -> str:
        return (
            f"line {self.line}, {self.event}: {self.what}\n"
            f"    breaks {self.rule.name} ({self.rule.section}): {self.rule.text}"
        )


def demand(holds: bool, rule: Rule, what: str) -> None:
    """Raises unless it holds."""
    if not holds:
        raise BrokenRuleError(rule, what)
