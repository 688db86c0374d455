"""The partitions that a member owns, and how far each is. Pure; it does no I/O.

Of each partition there are four marks, each at most the one before:

- `next_offset`: records below were received;
- `handed`: records below were handed to the program;
- `processed`: the program is through with the records below, because it asked for the next one;
- `committed`: what a commit was asked for, so that nothing is committed twice.

Beside them stands what is going on with it:

- `told`: what the server has said of it on the stream of now. A new stream has said nothing yet,
  and till then nothing about the partition is sent on it.
- `is_open`: the program knows that it has it.
- `is_leaving`: it is being let go of. If the server meanwhile says that it is owned all the same,
  it stays when the program has let go.
- `seeking`: what the server was asked to read from, and has not answered.

Rules:

- A record is handed over once, however often streams break: what comes again is cut off.
- A partition that is leaving hands nothing over any more, and what is buffered of it is dropped.
- While a seek is under way, what comes is from the old place and is dropped.
- A topic that was made anew has other records at the same offsets: its partition is another place.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from rakit.api.v1.group_service_pb2 import AssignedPartition
from rakit.api.v1.log_service_pb2 import PartitionData, Position
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


class Told(Enum):
    """What the server has said of a partition on the stream of now."""

    NOTHING = auto()
    OWNED = auto()
    REVOKING = auto()


class Seek(NamedTuple):
    """A seek that is under way."""

    tag: int
    position: Position
    #: By the program. Else it takes the server to where we are.
    is_asked: bool


class Place:
    """One owned partition."""

    __slots__ = (
        "_progress",
        "began",
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
        "told",
        "topic_id",
    )

    def __init__(self, assigned: AssignedPartition) -> None:
        self.name = TopicPartition(assigned.topic, assigned.partition)
        #: 0: a server that is older does not say.
        self.topic_id = assigned.topic_id
        self._progress = Progress(assigned.topic, assigned.partition, assigned.offset, None)
        self.handed = self.processed = self.committed = assigned.offset
        self.high_watermark = assigned.offset
        #: Where the server last said that it begins.
        self.began = assigned.offset
        self.told = Told.OWNED
        #: The program was told that it owns the partition, so records may follow.
        self.is_open = False
        #: What came before that.
        self.early: list[Received] = []
        #: Nothing more is handed over.
        self.is_leaving = False
        self.is_paused = False
        self.seeking: Seek | None = None

    @property
    def next_offset(self) -> int:
        """One past the last record that was received."""
        return self._progress.next_offset

    def is_of(self, assigned: AssignedPartition) -> bool:
        """Whether this is the same topic as the one that the server means now."""
        return self.topic_id == assigned.topic_id or not (self.topic_id and assigned.topic_id)

    def take(self, data: PartitionData) -> list[RecordBatch]:
        """Returns what is new and still wanted, and moves on behind it."""
        self.high_watermark = max(self.high_watermark, data.high_watermark)
        if self.is_leaving or self.seeking is not None:
            return []
        return self._progress.take(data)

    def move(self, offset: int) -> None:
        """Goes on from another offset: the answer to a seek."""
        self._progress.next_offset = self.handed = self.processed = self.committed = offset

    def rewind(self) -> None:
        """What was received and not handed over was dropped, and is to come again."""
        self._progress.next_offset = self.handed

    def skip(self, offset: int) -> None:
        """What would follow is not kept any more: the server goes on from here.

        What is here already is handed over before.
        """
        if self.handed < self.next_offset < offset:
            self._progress.next_offset = offset
        elif offset != self.next_offset:
            self.move(offset)

    @property
    def lag(self) -> int:
        """Records that are in the log and were not handed over, as far as is known."""
        return max(0, self.high_watermark - self.handed)
