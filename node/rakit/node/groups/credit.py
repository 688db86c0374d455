"""How many bytes of records a client may be sent (contract 16).

Two kinds, chosen by the join. A *granted* credit is what the client gives: it falls with what is
sent and rises with each grant. A *window* is for clients that only commit: what was sent lies in it
until an offset beyond it is committed.

Rules:

- While any credit is left the next records may go out, also where they alone are more than that: a
  batch larger than the credit would never come otherwise. The credit is negative then, and nothing
  follows before it is positive again.
- A commit within what was sent gives back its part of the bytes.
- What a client lets go of, by a seek or because the partition was taken from it, is out of the
  window: nobody will commit it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError

WINDOW_BYTES: Final = 4 << 20
#: Granted and not used, of one stream.
OUTSTANDING_BYTES_MAX: Final = 64 << 20
#: Of one partition. Beyond it the last two become one, whose bytes come back a little less evenly.
DELIVERIES_COUNT_MAX: Final = 1024

Key: TypeAlias = tuple[str, int]


class Credit(Protocol):
    """What both kinds have."""

    @property
    def left_bytes(self) -> int:
        """What may be sent; nothing while it is not positive."""
        ...

    @property
    def is_untouched(self) -> bool:
        """Whether the client has let go of everything that it was sent."""
        ...

    def charge(self, key: Key, start: int, end: int, size_bytes: int, /) -> None:
        """Records of a partition, from an offset to another, were sent."""
        ...

    def committed(self, key: Key, offset: int, /) -> None:
        """The client has committed a partition up to this offset."""
        ...

    def forget(self, key: Key, /) -> None:
        """What was sent of a partition will not be committed."""
        ...

    def grant(self, size_bytes: int) -> None:
        """The client lets more be sent. Raises `RakitError`."""
        ...


@dataclass(slots=True)
class _Sent:
    start: int
    end: int
    size_bytes: int


class Window:
    """A fixed window that commits empty."""

    def __init__(self, size_bytes: int = WINDOW_BYTES) -> None:
        self._size_bytes = size_bytes
        self.left_bytes = size_bytes
        self._sent: dict[Key, deque[_Sent]] = {}

    @property
    def is_untouched(self) -> bool:
        """Whether everything that was sent is committed."""
        return not self._sent

    def charge(self, key: Key, start: int, end: int, size_bytes: int) -> None:
        """Puts records into the window."""
        self.left_bytes -= size_bytes
        sent = self._sent.setdefault(key, deque())
        if len(sent) >= DELIVERIES_COUNT_MAX:
            sent[-1].end = end
            sent[-1].size_bytes += size_bytes
        else:
            sent.append(_Sent(start, end, size_bytes))

    def committed(self, key: Key, offset: int) -> None:
        """Takes out what lies before the offset."""
        sent = self._sent.get(key)
        while sent and sent[0].end <= offset:
            self.left_bytes += sent.popleft().size_bytes
        if sent and sent[0].start < offset:
            first = sent[0]
            part = first.size_bytes * (offset - first.start) // (first.end - first.start)
            first.start = offset
            first.size_bytes -= part
            self.left_bytes += part
        if not sent:
            self._sent.pop(key, None)

    def forget(self, key: Key) -> None:
        """Takes out what was sent of a partition."""
        self.left_bytes += sum(each.size_bytes for each in self._sent.pop(key, ()))
        assert self.left_bytes <= self._size_bytes, "nothing comes back twice"

    def grant(self, size_bytes: int) -> None:
        """Refused: it is for streams that were joined with a credit."""
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"A grant of {size_bytes:,} bytes came on a stream whose join has no credit_bytes: its"
            " window is refilled by commits.",
        )


class Granted:
    """What the client gives."""

    def __init__(self, size_bytes: int) -> None:
        self._first_bytes = size_bytes
        self.left_bytes = 0
        self.grant(size_bytes)

    @property
    def is_untouched(self) -> bool:
        """Whether all that was sent has been granted again."""
        return self.left_bytes >= self._first_bytes

    def charge(self, _key: Key, _start: int, _end: int, size_bytes: int) -> None:
        """Takes what was sent from the credit."""
        self.left_bytes -= size_bytes

    def committed(self, _key: Key, _offset: int) -> None:
        """Changes nothing: the client grants."""

    def forget(self, _key: Key) -> None:
        """Changes nothing: the client grants."""

    def grant(self, size_bytes: int) -> None:
        """Adds to the credit. Raises INVALID_REQUEST, CREDIT_EXCEEDED."""
        if size_bytes <= 0:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"A credit of {size_bytes:,} bytes lets nothing be sent; it must be positive.",
            )
        if self.left_bytes + size_bytes > OUTSTANDING_BYTES_MAX:
            raise RakitError(
                error_pb2.ERROR_REASON_CREDIT_EXCEEDED,
                f"{self.left_bytes + size_bytes:,} bytes would be granted and not used; a stream"
                f" may have {OUTSTANDING_BYTES_MAX:,}.",
                {
                    "limit": str(OUTSTANDING_BYTES_MAX),
                    "actual": str(self.left_bytes + size_bytes),
                },
            )
        self.left_bytes += size_bytes


def credit_of(credit_bytes: int) -> Credit:
    """The credit that a join asks for. Raises INVALID_REQUEST, CREDIT_EXCEEDED."""
    return Granted(credit_bytes) if credit_bytes else Window()
