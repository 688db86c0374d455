"""A reader that goes on where it was when its node goes away."""

import time
from collections.abc import Iterator, Sequence

import grpc

from rakit.api.v1.log_service_pb2 import Position, ReadRequest
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.api.v1.record_pb2 import Record


def read(addresses: Sequence[str], start: Position, *, follow: bool = False) -> Iterator[Record]:
    """Yields the records from a position, to the log's end or for ever.

    Afterwards `start.offset` is where to go on.
    """
    stubs = [LogServiceStub(grpc.insecure_channel(each)) for each in addresses]
    while True:
        try:
            for answer in stubs[0].Read(ReadRequest(positions=[start], follow=follow)):
                if answer.WhichOneof("event") == "data":
                    for record in answer.data.records:
                        start.offset = record.offset + 1  # also replaces a time or an edge
                        yield record
                elif answer.WhichOneof("event") == "end":
                    start.offset = answer.end.next_offset
                    return
                # A heartbeat says that the stream is alive.
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            stubs.append(stubs.pop(0))  # the next node
            time.sleep(0.1)
