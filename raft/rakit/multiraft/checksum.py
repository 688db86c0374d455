"""CRC32C with types: the one place that touches the untyped library.

The library takes bytes only (no bytearray, no memoryview) and runs at memory speed. For what lies
elsewhere, or within bytes, there is the function in C that it calls itself.

It has no rules of its own; who stores or sends a checksum says what it covers.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any, Final, cast

import google_crc32c

from rakit.multiraft.pages import address_of
from rakit.raft import Payload

_library: Final = cast("Any", google_crc32c)

#: Checksum of some bytes.
crc32c: Final = cast("Callable[[bytes], int]", _library.value)
#: Checksum of what `crc` was made of, followed by more bytes.
crc32c_extend: Final = cast("Callable[[int, bytes], int]", _library.extend)


def _in_c() -> Callable[[int, int, int], int] | None:
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
    return cast("Callable[[int, int, int], int]", function)


_extend_in_c: Final = _in_c()


def crc32c_extend_payload(crc: int, data: Payload) -> int:
    """Checksum of what `crc` was made of, followed by more bytes, wherever they lie."""
    if isinstance(data, bytes):
        return crc32c_extend(crc, data)
    if _extend_in_c is None:
        return crc32c_extend(crc, bytes(data))
    return _extend_in_c(crc, address_of(data), len(data))
