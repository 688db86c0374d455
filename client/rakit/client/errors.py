"""What can go wrong, as one hierarchy that tells the caller what to do next.

Every error raised by this package is a `RakitError`. A program decides by four facts, never by the
text:

- `reason`: the name of an `ErrorReason` ("NOT_LEADER"). For what no server said it is one of the
  names of `LocalReason`, which never collide with the server's.
- `retriable`: the same request may succeed later, unchanged. The SDK has already retried while it
  could.
- `maybe_applied`: a mutation may have taken effect, or may still do so. False is a promise that it
  did not and never will.
- `metadata`: facts under the keys that error.proto lists, such as `next_offset`.

The subclasses group reasons by what a caller does about them. The rule of each reason (retriable,
outcome) is read from the options in error.proto, so clients and servers share one table.

Rules:

- A failure without our ErrorInfo (a broken connection, a deadline of the local library, a proxy)
  has the outcome UNKNOWN: the request may have arrived.
- An outcome only becomes less certain: `as_maybe_applied()` exists, its inverse does not.

Left out: how errors are made on the server, and which ones a retry loop swallows.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Final, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError

from rakit.api.v1 import error_pb2

DOMAIN: Final = "rakit"
_PREFIX: Final = "ERROR_REASON_"
_DETAILS_TRAILER: Final = "grpc-status-details-bin"
_REASON_TRAILER: Final = "rakit-reason"
_OUTCOME_TRAILER: Final = "rakit-outcome"
#: What gRPC itself says when it could not write to a stream whose connection is gone.
_WRITE_FAILED: Final = "Internal error from Core"


class LocalReason(StrEnum):
    """Reasons that no server states; they are found out on this side of the connection."""

    # No node could be reached, or the connection broke.
    UNREACHABLE = "UNREACHABLE"
    # No answer came in time.
    DEADLINE = "DEADLINE"
    # Something between us and the node answered in its place.
    FOREIGN_ERROR = "FOREIGN_ERROR"
    # A record was not acknowledged within the delivery timeout.
    DELIVERY_TIMEOUT = "DELIVERY_TIMEOUT"
    # The object was closed.
    CLOSED = "CLOSED"
    # The node sent something that its protocol does not allow.
    PROTOCOL_VIOLATION = "PROTOCOL_VIOLATION"
    # Something in this package failed that never should.
    CLIENT_FAILED = "CLIENT_FAILED"


class RakitError(Exception):
    """Any failure that this package reports. See the module's text for the four facts."""

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        *,
        retriable: bool = False,
        maybe_applied: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = str(reason)
        self.message = message
        self.metadata = dict(metadata or {})
        self.retriable = retriable
        self.maybe_applied = maybe_applied

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    def again(self) -> Self:
        """Returns the same error as a new object, to be raised at another place."""
        return self._copy(maybe_applied=self.maybe_applied)

    def as_maybe_applied(self) -> Self:
        """Returns the same error of a request that may have taken effect on an earlier attempt."""
        return self._copy(maybe_applied=True)

    def _copy(self, *, maybe_applied: bool) -> Self:
        return type(self)(
            self.reason,
            self.message,
            self.metadata,
            retriable=self.retriable,
            maybe_applied=maybe_applied,
        )

    def number(self, key: str) -> int | None:
        """Returns a number of the metadata, None where it is absent or not a number."""
        try:
            return int(self.metadata[key])
        except (KeyError, ValueError):
            return None


class InvalidRequestError(RakitError):
    """The request is wrong in itself; sending it again changes nothing."""


class NotFoundError(RakitError):
    """There is no such topic, partition, node or group."""


class AlreadyExistsError(RakitError):
    """The name is taken."""


class OffsetOutOfRangeError(RakitError):
    """The position lies outside the log; metadata has `earliest` and `latest`."""


class OffsetMismatchError(RakitError):
    """The partition does not stand at the expected offset; metadata has `next_offset`."""


class SequenceError(RakitError):
    """The partition and the producer disagree about what was sent before."""


class ProducerFencedError(RakitError):
    """A newer instance of this producer exists; this one must stop."""


class MemberFencedError(RakitError):
    """The member's session is over; `fence_reason` says why."""

    @property
    def fence_reason(self) -> str:
        """SESSION_EXPIRED, INSTANCE_REPLACED, and so on, as error.proto lists them."""
        return self.metadata.get("fence_reason", "")


class NotOwnerError(RakitError):
    """The member does not own the partition any more; another one goes on at its last commit."""


class GroupActiveError(RakitError):
    """The group has members; stop them first."""


class UnavailableError(RakitError):
    """The cluster cannot serve this at the moment."""


class OutcomeUnknownError(RakitError):
    """The request was on its way when something failed; nobody knows whether it took effect."""


class StorageError(RakitError):
    """The disk of a node is full, failing or damaged."""


class ServerError(RakitError):
    """A bug, in the server or in this package, or a foreign answer in the server's place."""


class DeliveryTimeoutError(RakitError):
    """A record was not acknowledged in time."""


class ClosedError(RakitError):
    """The client, producer or reader was closed before this could be done."""


