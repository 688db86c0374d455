"""Messages in a stream of bytes: the length of each, four bytes with the lowest first, then itself.

`Frames` owns the memory that a socket is read into. What is small is gathered in one buffer and
copied out of it; a message that does not fit there gets memory of its own, into which the socket is
read directly and which is handed over as it is, so that a megabyte is not moved once more. It is
lent (`pages`), and used again when nobody looks at the message any more: to clear a fresh megabyte
takes as long as to copy one. Where its first bytes say that all the rest is the payload of one
entry, it is placed so that the entry can be stored from there (`stored_entries`).

Rules:

- A length above the limit is refused before anything is set aside for it.
- The limit starts at that of a hello: until its peer was judged, a stream may not ask for more. It
  may rise behind the next message only, which is cut off before anybody can have looked at it.

Left out: sockets (`framed`), and what else is in the messages (`codec`). A length that was damaged
on the way is found by what it makes of the messages: entries carry a checksum of their own.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from rakit.multiraft import bulk, pages
from rakit.multiraft.stored_entries import ENTRY_HEAD_BYTES, PAGED_BYTES_MIN

Frame: TypeAlias = bytes | memoryview

#: Gathers small messages; one that is longer, head included, is read into memory of its own.
BUFFER_BYTES: Final = 64 << 10
#: A stream whose peer has not been judged yet carries no longer message.
HELLO_BYTES_MAX: Final = 4 << 10

_LENGTH: Final = struct.Struct("<I")
HEAD_BYTES: Final = _LENGTH.size


class FrameTooLongError(Exception):
    """A peer announced a message longer than any that it may send; perhaps it is no peer."""


def head(size_bytes: int) -> bytes:
    """Returns what stands before a message of this size."""
    return _LENGTH.pack(size_bytes)


class Frames:
    """The receiving half of one stream: `buffer` is filled by a socket, `filled` cuts it up."""

    def __init__(self) -> None:
        #: The longest message, and the longest from behind the next one on.
        self._message_bytes_max = self._next_bytes_max = HELLO_BYTES_MAX
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled_bytes = 0
        #: The message that gets memory of its own, and how much of it there is.
        self._large: memoryview | None = None
        self._large_bytes = 0

    def allow(self, message_bytes_max: int, *, behind_next: bool = False) -> None:
        """Takes longer messages, at once or only from behind the next one on."""
        self._next_bytes_max = message_bytes_max
        if not behind_next:
            self._message_bytes_max = message_bytes_max

    def buffer(self) -> memoryview:
        """Returns where the next bytes go; it is never empty."""
        if self._large is not None:
            return self._large[self._large_bytes :]
        return self._view[self._filled_bytes :]

    def filled(self, count: int) -> list[Frame]:
        """Takes in that so many bytes were put into `buffer`; returns the messages they complete.

        Raises `FrameTooLongError`; nothing may be read after that.
        """
        if self._large is None:
            self._filled_bytes += count
            return self._cut()
        self._large_bytes += count
        if self._large_bytes < len(self._large):
            return []
        message, self._large = self._large, None
        return [message.toreadonly()]

    def drop(self) -> None:
        """Lets go of a message that will never be whole; nothing is read after that."""
        self._large = None

    def _cut(self) -> list[Frame]:
        messages: list[Frame] = []
        at, end = 0, self._filled_bytes
        while end - at >= HEAD_BYTES:
            (size,) = _LENGTH.unpack_from(self._buffer, at)
            if size > self._message_bytes_max:
                raise FrameTooLongError(
                    f"a message of {size} bytes was announced,"
                    f" {self._message_bytes_max} are allowed"
                )
            start = at + HEAD_BYTES
            if end - start >= size:
                at = start + size
                messages.append(bytes(self._view[start:at]))
                self._message_bytes_max = self._next_bytes_max
                continue
            if HEAD_BYTES + size > BUFFER_BYTES:
                beginning = self._view[start:end]
                self._large, self._large_bytes = _memory_for(beginning, size), end - start
                self._large[: end - start] = beginning
                at = end
            break
        self._filled_bytes = end - at
        if at and self._filled_bytes:
            self._buffer[: self._filled_bytes] = self._buffer[at:end]
        return messages


def _memory_for(beginning: memoryview, size_bytes: int) -> memoryview:
    """Memory for a message that begins so: for what stays, if it is in place for being stored."""
    at = bulk.payload_at(beginning, size_bytes)
    before, payload_bytes = at - ENTRY_HEAD_BYTES, size_bytes - at
    # What stands before it stays with it.
    if before < 0 or payload_bytes < PAGED_BYTES_MIN or before > payload_bytes // 8:
        return pages.lend(size_bytes, briefly=True)
    return pages.lend(size_bytes, page_at=before)
