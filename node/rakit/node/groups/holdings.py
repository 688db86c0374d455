"""The partitions of one member as the node that serves it has them. Pure: no task, no clock.

A partition comes (`apply`), is *opened* when it is known where reading begins, is read, sought,
paused, and goes: the coordinator says that it is being revoked, the client is told, the client says
that it is done, the coordinator is told. Only then it is gone here.

Rules:

- What the client cannot know of is let go of without asking it. On a resumed stream it may know of
  all that the member has at first: it had it on an earlier stream, and may have records of it.
- What is let go of without asking is not looked at again until the coordinator has the word.
- A client that was told that it must let go does so, also where the coordinator meanwhile would
  have left the partition where it is: it then comes anew.
- A partition that is gone from the member without having been revoked is told as being revoked, and
  nobody waits for it.
- Clients name partitions by topic and number. Of two topics that had one name the later one comes
  when the client has let go of the earlier one.
- Every change that makes what is being read at the moment wrong raises the partition's `turn`:
  whoever has read for an older turn drops it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from rakit.api.v1.group_service_pb2 import TopicPartition
from rakit.api.v1.log_service_pb2 import Edge, Position
from rakit.peer.v1.coordinator_service_pb2 import MemberAnswer, MemberPartition
from rakit.peer.v1.group_command_pb2 import OwnedPartition

Key: TypeAlias = tuple[str, int]
_Incarnation: TypeAlias = tuple[int, int, int]


@dataclass(slots=True, eq=False)
class Held:
    """One partition that the member owns."""

    owned: OwnedPartition
    #: Where it is read next; until it is open, where it is to begin.
    position: Position
    #: It begins at the group's committed offset.
    from_commit: bool
    #: There was a committed offset, or the position was good once, and is no longer.
    reset: bool = False
    #: It is known where reading begins.
    is_open: bool = False
    #: The client was told on this stream that it has it.
    is_told: bool = False
    #: The client may know that it has it from an earlier stream.
    may_be_known: bool = False
    #: The client has been told to let go of it.
    revoking: bool = False
    #: The client has let go of it.
    released: bool = False
    paused: bool = False
    #: A seek is under way.
    seeking: bool = False
    #: There is more in the log than was read.
    is_behind: bool = True
    #: Not read before this moment, on the loop's clock.
    rest_until: float = 0.0
    turn: int = 0
    #: The readable range as last heard, `latest` exclusive.
    earliest: int = 0
    latest: int = 0
    #: Where what the client has been sent ends, and up to where it has committed.
    sent_to: int = 0
    committed_to: int = 0

    @property
    def key(self) -> Key:
        """By what clients name it."""
        return (self.position.topic, self.position.partition)

    @property
    def named(self) -> TopicPartition:
        """The same, as a message."""
        return TopicPartition(topic=self.position.topic, partition=self.position.partition)

    @property
    def incarnation(self) -> _Incarnation:
        """What it is to the coordinator."""
        return _incarnation(self.owned)

    def is_readable(self, now: float) -> bool:
        """Whether records of it may go to the client."""
        stopped = self.revoking or self.paused or self.seeking
        return self.is_open and not stopped and now >= self.rest_until

    def contains(self, offset: int) -> bool:
        """Whether an offset lies within the log, as far as is known here."""
        return self.earliest <= offset <= max(self.latest, self.sent_to)

    def reopen(self, start: Edge.ValueType) -> None:
        """What it stood at is not kept: it begins anew where the member begins."""
        self.turn += 1
        self.is_open = False
        self.reset = True
        self.from_commit = False
        self.position.edge = start


def _incarnation(owned: OwnedPartition) -> _Incarnation:
    return (owned.topic_id, owned.partition, owned.since_epoch)


@dataclass(slots=True)
class Change:
    """What an answer of the coordinator comes to."""

    #: To be opened.
    added: list[Held] = field(default_factory=list[Held])
    #: The client is to be told to let go of these.
    revoked: list[Held] = field(default_factory=list[Held])
    #: The client cannot know of these: they are let go of at once.
    unseen: list[OwnedPartition] = field(default_factory=list[OwnedPartition])


class Holdings:
    """All partitions of one member."""

    def __init__(self, start: Edge.ValueType, *, resumed: bool = False) -> None:
        self._start = start
        self._held: dict[Key, Held] = {}
        #: The next answer is the first one on a resumed stream.
        self._is_first = resumed
        #: Let go of without asking the client; the coordinator may not have heard yet.
        self._unseen: set[_Incarnation] = set()

    def get(self, topic: str, partition: int) -> Held | None:
        """The partition by its name, whatever its state."""
        return self._held.get((topic, partition))

    def all(self) -> list[Held]:
        """Every partition that is held."""
        return list(self._held.values())

    def owned(self) -> list[TopicPartition]:
        """What the member owns, told or not, but for what the client has let go of."""
        return [each.named for each in self._held.values() if not each.released]

    def apply(self, answer: MemberAnswer) -> Change:
        """Takes over how the coordinator has the member."""
        change = Change()
        owned = {_incarnation(each.partition): each for each in answer.owned}
        revoking = {_incarnation(each) for each in answer.revoking}
        self._unseen &= owned.keys()
        is_first, self._is_first = self._is_first, False
        if is_first:
            # Of two topics of one name the earlier one is what the client had.
            for incarnation, each in sorted(owned.items(), key=lambda one: one[0] not in revoking):
                if (each.topic, each.partition.partition) not in self._held:
                    held = self._added(each)
                    held.may_be_known = True
                    change.added += [held] if incarnation not in revoking else []
        for held in self.all():
            if held.incarnation not in owned:
                self._vanished(held, change)
            elif held.incarnation in revoking:
                self._revoked(held, change)
        known = {held.incarnation for held in self._held.values()} | self._unseen
        for incarnation, each in owned.items():
            if incarnation in known:
                continue
            if incarnation in revoking:
                self._unsee(each.partition, change)
            elif (each.topic, each.partition.partition) not in self._held:
                change.added.append(self._added(each))
        return change

    def _unsee(self, owned: OwnedPartition, change: Change) -> None:
        self._unseen.add(_incarnation(owned))
        change.unseen.append(owned)

    def _vanished(self, held: Held, change: Change) -> None:
        if held.released or not (held.is_told or held.may_be_known):
            del self._held[held.key]
        elif not held.revoking:
            self._tell_revoked(held, change)

    def _revoked(self, held: Held, change: Change) -> None:
        if not (held.is_told or held.may_be_known):
            del self._held[held.key]
            self._unsee(held.owned, change)
        elif not held.revoking:
            self._tell_revoked(held, change)

    def _tell_revoked(self, held: Held, change: Change) -> None:
        held.is_told = held.revoking = True
        held.turn += 1
        change.revoked.append(held)

    def _added(self, each: MemberPartition) -> Held:
        position = Position(topic=each.topic, partition=each.partition.partition)
        committed = each.HasField("committed_offset")
        if committed:
            position.offset = each.committed_offset
        else:
            position.edge = self._start
        held = Held(each.partition, position, from_commit=committed)
        self._held[held.key] = held
        return held

    def let_go(self, held: Held) -> None:
        """The client is done with it; it stays here until an answer comes without it."""
        held.turn += not held.revoking
        held.released = held.revoking = True
