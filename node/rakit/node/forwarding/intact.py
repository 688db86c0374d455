"""A batch reaches its leader as the node that took it from the client has checked it.

The leader takes the checksum that is stored and replicated over what it was given, so a bit that
flips on the way to it would be an acknowledged record that differs from what was sent, on every
replica and with a good checksum. The content is covered as it is sent, with what says where it
belongs and how it is read.
"""

from __future__ import annotations

import struct
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.multiraft.checksum import crc32c, crc32c_extend, crc32c_extend_payload
from rakit.node.errors import RakitError
from rakit.node.partition.batches import Batch
from rakit.peer.v1.node_service_pb2 import ForwardedBatch

#: Group, record count, whether it is compressed.
_PLACE: Final = struct.Struct(">qi?")


def sent_crc32c(group_id: int, batch: Batch) -> int:
    """Returns the checksum that a batch travels with."""
    # What is not compressed has been gone over when it was checked.
    content = crc32c_extend_payload(0, batch.content) if batch.compressed else batch.crc32c
    place = _PLACE.pack(group_id, batch.record_count, batch.compressed)
    return crc32c_extend(content, place)


def check_intact(batch: ForwardedBatch) -> None:
    """Raises NODE_UNAVAILABLE, which the sender tries again, for what was damaged on the way."""
    place = _PLACE.pack(batch.group_id, batch.record_count, batch.compressed)
    if crc32c_extend(crc32c(batch.content), place) != batch.sent_crc32c:
        raise RakitError(
            error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
            "The batch was damaged on its way between two nodes.",
        )
