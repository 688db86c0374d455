"""A group's states as of one index each, from which its log continues (safety S1).

Stored are the first one, where the log begins, the latest one, where a restart begins, and of those
between only the ones at which the machine may still have the log cut. The others would be of no use
to anybody: they go in the write that stores the next one. A start therefore reads two, however long
the log is, and takes the machine's word for those between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rakit.raft import ConfState


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that holds as of the entry at `index` and nothing newer."""

    index: int
    term: int
    conf_state: ConfState
    data: bytes
    #: CRC32C of each part of a state that lies in rows of its own; `data` is empty then.
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckpointMark:
    """What is kept in memory of the first and of the latest checkpoint."""

    index: int
    term: int
    #: Stored entry bytes up to it, counted from this replica's base.
    log_bytes: int


_ORIGIN = CheckpointMark(0, 0, 0)


class Checkpoints:
    """Which checkpoints of one group are stored.

    Invariant: `_indexes` ascend from `base.index` to `latest.index`; it is empty only while nothing
    is stored.
    """

    __slots__ = ("_indexes", "base", "latest")

    def __init__(self) -> None:
        #: Where the log begins.
        self.base = _ORIGIN
        #: Where a restart would begin.
        self.latest = _ORIGIN
        self._indexes: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._indexes)

    @property
    def indexes(self) -> Sequence[int]:
        """All of them, ascending."""
        return self._indexes

    def at_or_below(self, index: int) -> int:
        """Returns the index of the latest checkpoint up to `index`; 0 if there is none."""
        return max((each for each in self._indexes if each <= index), default=0)

    def reset(self, base: CheckpointMark) -> None:
        """Notes that the log was replaced by a base."""
        self.base = self.latest = base
        self._indexes = [base.index]

    def add(self, mark: CheckpointMark, wanted: Collection[int]) -> list[int]:
        """Notes the next checkpoint; returns those that are of no use beside it."""
        if not self._indexes:
            self.reset(mark)
            return []
        assert mark.index > self.latest.index, "a checkpoint went backwards"
        gone = [each for each in self._indexes[1:] if each not in wanted]
        kept = [each for each in self._indexes[1:] if each in wanted]
        self._indexes = [self.base.index, *kept, mark.index]
        self.latest = mark
        return gone

    def cut(self, base: CheckpointMark) -> None:
        """Notes that the log begins at a later checkpoint."""
        assert base.index in self._indexes, "a log was to be trimmed to where no checkpoint is"
        self.base = base
        self._indexes = [each for each in self._indexes if each >= base.index]

    def loaded(self, base: CheckpointMark, latest: CheckpointMark) -> None:
        """Takes over the two ends that were found on disk."""
        self.base, self.latest = base, latest
        self.loaded_between(())

    def loaded_between(self, wanted: Collection[int]) -> None:
        """Takes over which ones lie between, by the word of the machine as of the latest one."""
        first, last = self.base.index, self.latest.index
        between = sorted(each for each in wanted if first < each < last)
        self._indexes = [first, *between, last] if first < last else [first]
