"""From names and patterns to topics, as the registry has them at the moment. Pure.

Patterns are globs over topic names, `*` and `?`, matched in time linear in the name: nobody's
pattern can hold the loop. Internal topics have no name that a pattern could match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TypeAlias

from rakit.multiraft.machine import node_of
from rakit.node.groups.assignor import Topic
from rakit.node.metadata.registry import Registry, TopicInfo
from rakit.peer.v1.group_command_pb2 import MemberRecord

#: Names and patterns of one member, each in order.
Subscription: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]


def subscription_of(member: MemberRecord) -> Subscription:
    """What a member asked for."""
    return tuple(sorted(member.topics)), tuple(sorted(member.topic_patterns))


@dataclass(slots=True)
class View:
    """The registry of one moment, as groups look at it; what was looked up is kept."""

    topic: Callable[[str], TopicInfo | None]
    names: Callable[[], Iterable[str]]
    rack_of: Callable[[int], str]
    topics: dict[int, Topic] = field(default_factory=dict[int, Topic])
    _resolved: dict[Subscription, frozenset[int]] = field(
        default_factory=dict[Subscription, frozenset[int]]
    )

    def resolve(self, member: MemberRecord) -> frozenset[int]:
        """The ids of the topics that a member subscribes to; they are in `topics` then."""
        asked = subscription_of(member)
        if (known := self._resolved.get(asked)) is not None:
            return known
        names, patterns = asked
        wanted = set(names)
        if patterns:
            wanted.update(
                name
                for name in self.names()
                if any(fnmatchcase(name, pattern) for pattern in patterns)
            )
        found = {info.topic_id: info for name in wanted if (info := self.topic(name)) is not None}
        for topic_id, info in found.items():
            if topic_id not in self.topics:
                self.topics[topic_id] = self._topic(info)
        resolved = self._resolved[asked] = frozenset(found)
        return resolved

    def of(self, members: Iterable[MemberRecord]) -> View:
        """The same for these members, all looked up: another thread may look at it."""
        for each in members:
            self.resolve(each)
        return replace(self, topics=dict(self.topics), _resolved=dict(self._resolved))

    def _topic(self, info: TopicInfo) -> Topic:
        racks = tuple(
            frozenset(self.rack_of(node_of(each)) for each in one.replica_ids)
            for one in info.partitions
        )
        return Topic(info.topic_id, info.name, len(info.partitions), racks)


def view_of(registry: Registry) -> View:
    """The registry as it is now."""

    def rack_of(node_id: int) -> str:
        node = registry.nodes.get(node_id)
        return "" if node is None else node.rack

    return View(registry.topic, registry.topic_names, rack_of)
