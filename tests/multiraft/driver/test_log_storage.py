"""The stored log, its cache and its formats by themselves, against a plain list."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rakit.multiraft import checksum as checksums
from rakit.multiraft import keys
from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.checksum import crc32c, crc32c_extend, crc32c_extend_payload
from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import INDEX_END, GroupLog, stored_rows
from rakit.multiraft.machine import GroupKind, GroupMeta, node_of, replica_id
from rakit.multiraft.read_ahead import ReadAhead
from rakit.multiraft.records import (
    BirthRecord,
    StoredCheckpoint,
    StoredHardState,
    decode_birth,
    decode_checkpoint,
    decode_hard_state,
    decode_tombstone,
    encode_birth,
    encode_checkpoint,
    encode_hard_state,
    encode_tombstone,
)
from rakit.multiraft.stored_entries import (
    ENTRY_HEAD_BYTES,
    PAGED_BYTES_MIN,
    VIEWED_BYTES_MIN,
    arrived_entry,
    decode_entry,
    encode_entry,
    entry_checksum,
    join_payload,
)
from rakit.multiraft.tail_cache import TailCache
from rakit.raft import (
    CompactedError,
    ConfState,
    Entry,
    EntryID,
    EntryType,
    HardState,
    SnapshotTemporarilyUnavailableError,
    UnavailableError,
    payload_bytes,
)
from tests.multiraft.driver.memory_disk import MemoryDisk

GROUP = 5
INDEX = 9
KINDS = [EntryType.NORMAL, EntryType.NORMAL, EntryType.CONF_CHANGE]
REPLICA = replica_id(1, 1)
CONF = ConfState(voters=(1, 2), learners=(3,), voters_outgoing=(1, 4), learners_next=(4,))


class Log:
    """A log whose every change is written at once."""

    def __init__(self, cache_bytes: int = 10**6) -> None:
        self.disk = MemoryDisk()
        self.cache = TailCache(cache_bytes, 1000)
        self.log = GroupLog(GROUP, REPLICA, self.disk, self.cache, ReadAhead(10**6))
        self._write(lambda batch: self.log.install(Checkpoint(1, 1, CONF, b""), batch))

    def _write(self, change: Callable[[WriteBatch], None]) -> None:
        batch = WriteBatch()
        change(batch)
        self.disk.write(batch)

    def append(self, *entries: Entry) -> None:
        self._write(lambda batch: self.log.append(list(entries), batch))

    def checkpoint(self, index: int, wanted: Collection[int] = ()) -> None:
        at = Checkpoint(index, self.log.term(index), CONF, b"state %d" % index)
        size = self.log.applied_log_bytes
        self._write(lambda batch: self.log.add_checkpoint(at, size, wanted, batch))

    def checkpoints(self) -> list[int]:
        bounds = keys.group_range(keys.CHECKPOINT, GROUP)
        return [keys.number_of(key) for key, _ in self.disk.scan(*bounds)]

    def trim(self, index: int) -> None:
        self._write(lambda batch: self.log.trim(index, batch))


@given(seed=st.integers(0, 2**32), cache_bytes=st.sampled_from([0, 700, 2000, 10**6]))
def test_the_log_equals_a_list(seed: int, cache_bytes: int) -> None:
    rng = random.Random(seed)
    stored = Log(cache_bytes)
    log = stored.log
    model: list[Entry] = []
    base, settled, term = 1, 1, 1
    kept: list[int] = []
    for _ in range(30):
        last = base + len(model)
        action = rng.choice(["append", "append", "replace", "checkpoint", "trim"])
        if action in ("append", "replace"):
            first = last + 1
            if action == "replace" and last > settled:
                first = rng.randint(settled + 1, last)
                term += 1
            term += rng.random() < 0.2
            fresh = [
                Entry(term, first + i, rng.choice(KINDS), rng.randbytes(rng.randrange(200)))
                for i in range(rng.randint(1, 4))
            ]
            model[first - base - 1 :] = fresh
            stored.append(*fresh)
        elif action == "checkpoint" and last > settled:
            kept = [each for each in [*kept, settled] if each > base and rng.random() < 0.7]
            settled = rng.randint(settled + 1, last)
            stored.checkpoint(settled, kept)
        elif action == "trim" and settled > base:
            start = rng.choice([*kept, settled])
            del model[: start - base]
            base = start
            kept = [each for each in kept if each > base]
            stored.trim(base)
        check_equal(log, base, model, rng)
        assert stored.checkpoints() == sorted({base, *kept, settled})
        assert [log.checkpoint_at_or_below(each) for each in (base, settled)] == [base, settled]
        for entry in model[settled - base :]:
            change = entry.type is EntryType.CONF_CHANGE
            assert log.holds_conf_change(entry.index, entry.index + 1) is change
    assert stored.cache.size_bytes <= max(cache_bytes, 0)


def check_equal(log: GroupLog, base: int, model: list[Entry], rng: random.Random) -> None:
    assert (log.first_index(), log.last_index()) == (base + 1, base + len(model))
    for entry in model:
        assert log.term(entry.index) == entry.term
    if model:
        lo = rng.randint(base + 1, base + len(model))
        hi = rng.randint(lo + 1, base + len(model) + 1)
        limit = rng.choice([1, 300, 10**6])
        got = log.entries(lo, hi, limit)
        assert got == model[lo - base - 1 : lo - base - 1 + len(got)]
        assert got
        if limit == 10**6:
            assert len(got) == hi - lo
        elif len(got) > 1:
            assert sum(len(one.data) + 24 for one in got) <= limit
    with pytest.raises(CompactedError):
        log.entries(base, base + 1, 1)
    with pytest.raises(UnavailableError):
        log.entries(base + len(model) + 1, base + len(model) + 2, 1)
    assert log.snapshot(9).index == base


def test_terms_before_the_latest_checkpoint_are_read_from_the_disk() -> None:
    stored = Log()
    stored.append(Entry(1, 2), Entry(3, 3), Entry(3, 4), Entry(4, 5))
    stored.checkpoint(4)
    log = GroupLog(GROUP, REPLICA, stored.disk, TailCache(0, 10), ReadAhead(0))
    base, latest = (
        StoredCheckpoint(Checkpoint(index, term, CONF, b""), 0, REPLICA)
        for index, term in ((1, 1), (4, 3))
    )
    log.loaded(HardState(4, 0, 4), base, latest)
    log.loaded_entries([Entry(4, 5)])
    assert [log.term(index) for index in range(1, 6)] == [1, 1, 3, 3, 4]


def test_a_read_never_ends_early_because_an_entry_is_missing() -> None:
    stored = Log(cache_bytes=0)
    stored.append(*[Entry(2, index, data=b"x") for index in range(2, 10)])
    stored.disk.delete(keys.entry(GROUP, 6))
    assert len(stored.log.entries(2, 6, 10**6)) == 4
    with pytest.raises(StoreCorruptError, match="entry 6 of group 5 is missing"):
        stored.log.entries(2, 10, 10**6)


class CountingDisk(MemoryDisk):
    """Tells which entries were read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []
        self.walks = 0

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        self.walks += 1
        for key, value in super().scan(lo, hi):
            self.read.append(keys.number_of(key))
            yield key, value

    def get(self, key: bytes) -> bytes | None:
        if key[0] == keys.ENTRY:
            self.read.append(keys.number_of(key))
        return super().get(key)


