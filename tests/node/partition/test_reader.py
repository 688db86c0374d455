"""Reading a log by offset and by time, against a list that holds everything."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.multiraft.errors import StoreCorruptError
from rakit.node.partition import reader as reader_module
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Append, Checkpoint, Trim, append_pieces
from rakit.node.partition.pending import Run
from rakit.node.partition.reader import CURSOR_COUNT_MAX, Reader
from rakit.node.partition.stored import batches_of
from rakit.raft import Entry, EntryType
from tests.node.partition.fakes import GROUP, SETTINGS, MemoryDisk, SyncLeader, batch


def reader_of(leader: SyncLeader) -> Reader:
    return Reader(leader.disk, leader.log, leader.machine)


@dataclass(frozen=True)
class Placed:
    """A batch as the model knows it."""

    base: int
    end: int
    time_ms: int
    content: bytes


class Model:
    """Everything that was ever appended, and where the log begins now."""

    def __init__(self) -> None:
        self.batches: list[Placed] = []
        self.start = 0

    @property
    def end(self) -> int:
        return self.batches[-1].end if self.batches else 0

    def read(self, offset: int, end: int, max_bytes: int) -> list[Placed]:
        found: list[Placed] = []
        for placed in self.batches:
            size = sum(len(each.content) for each in found)
            if placed.end <= offset or placed.base >= end:
                continue
            if found and size + len(placed.content) > max_bytes:
                break
            found.append(placed)
            if size + len(placed.content) >= max_bytes:
                break
        return found

    def offset_at(self, time_ms: int) -> int:
        kept = (each for each in self.batches if each.base >= self.start)
        return next((each.base for each in kept if each.time_ms >= time_ms), self.end)


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["append"] * 4 + ["run"] * 3 + ["checkpoint", "trim", "empty", "tick", "many"]
        ),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=40,
)


def build(changes: list[tuple[str, int]]) -> tuple[SyncLeader, Model]:
    leader, model = SyncLeader(), Model()
    for kind, number in changes:
        ahead = leader.outlook.ahead
        if kind in {"append", "many"}:
            for _ in range(1 if kind == "append" else 70):
                content = bytes([model.end % 251]) * number * 3
                base = model.end
                leader.append(Batch(content, compressed=False, record_count=number, crc32c=1))
                model.batches.append(Placed(base, base + number, leader.now_ms, content))
        elif kind == "run":
            run = Run()
            for count in range(1, number + 1):
                content = bytes([model.end % 251]) * count * 3
                run.add(Batch(content, compressed=False, record_count=count, crc32c=1), None)
                model.batches.append(Placed(model.end, model.end + count, leader.now_ms, content))
            leader.run(leader.outlook.join(run, leader.now_ms, SETTINGS))
        elif kind == "checkpoint":
            leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
        elif kind == "trim" and ahead.marks:
            mark = ahead.marks[number % len(ahead.marks)]
            command = Trim(mark.next_offset, mark.index, leader.now_ms)
            leader.run(leader.outlook.maintain(command))
            model.start = mark.next_offset
        elif kind == "empty":
            leader.new_term()
        elif kind == "tick":
            leader.now_ms += number
    return leader, model


def check_read(
    reader: Reader, model: Model, offset: int, max_bytes: int, end_offset: int | None
) -> int:
    end = model.end if end_offset is None else min(end_offset, model.end)
    chunk = reader.read(offset, max_bytes, end_offset)
    expected = model.read(offset, end, max_bytes) if offset < end else []
    got = [
        Placed(each.base_offset, each.end_offset, each.append_time_ms, bytes(each.content))
        for each in chunk.batches
    ]
    assert got == expected
    assert chunk.next_offset == (expected[-1].end if expected else offset)
    assert (chunk.high_watermark, chunk.log_start_offset) == (model.end, model.start)
    assert chunk.size_bytes == sum(len(each.content) for each in expected)
    return chunk.next_offset


@settings(max_examples=60)
@given(steps, st.data())
def test_every_read_agrees_with_the_list(
    changes: list[tuple[str, int]], data: st.DataObject
) -> None:
    leader, model = build(changes)
    reader = reader_of(leader)
    for _ in range(6):
        offset = data.draw(st.integers(model.start, model.end))
        max_bytes = data.draw(st.sampled_from([1, 10, 40, 10_000]))
        end_offset = data.draw(st.none() | st.integers(model.start, model.end + 3))
        reached = check_read(reader, model, offset, max_bytes, end_offset)
        check_read(reader, model, reached, max_bytes, None)
        time_ms = data.draw(st.integers(999, leader.now_ms + 1))
        assert reader.offset_at(time_ms) == model.offset_at(time_ms)


def test_who_follows_the_tail_never_looks_anything_up(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = SyncLeader()
    reader = reader_of(leader)
    leader.append(batch(5))
    offset = reader.read(0, 1000).next_offset

    def seek(*_arguments: object) -> None:
        raise AssertionError("a follower of the tail was looked up")

    monkeypatch.setattr(reader_module, "row_at_or_below", seek)
    for number in range(1, 200):
        leader.append(batch(number))
        if number % 7 == 0:
            leader.new_term()
        chunk = reader.read(offset, 1_000_000)
        assert chunk.batches[0].base_offset == offset
        offset = chunk.next_offset
    assert offset == leader.machine.state.next_offset


def test_cursors_are_bounded() -> None:
    leader = SyncLeader()
    for _ in range(CURSOR_COUNT_MAX + 50):
        leader.append(batch(1))
    reader = reader_of(leader)
    for offset in range(CURSOR_COUNT_MAX + 50):
        reader.read(offset, 1)
    assert reader.cursor_count == CURSOR_COUNT_MAX


def test_a_cursor_into_a_part_that_was_cut_is_not_used() -> None:
    leader = SyncLeader()
    reader = reader_of(leader)
    leader.append(batch(5))
    leader.append(batch(5))
    assert reader.read(0, 1000).next_offset == 10
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    leader.append(batch(5))
    mark = leader.machine.state.marks[0]
    leader.run(leader.outlook.maintain(Trim(mark.next_offset, mark.index, leader.now_ms)))
    assert reader.read(10, 1000).batches[0].base_offset == 10


def test_without_position_rows_the_log_is_scanned_from_its_start() -> None:
    leader = SyncLeader()
    for _ in range(100):
        leader.append(batch(3))
    reader = Reader(MemoryDisk(), leader.log, leader.machine)
    assert reader.read(250, 1).batches[0].base_offset == 249
    assert reader.offset_at(leader.now_ms) == 0


def test_one_batch_over_the_limit_is_returned_unless_there_is_something_else() -> None:
    leader = SyncLeader()
    leader.append(batch(5, content=bytes(1000)))
    reader = reader_of(leader)
    assert len(reader.read(0, 10).batches) == 1
    chunk = reader.read(0, 10, at_least_one=False)
    assert (chunk.batches, chunk.next_offset) == ((), 0)


def test_p4_entries_that_are_not_applied_are_not_read() -> None:
    leader = SyncLeader()
    leader.append(batch(5))
    draft = Append(5, 1, 2_000, None, 0, compressed=False, checkpoint=False)
    leader.log.append(1, b"".join(append_pieces(draft, b"not committed")))
    leader.log.readable_to = leader.machine.applied_index
    chunk = reader_of(leader).read(0, 1000)
    assert reader_of(leader).offset_at(leader.now_ms) == 0
    assert (len(chunk.batches), chunk.next_offset, chunk.high_watermark) == (1, 5, 5)
    assert reader_of(leader).read(5, 1000).batches == ()


def test_batches_that_do_not_join_are_damage() -> None:
    leader = SyncLeader()
    for _ in range(3):
        leader.append(batch(5))
    lost = leader.log.held[1]
    leader.log.held[1] = Entry(lost.term, lost.index, EntryType.NORMAL, b"")
    with pytest.raises(StoreCorruptError, match="begins at offset 10, but offset 5 was not found"):
        reader_of(leader).read(0, 1000)
    with pytest.raises(StoreCorruptError, match=f"group {GROUP}"):
        reader_of(leader).read(5, 1000)


def test_entries_of_other_kinds_hold_no_batch() -> None:
    change = Entry(1, 5, EntryType.CONF_CHANGE, b"anything")
    assert batches_of(change) == []
    assert batches_of(Entry(1, 6)) == []
