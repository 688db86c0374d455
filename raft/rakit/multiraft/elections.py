"""Whose turn it is to campaign when a group has no leader and nobody needs to wait for a time-out.

Two occasions: a newborn group, which should have a leader within a few ticks, and the loss of the
node that led (safety S16). The core's randomised time-out would settle both, in one to two
seconds. Here the voters take turns instead: the order is the configuration's, rotated by the group
id, so that it needs no talk, spreads the leaders of many groups evenly, and two voters hardly ever
split the vote. A voter that is asked for its vote yields: its own turn moves behind the other's. A
voter whose turn brought no leader tries again when everyone has had a turn, later each time; the
core's time-out goes on underneath.

The agenda caps how many campaigns a node has under way: a node that led thousands of groups must
not turn its loss into a storm. A place is free again when the group has a leader, or when the
voters after this one have had their turns. Who finds no room waits, in order, and so does a replica
whose time-out ran out. Later voters wait behind all of these: while this node is busy with first
turns, so are the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from rakit.multiraft.machine import node_of
from rakit.raft import ConfState

#: Turns after which an orphaned group is left to the core's time-out.
TRIES_MAX = 6


def turn(
    conf: ConfState,
    group_id: int,
    replica: int,
    is_up: Callable[[int], bool],
    first: int | None = None,
) -> int:
    """Returns how many living voters go before `replica`; `first` goes before all, if it votes."""
    voters = conf.voters
    start = voters.index(first) if first in voters else group_id % len(voters)
    order = [
        voter
        for voter in (*voters[start:], *voters[:start])
        if voter == replica or is_up(node_of(voter))
    ]
    return order.index(replica)


@dataclass(slots=True)
class _Turn:
    rank: int
    tick: int
    tries: int = 0


class Agenda:
    """The campaigns that this node is to start, by tick."""

    def __init__(
        self, turn_ticks: int, longest_ticks: int, count_max: int, rng: random.Random
    ) -> None:
        self._turn_ticks = turn_ticks
        self._longest_ticks = longest_ticks
        self._count_max = count_max
        self._rng = rng
        self._turns: dict[int, _Turn] = {}
        #: Groups whose turn has come; a dict keeps order and no repeats.
        self._waiting: dict[int, None] = {}
        #: Later voters, when theirs has come: while a node is busy with first turns, so are others.
        self._waiting_later: dict[int, None] = {}
        #: Groups with a campaign under way, and when it counts as failed; ascending.
        self._under_way: dict[int, int] = {}
        self._calendar: dict[int, list[int]] = {}

    def has(self, group_id: int) -> bool:
        """Tells whether a turn of the group is planned."""
        return group_id in self._turns

    def plan(self, group_id: int, now: int, rank: int) -> None:
        """Gives the group's replica its turn after `rank` others; replaces an earlier plan."""
        self._turns[group_id] = planned = _Turn(rank, 0)
        self._put(group_id, planned, now + 1 + rank * self._turn_ticks + self._rng.randrange(2))

    def ask(self, group_id: int) -> None:
        """Gives a group without a turn one try, as soon as there is room."""
        self._turns[group_id] = _Turn(0, 0, TRIES_MAX - 1)
        self._waiting[group_id] = None

    def again(self, group_id: int, now: int, voters: int) -> bool:
        """Plans the next try of a turn that was just taken; False when there have been enough."""
        planned = self._turns[group_id]
        planned.tries += 1
        if planned.tries >= TRIES_MAX:
            del self._turns[group_id]
            return False
        assert voters, "the replica whose turn it is votes"
        wait = min(self._longest_ticks, voters * self._turn_ticks * planned.tries)
        # Ranks stay apart, so that whoever split the vote does not split it again.
        wait += planned.rank * self._turn_ticks
        self._put(group_id, planned, now + wait + self._rng.randrange(3))
        return True

    def give_way(self, group_id: int, now: int) -> None:
        """Moves the group's turn behind that of another voter, which has just asked for a vote."""
        planned = self._turns.get(group_id)
        if planned is not None and planned.tick < now + self._turn_ticks:
            self._put(group_id, planned, now + self._turn_ticks + self._rng.randrange(2))

    def _put(self, group_id: int, planned: _Turn, tick: int) -> None:
        planned.tick = tick
        self._calendar.setdefault(tick, []).append(group_id)
        self._waiting.pop(group_id, None)
        self._waiting_later.pop(group_id, None)

    def cancel(self, group_id: int) -> None:
        """Forgets the group's turn: it has a leader, or is gone."""
        self._turns.pop(group_id, None)
        self._waiting.pop(group_id, None)
        self._waiting_later.pop(group_id, None)
        self._under_way.pop(group_id, None)

    def due(self, now: int) -> list[int]:
        """Returns the groups whose turn it is, as many as there is room for."""
        for group_id in self._calendar.pop(now, ()):
            planned = self._turns.get(group_id)
            if planned is not None and planned.tick == now:
                later = planned.rank and not planned.tries
                (self._waiting_later if later else self._waiting)[group_id] = None
        under_way = self._under_way
        while under_way and under_way[first := next(iter(under_way))] <= now:
            del under_way[first]
        taken: list[int] = []
        for line in (self._waiting, self._waiting_later):
            for group_id in tuple(islice(line, max(0, self._count_max - len(under_way)))):
                del line[group_id]
                under_way.pop(group_id, None)
                under_way[group_id] = now + 3 * self._turn_ticks
                taken.append(group_id)
        return taken
