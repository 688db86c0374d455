"""Who is to have which partition: sticky, even, and near if that costs nothing. Pure.

1. Everybody keeps what it has and still subscribes to.
2. What nobody has goes to the member with the fewest partitions that may have it; among those, to
   the one with the fewest of this topic. It takes one with a replica in its rack if there is one.
   Topics with few subscribers come first, because they have the least choice.
3. While a member could have two less than another one and give it one, directly or by way of others
   (A gives B one of a topic that B and A share, B gives C one of a topic that B and C share), it
   does. So no partition moves but for evenness, and never for a rack.

With equal subscriptions the counts then differ by at most one, and what moved is the least that
makes them so. With different ones no member could be relieved in favour of one that has less.

The outcome is put into a command, so these rules may change without a feature level. It must be
the same again when asked again, or every new coordinator would move partitions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Final

from rakit.node.groups.state import Key

#: Steps of the third rule in one go: beyond it the rest stays as it is. Each step is at most one
#: look at every member for every topic.
_STEPS_COUNT_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as members see it."""

    topic_id: int
    name: str
    partition_count: int
    #: For each partition the racks of its replicas; shorter where they are not known.
    racks: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A member, what it may have and what it has."""

    member_id: str
    #: Topic ids.
    subscribed: frozenset[int]
    rack: str = ""
    #: What it was to have last; where two claim one, the first keeps it.
    target: tuple[Key, ...] = ()
    #: What it has now, which is less dear: it may be on its way to somebody else.
    owned: tuple[Key, ...] = ()


def assign(members: Iterable[Member], topics: Mapping[int, Topic]) -> dict[str, tuple[Key, ...]]:
    """Returns what each member is to have, by topic and partition."""
    plan = _Plan(members, topics)
    if not plan.members:
        return {}
    plan.keep()
    for topic_id in plan.most_constrained_first():
        plan.fill(topic_id)
    plan.even_out()
    return {
        each: tuple(sorted(key for held in plan.held[each].values() for key in held))
        for each in plan.members
    }


class _Plan:
    """The assignment as it comes about."""

    def __init__(self, members: Iterable[Member], topics: Mapping[int, Topic]) -> None:
        self.topics = topics
        self.members = {each.member_id: each for each in sorted(members, key=lambda m: m.member_id)}
        self.held: dict[str, defaultdict[int, set[Key]]] = {
            each: defaultdict(set) for each in self.members
        }
        self.loads = dict.fromkeys(self.members, 0)
        self.takers: dict[int, list[str]] = defaultdict(list)
        for member_id, member in self.members.items():
            for topic_id in member.subscribed & topics.keys():
                self.takers[topic_id].append(member_id)
        self._taken: set[Key] = set()

    def keep(self) -> None:
        """Rule 1."""
        for member_id, member in self.members.items():
            self._keep(member_id, member.target)
        for member_id, member in self.members.items():
            self._keep(member_id, member.owned)

    def _keep(self, member_id: str, keys: Iterable[Key]) -> None:
        for key in keys:
            topic = self.topics.get(key[0])
            exists = topic is not None and key[1] < topic.partition_count
            wanted = key[0] in self.members[member_id].subscribed
            if exists and wanted and key not in self._taken:
                self._give(member_id, key)

    def most_constrained_first(self) -> list[int]:
        """The topics that anybody may have, those with the least choice first."""
        return sorted(self.takers, key=lambda each: (len(self.takers[each]), each))

    def fill(self, topic_id: int) -> None:
        """Rule 2, for the partitions of one topic."""
        count = self.topics[topic_id].partition_count
        free = [(topic_id, at) for at in range(count) if (topic_id, at) not in self._taken]
        if not free:
            return
        near = self._by_rack(topic_id, free)
        left = dict.fromkeys(free)
        # Loads only grow here, and only the first one's at each step: the heap stays right.
        heap = [
            (self.loads[each], len(self.held[each][topic_id]), each)
            for each in self.takers[topic_id]
        ]
        heapify(heap)
        while left:
            member_id = heap[0][2]
            mine = near.get(self.members[member_id].rack, [])
            while mine and mine[-1] not in left:
                mine.pop()
            key = mine[-1] if mine else next(iter(left))
            del left[key]
            self._give(member_id, key)
            in_topic = len(self.held[member_id][topic_id])
            heapreplace(heap, (self.loads[member_id], in_topic, member_id))

    def _by_rack(self, topic_id: int, free: list[Key]) -> dict[str, list[Key]]:
        """The partitions with a replica in a rack; the first one last."""
        near: dict[str, list[Key]] = defaultdict(list)
        racks = self.topics[topic_id].racks
        for key in reversed(free):
            for rack in racks[key[1]] if key[1] < len(racks) else ():
                near[rack].append(key)
        near.pop("", None)
        return near

    def even_out(self) -> None:
        """Rule 3, for the members with the fewest first."""
        steps_left = _STEPS_COUNT_MAX
        moved = True
        while moved and steps_left > 0:
            moved = False
            for poor in sorted(self.members, key=lambda each: (self.loads[each], each)):
                while steps_left > 0 and (chain := self._chain_to(poor)):
                    steps_left -= 1
                    moved = True
                    for giver, topic_id, taker in chain:
                        self._move(giver, topic_id, taker)

    def _chain_to(self, poor: str) -> list[tuple[str, int, str]]:
        """Who gives one of which topic to whom, so that somebody with two more has one less."""
        enough = self.loads[poor] + 2
        came_by: dict[str, tuple[int, str]] = {}
        seen_topics: set[int] = set()
        seen, edge = {poor}, [poor]
        while edge:
            reached: list[str] = []
            for taker in edge:
                fresh = (self.members[taker].subscribed & self.takers.keys()) - seen_topics
                for topic_id in sorted(fresh):
                    seen_topics.add(topic_id)
                    for giver in self.takers[topic_id]:
                        if giver not in seen and self.held[giver].get(topic_id):
                            seen.add(giver)
                            came_by[giver] = topic_id, taker
                            reached.append(giver)
            rich = max(reached, key=lambda each: (self.loads[each], each), default=None)
            if rich is not None and self.loads[rich] >= enough:
                chain: list[tuple[str, int, str]] = []
                while rich != poor:
                    topic_id, taker = came_by[rich]
                    chain.append((rich, topic_id, taker))
                    rich = taker
                return chain
            edge = reached
        return []

    def _move(self, giver: str, topic_id: int, taker: str) -> None:
        """The partition whose move costs least: not in use, on its way there, nearer there."""
        has, gets = self.members[giver], self.members[taker]
        in_use, on_its_way = set(has.owned), set(gets.owned)

        def cost(key: Key) -> tuple[bool, bool, int, Key]:
            worse = self._is_near(has, key) - self._is_near(gets, key)
            return key in in_use, key not in on_its_way, worse, key

        key = min(self.held[giver][topic_id], key=cost)
        self.held[giver][topic_id].discard(key)
        self.loads[giver] -= 1
        self._give(taker, key)

    def _is_near(self, member: Member, key: Key) -> bool:
        racks = self.topics[key[0]].racks
        return bool(member.rack) and key[1] < len(racks) and member.rack in racks[key[1]]

    def _give(self, member_id: str, key: Key) -> None:
        self._taken.add(key)
        self.held[member_id][key[0]].add(key)
        self.loads[member_id] += 1
