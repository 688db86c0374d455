"""CRC32C with types: the one place that touches the untyped library.

The library takes bytes only (no bytearray, no memoryview) and runs at memory speed. Who has what it
wants checked behind something else, and does not want to copy it, begins with the checksum that
leads over that to where it wants to be: a CRC can be run backwards, because of the 256 values that
a step adds no two have the same upper byte, so a result tells which one it was.

It has no rules of its own; who stores or sends a checksum says what it covers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import google_crc32c

_library: Final = cast("Any", google_crc32c)

#: Checksum of some bytes.
crc32c: Final = cast("Callable[[bytes], int]", _library.value)
#: Checksum of what `crc` was made of, followed by more bytes.
crc32c_extend: Final = cast("Callable[[int, bytes], int]", _library.extend)


#: The reflected polynomial of CRC32C (RFC 3720, appendix B.4).
_POLYNOMIAL: Final = 0x82F63B78
_ONES: Final = 0xFFFFFFFF


def _step(byte: int) -> int:
    """Returns what a step of the checksum adds for a byte."""
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_STEPS: Final = [_step(byte) for byte in range(256)]
_BYTE_OF: Final = {step >> 24: byte for byte, step in enumerate(_STEPS)}


def crc32c_before(crc: int, data: bytes) -> int:
    """Returns the checksum that, extended by `data`, gives `crc`. For a few bytes: it is slow."""
    state = crc ^ _ONES
    for byte in reversed(data):
        index = _BYTE_OF[state >> 24]
        state = (state ^ _STEPS[index]) << 8 | index ^ byte
    return state ^ _ONES
