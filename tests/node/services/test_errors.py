"""One error type, one rule table, one form on the wire (contract 12)."""

from __future__ import annotations

import string
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rakit.api.v1 import error_pb2
from rakit.node import errors
from rakit.node.errors import RakitError, from_status, rule_of, to_status, trailers

REASONS = [value for value in error_pb2.ErrorReason.values() if value]


@pytest.mark.parametrize("reason", REASONS, ids=error_pb2.ErrorReason.Name)
def test_every_reason_has_a_rule_and_survives_the_wire(
    reason: error_pb2.ErrorReason.ValueType,
) -> None:
    error = RakitError(reason, "text", {"topic": "t"})
    assert rule_of(reason).code is not grpc.StatusCode.OK
    status = to_status(error)
    assert status.code == rule_of(reason).code.value[0]
    assert len(status.details) == 1
    back = from_status(Status.FromString(status.SerializeToString()))
    assert (back.reason, back.message, back.metadata) == (reason, "text", {"topic": "t"})
    assert back.outcome == error.outcome


def test_trailers_say_the_same_in_ascii() -> None:
    error = RakitError(error_pb2.ERROR_REASON_OUTCOME_UNKNOWN, "lost")
    lines = dict(trailers(error))
    assert (lines["rakit-reason"], lines["rakit-outcome"]) == ("OUTCOME_UNKNOWN", "UNKNOWN")
    info = ErrorInfo()
    status = Status.FromString(bytes(lines["grpc-status-details-bin"]))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- this one is bytes
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason, info.metadata["outcome"]) == (
        "rakit",
        "OUTCOME_UNKNOWN",
        "UNKNOWN",
    )


def test_an_error_of_a_read_states_no_outcome() -> None:
    error = RakitError(error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE, "gone")
    assert "rakit-outcome" not in dict(trailers(error))


def test_an_outcome_may_only_become_less_certain() -> None:
    refused = RakitError(error_pb2.ERROR_REASON_NO_LEADER, "none")
    assert not refused.may_be_applied
    assert refused.as_unknown().may_be_applied
    with pytest.raises(AssertionError, match="less certain"):
        RakitError(
            error_pb2.ERROR_REASON_OUTCOME_UNKNOWN, "lost", {}, error_pb2.OUTCOME_NOT_APPLIED
        )


def test_a_status_that_is_not_ours_means_unknown() -> None:
    foreign = from_status(Status(code=14, message="a proxy said so"))
    assert foreign.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
    assert foreign.may_be_applied


def test_a_reason_of_a_newer_node_is_not_lost() -> None:
    status = Status(code=9, message="new")
    info = ErrorInfo(reason="SOMETHING_NEW", domain="rakit", metadata={"outcome": "UNKNOWN"})
    status.details.add().Pack(info)
    error = from_status(status)
    assert (error.message, error.may_be_applied) == ("new", True)


@pytest.mark.parametrize("char", ["x", "%", "\n", "é", "日", "😀"], ids=ascii)
def test_what_a_client_sent_does_not_come_back_at_full_length(char: str) -> None:
    """As it is on the wire: text percent-encoded, details in base64 (a sixth of 8 KiB is spare)."""
    metadata = {"topic": char * 9000, "leader_address": char * 9000, "limit": char * 9000}
    error = RakitError(error_pb2.ERROR_REASON_INVALID_TOPIC_NAME, char * 9000, metadata)
    message = to_status(error).message
    assert message.endswith("...")
    encoded = len(quote(message, safe=string.printable.replace("%", "")[:-5]))
    assert errors.MESSAGE_BYTES_MAX - 12 <= encoded <= errors.MESSAGE_BYTES_MAX
    size = encoded + sum(len(key) + len(value) * 4 / 3 for key, value in trailers(error))
    assert size < 6 * 1024


@pytest.mark.parametrize("text", ["", "plain", "x" * 1024, "é" * 170, "é" * 170 + "1234"])
def test_a_text_that_fits_is_not_clipped(text: str) -> None:
    error = RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, text)
    assert to_status(error).message == text
    longer = RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, text + "é" * 200)
    assert to_status(longer).message.endswith("...")
