"""A network that loses, delays, repeats and reorders messages, and that can be cut one way.

Pure: it decides what becomes of a message, the world schedules it. Every decision comes from the
seed's generator.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass


@dataclass(slots=True)
class Weather:
    """How bad the network is. Changes in the course of a run; `CALM` after healing."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_ms: tuple[int, int] = (1, 3)
    # A message that takes much longer than the others: this is what reorders.
    straggling: float = 0.0
    straggle_ms: int = 400
    # An append that finds the queue full: it is refused, and its sender is told (S17).
    refusal: float = 0.0


CALM = Weather()


class Network:
    """Decides the fate of messages between nodes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.weather = CALM
        # What became of messages, as far as it is out of the ordinary.
        self.faults: Counter[str] = Counter()
        # Directed pairs (from, to) through which nothing passes.
        self.cuts: set[tuple[int, int]] = set()
        # How often a link was broken; what is on its way over it is lost then.
        self.breaks: dict[tuple[int, int], int] = {}
        # Pairs that refuse to talk to each other; they are among the cuts, and no healing helps.
        self._shut: set[tuple[int, int]] = set()

    def refuses(self) -> bool:
        """Tells whether an append is refused by a full queue."""
        refusal = self.weather.refusal
        return refusal > 0 and self.rng.random() < refusal

    def arrivals_ms(self, source: int, target: int) -> list[int]:
        """Returns the delays after which copies of a message arrive; empty when it is lost."""
        if (source, target) in self.cuts:
            if (target, source) not in self.cuts:
                self.faults["one-way cut"] += 1
            return []
        rng, weather = self.rng, self.weather
        if weather.loss and rng.random() < weather.loss:
            self.faults["loss"] += 1
            return []
        if weather.duplication and rng.random() < weather.duplication:
            self.faults["duplicate"] += 1
            return [self._delay(rng, weather), self._delay(rng, weather)]
        return [self._delay(rng, weather)]

    def _delay(self, rng: random.Random, weather: Weather) -> int:
        shortest, longest = weather.delay_ms
        delay = shortest + int(rng.random() * (longest - shortest + 1))
        if weather.straggling and rng.random() < weather.straggling:
            self.faults["reordering"] += 1
            delay += rng.randint(0, weather.straggle_ms)
        return delay

    def cut(self, source: int, target: int) -> None:
        self.cuts.add((source, target))

    def split(self, left: set[int], right: set[int]) -> None:
        """Cuts every link between two sides, both ways."""
        for a in sorted(left):
            for b in sorted(right):
                self.cuts.add((a, b))
                self.cuts.add((b, a))

    def break_link(self, source: int, target: int) -> None:
        """Loses what is on its way; what is sent from now on passes."""
        self.breaks[source, target] = self.breaks.get((source, target), 0) + 1

    def shut(self, one: int, other: int) -> None:
        """Nothing passes between two nodes until one of them is somebody else."""
        self._shut |= {(one, other), (other, one)}
        self.cuts |= self._shut

    def open(self, node_id: int) -> None:
        """A node has become somebody else: the others talk to it."""
        self._shut = {pair for pair in self._shut if node_id not in pair}
        self.cuts = {pair for pair in self.cuts if node_id not in pair}

    def heal(self) -> None:
        self.cuts = set(self._shut)
        self.weather = CALM

    def connected(self, source: int, target: int) -> bool:
        return (source, target) not in self.cuts and (target, source) not in self.cuts
