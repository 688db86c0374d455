"""GetGroup: a group as it is, page by page.

A group may have a thousand members and a hundred thousand partitions, and clients take 4 MiB by
default. So an answer is a window of one long row: the members by their ids, then the partitions by
topic and number. Only the partitions of the window are asked how far behind the group is.

Rules:

- The token is the place of the last thing in the window, not a count: what comes or goes between
  two pages moves nothing else.
- A partition brings its owner, and who will own it, into the window: described, where that is its
  own place, else by its id.
- What a page holds is bounded by what it may take at most, before anybody is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from rakit.api.v1 import error_pb2
from rakit.api.v1 import group_service_pb2 as api
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.client import DescribedGroup
from rakit.node.groups.state import Key, key_of, state_of
from rakit.node.metadata.registry import Registry, TopicInfo
from rakit.node.services.positions import RESPONSE_BYTES_MAX
from rakit.node.services.standings import Standing, Standings
from rakit.peer.v1.group_command_pb2 import GroupOffset, MemberRecord

#: Far more than what nearly all groups have: those come whole.
PAGE_SIZE_DEFAULT: Final = 1_000
PAGE_SIZE_MAX: Final = 10_000
#: A partition on a page, with an error in the place of its range, beside names and metadata.
_PARTITION_BYTES: Final = 600
#: How often the name of a topic is in what is said of one partition of it, error included.
_NAMES_COUNT: Final = 6
_TOKEN: Final = re.compile(r"after:([01]):(\d{1,9}):(.{1,256})", re.DOTALL)

#: 0 and a member's id, or 1 with a topic's name and a partition; in this order.
Place: TypeAlias = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class _Partition:
    """One partition of a group."""

    topic: TopicInfo
    key: Key
    offset: GroupOffset | None
    owner: str
    #: Who is to have it; one member, unless a command was wrong.
    targets: Sequence[str]

    @property
    def named(self) -> api.TopicPartition:
        """By the topic's name."""
        return api.TopicPartition(topic=self.topic.name, partition=self.key[1])

    @property
    def bytes_max(self) -> int:
        """What it takes of an answer at most."""
        metadata = "" if self.offset is None else self.offset.metadata
        ids = 2 * len(self.owner) + sum(map(len, self.targets))
        names = _NAMES_COUNT * len(self.topic.name)
        return _PARTITION_BYTES + names + 4 * len(metadata) + ids


class _Known:
    """A group by places; what is at a place is put together when it is looked at."""

    def __init__(self, described: DescribedGroup, registry: Registry) -> None:
        record = described.record
        gateways = zip(record.members, described.gateway_node_ids, strict=True)
        #: With the node that holds the member's session.
        self.members: dict[Place, tuple[MemberRecord, int]] = {
            (0, one.member_id, 0): (one, gateway) for one, gateway in gateways
        }
        self._registry = registry
        self._committed = {key_of(each): each for each in record.offsets}
        self._owners = {key_of(each): one.member_id for one in record.members for each in one.owned}
        self._targets: dict[Key, list[str]] = {}
        for one in record.members:
            for each in one.target:
                self._targets.setdefault(key_of(each), []).append(one.member_id)
        #: All partitions, without those of topics that are gone.
        self.keys: dict[Place, Key] = {}
        for key in self._committed.keys() | self._owners.keys() | self._targets.keys():
            topic = registry.topic_by_id(key[0])
            if topic is not None and key[1] < len(topic.partitions):
                self.keys[1, topic.name, key[1]] = key

    def partition(self, place: Place) -> _Partition:
        """The partition at a place."""
        key = self.keys[place]
        topic = self._registry.topic_by_id(key[0])
        assert topic is not None, "it was there when its place was found"
        offset, owner = self._committed.get(key), self._owners.get(key, "")
        return _Partition(topic, key, offset, owner, self._targets.get(key, ()))

    def bytes_max(self, place: Place) -> int:
        """What is at a place takes so much of an answer at most."""
        if (member := self.members.get(place)) is not None:
            return member[0].ByteSize()
        return self.partition(place).bytes_max


