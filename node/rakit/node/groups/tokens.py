"""Resume tokens: what a client keeps in order to go on with its session on any node.

A token names the member, and its group by a hash, so that one that was mixed up is told from one
whose session is over. It is no secret and proves nothing: who may join a group may resume in it.
"""

from __future__ import annotations

from typing import Final

import xxhash

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError

_VERSION: Final = b"\x01"
_HASH_BYTES: Final = 8
TOKEN_BYTES_MAX: Final = 256


def resume_token(group: str, member_id: str) -> bytes:
    """The token of a member."""
    return _VERSION + xxhash.xxh3_64_digest(group.encode()) + member_id.encode()


def member_in(token: bytes, group: str) -> str:
    """The member that a token names. Raises INVALID_REQUEST."""
    head = len(_VERSION) + _HASH_BYTES
    if not head < len(token) <= TOKEN_BYTES_MAX or not token.startswith(_VERSION):
        raise _invalid("resume_token is not one that a `joined` answer gave.", group)
    if token[len(_VERSION) : head] != xxhash.xxh3_64_digest(group.encode()):
        raise _invalid(f"resume_token is of another group than {group!r}.", group)
    try:
        return token[head:].decode()
    except UnicodeDecodeError:
        raise _invalid("resume_token is not one that a `joined` answer gave.", group) from None


def _invalid(message: str, group: str) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, message, {"group": group})
