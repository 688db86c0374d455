"""Majorities and joint majorities: two pure questions (sections 5.2, 5.3 and 6).

- Which index has reached a quorum, given what each voter has acknowledged?
- Is a vote won, lost, or still open, given the answers so far?

Rules:

- Rule Q1: a joint configuration decides by both halves, each on its own. A majority of the union
  is not enough (microsoft/CCF#3837).
- Rule Q2: an empty half agrees with everything, so that a simple configuration is a joint one
  whose outgoing half is empty.
- Rule Q3: nothing is cached or kept sorted between calls; a quorum is counted afresh from the
  numbers as they are (databendlabs/openraft#1802 shows what a clever order costs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

#: What an empty half answers: every index counts as acknowledged.
EVERYTHING: Final = 2**63 - 1


class VoteResult(IntEnum):
    """How an election stands."""

    PENDING = 0
    LOST = 1
    WON = 2


def majority_index(voters: tuple[int, ...], acked: Callable[[int], int]) -> int:
    """Returns the largest index that more than half of the voters have acknowledged (5.3)."""
    count = len(voters)
    if count == 0:
        return EVERYTHING
    if count == 1:
        return acked(voters[0])
    indexes = sorted([acked(voter) for voter in voters])
    # Of n ascending values, the one at (n - 1) // 2 and all above it are n // 2 + 1 in number.
    return indexes[(count - 1) // 2]


def majority_vote(voters: tuple[int, ...], votes: Mapping[int, bool]) -> VoteResult:
    """Tells how the vote stands among these voters (5.2); who has no entry has not answered."""
    if not voters:
        return VoteResult.WON
    needed = len(voters) // 2 + 1
    assert 2 * needed > len(voters), "two majorities must meet"
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    missing = sum(1 for voter in voters if voter not in votes)
    if granted >= needed:
        return VoteResult.WON
    if granted + missing >= needed:
        return VoteResult.PENDING
    return VoteResult.LOST


@dataclass(frozen=True, slots=True)
class JointConfig:
    """The voters of a configuration.

    Invariants:

    - Both tuples are sorted and free of repeats.
    - `outgoing` is empty unless the configuration is joint.
    """

    incoming: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()

    @property
    def is_joint(self) -> bool:
        """Whether two majorities decide."""
        return bool(self.outgoing)

    @property
    def ids(self) -> tuple[int, ...]:
        """Every voter of either half, sorted."""
        return tuple(sorted({*self.incoming, *self.outgoing})) if self.outgoing else self.incoming

    def committed_index(self, acked: Callable[[int], int]) -> int:
        """Returns the largest index acknowledged by a quorum of each half (section 6, rule Q1)."""
        index = majority_index(self.incoming, acked)
        if self.outgoing:
            return min(index, majority_index(self.outgoing, acked))
        return index

    def vote_result(self, votes: Mapping[int, bool]) -> VoteResult:
        """Tells how the vote stands: won in both halves, lost in either, else open (rule Q1)."""
        incoming = majority_vote(self.incoming, votes)
        outgoing = majority_vote(self.outgoing, votes)
        if incoming == outgoing:
            return incoming
        if VoteResult.LOST in (incoming, outgoing):
            return VoteResult.LOST
        return VoteResult.PENDING