def counted(ahead: ReadAhead) -> tuple[CountingDisk, GroupLog]:
    disk = CountingDisk()
    log = GroupLog(GROUP, REPLICA, disk, TailCache(0, 10), ahead)
    batch = WriteBatch()
    log.install(Checkpoint(1, 1, CONF, b""), batch)
    log.append([Entry(2, index, data=b"x" * 1000) for index in range(2, 12)], batch)
    disk.write(batch)
    return disk, log


def test_who_goes_on_behind_a_full_answer_reads_no_entry_twice() -> None:
    disk, log = counted(ReadAhead(10**4))
    at = 2
    while at < 12:
        at = log.entries(at, 12, 2500)[-1].index + 1
        # It may ask again for what has no room, as readers of a partition do.
        if at < 12:
            assert [entry.index for entry in log.entries(at, 12, 1)] == [at]
    assert disk.read == list(range(2, 12))


@given(
    sizes=st.lists(st.sampled_from([10, (16 << 10) - 40, 16 << 10, 20_000]), max_size=8),
    by_key=st.booleans(),
    start=st.integers(0, 8),
)
def test_rows_come_in_order_and_to_the_end_whatever_their_sizes(
    sizes: list[int], by_key: bool, start: int
) -> None:
    disk = CountingDisk()
    for index, size in enumerate(sizes):
        disk.put(keys.entry(GROUP, index), bytes([index]) * size)
    disk.put(keys.entry(GROUP + 1, 0), b"another group's")
    expected = [(at, bytes([at]) * size) for at, size in enumerate(sizes)][start:]
    assert list(stored_rows(disk, GROUP, start, INDEX_END, by_key=by_key)) == expected


