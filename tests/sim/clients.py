"""Clients and the oracle that judges them.

Producers keep one batch in flight. An idempotent producer repeats a batch whose fate it does not
know, at any node, until it gets an answer; a plain one gives the batch up. Every batch has its
own content, so that the log tells who wrote what, and how often.

The oracle holds the promises at the client's edge:

- P1: an acknowledged batch stands in the log of every replica, at its offset, in the end (or
  below the log's start).
- P2: no two acknowledgements name the same offset.
- P3: an idempotent batch stands in the log at most once.
- A batch that was refused (NOT_APPLIED) never appears, unless a later try of it was accepted.
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
from tests.sim.invariants import ViolationError


@dataclass(slots=True)
class Sent:
    """One batch of a producer."""

    group_id: int
    batch: Batch
    idempotent: bool
    stored: Stored | None = None
    unknown: bool = False
    refused: bool = False


@dataclass(slots=True)
class Oracle:
    """What the clients were told."""

    sent: dict[bytes, Sent] = field(default_factory=dict[bytes, Sent])
    offsets: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])
    acknowledged: int = 0

    def answered(self, sent: Sent, answer: Answer) -> None:
        content = sent.batch.content
        if isinstance(answer, Unknown):
            sent.unknown = True
            return
        if isinstance(answer, Refused):
            sent.refused = True
            return
        if sent.stored is not None and sent.stored.base_offset != answer.base_offset:
            raise ViolationError(f"{content!r} was acknowledged at {sent.stored} and at {answer}")
        sent.stored = answer
        self.acknowledged += 1
        for offset in range(answer.base_offset, answer.end_offset):
            if self.offsets.setdefault((sent.group_id, offset), content) != content:
                raise ViolationError(
                    f"offset {offset} of group {sent.group_id} was acknowledged twice: "
                    f"{self.offsets[sent.group_id, offset]!r}, {content!r}"
                )

    def judge_log(
        self, group_id: int, start_offset: int, log: list[tuple[int, int, bytes]]
    ) -> None:
        """Judges the committed log of a healed replica: (base offset, count, content) in order."""
        at: dict[bytes, int] = {}
        for base, _count, content in log:
            sent = self.sent.get(content)
            if sent is None:
                raise ViolationError(f"{content!r} stands in group {group_id}, and nobody sent it")
            if content in at:
                raise ViolationError(
                    f"{content!r} stands at {at[content]} and at {base} of group {group_id}"
                )
            at[content] = base
            if sent.refused and sent.stored is None and not sent.unknown:
                raise ViolationError(
                    f"{content!r} was refused and stands at {base} of group {group_id}"
                )
        for content, sent in self.sent.items():
            if (
                sent.group_id != group_id
                or sent.stored is None
                or sent.stored.end_offset <= start_offset
            ):
                continue
            if at.get(content) != sent.stored.base_offset:
                raise ViolationError(
                    f"{content!r} was acknowledged at {sent.stored.base_offset}"
                    f" of group {group_id}, "
                    f"the log has it at {at.get(content)}"
                )


class Producer:
    """One producer of one partition; the world calls `turn` again and again."""

    def __init__(self, producer_id: int, group_id: int, rng: random.Random, oracle: Oracle) -> None:
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
        self.serial = 0

    def turn(
        self, now_ms: int, nodes: list[int], send: Callable[[int, Producer, int], None]
    ) -> None:
        """Begins a batch, or repeats one that has waited too long."""
        if self.waiting_since_ms >= 0:
            if now_ms - self.waiting_since_ms < 700:
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
        self.current = Sent(self.group_id, batch, self.producer_id != 0)
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

    def answered(self, attempt: int, answer: Answer) -> None:
        """Takes an answer; one to an attempt that was given up is only noted."""
        sent = self.current
        if attempt != self.attempt or self.waiting_since_ms < 0 or sent is None:
            return
        if isinstance(answer, Unknown):
            self._unknown()
            return
        if isinstance(answer, Refused) and answer.elsewhere:
            self.waiting_since_ms = -1
            self.target = 0
            return
        self.oracle.answered(sent, answer)
        if isinstance(answer, Refused) and self.producer_id:
            raise ViolationError(f"producer {self.producer_id} was refused: {answer.reason}")
        self.waiting_since_ms = -1
        self.last_stored = self.sequence
        self.current = None
