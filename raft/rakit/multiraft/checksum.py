"""CRC32C with types: the one place that touches the untyped library.

The library takes bytes only (no bytearray, no memoryview) and runs at memory speed. It has no rules
of its own; who stores or sends a checksum says what it covers.
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
