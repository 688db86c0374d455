"""Where the replicas of new partitions go: evenly over nodes, spread over racks. Pure.

In three passes:

1. Each replica takes the best node that holds none of its partition yet. Better is, in this order:
   a node that is not avoided (the proposer takes it for dead); whose rack holds fewer replicas of
   this partition, so that the loss of a rack costs as few as possible; that holds fewer replicas;
   that shares fewer partitions with the nodes chosen so far, so that the load of a dead node falls
   on many others; that has the lower id.
2. Replicas move from fuller to emptier nodes where that spreads no partition over fewer racks.
3. The preferred leader of each partition, its first replica, is chosen so that the counts are even:
   leadership moves along chains of partitions from the node with the most to one with the least.

Nodes without a rack share the rack "". Present load counts, so that a new node gets more of the
next topic. Racks go before evenness: a rack with few nodes gets more replicas on each of them.

This runs inside the replicated state machine (see `topics`), so its results are part of the
replicated state: a change of any rule here needs a new feature level, else replicas of different
versions would disagree. 10,000 partitions of three replicas on ten nodes take about half a second,
however uneven the load was before: the third pass looks at a partition again only when it moves.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, KeysView, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

# Two are enough in every case tried; the bound is there so that the time is bounded.
_SWEEPS_COUNT_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may get replicas, with its present load."""

    node_id: int
    rack: str = ""
    replica_count: int = 0
    #: Partitions whose first replica is here.
    preferred_count: int = 0
    avoided: bool = False


def place(
    candidates: Iterable[Candidate], partition_count: int, replication_factor: int
) -> list[tuple[int, ...]]:
    """Returns the nodes of each new partition; the first of each is its preferred leader."""
    plan = _Plan(candidates)
    assert 1 <= replication_factor <= len(plan.nodes), (
        "a partition has at least one replica and at most one on each node"
    )
    for _ in range(partition_count):
        plan.place_one(replication_factor)
    plan.even_replicas()
    plan.choose_leaders()
    while plan.move_a_leader():
        pass
    return [(leader, *plan.followers(index)) for index, leader in enumerate(plan.leaders)]


