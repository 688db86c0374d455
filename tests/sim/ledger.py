"""What the log of each partition says, judged entry by entry when the first replica applies it.

Committed entries never change (that is the checker's business), so one reading of each is enough,
and nothing that is trimmed later escapes. Entries are read from the disk, not through the log's
cache. The ledger knows

- where every batch stands: once, at the end of what was there, and somebody has sent it;
- where the log may begin: at the newest trim that was applied anywhere;
- what time it is: entries are stamped by their leaders, and their times never fall (S3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rakit.multiraft import keys
from rakit.multiraft.group import Group
from rakit.multiraft.machine import GroupKind
from rakit.multiraft.stored_entries import decode_entry
from rakit.node.partition.commands import parse
from rakit.peer.v1.partition_command_pb2 import AppendBatch
from rakit.raft import EntryType
from tests.sim.disk import SimDisk
from tests.sim.violations import Invariant, ViolationError


@dataclass(slots=True)
class Page:
    """The ledger of one group."""

    applied: int = 1
    next_offset: int = 0
    # The first offset that has to be kept.
    start_offset: int = 0
    # The time of the newest entry.
    append_time_ms: int = 0
    # Content of a batch -> its base offset.
    at: dict[bytes, int] = field(default_factory=dict[bytes, int])
    # Index -> the offset after the entry there.
    ends: dict[int, int] = field(default_factory=lambda: {1: 0})


class Ledger:
    """The pages of all groups."""

    def __init__(self, was_sent: Callable[[bytes], bool]) -> None:
        self.was_sent = was_sent
        self.pages: dict[int, Page] = {}

    def page(self, group_id: int) -> Page:
        page = self.pages.get(group_id)
        if page is None:
            page = self.pages[group_id] = Page()
        return page

    def applied(self, group: Group, disk: SimDisk) -> None:
        """A replica has applied entries; reads those that no other one has applied before."""
        if group.meta.kind is not GroupKind.PARTITION:
            return
        group_id = group.meta.group_id
        page = self.page(group_id)
        for index in range(page.applied + 1, group.applied + 1):
            row = disk.live.rows.get(keys.entry(group_id, index))
            assert row is not None, f"nobody was seen applying entry {index} of group {group_id}"
            entry = decode_entry(group_id, index, row)
            if entry.data and entry.type is EntryType.NORMAL:
                self._read(group_id, page, bytes(entry.data))
            page.ends[index] = page.next_offset
            page.applied = index

    def _read(self, group_id: int, page: Page, payload: bytes) -> None:
        command = parse(payload)
        kind = command.WhichOneof("command")
        batches = [command.append] if kind == "append" else list(command.appends.batches)
        said = batches[-1] if batches else getattr(command, kind or "append")
        time_ms: int = said.append_time_ms
        if time_ms < page.append_time_ms:
            raise ViolationError(
                Invariant.CLOCKS,
                f"group {group_id}: {kind} of time {time_ms} after {page.append_time_ms}",
            )
        page.append_time_ms = time_ms
        if kind == "trim":
            page.start_offset = max(page.start_offset, command.trim.start_offset)
        for batch in batches:
            self._stands(group_id, page, batch)

    def _stands(self, group_id: int, page: Page, batch: AppendBatch) -> None:
        content, base = batch.content, batch.base_offset
        if not self.was_sent(content) or content in page.at or base != page.next_offset:
            raise ViolationError(
                Invariant.ONCE,
                f"{content!r} stands at {base} of group {group_id}, before that"
                f" at {page.at.get(content)}; the log ended at {page.next_offset}",
            )
        page.at[content] = base
        page.next_offset = base + batch.record_count

    def begins_after(self, node_id: int, group_id: int, index: int) -> None:
        """A replica's log begins after entry `index`, where its base stands."""
        page = self.page(group_id)
        offset = page.ends.get(index, 0)
        if offset > page.start_offset:
            raise ViolationError(
                Invariant.RETENTION,
                f"node {node_id}: the log of group {group_id} begins at offset {offset},"
                f" kept is what begins at {page.start_offset}",
            )
