"""Entries whose large values never became durable: cut off when a store is opened (S7, S13).

RocksDB may bring a write into tables before the log has it. All of it is there then, but for large
values (``apart``): their files may end before them when the process or the machine ends at that
moment. Nobody was told that such a write is durable, nothing rests on it, and an entry that is
missing at the end of a log is what a crash leaves anyway. But the log must end before it.

Rules:

- Only where tables are ahead of the log, and only what was written behind its end, can be missing
  so; the journal's rows of those writes say which entries have large values. Any other value that
  is not there is damage, which costs its group (S9).
- Whether a value is there is told by its entry's checksum: a file may have grown, and hold zeros.
- What is cut off is the end of a group's log, from the first missing value on. Its commit index
  goes back with it: nothing was applied that was not durable (S13), so no checkpoint lies behind.
- It reaches the disk with the first write, so that the next start finds it done or not begun.
- A row that cannot be read here is left as it is, for loading the group to say (S9).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from rakit.multiraft import keys
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.kv import Op
from rakit.multiraft.records import decode_hard_state, encode_hard_state
from rakit.multiraft.store import journal
from rakit.multiraft.store.engine import Engine, EngineError, Operation
from rakit.multiraft.store.runs import INDEX_END, entry_at
from rakit.multiraft.store.segments import Segments
from rakit.multiraft.stored_entries import decode_entry

logger = logging.getLogger(__name__)


def operations(engine: Engine, segments: Segments, log_end: int) -> list[Operation]:
    """What cuts off the entries of writes behind ``log_end`` of which values are missing.

    Raises ``EngineError`` when the journal cannot be read, as opening does anyway.
    """
    first_missing: dict[int, int] = {}
    for group_id, index in journal.places_behind(engine, log_end):
        first = first_missing.get(group_id, INDEX_END)
        if index < first and _is_missing(engine, segments, log_end, group_id, index):
            first_missing[group_id] = index
    cut: list[Operation] = []
    for group_id, first in first_missing.items():
        logger.warning("entries of group %d from %d on never became durable", group_id, first)
        bounds = entry_at(group_id, first), entry_at(group_id, INDEX_END)
        cut.append((Op.DELETE_RANGE, *bounds))
        cut += _commit_back(engine, group_id, first - 1)
    return cut


def _is_missing(
    engine: Engine, segments: Segments, log_end: int, group_id: int, index: int
) -> bool:
    """Whether the entry that a write behind ``log_end`` put there is there without its value."""
    key = entry_at(group_id, index)
    try:
        segment, _ = segments.extent(group_id, index)
        found = engine.reference(key, segment)
        if found is None or found.number <= log_end:
            return False  # another write has replaced or deleted it
    except (EngineError, StoreCorruptError) as error:
        logger.error("entry %d of group %d is left: %s", index, group_id, error)  # noqa: TRY400
        return False
    # From here on it may go, whatever is wrong with it: nobody was told of it.
    try:
        value = engine.get(key, segment)
        assert value is not None, "a row that was seen is there"
        decode_entry(group_id, index, value)
    except (EngineError, StoreCorruptError) as error:
        logger.warning("entry %d of group %d: %s", index, group_id, error)
        return True
    return False


def _commit_back(engine: Engine, group_id: int, last: int) -> list[Operation]:
    """Have the group's commit index lie within its log."""
    key = keys.hard_state(group_id)
    try:
        value = engine.get(key)
        if value is None:
            return []
        stored = decode_hard_state(group_id, value)
    except (EngineError, StoreCorruptError) as error:
        logger.error("the vote record of group %d is left: %s", group_id, error)  # noqa: TRY400
        return []
    if stored.state.commit <= last:
        return []
    state = replace(stored.state, commit=last)
    return [(Op.PUT, key, encode_hard_state(group_id, replace(stored, state=state)))]