class HidingDisk(MemoryDisk):
    """A block between two groups cannot be read, from whichever side; single keys can."""

    error: type[StoreCorruptError] = StoreCorruptError

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from super().scan(lo, hi)
        raise self.error("a read failed")

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        if (found := super().last_below(lo, hi)) is None:
            raise self.error("a read failed")
        return found


def test_s9_an_entry_that_no_table_has_ends_a_log_whose_end_is_hidden_by_damage() -> None:
    disk = HidingDisk()
    for index in range(1, 4):
        disk.put(keys.entry(GROUP, index), b"x")
    assert [index for index, _ in stored_rows(disk, GROUP, 1, INDEX_END)] == [1, 2, 3]
    # What can be seen behind a missing entry is no end.
    disk.put(keys.entry(GROUP, 5), b"x")
    disk.delete(keys.entry(GROUP, 2))
    with pytest.raises(StoreCorruptError):
        list(stored_rows(_WithoutWalks(disk), GROUP, 1, INDEX_END))


def test_a_read_error_that_is_no_damage_is_never_taken_for_the_end() -> None:
    disk = HidingDisk()
    disk.error = StoreUnreadableError
    disk.put(keys.entry(GROUP, 1), b"x")
    with pytest.raises(StoreUnreadableError):
        list(stored_rows(disk, GROUP, 1, INDEX_END))


class _WithoutWalks(HidingDisk):
    """The walk meets the damage before it yields anything."""

    def __init__(self, rows: MemoryDisk) -> None:
        super().__init__()
        self._rows = rows

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        raise StoreCorruptError(f"no walk from {lo!r} to {hi!r}")

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        return self._rows.last_below(lo, hi)


def test_large_entries_are_looked_for_by_key_and_small_ones_walked_over() -> None:
    disk = CountingDisk()
    for index in range(10):
        disk.put(keys.entry(GROUP, index), bytes(20_000))
    assert len(list(stored_rows(disk, GROUP, 0, 10, by_key=True))) == 10
    assert disk.walks == 0
    assert len(list(stored_rows(disk, GROUP, 0, INDEX_END))) == 10
    assert disk.walks == 2, "for the first one, and to see that there are no more"
    for index in range(10, 20):
        disk.put(keys.entry(GROUP, index), b"small")
    disk.walks, disk.read = 0, []
    assert len(list(stored_rows(disk, GROUP, 8, 20, by_key=True))) == 12
    assert disk.walks == 1
    assert disk.read == list(range(8, 20))


def test_what_is_read_ahead_is_bounded_and_not_needed() -> None:
    ahead = ReadAhead(2500)
    disk, log = counted(ahead)
    for at in range(2, 11):
        assert log.entries(at, 12, 1500)[0].index == at
        assert ahead.size_bytes <= 2500
    assert len(ahead) == 2
    disk.read.clear()
    assert log.entries(3, 12, 1500)[0].index == 3
    assert disk.read == [3, 4]
    log.close()
    assert ahead.size_bytes == len(ahead) == 0


