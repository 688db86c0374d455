"""The journal: one tiny row in every write, so that a hole cannot hide (S7).

Write number n puts a row under n. As a write is atomic, a recovered row proves that all of its
write was recovered, and rows without a gap from the low mark to the newest prove that no write
between was lost: neither by RocksDB, which makes tables of all families at once, nor by the log
that was replayed behind them.

Rows are the last of all keys, so the last key of each table of the default family says up to which
write there are tables, which the log need not hold any more. Rows of such writes prove nothing any
more and are deleted by range. The low mark is a row itself, moved in the same batch
that deletes, so that a deleted row is not taken for a lost one.

    06 00             the low mark: the first number that must be there
    06 01 number      the row of a write, by earlier versions
    06 02             the store's uuid, which ties the database to the identity file beside it
    FF number         the row of a write: of each entry in it whose value lies apart (``apart``),
                      group and index, 8 bytes each
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rakit.multiraft import keys
from rakit.multiraft.kv import Op
from rakit.multiraft.store.engine import Engine, Operation

LOW_MARK = bytes((keys.JOURNAL, 0))
STORE_UUID = bytes((keys.JOURNAL, 2))
FIRST_NUMBER = 1

_EARLIER_ROWS = bytes((keys.JOURNAL, 1))
_EARLIER_ROWS_END = bytes((keys.JOURNAL, 2))
_SCAN_BYTES = 1 << 20
_PLACE: Final = struct.Struct(">QQ")

#: Group and index of an entry.
Place = tuple[int, int]


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
    last = low - 1
    hole: int | None = None
    for start, end in ((_EARLIER_ROWS, _EARLIER_ROWS_END), keys.JOURNAL_ROWS):
        at = start + low.to_bytes(8, "big")
        while rows := engine.chunk(at, end, _SCAN_BYTES):
            for key, _ in rows:
                number = int.from_bytes(key[len(start) :], "big")
                if number != last + 1 and hole is None:
                    hole = last + 1
                last = number
            at = start + (last + 1).to_bytes(8, "big")
    return Recovered(low, last, hole)


def places_behind(engine: Engine, number: int) -> Iterator[Place]:
    """The entries whose values lie apart, of writes behind this one that the journal has."""
    at, end = keys.journal_row(number + 1), keys.JOURNAL_ROWS[1]
    while rows := engine.chunk(at, end, _SCAN_BYTES):
        for _, value in rows:
            yield from _PLACE.iter_unpack(value)
        at = rows[-1][0] + b"\0"


class Journal:
    """Decides what joins each write: its row, and now and then the removal of old rows."""

    def __init__(self, low: int) -> None:
        self._low = low
        self._removal: list[Operation] = []

    def operations(self, number: int, apart: Sequence[Place] = ()) -> list[Operation]:
        """What the write with this number carries beside its own operations.

        The same again when it has to be made again after a stall. ``apart``: its entries whose
        values lie apart.
        """
        places = b"".join([_PLACE.pack(*place) for place in apart])
        return [(Op.PUT, keys.journal_row(number), places), *self._removal]

    def written(self, covered: int) -> None:
        """A write was made; up to ``covered`` there are tables, and a log that was synced.

        Old rows may go with the next one.

        One row stays that is in a table, since the last key of a table is to tell.
        """
        self._removal = []
        if covered > self._low:
            self.keep_from(covered)

    def keep_from(self, low: int) -> None:
        """Let the next write make ``low`` the first number that must be there."""
        assert low >= self._low, "the low mark never goes back: the rows below are deleted"
        self._removal = [
            (Op.DELETE_RANGE, keys.journal_row(self._low), keys.journal_row(low)),
            (Op.PUT, LOW_MARK, low.to_bytes(8, "big")),
        ]
        self._low = low

    def keep_none_of_earlier_versions(self) -> None:
        """Let the next write delete their rows."""
        self._removal.append((Op.DELETE_RANGE, _EARLIER_ROWS, _EARLIER_ROWS_END))
