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

Groups have up to 1,000 members and topics up to 10,000 partitions, and the caller's loop stands
still meanwhile. So nothing is looked for among all members or all partitions for each move: heaps
know who has most of a topic (`_Richest`) and what it gives first (`_Gifts`). Only where nobody can
give directly are the ways by others searched, and those searches are bounded together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from rakit.node.groups.state import Key

#: Moves of the third rule in one go: beyond it the rest stays as it is.
_STEPS_COUNT_MAX: Final = 20_000
#: Members looked at in the search for ways by others, in one go: about 0.3 s. Beyond it the rest
#: stays as it is.
_LOOKS_COUNT_MAX: Final = 1_000_000


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
        if self._taken.issuperset(keys):
            return
        subscribed = self.members[member_id].subscribed
        for key in keys:
            topic = self.topics.get(key[0])
            exists = topic is not None and key[1] < topic.partition_count
            if exists and key[0] in subscribed and key not in self._taken:
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
        rest = iter(free)
        # Loads only grow here, and only the first one's at each step: the heap stays right.
        heap = [
            (self.loads[each], len(self.held[each].get(topic_id, ())), each)
            for each in self.takers[topic_id]
        ]
        heapify(heap)
        for _ in free:
            member_id = heap[0][2]
            mine = near.get(self.members[member_id].rack, [])
            while mine and mine[-1] in self._taken:
                mine.pop()
            key = mine[-1] if mine else next(each for each in rest if each not in self._taken)
            self._give(member_id, key)
            in_topic = len(self.held[member_id][topic_id])
            heapreplace(heap, (self.loads[member_id], in_topic, member_id))

    def _by_rack(self, topic_id: int, free: list[Key]) -> dict[str, list[Key]]:
        """The partitions with a replica in a rack; the first one last."""
        near: dict[str, list[Key]] = defaultdict(list)
        racks = self.topics[topic_id].racks
        wanted = {self.members[each].rack for each in self.takers[topic_id]} - {""}
        for key in reversed(free if wanted else ()):
            for rack in racks[key[1]] if key[1] < len(racks) else ():
                near[rack].append(key)
        return near

    def even_out(self) -> None:
        """Rule 3, for the members with the fewest first."""
        if max(self.loads.values()) < min(self.loads.values()) + 2:
            return
        evening = _Evening(self)
        while evening.go_round():
            pass

    def is_near(self, member: Member, key: Key) -> bool:
        """Whether a replica is in the member's rack."""
        racks = self.topics[key[0]].racks
        return bool(member.rack) and key[1] < len(racks) and member.rack in racks[key[1]]

    def _give(self, member_id: str, key: Key) -> None:
        self._taken.add(key)
        self.held[member_id][key[0]].add(key)
        self.loads[member_id] += 1


