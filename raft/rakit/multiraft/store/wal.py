"""The format of the write-ahead log, and where its undamaged part ends (S8).

The log is a row of files, each named by its first write. A file is a row of frames, one for each
write, little endian:

    header checksum   4  CRC32C of the rest of the header
    payload checksum  4  CRC32C
    payload length    4
    number            8  of the write
    previous          8  the number of the write before it
    payload              its operations: kind (1), family (4), length of the key (2) and of the
                         value (4), key, value

The header has a checksum of its own because a length that is wrong would else look like the end of
a file that was torn off. By their numbers an older frame does not pass for a newer one. They jump
where the end of a log was cut off; ``previous`` says what came before.

Only the end of the newest file can be torn: a file is whole and synced before the next one begins.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rakit.multiraft.checksum import crc32c, crc32c_extend
from rakit.raft import Payload

Operation = tuple[int, bytes, Payload]

#: The number of the family that is no segment.
DEFAULT: Final = 0

_CHECKSUM: Final = struct.Struct("<I")
_FIELDS: Final = struct.Struct("<IIQQ")
_OPERATION: Final = struct.Struct("<BIHI")
HEADER_BYTES: Final = _CHECKSUM.size + _FIELDS.size

#: A value of this size is written from where it is; smaller ones are put together first.
_LARGE_BYTES: Final = 8 << 10


class Flaw(enum.Enum):
    """How a log ends."""

    NONE = "whole"
    #: The file ends inside a write, as after any power cut: bytes are missing, none is wrong.
    TORN = "torn"
    #: There are bytes that no write has left: flipped, zeroed or foreign.
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Survey:
    """The undamaged part of a log."""

    #: The end of the last whole write before the first flaw.
    valid_length: int

    #: The length of the file.
    size: int

    flaw: Flaw


@dataclass(frozen=True, slots=True)
class Frame:
    """One write, as it was found."""

    number: int
    previous: int
    payload: bytes


def encode(
    number: int,
    previous: int,
    operations: Sequence[Operation],
    segments: Mapping[int, Sequence[Operation]],
) -> tuple[list[bytes], int]:
    """The frame of a write, in pieces, and its length. Large values are not copied."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    _encode(DEFAULT, operations, pieces, small)
    for segment, placed in segments.items():
        _encode(segment, placed, pieces, small)
    if small:
        pieces.append(b"".join(small))
    length, crc = 0, 0
    for piece in pieces:
        length += len(piece)
        crc = crc32c_extend(crc, piece)
    fields = _FIELDS.pack(crc, length, number, previous)
    # The first piece is small: a key at least lies before every large value.
    pieces[:1] = [b"".join((_CHECKSUM.pack(crc32c(fields)), fields, *pieces[:1]))]
    return pieces, HEADER_BYTES + length


def _encode(
    family: int, operations: Sequence[Operation], pieces: list[bytes], small: list[bytes]
) -> None:
    pack = _OPERATION.pack
    for kind, key, value in operations:
        small += (pack(kind, family, len(key), len(value)), key)
        if len(value) < _LARGE_BYTES:
            small.append(bytes(value))
        else:
            # No copy of what is bytes already: large entries lie apart, and a reference is here.
            pieces += (b"".join(small), bytes(value))
            small.clear()


def decode(payload: bytes) -> dict[int, list[tuple[int, bytes, bytes]]]:
    """The operations of a write, by family and in order."""
    found: dict[int, list[tuple[int, bytes, bytes]]] = {DEFAULT: []}
    at = 0
    while at < len(payload):
        kind, family, key_bytes, value_bytes = _OPERATION.unpack_from(payload, at)
        at += _OPERATION.size
        key = payload[at : at + key_bytes]
        at += key_bytes
        found.setdefault(family, []).append((kind, key, payload[at : at + value_bytes]))
        at += value_bytes
    assert at == len(payload), "the payload of a frame has its checksum and still does not add up"
    return found


class Walk:
    """Goes through the frames of a file, from the end of a write on, to its end or first flaw."""

    def __init__(
        self, path: Path, start: int = 0, after: int | None = None, covered: int = 0
    ) -> None:
        """``after``: the number of the write that ends at ``start``, if that is known.

        Writes up to ``covered`` are passed over: what they hold is not looked at.
        """
        self._path = path
        self._covered = covered
        #: The newest write so far.
        self.last = after
        size = path.stat().st_size
        assert start <= size, "a survey starts inside the file"
        #: What was found so far.
        self.survey = Survey(start, size, Flaw.NONE)

    def __iter__(self) -> Iterator[Frame]:
        """Yields what is whole; then ``survey`` says why it ended."""
        at, size = self.survey.valid_length, self.survey.size
        with self._path.open("rb") as file:
            file.seek(at)
            while at < size:
                found = self._next(file.read(HEADER_BYTES), size - at)
                if isinstance(found, Flaw):
                    self.survey = Survey(at, size, found)
                    return
                crc, length, number, previous = found
                is_covered = number <= self._covered
                payload = b"" if is_covered else file.read(length)
                if not is_covered and crc32c(payload) != crc:
                    self.survey = Survey(at, size, Flaw.DAMAGED)
                    return
                at += HEADER_BYTES + length
                self.survey = Survey(at, size, Flaw.NONE)
                self.last = number
                if is_covered:
                    file.seek(at)
                else:
                    yield Frame(number, previous, payload)

    def _next(self, header: bytes, left: int) -> tuple[int, int, int, int] | Flaw:
        """The fields of a header that can be the next one's; ``left`` is what the file has."""
        if len(header) < HEADER_BYTES:
            return Flaw.TORN if any(header) else Flaw.DAMAGED
        fields = header[_CHECKSUM.size :]
        (stored,) = _CHECKSUM.unpack_from(header)
        if stored != crc32c(fields):
            return Flaw.DAMAGED
        crc, length, number, previous = _FIELDS.unpack(fields)
        follows = previous == self.last
        if self.last is None:
            follows = self.survey.valid_length > 0 or self._path.stem == f"{number:020}"
        if not follows:
            return Flaw.DAMAGED
        return (crc, length, number, previous) if HEADER_BYTES + length <= left else Flaw.TORN


def survey(path: Path, start: int = 0, after: int | None = None) -> Survey:
    """Walk a log from ``start``, the end of a write, up to its end or the first flaw."""
    walk = Walk(path, start, after)
    for _ in walk:
        pass
    return walk.survey