_GROUPS: Final[Mapping[type[RakitError], tuple[str, ...]]] = {
    NotFoundError: ("UNKNOWN_TOPIC", "UNKNOWN_PARTITION", "UNKNOWN_NODE", "UNKNOWN_GROUP"),
    AlreadyExistsError: ("TOPIC_EXISTS", "REQUEST_ID_REUSED", "INSTANCE_IN_USE"),
    OffsetOutOfRangeError: ("OFFSET_OUT_OF_RANGE", "COMMIT_OUT_OF_RANGE"),
    OffsetMismatchError: ("OFFSET_MISMATCH",),
    SequenceError: (
        "OUT_OF_ORDER_SEQUENCE",
        "SEQUENCE_REUSED",
        "SEQUENCE_TOO_OLD",
        "UNKNOWN_PRODUCER",
        "EARLIER_REQUEST_FAILED",
    ),
    ProducerFencedError: ("PRODUCER_FENCED",),
    MemberFencedError: ("MEMBER_FENCED",),
    NotOwnerError: ("STALE_MEMBER_EPOCH", "PARTITION_NOT_OWNED"),
    GroupActiveError: ("GROUP_ACTIVE",),
    UnavailableError: (
        "NOT_LEADER",
        "NO_LEADER",
        "THROTTLED",
        "TOO_MANY_IN_FLIGHT",
        "GROUP_FULL",
        "NODE_UNAVAILABLE",
        "NO_QUORUM",
        LocalReason.UNREACHABLE,
    ),
    OutcomeUnknownError: ("OUTCOME_UNKNOWN", LocalReason.DEADLINE),
    StorageError: ("NO_SPACE", "STORAGE_FAILED", "CORRUPT_RECORD"),
    ServerError: (
        "INTERNAL",
        LocalReason.FOREIGN_ERROR,
        LocalReason.PROTOCOL_VIOLATION,
        LocalReason.CLIENT_FAILED,
    ),
    DeliveryTimeoutError: (LocalReason.DELIVERY_TIMEOUT,),
    ClosedError: (LocalReason.CLOSED,),
}
# What error.proto cannot say: (retriable, may be applied) of local reasons.
_LOCAL_RULES: Final[Mapping[str, tuple[bool, bool]]] = {
    LocalReason.UNREACHABLE: (True, True),
    LocalReason.DEADLINE: (True, True),
    LocalReason.FOREIGN_ERROR: (False, True),
    LocalReason.PROTOCOL_VIOLATION: (False, True),
    LocalReason.CLIENT_FAILED: (False, True),
    # Whether an attempt may have had an effect is known where these are made.
    LocalReason.DELIVERY_TIMEOUT: (False, False),
    LocalReason.CLOSED: (False, False),
}
_TYPES: Final = {reason: group for group, reasons in _GROUPS.items() for reason in reasons}


@cache
def _rule(reason: str) -> tuple[bool, bool] | None:
    """(retriable, may be applied) as error.proto says; None for a reason that is not known here."""
    if reason in _LOCAL_RULES:
        return _LOCAL_RULES[reason]
    value = error_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values_by_name.get(
        _PREFIX + reason
    )
    if value is None:
        return None
    rule = value.GetOptions().Extensions[error_pb2.rule]
    return rule.retriable, rule.outcome == error_pb2.OUTCOME_UNKNOWN


def make_error(
    reason: str,
    message: str,
    metadata: Mapping[str, str] | None = None,
    *,
    maybe_applied: bool | None = None,
) -> RakitError:
    """Returns the error of a reason; `maybe_applied` overrides the reason's rule."""
    rule = _rule(reason)
    kind = _TYPES.get(reason, InvalidRequestError if rule is not None else ServerError)
    # A reason that is newer than this client: nothing may be assumed about it.
    retriable, unknown = rule if rule is not None else (False, True)
    applied = unknown if maybe_applied is None else maybe_applied
    return kind(reason, message, metadata, retriable=retriable, maybe_applied=applied)


def from_status(status: Status) -> RakitError:
    """Returns the error that a node put into a message."""
    found = _from_details(status)
    if found is not None:
        return found
    return make_error(LocalReason.FOREIGN_ERROR, status.message or "an error without a reason")


def _from_details(status: Status) -> RakitError | None:
    """The error of our ErrorInfo; None without one, or with one that cannot be decoded."""
    for detail in status.details:
        info = ErrorInfo()
        try:
            is_ours = detail.Unpack(info) and info.domain == DOMAIN
        except DecodeError:
            return None
        if is_ours:
            metadata = dict(info.metadata)
            outcome = metadata.pop("outcome", "")
            unknown = outcome == "UNKNOWN" if outcome else None
            return make_error(info.reason, status.message, metadata, maybe_applied=unknown)
    return None


def from_rpc_error(error: AioRpcError, address: str) -> RakitError:
    """Returns what a failed call means. Without our ErrorInfo the outcome is UNKNOWN."""
    found = _from_trailers(dict(error.trailing_metadata() or ()), error.details() or "")
    if found is not None:
        return found
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            # gRPC tells how it got there, the last part is what happened.
            what = details.rpartition(": ")[2]
            return make_error(LocalReason.UNREACHABLE, f"no node answers at {address}: {what}")
        case grpc.StatusCode.INTERNAL if details == _WRITE_FAILED:
            return make_error(LocalReason.UNREACHABLE, f"{address}: the connection broke")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return make_error(LocalReason.DEADLINE, f"{address}: no answer in time")
        case _:
            text = f"{address}: {details} ({error.code().name})"
            return make_error(LocalReason.FOREIGN_ERROR, text)


def _from_trailers(trailers: Mapping[str, str | bytes], text: str) -> RakitError | None:
    details = trailers.get(_DETAILS_TRAILER)
    if isinstance(details, bytes):
        try:
            found = _from_details(Status.FromString(details))
        except DecodeError:
            found = None
        if found is not None:
            return found
    reason = trailers.get(_REASON_TRAILER)
    if isinstance(reason, str):
        outcome = trailers.get(_OUTCOME_TRAILER)
        unknown = outcome == "UNKNOWN" if outcome else None
        return make_error(reason, text, maybe_applied=unknown)
    return None
