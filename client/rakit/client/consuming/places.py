"""The partitions that a member owns, and how far each is. Pure; it does no I/O.

Of each partition there are four marks, each at most the one before:

- `next_offset`: records below were received;
- `handed`: records below were handed to the program;
- `processed`: the program is through with the records below, because it asked for the next one;
- `committed`: what a commit was asked for, so that nothing is committed twice.

Rules:

- A record is handed over once, however often streams break: what comes again is cut off.
- A partition that is leaving hands nothing over any more, and what is buffered of it is dropped.
- While a seek is under way, what comes is from the old place and is dropped.
"""

from __future__ import annotations

from typing import NamedTuple

from rakit.api.v1.group_service_pb2 import AssignedPartition, SeekPartition
from rakit.api.v1.log_service_pb2 import PartitionData
from rakit.client.reading.progress import Progress
from rakit.client.records import RecordBatch


class TopicPartition(NamedTuple):
    """Names a partition."""

    topic: str
    partition: int


class Received(NamedTuple):
    """A batch of an owned partition, and what it takes of the credit."""

    place: Place
    batch: RecordBatch
    charged_bytes: int


class Place:
    """One owned partition."""

    __slots__ = (
        "_progress",
        "committed",
        "early",
        "handed",
        "high_watermark",
        "is_leaving",
        "is_open",
        "is_paused",
        "name",
        "processed",
        "seeking",
    )

    def __init__(self, assigned: AssignedPartition) -> None:
        self.name = TopicPartition(assigned.topic, assigned.partition)
        self._progress = Progress(assigned.topic, assigned.partition, assigned.offset, None)
        self.handed = self.processed = self.committed = assigned.offset
        self.high_watermark = assigned.offset
        #: The program was told that it owns the partition, so records may follow.
        self.is_open = False
        #: What came before that.
        self.early: list[Received] = []
        #: Nothing more is handed over.
        self.is_leaving = False
        self.is_paused = False
        #: The seek that is under way.
        self.seeking: SeekPartition | None = None

    @property
    def next_offset(self) -> int:
        """One past the last record that was received."""
        return self._progress.next_offset

    def take(self, data: PartitionData) -> list[RecordBatch]:
        """Returns what is new and still wanted, and moves on behind it."""
        self.high_watermark = max(self.high_watermark, data.high_watermark)
        if self.is_leaving or self.seeking is not None:
            return []
        return self._progress.take(data)

    def move(self, offset: int) -> None:
        """Goes on from another offset: the answer to a seek."""
        self._progress.next_offset = self.handed = self.processed = self.committed = offset

    @property
    def lag(self) -> int:
        """Records that are in the log and were not handed over, as far as is known."""
        return max(0, self.high_watermark - self.handed)
