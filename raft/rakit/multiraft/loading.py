"""Opening the groups of a store, and telling which of them cannot be trusted.

A group is opened from its birth record, its vote record, its latest checkpoint and the entries
after it. It is quarantined, with a reason that a person can read, when what is stored contradicts
itself:

- its birth record is missing, so that an empty log would be no proof of a young replica (S10);
- its vote record is missing or older than the last entry's term: HardState was lost, and adopting
  a term with an empty vote would allow a second vote in it (S5);
- entries are missing, have a gap, fail their checksum, or end before the commit index (row 12);
- its first or its latest checkpoint is unreadable, or a first member has none.

A quarantined group stays as it is on disk, for a person or for the registry to decide (S9). The
other groups of the store go on. That holds for the census too: RocksDB does not seek past a block
that it cannot read, but what such a block hides among one kind of row shows itself among the
others. What they all hide is looked up before a replica of it is made.

What a start costs is the reading of the logs behind their latest checkpoints, once; it is done in
steps, so that the node answers meanwhile.

Left out: reading what lies before the latest checkpoint. It is read when somebody needs it, and
checked then; here only its two ends are looked at.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

from rakit.multiraft import keys
from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.errors import MachineFailedError, StoreCorruptError
from rakit.multiraft.kv import KeyValue
from rakit.multiraft.log_storage import INDEX_END, GroupLog, stored_rows
from rakit.multiraft.machine import ID_MAX, GroupMeta, MachineFactory, StateMachine
from rakit.multiraft.read_ahead import ReadAhead
from rakit.multiraft.records import (
    BirthRecord,
    StoredCheckpoint,
    decode_birth,
    decode_checkpoint,
    decode_hard_state,
    decode_tombstone,
)
from rakit.multiraft.stored_entries import decode_entry
from rakit.multiraft.tail_cache import TailCache
from rakit.raft import Entry, HardState

#: What is read of a log between two steps: a few milliseconds' worth.
_STEP_BYTES = 1 << 20
_STEP_ENTRIES = 256
#: Groups that are found between two steps, and rows of one group before the next one is sought.
_STEP_GROUPS = 64
_SAME_GROUP_ROWS = 8
#: Or one row of this size: further ones would be read for nothing.
_LARGE_ROW_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class LoadedGroup:
    """A group as its store has it, ready to be driven."""

    meta: GroupMeta
    machine: StateMachine
    log: GroupLog


@dataclass(frozen=True, slots=True)
class Census:
    """Which groups a store knows."""

    #: Every group of which there is a row, ascending.
    group_ids: list[int]
    #: Group id to the highest replica id that is dead; `ID_MAX` where that cannot be read.
    tombstones: dict[int, int]
    #: Groups that may have a checkpoint in parts, or parts that a crash has left.
    in_parts: set[int]
    #: Whether nothing can be there beside these.
    whole: bool


def take_census(disk: KeyValue) -> Generator[None, None, Census]:
    """Lists the groups of a store by walking from one to the next, in steps."""
    group_ids: set[int] = set()
    whole = True
    for prefix in (keys.BIRTH, keys.ENTRY, keys.HARD_STATE, keys.CHECKPOINT):
        found, all_seen = yield from _groups(disk, prefix)
        group_ids |= found
        whole = whole and all_seen
    # A group never has these alone. Where they cannot be listed, any group may have some.
    in_parts, all_seen = yield from _groups(disk, keys.BASE_PART)
    in_parts = in_parts if all_seen else group_ids
    tombstones, all_seen = yield from _tombstones(disk)
    return Census(sorted(group_ids), tombstones, in_parts, whole and all_seen)


def _groups(disk: KeyValue, prefix: int) -> Generator[None, None, tuple[set[int], bool]]:
    """Returns the groups that have a key with this prefix, and whether these are all.

    A walk reads many rows at once, and a group may have one or millions: after a few of one group
    the walk begins anew behind it, also where they cannot be read.
    """
    found: set[int] = set()
    lo, hi = keys.prefix_range(prefix)
    while True:
        group_id = rows = 0
        try:
            for key, value in disk.scan(lo, hi):
                if keys.group_of(key) != group_id:
                    group_id, rows = keys.group_of(key), 0
                    found.add(group_id)
                    if not len(found) % _STEP_GROUPS:
                        yield
                rows += 1
                if rows == _SAME_GROUP_ROWS or len(value) >= _LARGE_ROW_BYTES:
                    break
            else:
                return found, True
        except StoreCorruptError:
            if not group_id:
                return found, False
        lo = keys.group_range(prefix, group_id)[1]
        yield


def _tombstones(disk: KeyValue) -> Generator[None, None, tuple[dict[int, int], bool]]:
    """Returns who is dead in which group, and whether that is all."""
    found: dict[int, int] = {}
    try:
        for key, value in disk.scan(*keys.prefix_range(keys.TOMBSTONE)):
            group_id = keys.group_of(key)
            found[group_id] = _dead_up_to(group_id, value)
            yield
    except StoreCorruptError:
        return found, False
    return found, True


def _dead_up_to(group_id: int, value: bytes) -> int:
    try:
        return decode_tombstone(group_id, value)
    except StoreCorruptError:
        return ID_MAX


def look_up(disk: KeyValue, group_id: int) -> tuple[bool, int]:
    """Tells of a group that the census does not list whether it is here, and who is dead.

    Raises `StoreCorruptError` if that cannot be told.
    """
    dead = _row(disk, keys.tombstone(group_id))
    is_here = _row(disk, keys.birth(group_id)) is not None
    return is_here, 0 if dead is None else _dead_up_to(group_id, dead)


def _row(disk: KeyValue, key: bytes) -> bytes | None:
    """Reads a row that is probably not there: a plain read would go on into the next block."""
    with suppress(StoreCorruptError):
        found = disk.last_below(key, key + b"\0")
        return None if found is None else found[1]
    return disk.get(key)


def owner_of(disk: KeyValue, group_id: int) -> int:
    """Returns the replica that a damaged group's rows belong to; 0 if none of them says."""
    with suppress(StoreCorruptError):
        if (value := disk.get(keys.birth(group_id))) is not None:
            return decode_birth(group_id, value).meta.replica_id
    with suppress(StoreCorruptError):
        if (value := disk.get(keys.hard_state(group_id))) is not None:
            return decode_hard_state(group_id, value).replica_id
    with suppress(StoreCorruptError):
        if found := disk.last_below(*keys.group_range(keys.CHECKPOINT, group_id)):
            return decode_checkpoint(group_id, keys.number_of(found[0]), found[1]).replica_id
    return 0


