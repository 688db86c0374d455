"""What groups, their members' patterns and instances may be called, and where a group lives.

A group lives in the internal partition xxh3_64(name) modulo 16, for ever (S25): the hash and the
number are part of the stored format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import xxhash

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.metadata.topics import GROUP_PARTITIONS_COUNT

NAME_CHARS_MAX: Final = 249
_PATTERN: Final = re.compile(r"[a-zA-Z0-9._*?-]{1,249}")


def group_partition(group: str) -> int:
    """The number of the internal partition that a group lives in."""
    return xxhash.xxh3_64_intdigest(group.encode()) % GROUP_PARTITIONS_COUNT


def check_group_name(name: str) -> None:
    """Raises `RakitError` INVALID_GROUP_NAME unless the name is a good one."""
    if 1 <= len(name) <= NAME_CHARS_MAX and name.isprintable():
        return
    raise RakitError(
        error_pb2.ERROR_REASON_INVALID_GROUP_NAME,
        f"A group name has 1 to {NAME_CHARS_MAX} printable characters; this one has"
        f" {len(name):,}, printable or not.",
        {"limit": str(NAME_CHARS_MAX), "actual": str(len(name))},
    )


def check_topic_patterns(patterns: Iterable[str]) -> None:
    """Raises `RakitError` INVALID_TOPIC_PATTERN unless all patterns are good ones."""
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_TOPIC_PATTERN,
                f"{pattern!r} is no topic pattern; use 1 to {NAME_CHARS_MAX} of the characters"
                " a-z A-Z 0-9 . _ - with * for any number of them and ? for one.",
            )
