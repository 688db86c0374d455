"""The journal: one tiny row in every write batch, so that a hole cannot hide (S7).

Write number n puts a row under n. As a batch is atomic, a recovered row proves that its whole
batch was recovered, and rows without a gap from the low mark to the newest prove that no batch
between was lost. That matters because RocksDB can open after a hole in the middle: a zeroed
stretch in a WAL is skipped without a word, and an older WAL that was halved is taken for one that
ended there.

Rows whose batches are out of every live WAL prove nothing any more and are deleted by range. To
know which, the journal notes now and then which WAL was newest (a mark); once that WAL is gone
from the directory, everything up to the mark is in table files. The low mark is a row itself,
moved in the same batch that deletes, so that a deleted row is not taken for a lost one.

    06 00             the low mark: the first number that must be there
    06 01 number      the row of a write (empty value)
    06 02             the store's uuid, which ties the database to the identity file beside it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rakit.multiraft.keys import JOURNAL
from rakit.multiraft.kv import Op
from rakit.multiraft.store.engine import Engine, Operation

LOW_MARK = bytes((JOURNAL, 0))
STORE_UUID = bytes((JOURNAL, 2))
FIRST_NUMBER = 1

_ROWS = bytes((JOURNAL, 1))
_ROWS_END = bytes((JOURNAL, 2))
_SCAN_BYTES = 1 << 20


def row(number: int) -> bytes:
    """The key of a write's row."""
    return _ROWS + number.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the journal of an opened database says."""

    #: The first number that must be there.
    low: int

    #: The newest number that is there.
    last: int

    #: The first number between that is not there.
    hole: int | None


def recover(engine: Engine) -> Recovered:
    """Read the rows back. ``last`` is ``low - 1`` when there are none."""
    mark = engine.get(LOW_MARK)
    low = FIRST_NUMBER if mark is None else int.from_bytes(mark, "big")
    expected = low
    start = row(low)
    hole: int | None = None
    last = low - 1
    while rows := engine.chunk(start, _ROWS_END, _SCAN_BYTES):
        for key, _ in rows:
            last = int.from_bytes(key[len(_ROWS) :], "big")
            if last != expected and hole is None:
                hole = expected
            expected = last + 1
        start = row(last + 1)
    return Recovered(low, last, hole)


class Journal:
    """Decides what joins each batch: its row, and now and then the removal of old rows."""

    def __init__(self, low: int, mark_bytes: int) -> None:
        self._low = low
        self._mark_bytes = mark_bytes
        self._unmarked_bytes = 0
        self._marks: deque[tuple[int, int]] = deque()  # bounded: one per mark_bytes of live WAL
        self._removal: list[Operation] = []

    def operations(self, number: int) -> list[Operation]:
        """What the batch with this number carries beside its own operations.

        The same again when the batch has to be written again after a stall.
        """
        return [(Op.PUT, row(number), b""), *self._removal]

    def written(self, number: int, size_bytes: int, live_wals: Callable[[], list[int]]) -> None:
        """Count a batch that was written, and look at the live WALs when it is time."""
        self._removal = []
        self._unmarked_bytes += size_bytes
        if self._unmarked_bytes < self._mark_bytes:
            return
        self._unmarked_bytes = 0
        wals = live_wals()
        assert wals, "a write went somewhere: a database that is open has a WAL"
        covered = 0
        while self._marks and self._marks[0][1] < wals[0]:
            covered = self._marks.popleft()[0]
        self._marks.append((number, wals[-1]))
        if covered:
            self.keep_from(covered + 1)

    def keep_from(self, low: int) -> None:
        """Let the next batch make ``low`` the first number that must be there."""
        assert low >= self._low, "the low mark never goes back: the rows below are deleted"
        self._removal = [
            (Op.DELETE_RANGE, row(self._low), row(low)),
            (Op.PUT, LOW_MARK, low.to_bytes(8, "big")),
        ]
        self._low = low