class _Evening:
    """Rule 3 under way: who may be relieved by whom, and the moves."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._richest = _Richest(plan)
        self._gifts = _Gifts(plan)
        self._steps_left = _STEPS_COUNT_MAX
        self._looks_left = _LOOKS_COUNT_MAX
        #: What each member may have, in order; members with equal subscriptions share it.
        self._wants: dict[frozenset[int], list[int]] = {}
        #: Topics by which no way led to a member with this load, since the last move.
        self._stuck: dict[int, int] = {}

    def go_round(self) -> bool:
        """Gives one to whoever has the fewest, over and over; False if nobody could be given any.

        Whom no way leads to is left out for the rest of the round.
        """
        loads = self._plan.loads
        waiting = [(load, each) for each, load in loads.items()]
        heapify(waiting)
        moved = False
        while waiting:
            load, poor = heappop(waiting)
            if load != loads[poor] or not (chain := self._chain_to(poor)):
                continue
            moved = True
            for giver, topic_id, taker in chain:
                self._move(giver, topic_id, taker)
            for each in (poor, chain[0][0]):
                heappush(waiting, (loads[each], each))
        return moved

    def _chain_to(self, poor: str) -> list[tuple[str, int, str]]:
        """Who gives one of which topic to whom, so that somebody with two more has one less."""
        load, most = self._plan.loads[poor], self._richest.load
        if self._steps_left <= 0 or most < load + 2:
            return []
        best, direct = load + 1, list[tuple[str, int, str]]()
        for topic_id in self._wanted(poor):
            found = self._richest.of(topic_id)
            if found is not None and found[0] > best:
                best, direct = found[0], [(found[1], topic_id, poor)]
                if best == most:
                    break
        # What gives a member nothing gives nothing to one that has as much either.
        if direct or all(self._stuck.get(each, most) <= load for each in self._wanted(poor)):
            return direct
        return self._way_to(poor)

    def _wanted(self, member_id: str) -> list[int]:
        subscribed = self._plan.members[member_id].subscribed
        known = self._wants.get(subscribed)
        if known is None:
            known = self._wants[subscribed] = sorted(subscribed & self._plan.takers.keys())
        return known

    def _way_to(self, poor: str) -> list[tuple[str, int, str]]:
        """A chain by way of others."""
        plan = self._plan
        enough = plan.loads[poor] + 2
        came_by: dict[str, tuple[int, str]] = {}
        seen_topics: set[int] = set()
        seen, edge = {poor}, [poor]
        while edge and self._looks_left > 0:
            reached: list[str] = []
            for taker in edge:
                for topic_id in self._wanted(taker):
                    if topic_id in seen_topics:
                        continue
                    seen_topics.add(topic_id)
                    self._looks_left -= len(plan.takers[topic_id])
                    for giver in plan.takers[topic_id]:
                        if giver not in seen and plan.held[giver].get(topic_id):
                            seen.add(giver)
                            came_by[giver] = topic_id, taker
                            reached.append(giver)
            rich = max(reached, key=lambda each: (plan.loads[each], each), default=None)
            if rich is not None and plan.loads[rich] >= enough:
                chain: list[tuple[str, int, str]] = []
                while rich != poor:
                    topic_id, taker = came_by[rich]
                    chain.append((rich, topic_id, taker))
                    rich = taker
                return chain
            edge = reached
        for each in seen_topics:
            self._stuck[each] = min(plan.loads[poor], self._stuck.get(each, plan.loads[poor]))
        return []

    def _move(self, giver: str, topic_id: int, taker: str) -> None:
        """Moves the partition whose move costs least."""
        plan = self._plan
        key = self._gifts.take(giver, topic_id, taker)
        plan.held[giver][topic_id].discard(key)
        plan.held[taker][topic_id].add(key)
        plan.loads[giver] -= 1
        plan.loads[taker] += 1
        self._gifts.came(taker, key)
        self._richest.changed(giver)
        self._richest.changed(taker)
        self._stuck.clear()
        self._steps_left -= 1


class _Richest:
    """Who has most, of those that have something of a topic.

    A heap for each topic, its entries checked when they come up: whoever changes is put in anew.
    """

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._names = list(plan.members)
        self._places = {each: at for at, each in enumerate(self._names)}
        self._heaps: dict[int, list[tuple[int, int]]] = defaultdict(list)
        #: How many have so much, from which the most that anybody has.
        self._with_load: dict[int, int] = defaultdict(int)
        for member_id, place in self._places.items():
            load = plan.loads[member_id]
            self._with_load[load] += 1
            for topic_id, keys in plan.held[member_id].items():
                if keys:
                    self._heaps[topic_id].append((-load, -place))
        for heap in self._heaps.values():
            heapify(heap)
        self._known = dict(plan.loads)
        self._load = max(self._with_load)

    @property
    def load(self) -> int:
        """The most that anybody has; moves never raise it."""
        while not self._with_load[self._load]:
            self._load -= 1
        return self._load

    def of(self, topic_id: int) -> tuple[int, str] | None:
        """Its load, and its name."""
        heap = self._heaps[topic_id]
        while heap:
            load, place = -heap[0][0], -heap[0][1]
            member_id = self._names[place]
            if self._plan.loads[member_id] == load and self._plan.held[member_id][topic_id]:
                return load, member_id
            heappop(heap)
        return None

    def changed(self, member_id: str) -> None:
        """The member has more or less than before."""
        load = self._plan.loads[member_id]
        self._with_load[self._known[member_id]] -= 1
        self._with_load[load] += 1
        self._known[member_id] = load
        self._load = max(self._load, load)
        for topic_id, keys in self._plan.held[member_id].items():
            if keys:
                heappush(self._heaps[topic_id], (-load, -self._places[member_id]))


class _Gifts:
    """What a member gives first: what is on its way there, then what is not in use, then nearer.

    A heap for each giver and topic, by the rack that it may go to, and one for what the taker owns
    still; entries that the giver has not any more are dropped when they come up.
    """

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._owner = {key: each.member_id for each in plan.members.values() for key in each.owned}
        self._heaps: dict[tuple[str, int], dict[str, list[tuple[bool, int, Key]]]] = {}
        #: By (giver, topic, taker): what the taker owns and was to give to the giver.
        self._homeward: dict[tuple[str, int, str], list[tuple[bool, int, Key]]] = defaultdict(list)
        for member_id, topics in plan.held.items():
            for keys in topics.values():
                for key in keys:
                    self._note_homeward(member_id, key)

    def _note_homeward(self, holder: str, key: Key) -> None:
        owner = self._owner.get(key, holder)
        if owner != holder:
            entry = self._entry(holder, self._plan.members[owner], key)
            heappush(self._homeward[holder, key[0], owner], entry)

    def _entry(self, giver: str, gets: Member, key: Key) -> tuple[bool, int, Key]:
        has = self._plan.members[giver]
        worse = self._plan.is_near(has, key) - self._plan.is_near(gets, key)
        return self._owner.get(key) == giver, worse, key

    def take(self, giver: str, topic_id: int, taker: str) -> Key:
        """The partition whose move costs least."""
        held = self._plan.held[giver][topic_id]
        gets = self._plan.members[taker]
        heaps = self._heaps.setdefault((giver, topic_id), {})
        if gets.rack not in heaps:
            heaps[gets.rack] = [self._entry(giver, gets, key) for key in held]
            heapify(heaps[gets.rack])
        for heap in (self._homeward.get((giver, topic_id, taker), []), heaps[gets.rack]):
            while heap:
                key = heappop(heap)[2]
                if key in held:
                    return key
        raise AssertionError("a giver has something of the topic")

    def came(self, member_id: str, key: Key) -> None:
        """A partition came to a member, which may give it on."""
        self._note_homeward(member_id, key)
        for rack, heap in self._heaps.get((member_id, key[0]), {}).items():
            gets = Member("", frozenset(), rack)
            heappush(heap, self._entry(member_id, gets, key))
