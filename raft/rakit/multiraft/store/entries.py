"""Reads of log entries, wherever they lie: one key space over all segments and the default family.

What a lookup sees of a family is the run that the rows say: not what lies there of runs that are
gone, nor before or behind the run. Each chunk of a scan asks the rows anew, since a run may have
been moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from rakit.multiraft import keys
from rakit.multiraft.store.engine import Pair
from rakit.multiraft.store.reading import FIRST_CHUNK_BYTES, Reader
from rakit.multiraft.store.runs import INDEX_END, entry_at, key_at, place_of
from rakit.multiraft.store.segments import Segments

_ENTRIES_END = keys.prefix_range(keys.ENTRY)[1]
_RUNS_END = keys.prefix_range(keys.RUN)[1]


class Entries:
    """``KeyValue`` for keys of entries."""

    def __init__(self, reader: Reader, segments: Segments, chunk_bytes: int) -> None:
        self._reader = reader
        self._segments = segments
        self._chunk_bytes = chunk_bytes

    def get(self, key: bytes) -> bytes | None:
        """See ``KeyValue.get``."""
        segment, _ = self._segments.extent(*place_of(key))
        return self._reader.get(key, segment)

    def scan(self, lo: bytes, hi: bytes) -> Iterator[Pair]:
        """See ``KeyValue.scan``."""
        group_id, index = place_of(lo)
        end = place_of(hi)
        while (group_id, index) < end:
            end_index = end[1] if end[0] == group_id else INDEX_END
            yield from self._scan_group(group_id, index, end_index)
            if end <= (group_id + 1, 0):
                return
            following = self._next_group(group_id + 1)
            if following is None:
                return
            group_id, index = following, 0

    def _scan_group(self, group_id: int, index: int, end: int) -> Iterator[Pair]:
        size = min(FIRST_CHUNK_BYTES, self._chunk_bytes)
        while index < end:
            segment, run_end = self._segments.extent(group_id, index)
            lo, hi = entry_at(group_id, index), entry_at(group_id, min(end, run_end))
            pairs = self._reader.chunk(lo, hi, size, segment)
            if not pairs:
                index = run_end
                continue
            yield from pairs
            index = place_of(pairs[-1][0])[1] + 1
            size = min(4 * size, self._chunk_bytes)

    def _next_group(self, group_id: int) -> int | None:
        """The first group from this one on that may have entries."""
        if group_id >= INDEX_END:
            return None
        found = [
            *self._reader.chunk(key_at(group_id, 0), _RUNS_END, 1),
            *self._reader.chunk(entry_at(group_id, 0), _ENTRIES_END, 1),
        ]
        return min((keys.group_of(key) for key, _ in found), default=None)

    def last_below(self, lo: bytes, hi: bytes) -> Pair | None:
        """See ``KeyValue.last_below``, within one group."""
        (group_id, start), (end_group, end) = place_of(lo), place_of(hi)
        if end_group == group_id + 1 and end == 0:
            end_group, end = group_id, INDEX_END
        assert end_group == group_id, "the last entry is looked for within one group"
        while start < end:
            first, segment = self._segments.run_before(group_id, end)
            bounds = entry_at(group_id, max(start, first)), entry_at(group_id, end)
            if found := self._reader.last_below(*bounds, segment):
                return found
            end = first
        return None
