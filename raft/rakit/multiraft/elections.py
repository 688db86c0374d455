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
voters after this one have had their turns. Who finds no room waits, in order. Later voters wait
behind these, as long as a quarter of the room suffices for them: while this node is busy with first
turns, so are the others, but first ones may be such as cannot win. Then come replicas whose
time-out ran out, a few in a tick, and last groups that too few of the voters live for, which would
else use up the room for ever. The metadata group stands in no line: everything waits for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from rakit.multiraft.machine import node_of
from rakit.raft import ConfState

#: Turns after which an orphaned group is left to the core's time-out.
TRIES_MAX = 6
#: Groups that ask within one tick though their leader will most likely speak by itself.
PATIENT_PER_TICK_MAX = 4
#: The part of the room that later voters get, where first ones wait as well.
_SHARE_OF_LATER = 4


def electors(conf: ConfState) -> tuple[int, ...]:
    """Returns everybody who votes, each of whom may stand; those that a joint phase ends last.

    One of these may be the only one with the longest log: if it did not stand, nobody could win.
    """
    voters = conf.voters
    return (*voters, *[one for one in conf.voters_outgoing if one not in voters])


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
    leaving = electors(conf)[len(voters) :]
    order = [
        voter
        for voter in (*voters[start:], *voters[:start], *leaving)
        if voter == replica or is_up(node_of(voter))
    ]
    return order.index(replica)


class Urgency(Enum):
    """Who is let through first."""

    #: Everything waits for it: it stands in no line.
    FIRST = auto()
    USUAL = auto()
    #: It heard of no leader for its time-out, as after a restart: most likely there is one, which
    #: will speak to it, and to ask in thousands of groups at once would hold up just that.
    PATIENT = auto()
    #: As far as is known, too few of its voters live for an election.
    HOPELESS = auto()


_STILL_PATIENT = (Urgency.PATIENT, Urgency.USUAL)


@dataclass(slots=True)
class _Turn:
    rank: int
    tick: int
    urgency: Urgency
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
        #: Groups whose leader will most likely speak by itself.
        self._waiting_patiently: dict[int, None] = {}
        #: Groups that cannot elect anybody, as far as is known.
        self._waiting_last: dict[int, None] = {}
        #: Groups with a campaign under way, and when it counts as failed; ascending.
        self._under_way: dict[int, int] = {}
        self._calendar: dict[int, list[int]] = {}

    def has(self, group_id: int) -> bool:
        """Tells whether a turn of the group is planned."""
        return group_id in self._turns

    def plan(self, group_id: int, now: int, rank: int, urgency: Urgency = Urgency.USUAL) -> None:
        """Gives the group's replica its turn after `rank` others; replaces an earlier plan."""
        self._turns[group_id] = planned = _Turn(rank, 0, urgency)
        self._put(group_id, planned, now + 1 + rank * self._turn_ticks + self._rng.randrange(2))

    def ask(self, group_id: int, urgency: Urgency = Urgency.PATIENT) -> None:
        """Gives a group without a turn one try, as soon as there is room."""
        self._turns[group_id] = planned = _Turn(0, 0, urgency, TRIES_MAX - 1)
        self._line_of(planned)[group_id] = None

    def _line_of(self, planned: _Turn) -> dict[int, None]:
        if planned.urgency is Urgency.HOPELESS:
            return self._waiting_last
        if planned.urgency is Urgency.PATIENT:
            return self._waiting_patiently
        return self._waiting_later if planned.rank and not planned.tries else self._waiting

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
        # Who stands in line waits long enough as it is: sent to the end each time, it would never
        # get its turn beside others that have none to give way to.
        stands = any(group_id in line for line in self._lines())
        if planned is not None and not stands and planned.tick < now + self._turn_ticks:
            self._put(group_id, planned, now + self._turn_ticks + self._rng.randrange(2))

    def _put(self, group_id: int, planned: _Turn, tick: int) -> None:
        planned.tick = tick
        self._calendar.setdefault(tick, []).append(group_id)
        for line in self._lines():
            line.pop(group_id, None)

    def _lines(self) -> tuple[dict[int, None], ...]:
        return (
            self._waiting,
            self._waiting_later,
            self._waiting_patiently,
            self._waiting_last,
        )

    def rank_anew(self, group_id: int, urgency: Urgency) -> bool:
        """Takes in who lives now; False if that sends a group to another line."""
        planned = self._turns[group_id]
        if planned.urgency is urgency or (planned.urgency, urgency) == _STILL_PATIENT:
            return True
        planned.urgency = urgency
        stood = [line for line in self._lines() if line.pop(group_id, self) is None]
        if stood or self._under_way.pop(group_id, None) is not None:
            self._line_of(planned)[group_id] = None
        return False

    def cancel(self, group_id: int) -> None:
        """Forgets the group's turn: it has a leader, or is gone."""
        self._under_way.pop(group_id, None)
        if self._turns.pop(group_id, None) is None:
            return  # only who has a turn stands in a line
        for line in self._lines():
            line.pop(group_id, None)

    def due(self, now: int) -> list[int]:
        """Returns the groups whose turn it is, as many as there is room for."""
        taken: list[int] = []
        for group_id in self._calendar.pop(now, ()):
            planned = self._turns.get(group_id)
            if planned is None or planned.tick != now:
                continue
            if planned.urgency is Urgency.FIRST:
                taken.append(group_id)
            else:
                self._line_of(planned)[group_id] = None
        under_way = self._under_way
        while under_way and under_way[first := next(iter(under_way))] <= now:
            del under_way[first]
        if not any(self._lines()):
            return taken
        room = max(0, self._count_max - len(under_way))
        # Later voters have a part of it, or of the ticks: first ones may be such as cannot win.
        later = room // _SHARE_OF_LATER or int(now % _SHARE_OF_LATER == 0)
        firsts = room - min(len(self._waiting_later), later)
        shares = (firsts, room, PATIENT_PER_TICK_MAX, room)
        for line, share in zip(self._lines(), shares, strict=True):
            left = min(share, self._count_max - len(under_way))
            for group_id in tuple(islice(line, max(0, left))):
                del line[group_id]
                under_way.pop(group_id, None)
                under_way[group_id] = now + 3 * self._turn_ticks
                taken.append(group_id)
        return taken