def test_of_many_small_entries_read_ahead_the_oldest_go() -> None:
    ahead = ReadAhead(10**6)
    for index in range(5000):
        ahead.keep(GROUP, REPLICA, Entry(1, index))
    assert len(ahead) == 1024
    assert ahead.get(GROUP, REPLICA, 0) is None
    assert ahead.get(GROUP, REPLICA, 4999) is not None


def test_what_is_read_ahead_for_one_replica_is_no_other_ones() -> None:
    ahead = ReadAhead(100)
    ahead.keep(GROUP, REPLICA, Entry(1, 5, data=b"x" * 60))
    assert ahead.get(GROUP, replica_id(1, 2), 5) is None


def test_an_entry_larger_than_the_bound_puts_nobody_elses_out() -> None:
    ahead = ReadAhead(100)
    ahead.keep(GROUP, REPLICA, Entry(1, 5, data=b"x" * 60))
    ahead.keep(GROUP, REPLICA, Entry(1, 6, data=b"x" * 101))
    assert ahead.get(GROUP, REPLICA, 5) is not None
    assert (len(ahead), ahead.size_bytes) == (1, 60)


def test_without_a_base_there_is_nothing_to_send() -> None:
    log = GroupLog(GROUP, REPLICA, MemoryDisk(), TailCache(100, 10), ReadAhead(0))
    with pytest.raises(SnapshotTemporarilyUnavailableError):
        log.snapshot(1)


def test_size_counts_the_applied_entries_that_are_kept() -> None:
    stored = Log()
    stored.append(*[Entry(2, index, data=b"x" * 100) for index in range(2, 12)])
    stored.log.applied_log_bytes = 500
    stored.checkpoint(6)
    stored.log.applied_log_bytes = 1000
    assert stored.log.size_bytes == 1000
    stored.trim(6)
    assert stored.log.size_bytes == 500


def test_a_closed_log_lets_go_of_who_spoke_for_it() -> None:
    stored = Log()

    class Speaker:
        def needed_from(self, first: int) -> int:
            return first

    speaker = Speaker()
    spoke = weakref.ref(speaker)
    stored.log.keep(speaker.needed_from)
    del speaker
    assert spoke() is not None
    stored.log.close()
    assert spoke() is None


IDS = st.integers(1, 2**53 - 1)


