"""Small files that must survive a power cut: written whole, or not at all.

A new file is durable only after its data, its rename and its directory entry have been synced, in
this order (S10). Reading and deciding what a file means is left to the callers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Pieces in one call of the system, which takes 1,024.
_PIECES_MAX: Final = 1024


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable: names that appeared, changed or went away."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make what was written to a file durable, by whomever."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_pieces(descriptor: int, pieces: Sequence[bytes]) -> None:
    """Write all of the pieces, one behind the other."""
    for start in range(0, len(pieces), _PIECES_MAX):
        some = pieces[start : start + _PIECES_MAX]
        wanted = sum(map(len, some))
        written = os.writev(descriptor, some)
        while written < wanted:  # a disk that is nearly full takes a part, and then says so
            written += os.write(descriptor, b"".join(some)[written:])


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: a crash leaves the old content or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(descriptor, view[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    sync_directory(path.parent)
