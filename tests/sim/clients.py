"""Clients and the oracle that judges them.

Producers keep one batch in flight. An idempotent producer repeats a batch whose fate it does not
know, at any node, until it gets an answer; a plain one gives the batch up. Every batch has its
own content, so that the log tells who wrote what, and how often.

The oracle holds the promises at the client's edge, against the ledger, which has read every entry
that was ever applied:

- P1, P2: an acknowledged batch stands in the log, at the offset that was told; an answer counts
  also if it comes after the client has given up.
- A batch that was refused (NOT_APPLIED) never appears. A refusal by a node that does not lead is
  one as well: a plain producer takes its word and gives up, or offers the same batch again, which
  the ledger then must not see twice (P3).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from rakit.multiraft.checksum import crc32c
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.node.partition.state import Stored
from tests.sim.broker import Answer, Refused, Unknown
from tests.sim.ledger import Ledger
from tests.sim.violations import Invariant, ViolationError

PATIENCE_MS = 700


@dataclass(slots=True)
class Sent:
    """One batch of a producer."""

    group_id: int
    batch: Batch
    unknown: bool = False
    refused: bool = False
    acknowledged: bool = False
    # Where it is to begin, or not be stored at all; None: anywhere.
    expected_offset: int | None = None


@dataclass(slots=True)
class Oracle:
    """What the clients were told."""

    sent: dict[bytes, Sent] = field(default_factory=dict[bytes, Sent])
    ledger: Ledger = field(init=False)
    acknowledged: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.sent.__contains__)

    def stored(self, sent: Sent, answer: Stored) -> None:
        """Somebody was told where a batch is; the node that said so has applied it."""
        content = bytes(sent.batch.content)
        base = self.ledger.page(sent.group_id).at.get(content)
        end = answer.base_offset + sent.batch.record_count
        if base != answer.base_offset or answer.end_offset != end:
            raise ViolationError(
                Invariant.ACKNOWLEDGED,
                f"{content!r} was acknowledged at {answer} of group {sent.group_id},"
                f" the log has it at {base}",
            )
        self.acknowledged += not sent.acknowledged
        sent.acknowledged = True

    def judge(self, group_id: int) -> None:
        """Judges what was refused, once nothing is under way any more."""
        for content, base in self.ledger.page(group_id).at.items():
            sent = self.sent[content]
            if sent.refused and not sent.unknown and not sent.acknowledged:
                raise ViolationError(
                    Invariant.NOT_APPLIED,
                    f"{content!r} was refused and stands at {base} of group {group_id}",
                )


class Producer:
    """One producer of one partition; the world calls `turn` again and again."""

    def __init__(
        self,
        producer_id: int,
        group_id: int,
        rng: random.Random,
        oracle: Oracle,
        serial: int = 0,
    ) -> None:
        self.producer_id = producer_id  # 0: not idempotent
        self.group_id = group_id
        self.rng = rng
        self.oracle = oracle
        self.sequence = 0
        self.last_stored = 0
        self.current: Sent | None = None
        self.waiting_since_ms = -1
        self.attempt = 0
        self.target = 0
        self.serial = serial  # of its last batch

    def turn(
        self, now_ms: int, nodes: list[int], send: Callable[[int, Producer, int], None]
    ) -> None:
        """Begins a batch, or repeats one that has waited too long."""
        if self.waiting_since_ms >= 0:
            if now_ms - self.waiting_since_ms < PATIENCE_MS:
                return
            self._unknown()
        if self.current is None:
            self._begin()
        if self.target not in nodes:
            self.target = self.rng.choice(nodes)
        self.waiting_since_ms = now_ms
        self.attempt += 1
        send(self.target, self, self.attempt)

    def _begin(self) -> None:
        self.serial += 1
        self.sequence += 1
        count = self.rng.randint(1, 4)
        content = b"%d.%d.%d" % (self.group_id, self.producer_id, self.serial)
        content += b"." * self.rng.randint(0, 60)
        batch = Batch(content=content, compressed=False, record_count=count, crc32c=crc32c(content))
        self.current = Sent(self.group_id, batch)
        self.oracle.sent[content] = self.current

    def stamp(self) -> Stamp | None:
        if not self.producer_id or self.current is None:
            return None
        return Stamp(self.producer_id, 1, self.sequence, self.last_stored)

    def _unknown(self) -> None:
        assert self.current is not None, "only a batch that was sent has an outcome"
        self.current.unknown = True
        self.waiting_since_ms = -1
        self.target = 0
        if not self.producer_id:
            self.current = None

    def answered(self, attempt: int, sent: Sent, answer: Answer) -> None:
        """Takes an answer; one to an attempt that was given up changes nothing here."""
        if isinstance(answer, Stored):
            self.oracle.stored(sent, answer)
        if attempt != self.attempt or self.waiting_since_ms < 0:
            return
        assert sent is self.current, "the newest attempt is about the current batch"
        if isinstance(answer, Unknown):
            self._unknown()
            return
        self.waiting_since_ms = -1
        if isinstance(answer, Refused):
            self._refused(sent, answer)
        else:
            self.last_stored = self.sequence
            self.current = None

    def _refused(self, sent: Sent, answer: Refused) -> None:
        if self.producer_id and not answer.elsewhere:
            raise ViolationError(
                Invariant.ACKNOWLEDGED,
                f"producer {self.producer_id} was refused: {answer.reason}",
            )
        self.target = 0
        if not self.producer_id and self.rng.random() < 0.5:
            sent.refused = True
            self.current = None
