"""What must hold, by name, and the error that says which of it did not.

A planted bug names the invariant that it must trip (`planted`), so that a simulator which only
stumbles over it somewhere does not count as one that sees it.
"""

from __future__ import annotations

from enum import Enum


class Invariant(Enum):
    """Everything that is judged, with what it says."""

    ELECTION_SAFETY = "one leader in a term, by the votes of a majority (figure 3, 5.2)"
    ONE_VOTE = "one vote in a term, also across restarts (5.2)"
    LOG_MATCHING = "an index and a term name one content and one predecessor, for ever (5.3)"
    LEADER_COMPLETENESS = "what is committed is in the log of every later leader (5.4)"
    STATE_MACHINE_SAFETY = "nobody holds another entry as committed at one index (5.4.3)"
    COMMIT_RULE = "a leader counts up to entries of its own term only (5.4.2)"
    DURABLE_COMMIT = "what counts as committed is durable on a majority (S13)"
    DURABLE_APPLY = "what is applied is durable where it is applied (S13)"
    ONE_CHANGE = "a log holds one change of members at most above its commit index (4.1)"
    SAME_CONFIGURATION = "who has applied the same has the same configuration (6)"
    MONOTONE = "terms, commit and applied indexes do not fall, and come in order"
    QUORUM_CHECK = "who is heard by no majority stops leading (6.2)"
    HAND_OVER = "only a voter that holds its leader's whole log is told to stand (3.10)"
    NO_DAMAGE = "no replica is shut out without damage (S9)"
    SHUT_OUT = "a replica that was shut out does nothing any more, also after restarts (S9)"
    BURIED = "what was deleted is gone, and does not come back (row 14)"
    ACKNOWLEDGED = "what was acknowledged is in the log, at the place that was told (P1, P2)"
    ONCE = "what stands in the log was sent, and stands there once (P3)"
    NOT_APPLIED = "what was refused is not in the log"
    NO_LEFTOVERS = "what was given up or cut short is not on the disk for good"
    RETENTION = "the log begins where the trims say, not later (S1)"
    SAME_STATE = "replicas at one index are equal (P9)"
    READS = "a confirmed read sees what was acknowledged before, and is answered once (S20)"
    UNCOMMITTED = "no reader sees what is not committed (P4)"
    ORDER = "every reader sees one dense order of batches, from wherever it begins (P2)"
    CONDITION = "a conditional append stands where it was to, and a refusal names the end (P2)"
    IDENTICAL = "replicas write the same checkpoints and positions, byte for byte (P9)"
    CLOCKS = "append times never fall, and no wrong clock deletes anything (S3)"
    WENT_BACK = "nobody listens to a store that went back in time, nor refuses another (S7)"
    HUNG_DISK = "who leads with a disk that hangs gives its leadership up (S13)"
    EPOCHS = "no two registrations of a producer are told one epoch (P6)"
    REST = "after healing, all replicas come to rest at one index (P7)"
    SERVICE = "after healing, every group serves its clients (P7)"


class ViolationError(AssertionError):
    """A promise was broken."""

    def __init__(self, invariant: Invariant, text: str) -> None:
        super().__init__(f"{invariant.name}: {text}")
        self.invariant = invariant