@given(
    group_id=IDS,
    entry=st.builds(Entry, IDS, IDS, st.sampled_from(list(EntryType)), st.binary(max_size=50)),
    flip=st.integers(0, 10**6),
)
def test_every_flipped_bit_and_every_wrong_place_of_an_entry_is_noticed(
    group_id: int, entry: Entry, flip: int
) -> None:
    index = entry.index
    value = bytes(encode_entry(group_id, entry))
    assert decode_entry(group_id, index, value) == entry
    bit = flip % (len(value) * 8)
    damaged = bytearray(value)
    damaged[bit // 8] ^= 1 << bit % 8
    for group, place, stored in (
        (group_id, index, bytes(damaged)),
        (group_id + 1, index, value),
        (group_id, index + 1, value),
        (group_id, index, value[:-1]),
    ):
        with pytest.raises(StoreCorruptError):
            decode_entry(group, place, stored)


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_damage_to_any_part_of_an_entry_is_noticed_whatever_its_size(size: int) -> None:
    """A large one is checked in another way than a small one: to the same end."""
    entry = Entry(7, INDEX, data=bytes(range(1, 101)) * (size // 100))
    value = bytes(encode_entry(GROUP, entry))
    found = decode_entry(GROUP, INDEX, value)
    assert found == entry
    assert encode_entry(GROUP, found) == value
    head = ENTRY_HEAD_BYTES
    for at in (*range(head), head, len(value) // 2, len(value) - 1):
        damaged = bytearray(value)
        damaged[at] ^= 1
        with pytest.raises(StoreCorruptError, match="fails its checksum"):
            decode_entry(GROUP, INDEX, bytes(damaged))
    for cut in (value[:-1], value[:head], value + b"\0", value[:head] + value[head + 1 :]):
        with pytest.raises(StoreCorruptError, match="fails its checksum"):
            decode_entry(GROUP, INDEX, cut)
    for group, index in ((GROUP + 1, INDEX), (GROUP, INDEX + 1)):
        with pytest.raises(StoreCorruptError, match="fails its checksum"):
            decode_entry(group, index, value)
    with pytest.raises(StoreCorruptError, match="is cut to"):
        decode_entry(GROUP, INDEX, value[: head - 1])


@given(
    sizes=st.lists(
        st.sampled_from([0, 1, 100, VIEWED_BYTES_MIN - 101, VIEWED_BYTES_MIN, PAGED_BYTES_MIN]),
        min_size=1,
    ),
    place=st.tuples(IDS, IDS),
)
def test_what_is_proposed_in_pieces_is_what_is_sent_stored_and_read(
    sizes: list[int], place: EntryID
) -> None:
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    term, index = place
    payload, checksum = join_payload(GROUP, place, pieces)
    whole = b"".join(pieces)
    assert payload == whole
    entry = Entry(term, index, EntryType.NORMAL, payload, checksum)
    plain = Entry(term, index, EntryType.NORMAL, whole)
    assert entry_checksum(GROUP, plain) == checksum
    value = encode_entry(GROUP, entry)
    assert value == encode_entry(GROUP, plain)
    assert decode_entry(GROUP, index, bytes(value)) == plain
    # As protobuf hands it over, and as it lies within a request.
    for sent in (whole, memoryview(b"before" + whole + b"behind")[6 : 6 + len(whole)]):
        arrived = arrived_entry(GROUP, place, EntryType.NORMAL, sent, checksum)
        assert arrived is not None
        assert arrived == plain
        assert arrived.checksum == checksum
        assert encode_entry(GROUP, arrived) == value
        for where in ((term, index + 1), (term + 1, index)):
            assert arrived_entry(GROUP, where, EntryType.NORMAL, sent, checksum) is None
        assert arrived_entry(GROUP, place, EntryType.CONF_CHANGE, sent, checksum) is None


@pytest.mark.parametrize("size", [VIEWED_BYTES_MIN, PAGED_BYTES_MIN])
def test_a_large_payload_is_joined_once_and_stored_as_it_is(size: int) -> None:
    payload, checksum = join_payload(GROUP, (7, INDEX), [b"head", bytes(size)])
    arrived = arrived_entry(GROUP, (7, INDEX), EntryType.NORMAL, payload, checksum)
    for entry in (Entry(7, INDEX, data=payload, checksum=checksum), arrived):
        assert entry is not None
        assert isinstance(entry.data, memoryview)
        value = encode_entry(GROUP, entry)
        assert (value.obj if isinstance(value, memoryview) else value) is entry.data.obj
        assert isinstance(value, memoryview) is (size >= PAGED_BYTES_MIN)


@pytest.mark.parametrize("size", [VIEWED_BYTES_MIN, PAGED_BYTES_MIN])
def test_a_view_of_something_else_is_not_taken_for_the_stored_value(size: int) -> None:
    payload, checksum = join_payload(GROUP, (7, INDEX), [bytes(size)])
    value = encode_entry(GROUP, Entry(7, INDEX, data=payload, checksum=checksum))
    for entry in (
        Entry(8, INDEX, data=payload),
        Entry(7, INDEX + 1, data=payload),
        Entry(7, INDEX, EntryType.CONF_CHANGE, payload),
        Entry(7, INDEX, data=memoryview(value)[:size]),
        Entry(7, INDEX, data=memoryview(value)[ENTRY_HEAD_BYTES:-1]),
        Entry(7, INDEX, data=memoryview(bytearray(value))[ENTRY_HEAD_BYTES:]),
    ):
        found = decode_entry(GROUP, entry.index, bytes(encode_entry(GROUP, entry)))
        assert found == entry


def test_lent_memory_is_checked_alike_without_the_function_in_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert checksums._extend_in_c is not None, "the library here lets it be found"  # pyright: ignore[reportPrivateUsage]
    data = bytes(range(256)) * 300
    payload, checksum = join_payload(GROUP, (7, INDEX), [data])
    assert checksum == entry_checksum(GROUP, Entry(7, INDEX, data=data))
    assert arrived_entry(GROUP, (7, INDEX), EntryType.NORMAL, payload, checksum) is not None
    monkeypatch.setattr(checksums, "_extend_in_c", None)
    assert arrived_entry(GROUP, (7, INDEX), EntryType.NORMAL, payload, checksum) is not None
    assert arrived_entry(GROUP, (7, INDEX), EntryType.NORMAL, payload, checksum ^ 1) is None


def test_an_entry_of_an_unknown_type_is_damage_whatever_its_size() -> None:
    for data in (b"small", bytes(1 << 20)):
        value = bytes(encode_entry(GROUP, Entry(7, INDEX, cast("EntryType", 9), data)))
        with pytest.raises(StoreCorruptError, match="unknown type 9"):
            decode_entry(GROUP, INDEX, value)


def test_the_payload_of_a_large_stored_entry_is_not_copied() -> None:
    value = bytes(encode_entry(GROUP, Entry(7, INDEX, data=bytes(1 << 20))))
    found = decode_entry(GROUP, INDEX, value)
    assert isinstance(found.data, memoryview)
    assert found.data.obj is value
    assert encode_entry(GROUP, found) is value
    # It is a value like any other: equal to, and counted once with, the same payload in bytes.
    same = replace(found, data=bytes(found.data))
    assert len({found, same}) == 1
    assert payload_bytes([found]) == payload_bytes([same])


@pytest.mark.parametrize("in_c", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=90), start=st.integers(0, 2**32 - 1), at=st.integers(0, 90))
def test_a_checksum_is_the_same_wherever_bytes_lie(
    data: bytes, start: int, at: int, monkeypatch: pytest.MonkeyPatch, *, in_c: bool
) -> None:
    if not in_c:
        monkeypatch.setattr(checksums, "_extend_in_c", None)
    expected = crc32c_extend(start, data[at:])
    for held in (data, bytearray(data)):
        assert crc32c_extend_payload(start, memoryview(held)[at:]) == expected
    assert crc32c_extend_payload(start, data[at:]) == expected
    assert crc32c_extend_payload(0, memoryview(data)) == crc32c(data)


def test_records_come_back_and_belong_to_their_key() -> None:
    state = StoredHardState(HardState(5, 6, 7), REPLICA)
    assert decode_hard_state(GROUP, encode_hard_state(GROUP, state)) == state
    checkpoint = StoredCheckpoint(Checkpoint(9, 3, CONF, b"data"), 77, REPLICA)
    value = encode_checkpoint(GROUP, checkpoint)
    assert decode_checkpoint(GROUP, 9, value) == checkpoint
    birth = BirthRecord(GroupMeta(GROUP, replica_id(2, 3), GroupKind.METADATA), initial=True)
    assert decode_birth(GROUP, encode_birth(birth)) == birth
    assert decode_tombstone(GROUP, encode_tombstone(GROUP, 12)) == 12
    for wrong in (
        lambda: decode_hard_state(GROUP + 1, encode_hard_state(GROUP, state)),
        lambda: decode_checkpoint(GROUP, 10, value),
        lambda: decode_checkpoint(GROUP, 9, value[:-1]),
        lambda: decode_birth(GROUP, b""),
    ):
        with pytest.raises(StoreCorruptError):
            wrong()


def test_keys_sort_by_number_and_name_their_group() -> None:
    assert keys.entry(1, 255) < keys.entry(1, 256) < keys.entry(2, 0)
    assert keys.group_of(keys.position(9, 4)) == 9
    assert keys.number_of(keys.entry(9, 4)) == 4
    lo, hi = keys.group_range(keys.ENTRY, 9)
    assert lo <= keys.entry(9, 0) < keys.entry(9, 2**64 - 1) < hi <= keys.entry(10, 0)


def test_a_replica_id_tells_its_node() -> None:
    assert node_of(replica_id(1000, 77)) == 1000
    assert replica_id(1000, 77) != replica_id(1000, 78)
