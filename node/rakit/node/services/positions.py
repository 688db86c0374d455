"""What must hold for positions and limits of a read before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import FetchRequest, Position
from rakit.node.errors import RakitError

POSITIONS_COUNT_MAX: Final = 256
#: Of records in one answer; clients in all languages take 4 MiB by default.
RESPONSE_BYTES_MAX: Final = 3 << 20
WAIT_MS_MAX: Final = 60_000
_TIME_MS_MAX: Final = (1 << 53) - 1


def check_positions(positions: Sequence[Position]) -> None:
    """Raises INVALID_REQUEST for a list that cannot be served."""
    if not positions:
        raise _invalid("The request names no position.")
    if len(positions) > POSITIONS_COUNT_MAX:
        raise _invalid(
            f"The request names {len(positions)} positions; the limit is {POSITIONS_COUNT_MAX}.",
            {"limit": str(POSITIONS_COUNT_MAX), "actual": str(len(positions))},
        )
    seen: set[tuple[str, int]] = set()
    for position in positions:
        name = (position.topic, position.partition)
        if name in seen:
            raise _invalid(
                f"Partition {position.partition} of topic {position.topic!r} is named twice."
            )
        seen.add(name)
        _check_numbers(position)


def _check_numbers(position: Position) -> None:
    where = {"topic": position.topic, "partition": str(position.partition)}
    if position.WhichOneof("start") == "time_ms" and not 0 <= position.time_ms <= _TIME_MS_MAX:
        raise _invalid(f"{position.time_ms} is no time in milliseconds since 1970.", where)
    if position.HasField("end_offset") and position.end_offset < 0:
        raise _invalid(f"end_offset is {position.end_offset}; offsets begin at 0.", where)


def fetch_limits(request: FetchRequest) -> tuple[int, int, int]:
    """`min_bytes`, `max_bytes` and `max_wait_ms`, with defaults. Raises INVALID_REQUEST."""
    if not 0 <= request.max_wait_ms <= WAIT_MS_MAX:
        raise _invalid(f"max_wait_ms is {request.max_wait_ms}; it may be 0 to {WAIT_MS_MAX}.")
    if request.min_bytes < 0 or request.max_bytes < 0:
        raise _invalid("min_bytes and max_bytes must not be negative.")
    max_bytes = min(request.max_bytes or RESPONSE_BYTES_MAX, RESPONSE_BYTES_MAX)
    min_bytes = min(request.min_bytes or 1, max_bytes)
    return min_bytes, max_bytes, request.max_wait_ms


def _invalid(message: str, metadata: dict[str, str] | None = None) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, message, metadata)