def load_birth(disk: KeyValue, group_id: int) -> BirthRecord:
    """Reads who the replica is; raises `StoreCorruptError` if that cannot be told."""
    value = disk.get(keys.birth(group_id))
    if value is None:
        raise StoreCorruptError(f"the birth record of group {group_id} is missing (S10)")
    birth = decode_birth(group_id, value)
    if birth.meta.group_id != group_id:
        raise StoreCorruptError(f"group {group_id} has the birth record of another group")
    return birth


def load_group(
    disk: KeyValue,
    birth: BirthRecord,
    memory: tuple[TailCache, ReadAhead],
    factory: MachineFactory,
) -> Generator[None, None, LoadedGroup]:
    """Opens one group, in steps; raises `StoreCorruptError` if it must be quarantined."""
    log = GroupLog(birth.meta.group_id, birth.meta.replica_id, disk, *memory)
    try:
        latest = yield from _load_log(disk, birth, log)
        machine = _restore(factory, birth.meta, log, latest)
        log.loaded_checkpoints({machine.trim_index(), *machine.trim_targets()})
    except Exception:
        log.close()
        raise
    return LoadedGroup(birth.meta, machine, log)


def _load_log(
    disk: KeyValue, birth: BirthRecord, log: GroupLog
) -> Generator[None, None, Checkpoint | None]:
    group_id = birth.meta.group_id
    base, latest = _load_checkpoints(disk, group_id)
    if latest is None and birth.initial:
        raise StoreCorruptError(f"group {group_id} has lost the checkpoint it was born with")
    value = disk.get(keys.hard_state(group_id))
    state = HardState()
    if value is not None:
        stored = decode_hard_state(group_id, value)
        state = stored.state
        if stored.replica_id not in {0, log.replica_id}:
            raise StoreCorruptError(
                f"the vote record of group {group_id} is that of replica {stored.replica_id}"
            )
    log.loaded(state, base, latest)
    yield from _load_entries(disk, log)
    last = log.last_index()
    if log.last_term > state.term:
        raise StoreCorruptError(
            f"the last entry of group {group_id} has term {log.last_term}, the vote record"
            f" {state.term}: the vote record was lost (S5)"
        )
    if state.commit > last:
        raise StoreCorruptError(
            f"group {group_id} had committed {state.commit}, its log ends at {last}"
        )
    if log.latest.index > state.commit:
        raise StoreCorruptError(
            f"group {group_id} has a checkpoint as of {log.latest.index} beyond its commit index"
            f" {state.commit}: the vote record was lost (S5)"
        )
    _look_at_the_ends(log)
    return None if latest is None else latest.checkpoint


def _load_entries(disk: KeyValue, log: GroupLog) -> Iterator[None]:
    group_id = log.group_id
    chunk: list[Entry] = []
    size = 0
    for index, row in stored_rows(disk, group_id, log.last_index() + 1, INDEX_END):
        chunk.append(decode_entry(group_id, index, row))
        size += len(row)
        if size >= _STEP_BYTES or len(chunk) >= _STEP_ENTRIES:
            log.loaded_entries(chunk)
            chunk, size = [], 0
            yield
    if chunk:
        log.loaded_entries(chunk)


def _load_checkpoints(
    disk: KeyValue, group_id: int
) -> tuple[StoredCheckpoint | None, StoredCheckpoint | None]:
    """Reads the first checkpoint and the latest one; those between are read when they are due."""
    bounds = keys.group_range(keys.CHECKPOINT, group_id)
    first = next(iter(disk.scan(*bounds)), None)
    if first is None or (last := disk.last_below(*bounds)) is None:
        return None, None
    base, latest = (
        decode_checkpoint(group_id, keys.number_of(key), value) for key, value in (first, last)
    )
    return base, latest


def _look_at_the_ends(log: GroupLog) -> None:
    """Checks that what lies between base and latest checkpoint begins and ends as it must."""
    if log.base.index == log.latest.index:
        return
    log.entries(log.base.index + 1, log.base.index + 2, 1)
    last = log.entries(log.latest.index, log.latest.index + 1, 1)[0]
    if last.term != log.latest.term:
        raise StoreCorruptError(
            f"entry {last.index} of group {log.group_id} has term {last.term}, its checkpoint"
            f" {log.latest.term}"
        )


def _restore(
    factory: MachineFactory, meta: GroupMeta, log: GroupLog, latest: Checkpoint | None
) -> StateMachine:
    machine = factory(meta)
    data = latest.data if latest is not None else b""
    if latest is not None and latest.parts:
        data = log.state(latest.index, latest.parts)
    try:
        machine.restore(data, 0 if latest is None else latest.index)
    except Exception as error:
        raise MachineFailedError(f"restoring group {meta.group_id}: {error!r}") from error
    return machine
