"""Errors as clients see them: one type, one rule table, one way onto the wire (contract 12).

`RakitError` is what every part of the node raises for an operating error; a bug is an assert or
any other exception. The rule of a reason (status code, retriable, outcome) stands in `error.proto`
as an option of the enum value and nowhere else, so documents, clients in other languages and this
node read one table.

Rules:

- Every error on the wire is a `google.rpc.Status` with exactly one `ErrorInfo`: domain `rakit`,
  reason without its prefix, metadata with the keys that `error.proto` lists. Two ASCII trailers
  say reason and outcome again for stubs that cannot decode details.
- The outcome is NOT_APPLIED or UNKNOWN. Whoever raises may override the table in one direction
  only: what the table calls NOT_APPLIED becomes UNKNOWN once the request was proposed or sent on.
  The other way would be a lie.
- Texts are for people. They are clipped: trailers have a size limit, and a client that sends a
  megabyte of topic name must not get it back.

Left out: which error a situation deserves; that is decided where the situation is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeAlias

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rakit.api.v1 import error_pb2

if TYPE_CHECKING:
    Reason: TypeAlias = error_pb2.ErrorReason.ValueType
    Outcome: TypeAlias = error_pb2.Outcome.ValueType

DOMAIN: Final = "rakit"
REASON_TRAILER: Final = "rakit-reason"
OUTCOME_TRAILER: Final = "rakit-outcome"
DETAILS_TRAILER: Final = "grpc-status-details-bin"
# All trailers of a call share 8 KiB by default, and the text travels twice: percent-encoded as the
# status's message, where a character may become twelve bytes, and in base64 within the details.
# These are bytes as percent-encoded, which is the longer form.
MESSAGE_BYTES_MAX: Final = 1024
METADATA_BYTES_MAX: Final = 256
_CLIPPED: Final = "..."
_PREFIX: Final = "ERROR_REASON_"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

Trailers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for every error of one reason, as `error.proto` says."""

    code: grpc.StatusCode
    retriable: bool
    outcome: Outcome


@cache
def rule_of(reason: Reason) -> Rule:
    """The rule of a reason. An unknown number counts as a bug in the server."""
    value = error_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values_by_number.get(reason)
    if value is None or not value.GetOptions().HasExtension(error_pb2.rule):
        return rule_of(error_pb2.ERROR_REASON_INTERNAL)
    rule = value.GetOptions().Extensions[error_pb2.rule]
    return Rule(_CODES[rule.status_code], rule.retriable, rule.outcome)


@cache
def reason_name(reason: Reason) -> str:
    """The name that goes into `ErrorInfo.reason`: without the prefix of the enum."""
    return error_pb2.ErrorReason.Name(reason).removeprefix(_PREFIX)


def outcome_name(outcome: Outcome) -> str:
    """`NOT_APPLIED`, `UNKNOWN`, or nothing for an error that is not about a mutation."""
    if outcome == error_pb2.OUTCOME_UNSPECIFIED:
        return ""
    return error_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_")


class RakitError(Exception):
    """An operating error with its reason, its text for people, and what a program needs to go on.

    `outcome` overrides the rule of the reason, from NOT_APPLIED to UNKNOWN only.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        metadata: Mapping[str, str] | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.rule = rule_of(reason)
        self.outcome = self.rule.outcome if outcome is None else outcome
        assert self.outcome in {self.rule.outcome, error_pb2.OUTCOME_UNKNOWN}, (
            "an outcome may only become less certain than its reason's rule says"
        )

    def __str__(self) -> str:
        return f"{reason_name(self.reason)}: {self.message}"

    @property
    def may_be_applied(self) -> bool:
        """The mutation may have taken effect, or may still do so."""
        return self.outcome == error_pb2.OUTCOME_UNKNOWN

    def as_unknown(self) -> RakitError:
        """The same error of a request that was already on its way when it struck."""
        return RakitError(self.reason, self.message, self.metadata, error_pb2.OUTCOME_UNKNOWN)


def _clip(text: str, bytes_max: int) -> str:
    """The text, or as much of it as fits percent-encoded; then it ends in dots."""
    room = bytes_max
    fits = 0
    for at, char in enumerate(text):
        plain = " " <= char <= "~" and char != "%"
        room -= 1 if plain else 3 * len(char.encode())
        if room < 0:
            return text[:fits] + _CLIPPED
        if room >= len(_CLIPPED):
            fits = at + 1
    return text


def to_status(error: RakitError) -> Status:
    """The error as a `google.rpc.Status` with its one `ErrorInfo`."""
    info = ErrorInfo(reason=reason_name(error.reason), domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[key] = _clip(value, METADATA_BYTES_MAX)
    if outcome := outcome_name(error.outcome):
        info.metadata["outcome"] = outcome
    status = Status(code=error.rule.code.value[0], message=_clip(error.message, MESSAGE_BYTES_MAX))
    status.details.add().Pack(info)
    return status


def from_status(status: Status) -> RakitError:
    """The error that another node put into `status`; UNKNOWN without our ErrorInfo (13)."""
    for detail in status.details:
        info = ErrorInfo()
        if not detail.Unpack(info) or info.domain != DOMAIN:
            continue
        value = error_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(_PREFIX + info.reason)
        metadata = dict(info.metadata)
        unknown = metadata.pop("outcome", "") == "UNKNOWN"
        reason = error_pb2.ERROR_REASON_INTERNAL
        if value is not None:
            reason = error_pb2.ErrorReason.Value(value.name)
        outcome = error_pb2.OUTCOME_UNKNOWN if unknown else None
        return RakitError(reason, status.message, metadata, outcome)
    return RakitError(error_pb2.ERROR_REASON_OUTCOME_UNKNOWN, status.message)


def trailers(error: RakitError) -> Trailers:
    """The trailing metadata that goes with the error."""
    lines: list[tuple[str, str | bytes]] = [(REASON_TRAILER, reason_name(error.reason))]
    if outcome := outcome_name(error.outcome):
        lines.append((OUTCOME_TRAILER, outcome))
    lines.append((DETAILS_TRAILER, to_status(error).SerializeToString()))
    return tuple(lines)


class AbortableContext(Protocol):
    """The part of a gRPC call that ends it with an error."""

    async def abort(
        self, code: grpc.StatusCode, details: str = ..., trailing_metadata: Trailers = ...
    ) -> NoReturn:
        """Ends the call. Raises."""
        ...


async def abort(context: AbortableContext, error: RakitError) -> NoReturn:
    """Ends the call with the error and its trailers."""
    message = _clip(error.message, MESSAGE_BYTES_MAX)
    await context.abort(error.rule.code, message, trailers(error))