@dataclass(frozen=True, slots=True)
class _Window:
    """What is on a page."""

    members: Sequence[tuple[MemberRecord, int]]
    partitions: Sequence[_Partition]
    next_token: str


class GroupPages:
    """Answers GetGroup from what the coordinator says of a group."""

    def __init__(
        self, registry: Registry, standings: Standings, clock_ms: Callable[[], int]
    ) -> None:
        self._registry = registry
        self._standings = standings
        self._clock_ms = clock_ms

    async def page(
        self, described: DescribedGroup, size: int, token: str, deadline: float
    ) -> api.GetGroupResponse:
        """One page, without its header."""
        window = self._window(described, min(size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX), token)
        record = described.record
        return api.GetGroupResponse(
            group=api.Group(
                name=record.name,
                state=state_of(record.members),
                epoch=record.epoch,
                coordinator_node_id=described.coordinator_node_id,
                members=_members(window),
                partitions=await self._rows(window.partitions, deadline),
            ),
            next_page_token=window.next_token,
        )

    def _window(self, described: DescribedGroup, size: int, token: str) -> _Window:
        after = _place_in(token)
        known = _Known(described, self._registry)
        left = sorted(place for place in known.members.keys() | known.keys.keys() if place > after)
        chosen: list[Place] = []
        room = RESPONSE_BYTES_MAX
        for place in left[:size]:
            room -= known.bytes_max(place)
            if room < 0 and chosen:
                break
            chosen.append(place)
        return _Window(
            [known.members[each] for each in chosen if each in known.members],
            [known.partition(each) for each in chosen if each in known.keys],
            _token_of(chosen[-1]) if len(chosen) < len(left) else "",
        )

    async def _rows(self, known: Sequence[_Partition], deadline: float) -> list[api.GroupPartition]:
        by_topic: dict[int, list[_Partition]] = {}
        for each in known:
            by_topic.setdefault(each.key[0], []).append(each)
        rows: list[api.GroupPartition] = []
        for some in by_topic.values():
            places = {
                each.key[1]: 0 if each.offset is None else each.offset.offset for each in some
            }
            found = await self._standings.of(some[0].topic, places, deadline)
            rows += [self._row(each, found[each.key[1]]) for each in some]
        return rows

    def _row(self, known: _Partition, seen: Standing | RakitError) -> api.GroupPartition:
        offset = known.offset
        row = api.GroupPartition(
            topic=known.topic.name, partition=known.key[1], member_id=known.owner
        )
        if offset is not None:
            row.committed_offset = offset.offset
            row.metadata = offset.metadata
            row.commit_time_ms = offset.commit_time_ms
        if isinstance(seen, RakitError):
            row.error.CopyFrom(to_status(seen))
            return row
        row.earliest, row.latest = seen.earliest, seen.latest
        place = seen.earliest if offset is None else max(offset.offset, seen.earliest)
        row.lag_records = max(0, seen.latest - place)
        if row.lag_records and seen.append_time_ms:
            row.lag_ms = max(0, self._clock_ms() - seen.append_time_ms)
        return row


def _members(window: _Window) -> list[api.GroupMember]:
    """The members of a page, with their partitions on it."""
    members = {
        one.member_id: api.GroupMember(
            member_id=one.member_id,
            instance_id=one.instance_id,
            client_id=one.client_id,
            rack=one.rack,
            member_epoch=one.epoch,
            gateway_node_id=gateway,
            topics=one.topics,
            topic_patterns=one.topic_patterns,
        )
        for one, gateway in window.members
    }

    def member(member_id: str) -> api.GroupMember:
        return members.setdefault(member_id, api.GroupMember(member_id=member_id))

    for each in window.partitions:
        if each.owner:
            member(each.owner).owned.append(each.named)
        for target in each.targets:
            member(target).target.append(each.named)
    return list(members.values())


def _token_of(place: Place) -> str:
    kind, name, number = place
    return f"after:{kind}:{number}:{name}"


def _place_in(token: str) -> Place:
    if not token:
        return (0, "", 0)
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN,
            "The page token is not one that GetGroup gave; begin again without one.",
        )
    kind, number, name = match.groups()
    return (int(kind), name, int(number))
