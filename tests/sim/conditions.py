"""Producers that append on a condition: at the end that they know, or not at all.

An idempotent producer that gives `expected_offset` with every batch. Several of them on one log
would be a compare-and-swap; here the others are the usual producers, so that the end keeps moving.

- An acknowledged batch begins where it was to, also when it was sent several times: a retry of a
  batch that was stored does not fail because of its own records (S14).
- A refusal names the end of the log. That end is another one, and what lies below it is committed:
  a leader that was replaced must not refuse by entries that are lost (S20).
- What was refused never appears (the oracle judges that in the end).
"""

from __future__ import annotations

import random

from rakit.node.partition.state import Stored
from tests.sim.broker import Answer, Refused
from tests.sim.clients import Oracle, Producer, Sent
from tests.sim.violations import Invariant, ViolationError

PRODUCER = 4


class Conditional(Producer):
    """One such producer."""

    def __init__(self, group_id: int, rng: random.Random, oracle: Oracle) -> None:
        super().__init__(PRODUCER, group_id, rng, oracle)
        self.end = 0
        self.refusals = 0

    def _begin(self) -> None:
        super()._begin()
        assert self.current is not None, "just begun"
        self.current.expected_offset = self.end

    def answered(self, attempt: int, sent: Sent, answer: Answer) -> None:
        if isinstance(answer, Stored):
            if answer.base_offset != sent.expected_offset:
                raise ViolationError(
                    Invariant.CONDITION,
                    f"group {self.group_id}: {sent.batch.content!r} was to begin at"
                    f" {sent.expected_offset} and was acknowledged at {answer.base_offset}",
                )
            self.end = max(self.end, answer.end_offset)
        super().answered(attempt, sent, answer)

    def _refused(self, sent: Sent, answer: Refused) -> None:
        if answer.elsewhere or answer.next_offset is None:
            super()._refused(sent, answer)
            return
        committed = self.oracle.ledger.page(self.group_id).next_offset
        if answer.next_offset == sent.expected_offset or answer.next_offset > committed:
            raise ViolationError(
                Invariant.CONDITION,
                f"group {self.group_id}: {sent.batch.content!r}, to begin at"
                f" {sent.expected_offset}, was refused because the log ends at"
                f" {answer.next_offset}; committed is up to {committed}",
            )
        self.refusals += 1
        self.end = answer.next_offset
        sent.refused = True
        self.current = None
