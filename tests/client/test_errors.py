"""Errors as users get them: reason, retriable, maybe applied, metadata (contract 12 and 13)."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError, Metadata

from rakit.api.v1 import error_pb2
from rakit.client import errors
from rakit.client.errors import LocalReason, RakitError, from_rpc_error, from_status, make_error


def status(reason: str, domain: str = "rakit", **metadata: str) -> Status:
    message = Status(code=9, message="text for people")
    info = ErrorInfo(reason=reason, domain=domain)
    info.metadata.update(metadata)
    message.details.add().Pack(info)
    return message


def rpc_error(code: grpc.StatusCode, *trailers: tuple[str, str | bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailers), "details")


def test_every_reason_of_the_protocol_has_a_group_that_fits_it() -> None:
    for value in error_pb2.ErrorReason.DESCRIPTOR.values[1:]:
        error = make_error(value.name.removeprefix("ERROR_REASON_"), "text")
        rule = value.GetOptions().Extensions[error_pb2.rule]
        assert error.retriable == rule.retriable, value.name
        assert error.maybe_applied == (rule.outcome == error_pb2.OUTCOME_UNKNOWN), value.name
        # What is nobody's group means that the request is wrong: code 3 or 9, and not retriable.
        if type(error) is errors.InvalidRequestError:
            assert rule.status_code in {3, 9}, value.name
            assert not error.retriable, value.name


def test_a_status_gives_its_reason_its_metadata_and_its_own_outcome() -> None:
    error = from_status(status("NOT_LEADER", outcome="UNKNOWN", leader_node_id="3"))
    assert isinstance(error, errors.UnavailableError)
    assert (error.reason, error.message) == ("NOT_LEADER", "text for people")
    assert error.maybe_applied
    assert error.retriable
    assert error.metadata == {"leader_node_id": "3"}
    assert error.number("leader_node_id") == 3
    assert error.number("leader_term") is None


def test_what_cannot_be_decoded_is_an_error_without_a_reason() -> None:
    damaged = status("NOT_LEADER")
    damaged.details[0].value = b"\xff"
    for error in (
        from_status(damaged),
        from_rpc_error(
            rpc_error(
                grpc.StatusCode.INTERNAL,
                ("grpc-status-details-bin", damaged.SerializeToString()),
            ),
            "host:1",
        ),
        from_rpc_error(
            rpc_error(grpc.StatusCode.INTERNAL, ("grpc-status-details-bin", b"\xff")), "host:1"
        ),
    ):
        assert error.reason == LocalReason.FOREIGN_ERROR
        assert error.maybe_applied
    named = rpc_error(
        grpc.StatusCode.UNAVAILABLE,
        ("grpc-status-details-bin", b"\xff"),
        ("rakit-reason", "NO_LEADER"),
    )
    assert from_rpc_error(named, "host:1").reason == "NO_LEADER"


def test_without_our_error_info_the_outcome_is_unknown() -> None:
    assert from_status(Status(code=14, message="a proxy")).maybe_applied
    assert from_status(status("QUOTA", domain="example.org")).maybe_applied
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        error = from_rpc_error(rpc_error(code), "host:1")
        assert error.maybe_applied
        assert error.retriable
    assert not from_rpc_error(rpc_error(grpc.StatusCode.UNIMPLEMENTED), "host:1").retriable


def test_a_write_to_a_broken_connection_may_be_tried_again() -> None:
    written = AioRpcError(
        grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "Internal error from Core"
    )
    error = from_rpc_error(written, "host:1")
    assert (error.reason, error.retriable, error.maybe_applied) == ("UNREACHABLE", True, True)


def test_a_reason_newer_than_this_client_promises_nothing() -> None:
    error = from_status(status("INVENTED_LATER"))
    assert (error.reason, error.retriable, error.maybe_applied) == ("INVENTED_LATER", False, True)


def test_details_and_the_two_plain_trailers_say_the_same() -> None:
    details = status("PRODUCER_FENCED", current_epoch="4", outcome="NOT_APPLIED")
    code = grpc.StatusCode.FAILED_PRECONDITION
    full = from_rpc_error(
        rpc_error(code, ("grpc-status-details-bin", details.SerializeToString())), "host:1"
    )
    plain = from_rpc_error(
        rpc_error(code, ("rakit-reason", "PRODUCER_FENCED"), ("rakit-outcome", "NOT_APPLIED")),
        "host:1",
    )
    for error in (full, plain):
        assert isinstance(error, errors.ProducerFencedError)
        assert not error.maybe_applied
    assert full.metadata == {"current_epoch": "4"}


def test_an_outcome_only_becomes_less_certain() -> None:
    error = make_error("BATCH_TOO_LARGE", "too large", {"limit": "5"})
    doubtful = error.as_maybe_applied()
    assert type(doubtful) is type(error)
    assert doubtful.maybe_applied
    assert doubtful.again().maybe_applied
    assert doubtful.metadata == {"limit": "5"}
    assert not error.maybe_applied


@pytest.mark.parametrize("reason", list(LocalReason))
def test_local_reasons_never_collide_with_those_of_the_protocol(reason: LocalReason) -> None:
    names = {value.name for value in error_pb2.ErrorReason.DESCRIPTOR.values}
    assert f"ERROR_REASON_{reason}" not in names
    assert isinstance(make_error(reason, "text"), RakitError)
