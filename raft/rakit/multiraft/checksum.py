"""CRC32C with types: the one place that touches the untyped library.

The library takes bytes only (no bytearray, no memoryview) and runs at memory speed. For memory that
lies elsewhere (`pages`) there is the function in C that it calls itself. Who has what it wants
checked behind something else in bytes, and does not want
to copy it, begins with the checksum that leads over that to where it wants to be: a CRC can be run
backwards, because of the 256 values that a step adds no two have the same upper byte, so a result
tells which one it was.

It has no rules of its own; who stores or sends a checksum says what it covers.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any, Final, cast

import google_crc32c

from rakit.multiraft.pages import Lent

_library: Final = cast("Any", google_crc32c)

#: Checksum of some bytes.
crc32c: Final = cast("Callable[[bytes], int]", _library.value)
#: Checksum of what `crc` was made of, followed by more bytes.
crc32c_extend: Final = cast("Callable[[int, bytes], int]", _library.extend)


def _in_c() -> Callable[[int, object, int], int] | None:
    """The function of the library in C, by way of its module in C, which is linked to it.

    None where that holds it inside itself, or there is none: then bytes are made to be checked.
    """
    try:
        # It keeps the interpreter's lock, as what copies a value does: to have it back costs more.
        module = cast("Any", importlib.import_module("google_crc32c._crc32c"))
        function = ctypes.PyDLL(module.__file__).crc32c_extend
    except (ImportError, AttributeError, OSError):
        return None
    function.restype = ctypes.c_uint32
    function.argtypes = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
    return cast("Callable[[int, object, int], int]", function)


_extend_in_c: Final = _in_c()


def crc32c_extend_lent(crc: int, lent: Lent, start: int) -> int:
    """Checksum of what `crc` was made of, followed by a value in lent memory from `start` on."""
    assert 0 <= start <= lent.size_bytes, "what is checked lies within its memory"
    if _extend_in_c is None:
        return crc32c_extend(crc, bytes(lent.whole()[start:]))
    place = ctypes.byref(cast("Any", lent), start)
    return _extend_in_c(crc, place, lent.size_bytes - start)


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
