"""What is measured. A work has a name that stays the same, and is chosen by it or by a pattern.

    produce-1k-p6-x16-batch   closed loop, record size, partitions, producers, interface
    latency-1000              open loop, single records a second, counted from when each was due
    read-1k-x8-batch          catch-up read of what was filled in, by so many readers at once
    tail-1000                 the same open loop, counted until a reader at the tail has the record
    unary-100-x64             a unary call for each record, by so many callers that wait
    kill, pause               SIGKILL or SIGSTOP of the leader: until a later record is acknowledged
    idle-1000                 partitions that nobody uses

The interface is `batch` (many records handed over in one call) or `record` (a call for each). A
system that has one of them only is measured with that, and is compared in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

SIZES = {"100": 100, "1k": 1 << 10, "16k": 16 << 10, "1m": 1 << 20}


class Kind(StrEnum):
    """How a work is measured."""

    PRODUCE = "produce"
    LATENCY = "latency"
    UNARY = "unary"
    READ = "read"
    TAIL = "tail"
    KILL = "kill"
    PAUSE = "pause"
    IDLE = "idle"


class Interface(StrEnum):
    """How records are handed over."""

    BATCH = "batch"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Work:
    """One line of the comparison."""

    name: str
    kind: Kind
    size_bytes: int = 100
    partitions: int = 1
    # Producers, callers, or readers.
    clients: int = 1
    interface: Interface = Interface.RECORD
    # Records a second of an open loop.
    rate: int = 0

    def rounds(self, system: str, rounds: int) -> int:
        """How often it is measured: gaps vary most, and rakit is to show twenty of its own."""
        if self.kind not in (Kind.KILL, Kind.PAUSE):
            return rounds
        if system == "rakit":
            return 4 * rounds if self.kind is Kind.KILL else rounds
        return -(-3 * rounds // 5)


def _produce(size: str, partitions: int, clients: int, interface: Interface) -> Work:
    name = f"produce-{size}-p{partitions}-x{clients}-{interface}"
    return Work(name, Kind.PRODUCE, SIZES[size], partitions, clients, interface)


def _read(size: str, readers: int, interface: Interface) -> Work:
    name = f"read-{size}-x{readers}-{interface}"
    return Work(name, Kind.READ, SIZES[size], 1, readers, interface)


WORKS = (
    *(
        _produce(size, partitions, clients, interface)
        for size in SIZES
        for partitions in (1, 6)
        for clients in (1, 16)
        for interface in Interface
    ),
    *(Work(f"latency-{rate}", Kind.LATENCY, rate=rate) for rate in (1000, 20_000)),
    *(_read(size, readers, each) for size in SIZES for readers in (1, 8) for each in Interface),
    Work("unary-100-x64", Kind.UNARY, clients=64),
    Work("tail-1000", Kind.TAIL, rate=1000),
    Work("kill", Kind.KILL, rate=100),
    Work("pause", Kind.PAUSE, rate=100),
    Work("idle-1000", Kind.IDLE, partitions=1000),
)
#: What a run measures that chooses nothing: what there are bars for, and one work of each kind.
DEFAULT = (
    "produce-100-p1-x1-batch",
    "produce-100-p1-x1-record",
    "produce-1k-p1-x1-batch",
    "produce-1k-p6-x1-batch",
    "produce-1k-p6-x16-batch",
    "produce-16k-p1-x1-batch",
    "produce-1m-p1-x1-batch",
    "latency-1000",
    "latency-20000",
    "unary-100-x64",
    "read-100-x1-record",
    "read-1k-x1-batch",
    "read-1k-x8-batch",
    "tail-1000",
    "kill",
    "pause",
    "idle-1000",
)


class UnknownNameError(ValueError):
    """A pattern that fits nothing."""


def chosen(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that fit any pattern, in their own order. Raises for a pattern that fits none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UnknownNameError(f"{pattern!r} fits none of {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, each) for each in patterns)]


def work(name: str) -> Work:
    """The work of a name."""
    return next(each for each in WORKS if each.name == name)


def twin(name: str) -> str | None:
    """The work that differs in the interface only."""
    mine = work(name)
    for interface in Interface:
        wanted = replace(mine, interface=interface)
        for each in WORKS:
            if each.interface is not mine.interface and replace(each, name=name) == wanted:
                return each.name
    return None
