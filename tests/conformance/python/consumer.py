"""A member of a consumer group: takes its share, commits what it has done, survives its node."""

import queue
import time
from collections.abc import Callable, Iterator, Sequence

import grpc

from rakit.api.v1.group_service_pb2 import (
    CommitRequest,
    JoinGroup,
    LeaveRequest,
    OffsetCommit,
    RevokeDone,
    SubscribeRequest,
    SubscribeResponse,
)
from rakit.api.v1.group_service_pb2_grpc import GroupServiceStub
from rakit.api.v1.log_service_pb2 import EDGE_EARLIEST
from rakit.api.v1.record_pb2 import Record


def consume(
    addresses: Sequence[str], join: JoinGroup, handle: Callable[[Record | None], bool]
) -> None:
    """Gives each record to `handle`, and None now and then, until it returns False."""
    stubs = [GroupServiceStub(grpc.insecure_channel(each)) for each in addresses]
    join.start = EDGE_EARLIEST
    while True:
        requests: queue.SimpleQueue[SubscribeRequest | None] = queue.SimpleQueue()
        requests.put(SubscribeRequest(join=join))
        try:
            _session(stubs[0].Subscribe(iter(requests.get, None)), requests.put, join, handle)
        except grpc.RpcError as error:
            said: dict[str, object] = {each.key: each.value for each in error.trailing_metadata()}
            if said.get("rakit-reason") == "MEMBER_FENCED":
                join.resume_token = b""  # the session is over: begin another one
            elif error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            stubs.append(stubs.pop(0))  # any node resumes the session
            time.sleep(0.1)
        else:
            return
        finally:
            requests.put(None)


def _session(
    events: Iterator[SubscribeResponse],
    send: Callable[[SubscribeRequest], None],
    join: JoinGroup,
    handle: Callable[[Record | None], bool],
) -> None:
    """One stream. Returns when `handle` had enough, its last commit was answered, and it left."""
    under_way, enough, left = 0, False, False
    for event in events:
        match event.WhichOneof("event"):
            case "joined":
                join.resume_token = event.joined.resume_token
            case "records" if not enough:
                data = event.records.data
                commit = OffsetCommit(topic=data.topic, partition=data.partition)
                for record in data.records:
                    enough = enough or not handle(record)
                    commit.offset = record.offset + 1
                    if enough:
                        break
                send(SubscribeRequest(commit=CommitRequest(tag=1, offsets=[commit])))
                under_way += 1
            case "revoking":  # all that was handed out is done and committed
                done = RevokeDone(partitions=event.revoking.partitions)
                send(SubscribeRequest(revoked=done))
            case "committed":  # or refused, when another member has the partition by now
                under_way -= 1
            case "heartbeat":
                enough = enough or not handle(None)
            case _:
                pass
        if enough and not under_way and not left:
            left = True
            send(SubscribeRequest(leave=LeaveRequest()))
