"""One Read stream from one node for some partitions, as an iterator of what is new.

It ends when every partition has reached its end, and raises when the stream breaks or a partition
fails. Nothing at all stands for a sign of life without a record. What it has yielded is counted in
each partition's `Progress`, so whoever opens the next stream goes on exactly there. It yields the
batches of an answer together: they are counted together, and whoever stopped between two of them
would lose the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import grpc.aio

from rakit.api.v1 import record_pb2
from rakit.api.v1.log_service_pb2 import ReadRequest
from rakit.client import codecs
from rakit.client.connections import Stubs
from rakit.client.errors import LocalReason, from_rpc_error, from_status, make_error
from rakit.client.reading.progress import Progress
from rakit.client.records import RecordBatch

#: Partitions that one stream may carry.
POSITIONS_COUNT_MAX: Final = 256


async def stream(
    stubs: Stubs, wanted: Sequence[Progress], *, follow: bool
) -> AsyncGenerator[Sequence[RecordBatch]]:
    """Yields the new batches of each answer, none for a heartbeat. Raises RakitError."""
    by_partition = {each.partition: each for each in wanted}
    request = ReadRequest(
        positions=[each.position() for each in wanted],
        follow=follow,
        layout=record_pb2.LAYOUT_COLUMNS,
        accept_codecs=codecs.ACCEPTED,
    )
    call = stubs.read(request)
    try:
        async for answer, size_bytes in call:
            if not answer.HasField("data"):
                # A heartbeat, or an end that the progress shows as well.
                yield ()
                continue
            data = answer.data
            if data.HasField("error"):
                raise from_status(data.error)
            batches = by_partition[data.partition].take(data)
            count = sum(map(len, batches))
            for batch in batches:
                # To add it up from the columns would cost as much as parsing them.
                batch.size_bytes = size_bytes * len(batch) // count
            yield batches
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure, stubs.address) from failure
    finally:
        call.cancel()
    if not all(each.is_at_end for each in wanted):
        raise make_error(LocalReason.UNREACHABLE, f"{stubs.address} ended the stream early")
