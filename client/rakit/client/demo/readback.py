"""Reads a topic back as a client in any language would: generated stubs, one stream, one node.

Nothing of the SDK's routing is used. The node that is asked leads some of the partitions and gets
the others from their leaders, so this also shows that any node serves everything. Messages are as
small as a channel takes by default.
"""

from __future__ import annotations

import grpc.aio

from rakit.api.v1.log_service_pb2 import EDGE_EARLIEST, Position, ReadRequest
from rakit.api.v1.log_service_pb2_grpc import LogServiceStub
from rakit.client.demo.verify import Read
from rakit.client.errors import LocalReason, from_rpc_error, from_status, make_error


async def read_back(address: str, topic: str, partition_count: int) -> list[Read]:
    """Returns all records of the topic from the node at an address. Raises RakitError."""
    request = ReadRequest(
        positions=[
            Position(topic=topic, partition=partition, edge=EDGE_EARLIEST)
            for partition in range(partition_count)
        ]
    )
    read: list[Read] = []
    unended = set(range(partition_count))
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            async for answer in LogServiceStub(channel).Read(request):
                match answer.WhichOneof("event"):
                    case "data":
                        if answer.data.HasField("error"):
                            raise from_status(answer.data.error)
                        partition = answer.data.partition
                        read.extend(
                            Read(
                                partition,
                                record.offset,
                                record.key if record.HasField("key") else None,
                                record.value,
                            )
                            for record in answer.data.records
                        )
                    case "end":
                        unended.discard(answer.end.partition)
                    case _:
                        # A heartbeat.
                        continue
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure, address) from failure
    if unended:
        text = f"{address} ended the stream before the ends of {sorted(unended)}"
        raise make_error(LocalReason.PROTOCOL_VIOLATION, text)
    return read
