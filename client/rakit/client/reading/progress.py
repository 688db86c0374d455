"""How far each partition has been read. Pure; it does no I/O.

A record is delivered once: `take()` turns what a stream sent into exactly the part that has not
been delivered yet. Streams break and begin anew at any offset; a stream may start before the asked
position, because batches are sent whole. A hole is never passed over in silence.

A start outside the log is an error: whoever resumes there has lost records, or reads another topic
than it thinks. One offset for all partitions is a rough place and not a resumption, so a follower
that gives one begins at the nearest offset in those partitions that do not have it, as long as one
has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rakit.api.v1.log_service_pb2 import PartitionData, Position
from rakit.client.errors import LocalReason, RakitError, make_error
from rakit.client.model import Offsets
from rakit.client.records import RecordBatch

From = Literal["earliest", "latest"] | int | datetime | Mapping[int, int]


@dataclass(slots=True)
class Progress:
    """One partition: from which offset on, and up to which, it is still to be read."""

    topic: str
    partition: int
    next_offset: int
    # Exclusive; None: follow for ever.
    end_offset: int | None

    @property
    def is_at_end(self) -> bool:
        """Everything that was asked for has been delivered."""
        return self.end_offset is not None and self.next_offset >= self.end_offset

    def position(self) -> Position:
        """Returns where a stream has to begin."""
        return Position(
            topic=self.topic,
            partition=self.partition,
            offset=self.next_offset,
            end_offset=self.end_offset,
        )

    def take(self, data: PartitionData) -> list[RecordBatch]:
        """Returns what is new in the data, and moves on behind it."""
        taken: list[RecordBatch] = []
        for stored in data.batches:
            end = stored.base_offset + stored.record_count
            wanted_end = end if self.end_offset is None else min(end, self.end_offset)
            if wanted_end <= self.next_offset:
                continue
            if stored.base_offset > self.next_offset:
                raise make_error(
                    LocalReason.PROTOCOL_VIOLATION,
                    f"{self.topic}/{self.partition}: offset {self.next_offset} was skipped,"
                    f" the next records begin at {stored.base_offset}",
                    maybe_applied=False,
                )
            wanted = range(self.next_offset, wanted_end)
            taken.append(RecordBatch(self.topic, self.partition, stored, wanted))
            self.next_offset = wanted_end
        return taken


def time_of(start: From) -> int | None:
    """Returns the time that has to be looked up, in milliseconds since the epoch."""
    if not isinstance(start, datetime):
        return None
    if start.tzinfo is None:
        raise ValueError("a time to read from needs its time zone")
    return int(start.timestamp() * 1000)


def begin(
    topic: str, start: From, ranges: Iterable[Offsets], *, follow: bool
) -> dict[int, Progress]:
    """Returns where reading of each partition begins and ends; raises OFFSET_OUT_OF_RANGE."""
    firsts = [(each, _first(start, each)) for each in ranges]
    may_move = follow and isinstance(start, int) and any(_holds(*each) for each in firsts)
    found: dict[int, Progress] = {}
    for each, first in firsts:
        if not (may_move or _holds(each, first)):
            raise _outside(topic, each, first)
        nearest = min(max(first, each.earliest), each.latest)
        end = None if follow else each.latest
        found[each.partition] = Progress(topic, each.partition, nearest, end)
    return found


def _holds(offsets: Offsets, offset: int) -> bool:
    # The end is a place, too: what is appended next stands there.
    return offsets.earliest <= offset <= offsets.latest


def _outside(topic: str, offsets: Offsets, offset: int) -> RakitError:
    facts = {
        "topic": topic,
        "partition": str(offsets.partition),
        "earliest": str(offsets.earliest),
        "latest": str(offsets.latest),
    }
    return make_error(
        "OFFSET_OUT_OF_RANGE",
        f"offset {offset} lies outside partition {offsets.partition} of {topic!r}, whose log begins"
        f" at {offsets.earliest} and ends before {offsets.latest}",
        facts,
    )


def _first(start: From, offsets: Offsets) -> int:
    match start:
        case "earliest":
            return offsets.earliest
        case "latest":
            return offsets.latest
        case int():
            return start
        case datetime():
            assert offsets.at_time is not None, "the time was asked for"
            return offsets.at_time
        case _:
            return start.get(offsets.partition, offsets.earliest)
