"""What the members of a group heard and did, and whether that keeps P5 at the edge.

One history takes what all members of a group observe, in the order in which it is observed here.
Two rules are judged:

- A partition has one owner at a time: the epochs in which a member is known to have a partition
  never meet those of another member. So no offset is delivered to two members in one ownership.
- A commit that its member sent after another one was given the partition, at a later epoch, fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from rakit.api.v1.group_service_pb2 import SubscribeResponse

Place: TypeAlias = tuple[str, int]


@dataclass
class Ownership:
    """One member having one partition."""

    member: str
    #: The first and the last epoch in which it is known to have it.
    first: int
    last: int
    #: Ranges that it was sent.
    ranges: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


@dataclass
class History:
    """See the module."""

    ownerships: dict[Place, list[Ownership]] = field(default_factory=dict[Place, list[Ownership]])
    #: The places of a member's commit, and by how many ownerships it was sent.
    sent: dict[tuple[str, int], dict[Place, int]] = field(
        default_factory=dict[tuple[str, int], dict[Place, int]]
    )
    violations: list[str] = field(default_factory=list[str])
    #: (member, place): was added, and has not been revoked since.
    _held: set[tuple[str, Place]] = field(default_factory=set[tuple[str, Place]])

    def heard(self, member: str, event: SubscribeResponse) -> None:
        """A member has got an event."""
        match event.WhichOneof("event"):
            case "assigned":
                epoch = event.assigned.member_epoch
                for each in event.assigned.added:
                    self._begins(member, (each.topic, each.partition), epoch)
                for one in event.assigned.owned:
                    self._goes_on(member, (one.topic, one.partition), epoch)
            case "revoking":
                for one in event.revoking.partitions:
                    self._held.discard((member, (one.topic, one.partition)))
            case "records":
                data = event.records.data
                first = [each.offset for each in data.records[:1]]
                first += [each.base_offset for each in data.batches[:1]]
                if first:
                    place = data.topic, data.partition
                    self._delivered(member, place, first[0], data.next_offset)
            case "committed":
                refused = {(each.topic, each.partition) for each in event.committed.errors}
                places = self.sent.pop((member, event.committed.tag), {})
                if not event.committed.HasField("error"):
                    for place, count in places.items():
                        if place not in refused:
                            self._committed(member, place, count)
            case _:
                pass

    def commits(self, member: str, tag: int, *places: Place) -> None:
        """A member is about to send a commit."""
        self.sent[member, tag] = {place: len(self._of(place)) for place in places}

    def _of(self, place: Place) -> list[Ownership]:
        return self.ownerships.setdefault(place, [])

    def _begins(self, member: str, place: Place, epoch: int) -> None:
        for other in self._of(place):
            if other.member != member and other.last >= epoch:
                self.violations.append(
                    f"{place} is given to {member} at {epoch}, and {other.member} has it in"
                    f" {other.first} to {other.last}"
                )
        self._of(place).append(Ownership(member, epoch, epoch))
        self._held.add((member, place))

    def _goes_on(self, member: str, place: Place, epoch: int) -> None:
        mine = self._latest(member, place)
        if mine is None or (member, place) not in self._held:
            # It is owned and not added yet: its leader could not be asked where it begins.
            return
        mine.last = max(mine.last, epoch)
        for other in self._of(place):
            if other.member != member and mine.first <= other.last and other.first <= mine.last:
                self.violations.append(
                    f"{place} belongs to {member} and to {other.member} at {epoch}"
                )

    def _latest(self, member: str, place: Place) -> Ownership | None:
        mine = [each for each in self._of(place) if each.member == member]
        return mine[-1] if mine else None

    def _delivered(self, member: str, place: Place, start: int, end: int) -> None:
        mine = self._latest(member, place)
        if mine is None:
            self.violations.append(f"{member} gets records of {place}, which it does not have")
            return
        mine.ranges.append((start, end))
        for other in self._of(place):
            meets = mine.first <= other.last and other.first <= mine.last
            for first, last in other.ranges if meets and other.member != member else ():
                if first < end and start < last:
                    self.violations.append(
                        f"{start} to {end} of {place} goes to {member} and to {other.member}"
                    )

    def _committed(self, member: str, place: Place, count: int) -> None:
        """`count` ownerships were known when the commit was sent."""
        known = self._of(place)[:count]
        mine = [each for each in known if each.member == member]
        later = [each for each in known if mine and each.first > mine[-1].last]
        if not mine or any(each.member != member for each in later):
            self.violations.append(f"{member} commits {place}, which belongs to somebody else")
