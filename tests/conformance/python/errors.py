"""What an error of the cluster says."""

from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status


def describe(error: grpc.RpcError) -> dict[str, object]:
    """The reason, the outcome and the facts that stand in error.proto."""
    said: dict[str, Any] = {each.key: each.value for each in error.trailing_metadata() or ()}
    found: dict[str, object] = {"code": error.code().value[0], "message": error.details() or ""}
    # For programs that cannot decode the details, two trailers say the same.
    found["trailers"] = {
        "reason": said.get("rakit-reason", ""),
        "outcome": said.get("rakit-outcome", ""),
    }
    status = Status.FromString(said.get("grpc-status-details-bin", b""))
    for detail in status.details:
        info = ErrorInfo()
        if detail.Unpack(info):
            found |= {"reason": info.reason, "domain": info.domain}
            found["metadata"] = dict(info.metadata)
            # Absent: this was no mutation. Without ErrorInfo: the outcome is UNKNOWN.
            found["outcome"] = info.metadata.get("outcome", "")
    return found
