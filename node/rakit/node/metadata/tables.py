"""Three bounded tables of the metadata state: producers, answered requests, dead groups.

All three are part of the replicated state, so what is forgotten is decided by the commands alone:

- `ProducerTable` gives a producer name its id and counts its epochs, for ever: a name that were
  forgotten would come back with another id, and nothing that it sent would be fenced or known.
  Above the limit new names are refused. Producers without a name need no row.
- `AnsweredRequests` lets the repeat of a request get the first answer. The oldest give way.
- `DeadGroups` remembers every group that was deleted, because a replica is removed from a disk only
  on positive evidence, never because a group is not in the registry. Group ids are given out in
  rows, so they are kept as ranges that grow together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rakit.peer.v1.metadata_command_pb2 import AnsweredRequest, MetadataResult, RequestMark

#: About 40 MB of memory and 10 MB of every checkpoint, with names of usual length.
PRODUCERS_COUNT_MAX: Final = 200_000
#: Half an hour of topic changes at five per second.
ANSWERED_COUNT_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Producer:
    """A registered producer name."""

    producer_id: int
    epoch: int


class ProducerTable:
    """Producers by name, in the order in which they were registered.

    In columns: a checkpoint holds them as such, and a table of 200,000 is read in a moment.

    Invariant: `names`, `ids` and `epochs` are of one length; a name and its id never change.
    """

    def __init__(self, count_max: int = PRODUCERS_COUNT_MAX) -> None:
        self._positions: dict[str, int] = {}
        self.names: list[str] = []
        self.ids: list[int] = []
        self.epochs: list[int] = []
        self.count_max = count_max

    def __len__(self) -> int:
        return len(self.names)

    def get(self, name: str) -> Producer | None:
        """The producer of this name."""
        at = self._positions.get(name)
        return None if at is None else Producer(self.ids[at], self.epochs[at])

    def items(self) -> Iterator[tuple[str, Producer]]:
        """All of them, the oldest name first."""
        for name, producer_id, epoch in zip(self.names, self.ids, self.epochs, strict=True):
            yield name, Producer(producer_id, epoch)

    def put(self, name: str, producer: Producer) -> None:
        """Registers the producer, or notes its epoch."""
        at = self._positions.setdefault(name, len(self.names))
        if at == len(self.names):
            self.names.append(name)
            self.ids.append(producer.producer_id)
            self.epochs.append(producer.epoch)
        assert self.ids[at] == producer.producer_id, "a producer name keeps its id"
        self.epochs[at] = producer.epoch

    def load(self, names: Iterable[str], ids: Iterable[int], epochs: Iterable[int]) -> None:
        """Fills an empty table."""
        self.names, self.ids, self.epochs = list(names), list(ids), list(epochs)
        self._positions = {name: at for at, name in enumerate(self.names)}
        assert len(self.ids) == len(self.epochs) == len(self._positions), "columns of one length"

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more name."""
        return len(self.names) >= self.count_max


class AnsweredRequests:
    """The answers to the latest requests, oldest first."""

    def __init__(self, count_max: int = ANSWERED_COUNT_MAX) -> None:
        self._by_id: dict[str, tuple[int, MetadataResult]] = {}
        self._count_max = count_max

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, request_id: str) -> tuple[int, MetadataResult] | None:
        """Fingerprint and answer of the request with this id."""
        return self._by_id.get(request_id)

    def put(self, mark: RequestMark, result: MetadataResult) -> None:
        """Remembers an answer; the oldest one gives way."""
        assert mark.request_id not in self._by_id, "a request is answered once"
        self._by_id[mark.request_id] = (mark.fingerprint, result)
        if len(self._by_id) > self._count_max:
            del self._by_id[next(iter(self._by_id))]

    def ids(self) -> Iterable[str]:
        """The ids of the requests, oldest first; an id has one answer for ever."""
        return self._by_id.keys()

    def record(self, request_id: str) -> AnsweredRequest:
        """What a checkpoint holds of one of them."""
        fingerprint, result = self._by_id[request_id]
        mark = RequestMark(request_id=request_id, fingerprint=fingerprint)
        return AnsweredRequest(mark=mark, result=result)


class DeadGroups:
    """A set of group ids as ascending half-open ranges that neither touch nor overlap."""

    def __init__(self, bounds: Iterable[int] = ()) -> None:
        #: First and end of each range in turn.
        self.bounds: list[int] = list(bounds)
        assert len(self.bounds) % 2 == 0, "every range has a first and an end"
        assert all(a < b for a, b in zip(self.bounds, self.bounds[1:], strict=False)), (
            "ranges ascend and do not touch"
        )

    def __contains__(self, group_id: int) -> bool:
        # An odd number of bounds at or below the id: it is behind a first and before its end.
        return bisect_right(self.bounds, group_id) % 2 == 1

    def add(self, group_id: int) -> None:
        """Adds one id that is not there yet."""
        assert group_id not in self, f"group {group_id} died before"
        at = bisect_right(self.bounds, group_id)
        ends_here = at > 0 and self.bounds[at - 1] == group_id
        begins_next = at < len(self.bounds) and self.bounds[at] == group_id + 1
        if ends_here and begins_next:
            del self.bounds[at - 1 : at + 1]
        elif ends_here:
            self.bounds[at - 1] = group_id + 1
        elif begins_next:
            self.bounds[at] = group_id
        else:
            self.bounds[at:at] = [group_id, group_id + 1]