class _Plan:
    """The load of every node while partitions are being placed."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.nodes = {one.node_id: one for one in sorted(candidates, key=lambda one: one.node_id)}
        self.replicas = {one.node_id: one.replica_count for one in self.nodes.values()}
        self.preferred = {one.node_id: one.preferred_count for one in self.nodes.values()}
        # How many partitions of this plan two nodes share: a row for each node, all of them full.
        self.shared = {one: dict.fromkeys(self.nodes, 0) for one in self.nodes}
        self.placed: list[list[int]] = []
        self.leaders: list[int] = []
        self.offers = _Offers()

    def place_one(self, replication_factor: int) -> None:
        """Chooses the nodes of one more partition."""
        chosen: list[int] = []
        for _ in range(replication_factor):
            best = self._best(chosen)
            for other in chosen:
                self.shared[best][other] += 1
                self.shared[other][best] += 1
            self.replicas[best] += 1
            chosen.append(best)
        self.placed.append(chosen)

    def _best(self, chosen: Sequence[int]) -> int:
        racks, replicas = self._racks(chosen), self.replicas
        best, least = 0, (True, len(chosen) + 1, 0, 0)
        # Ascending, so that the lower id wins where everything else is equal.
        for node_id, one in self.nodes.items():
            if node_id in chosen:
                continue
            row = self.shared[node_id]
            shared = sum([row[other] for other in chosen])
            badness = one.avoided, racks.get(one.rack, 0), replicas[node_id], shared
            if badness < least:
                best, least = node_id, badness
        return best

    def _racks(self, chosen: Iterable[int]) -> dict[str, int]:
        racks: dict[str, int] = {}
        for node_id in chosen:
            rack = self.nodes[node_id].rack
            racks[rack] = racks.get(rack, 0) + 1
        return racks

    def even_replicas(self) -> None:
        """Moves replicas from fuller to emptier nodes, as far as racks allow."""
        for _ in range(_SWEEPS_COUNT_MAX):
            moves = 0
            lowest = min(self.replicas.values())
            for chosen in self.placed:
                for at in (*chosen,):
                    # Mostly nobody is that much emptier, and nothing need be looked at.
                    if self.replicas[at] - 2 >= lowest and self._move_from(chosen, at):
                        moves += 1
                        lowest = min(self.replicas.values())
            if not moves:
                return

    def _move_from(self, chosen: list[int], giver: int) -> bool:
        """Gives the replica on `giver` to the emptiest node, if that makes both more even."""
        limit = self.replicas[giver] - 2
        free = [one for one, count in self.replicas.items() if count <= limit and one not in chosen]
        if not free:
            return False
        racks = self._racks([one for one in chosen if one != giver])
        crowd = racks.get(self.nodes[giver].rack, 0)
        fit = [
            one
            for one in free
            if not self.nodes[one].avoided and racks.get(self.nodes[one].rack, 0) <= crowd
        ]
        if not fit:
            return False
        receiver = min(fit, key=lambda one: (self.replicas[one], one))
        chosen[chosen.index(giver)] = receiver
        self.replicas[giver] -= 1
        self.replicas[receiver] += 1
        return True

    def choose_leaders(self) -> None:
        """Gives each partition the leader that leads least so far."""
        for chosen in self.placed:
            leader = min(chosen, key=self._leadership_order)
            self.preferred[leader] += 1
            self.leaders.append(leader)
        for index, leader in enumerate(self.leaders):
            self.offers.make(index, leader, self._heirs(index))

    def _leadership_order(self, node_id: int) -> tuple[bool, int, int]:
        return self.nodes[node_id].avoided, self.preferred[node_id], node_id

    def move_a_leader(self) -> bool:
        """Moves leaderships along one chain from a busier to an idler node; False when even."""
        for giver in sorted(self.nodes, key=lambda one: (-self.preferred[one], one)):
            came_from = {giver: giver}
            waiting = deque([giver])
            while waiting:
                here = waiting.popleft()
                if self.preferred[giver] - self.preferred[here] >= 2:
                    self._shift(came_from, here)
                    return True
                for there in sorted(self.offers.from_node(here) - came_from.keys()):
                    came_from[there] = here
                    waiting.append(there)
        return False

    def _shift(self, came_from: dict[int, int], receiver: int) -> None:
        """Hands one leadership on at every link of the chain that ends at `receiver`."""
        # Chosen before anything moves: no link of a chain is to depend on another one.
        chain: list[tuple[int, int]] = []
        self.preferred[receiver] += 1
        while (giver := came_from[receiver]) != receiver:
            chain.append((self.offers.newest(giver, receiver), receiver))
            receiver = giver
        self.preferred[receiver] -= 1
        for index, leader in chain:
            self.offers.take_back(self.leaders[index], self._heirs(index))
            self.leaders[index] = leader
            self.offers.make(index, leader, self._heirs(index))

    def _heirs(self, index: int) -> list[int]:
        """The nodes that could lead a partition instead of its leader."""
        leader = self.leaders[index]
        return [x for x in self.placed[index] if x != leader and not self.nodes[x].avoided]

    def followers(self, index: int) -> list[int]:
        """The other nodes of a partition, those that lead least first."""
        rest = [one for one in self.placed[index] if one != self.leaders[index]]
        return sorted(rest, key=self._leadership_order)


class _Offers:
    """Which partitions could be led by another node: kept up to date while leaderships move.

    - A pair of nodes is listed while the first one leads a partition that the second could lead.
    - A row holds partition numbers, negative, as a heap. What was taken back stays in it until it
      comes to the top, and may stand in it twice.
    """

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, list[int]]] = {}
        self._made: Counter[tuple[int, int]] = Counter()
        self._leaders: dict[int, int] = {}

    def from_node(self, leader: int) -> KeysView[int]:
        """The nodes that could lead something in place of this one."""
        return self._rows.get(leader, {}).keys()

    def newest(self, leader: int, heir: int) -> int:
        """The partition with the highest number among those of a pair."""
        row = self._rows[leader][heir]
        while self._leaders[-row[0]] != leader:
            heappop(row)
        return -row[0]

    def make(self, index: int, leader: int, heirs: Iterable[int]) -> None:
        """A partition has this leader from now on."""
        self._leaders[index] = leader
        rows = self._rows.setdefault(leader, {})
        for heir in heirs:
            self._made[leader, heir] += 1
            heappush(rows.setdefault(heir, []), -index)

    def take_back(self, leader: int, heirs: Iterable[int]) -> None:
        """This node no longer leads a partition that these could lead; another one is made next."""
        for heir in heirs:
            self._made[leader, heir] -= 1
            if not self._made[leader, heir]:
                del self._rows[leader][heir]
