"""Keys and values as the pure half of the host sees a disk.

`WriteBatch` is an ordered list of operations that reach the disk together or not at all. It is our
own type rather than the store library's, so that the driver, the simulator and the dump tools need
no library, and so that a write that a stall refused can be submitted again unchanged (safety S12:
the library consumes its own batch object).

`KeyValue` is the read side. Reads see every write that was handed to the disk, synced or not; what
is durable is told to the driver by number, never asked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, Protocol

from rakit.raft import Payload

#: What one operation costs beside its key and value, roughly, in the store's own batch format.
OPERATION_OVERHEAD_BYTES: Final = 16


class Op(IntEnum):
    """The kinds of operations in a batch."""

    PUT = 0
    DELETE = 1
    DELETE_RANGE = 2


class WriteBatch:
    """Operations in order; a later one wins over an earlier one on the same key."""

    __slots__ = ("ops", "size_bytes")

    def __init__(self) -> None:
        #: (PUT, key, value), (DELETE, key, b"") or (DELETE_RANGE, lo, hi), half-open.
        self.ops: list[tuple[int, bytes, Payload]] = []
        #: Keys, values and a share for each operation: what the cap of a batch is measured in.
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def put(self, key: bytes, value: Payload) -> None:
        """Sets the value of a key. A view is of what nobody changes any more."""
        self.ops.append((Op.PUT, key, value))
        self.size_bytes += len(key) + len(value) + OPERATION_OVERHEAD_BYTES

    def delete(self, key: bytes) -> None:
        """Removes a key, whether it is there or not."""
        self.ops.append((Op.DELETE, key, b""))
        self.size_bytes += len(key) + OPERATION_OVERHEAD_BYTES

    def delete_range(self, lo: bytes, hi: bytes) -> None:
        """Removes every key in [lo, hi)."""
        assert lo <= hi, "a range must not be upside down: the store would ignore it in silence"
        self.ops.append((Op.DELETE_RANGE, lo, hi))
        self.size_bytes += len(lo) + len(hi) + OPERATION_OVERHEAD_BYTES

    def extend(self, other: WriteBatch) -> None:
        """Appends every operation of another batch."""
        self.ops.extend(other.ops)
        self.size_bytes += other.size_bytes


class KeyValue(Protocol):
    """The read side of a disk."""

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key; raises `StoreCorruptError` when it cannot be read."""
        ...

    def scan(self, lo: bytes, hi: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yields keys in [lo, hi) upwards.

        Raises `StoreCorruptError` on damage. It never ends early in silence: a read error taken
        for the end of a log has corrupted other systems.
        """
        ...

    def last_below(self, lo: bytes, hi: bytes) -> tuple[bytes, bytes] | None:
        """Returns the greatest key in [lo, hi) with its value, or None."""
        ...
