"""What readers and conditional producers are given."""

# What is patched is private.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.machine import GroupMeta, node_of
from rakit.node.partition.batches import Batch
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.pending import Outlook, Verdict
from rakit.node.partition.producers import Stamp
from rakit.node.partition.reader import Chunk, Reader
from rakit.node.partition.state import Applied
from rakit.node.partition.stored import StoredBatch, batches_of
from rakit.raft import Entry
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.UNCOMMITTED)
def a_reader_is_given_what_is_appended_and_not_committed() -> Generator[None]:
    """It may be replaced."""
    original = Reader.read

    def read(self: Reader, offset: int, max_bytes: int) -> Chunk:
        chunk = original(self, offset, max_bytes)
        log: Any = self._log
        applied, last = self._machine.applied_index, log.last_index()
        if chunk.next_offset < chunk.high_watermark or applied >= last:
            return chunk
        batches, end = list(chunk.batches), chunk.next_offset
        for entry in log.entries(applied + 1, last + 1, max_bytes):
            for batch in batches_of(entry):
                batches.append(batch)
                end = batch.end_offset
        return replace(chunk, batches=tuple(batches), next_offset=end)

    with patch.object(Reader, "read", read):
        yield


@bug(Invariant.ORDER)
def a_reader_that_comes_back_goes_on_one_batch_too_far() -> Generator[None]:
    """It never sees one."""
    original = Reader._remember

    def remember(self: Reader, offset: int, index: int) -> None:
        original(self, offset, index + 1 if index < self._machine.applied_index else index)

    def check_joined(self: Reader, batch: StoredBatch, reached: int, *, first: bool) -> None:
        del self, batch, reached, first

    with (
        patch.object(Reader, "_remember", remember),
        patch.object(Reader, "_check_joined", check_joined),
    ):
        yield


@bug(Invariant.CONDITION)
def the_expected_offset_is_not_looked_at() -> Generator[None]:
    """A conditional append goes where it was not to."""
    original = Outlook.append

    def append(
        self: Outlook, batch: Batch, stamp: Stamp | None, expected: int | None, *others: Any
    ) -> Verdict:
        del expected
        return original(self, batch, stamp, None, *others)

    with patch.object(Outlook, "append", append):
        yield


@bug(Invariant.IDENTICAL)
def one_replica_counts_the_bytes_of_its_log_in_its_own_way() -> Generator[None]:
    """Its checkpoints differ from those of the others."""
    init_of_all = PartitionMachine.__init__

    def init(self: PartitionMachine, meta: GroupMeta) -> None:
        init_of_all(self, meta)
        if node_of(meta.replica_id) == 2:
            self.apply = partial(apply, self)  # type: ignore[method-assign]

    def apply(self: PartitionMachine, entry: Entry, writes: WriteBatch) -> Applied:
        self.state.appended_bytes += 1
        return PartitionMachine.apply(self, entry, writes)

    with patch.object(PartitionMachine, "__init__", init):
        yield
