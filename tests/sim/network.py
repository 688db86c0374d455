"""A network that loses, delays, repeats and reorders messages, and that can be cut one way.

Pure: it decides what becomes of a message, the world schedules it. Every decision comes from the
seed's generator.
"""

from __future__ import annotations

import random
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
        # Directed pairs (from, to) through which nothing passes.
        self.cuts: set[tuple[int, int]] = set()
        # How often a link was broken; what is on its way over it is lost then.
        self.breaks: dict[tuple[int, int], int] = {}

    def refuses(self) -> bool:
        """Tells whether an append is refused by a full queue."""
        refusal = self.weather.refusal
        return refusal > 0 and self.rng.random() < refusal

    def arrivals_ms(self, source: int, target: int) -> list[int]:
        """Returns the delays after which copies of a message arrive; empty when it is lost."""
        if (source, target) in self.cuts:
            return []
        rng, weather = self.rng, self.weather
        if weather.loss and rng.random() < weather.loss:
            return []
        if weather.duplication and rng.random() < weather.duplication:
            return [self._delay(rng, weather), self._delay(rng, weather)]
        return [self._delay(rng, weather)]

    def _delay(self, rng: random.Random, weather: Weather) -> int:
        shortest, longest = weather.delay_ms
        delay = shortest + int(rng.random() * (longest - shortest + 1))
        if weather.straggling and rng.random() < weather.straggling:
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

    def heal(self) -> None:
        self.cuts.clear()
        self.weather = CALM

    def connected(self, source: int, target: int) -> bool:
        return (source, target) not in self.cuts and (target, source) not in self.cuts
