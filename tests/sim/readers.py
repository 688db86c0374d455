"""Clients that read, and what is judged about all that they are given (P1, P2, P4).

One reader of each group follows the log from its beginning, another looks at random places. Each
asks whoever leads, or anybody; what is served is served by the product's `Reader`, over the log and
disk of that node. A reader whose place is gone goes on where the log begins.

Every batch is judged when it is given:

- P4: some replica has applied it, as the ledger knows, at the moment of the read. What is applied
  is committed, and stays so: another entry at its index would break state machine safety.
- P2: it stands where the ledger has it, and joins the one before it: no gap, nothing twice.

After healing the reader that follows comes to the end, past everything acknowledged (P1, P7).
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from rakit.node.partition.reader import Chunk
from tests.sim.ledger import Page
from tests.sim.violations import Invariant, ViolationError

if TYPE_CHECKING:
    from tests.sim.traffic import Traffic

CHUNK_BYTES = 400
EVERY_MS = (120, 320)


class Reading:
    """The readers of one world."""

    def __init__(self, traffic: Traffic, seed: int) -> None:
        self.traffic = traffic
        self.rng = random.Random(f"the readers of {seed}")
        #: Group -> how far its log has been followed.
        self.positions = dict.fromkeys(traffic.group_ids, 0)
        self.given = 0

    def begin(self) -> None:
        for group_id in self.traffic.group_ids:
            self._later(group_id)

    def _later(self, group_id: int) -> None:
        self.traffic.events.later(self.rng.randint(*EVERY_MS), partial(self._turn, group_id))

    def behind(self) -> list[int]:
        """The groups whose reader has not come to the end."""
        ledger, deleted = self.traffic.oracle.ledger, self.traffic.deleted
        return [
            group_id
            for group_id, position in self.positions.items()
            if group_id not in deleted and position != ledger.page(group_id).next_offset
        ]

    def _turn(self, group_id: int) -> None:
        if group_id in self.traffic.deleted:
            return
        self._follow(group_id)
        if self.traffic.chaos and self.rng.random() < 0.4:
            self._look_around(group_id)
        self._later(group_id)

    def _follow(self, group_id: int) -> None:
        position = self.positions[group_id]
        chunk = self._ask(group_id, position)
        if chunk is not None:
            self.positions[group_id] = max(position, chunk.log_start_offset, chunk.next_offset)

    def _look_around(self, group_id: int) -> None:
        page = self.traffic.oracle.ledger.page(group_id)
        self._ask(group_id, self.rng.randint(page.start_offset, page.next_offset))

    def _ask(self, group_id: int, offset: int) -> Chunk | None:
        """Asks nodes until one of them answers."""
        brokers = list(self.traffic.brokers.items())
        self.rng.shuffle(brokers)
        now_ms = self.traffic.events.now_ms
        for node_id, broker in brokers:
            if not self.traffic.nodes[node_id].answers(now_ms):
                continue
            chunk = broker.read(group_id, offset, CHUNK_BYTES)
            if chunk is not None:
                page = self.traffic.oracle.ledger.page(group_id)
                self._judge(page, offset, chunk, f"node {node_id} to a reader of group {group_id}")
                return chunk
        return None

    def _judge(self, page: Page, offset: int, chunk: Chunk, who: str) -> None:
        """`chunk` was given for a read at `offset`; an empty one may say where the log begins."""
        if chunk.log_start_offset > page.start_offset:
            raise ViolationError(
                Invariant.RETENTION,
                f"{who}: the log begins at {chunk.log_start_offset}, not {page.start_offset}",
            )
        reached = offset
        for batch in chunk.batches:
            content = bytes(batch.content)
            stands_at = page.at.get(content)
            if stands_at is None or batch.index > page.applied:
                raise ViolationError(
                    Invariant.UNCOMMITTED,
                    f"{who}: {content!r} at offset {batch.base_offset}, entry {batch.index};"
                    f" committed is up to entry {page.applied}",
                )
            first = batch is chunk.batches[0]
            joins = batch.base_offset <= reached if first else batch.base_offset == reached
            if stands_at != batch.base_offset or not joins or batch.end_offset <= reached:
                raise ViolationError(
                    Invariant.ORDER,
                    f"{who}: {content!r} at offset {batch.base_offset} after {reached};"
                    f" it stands at {stands_at}",
                )
            reached = batch.end_offset
            self.given += 1
        if chunk.next_offset != reached or chunk.high_watermark > page.next_offset:
            raise ViolationError(
                Invariant.UNCOMMITTED,
                f"{who}: {len(chunk.batches)} batches up to {reached}, told were"
                f" {chunk.next_offset} and an end at {chunk.high_watermark};"
                f" committed is up to {page.next_offset}",
            )
