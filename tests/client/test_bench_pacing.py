"""An open loop must show a stall in every send that was due in it, in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from rakit.client.bench.figures import summarise
from rakit.client.bench.pacing import Pace, send_paced

SERVICE_S = 0.002
STALL = (1.0, 2.0)


class World:
    """A clock that moves only when somebody sleeps, and what happens at its times."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def now_s(self) -> float:
        return self.time_s

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, len(self._events), event))

    async def sleep(self, seconds: float) -> None:
        end_s = self.time_s + seconds
        while self._events and self._events[0][0] <= end_s:
            self.time_s, _, event = heapq.heappop(self._events)
            event()
        self.time_s = end_s


def due_in_the_stall(pace: Pace) -> list[float]:
    """How much of the stall was left for each send that was due in it."""
    dues = [pace.due_s(number) for number in range(pace.count)]
    return [STALL[1] - due for due in dues if STALL[0] <= due < STALL[1]]


async def test_without_a_stall_every_send_takes_its_service_time() -> None:
    world = World()

    async def send(ended: Callable[[], None]) -> None:
        world.at(world.time_s + SERVICE_S, ended)

    times = await send_paced(Pace(100, 3), send, world)
    await world.sleep(1)
    assert times == pytest.approx([SERVICE_S] * 300)


async def test_a_system_that_stalls_shows_it_in_all_sends_that_were_due_meanwhile() -> None:
    world, pace = World(), Pace(100, 3)

    async def send(ended: Callable[[], None]) -> None:
        served_s = world.time_s + SERVICE_S
        world.at(max(served_s, STALL[1]) if served_s > STALL[0] else served_s, ended)

    times = await send_paced(pace, send, world)
    await world.sleep(1)
    late = sorted(time for time in times if time > 2 * SERVICE_S)
    assert late == pytest.approx(sorted(due_in_the_stall(pace)))
    assert len(late) == 100
    # A closed loop would have met the stall once in its thousands of answers.
    assert summarise(times).p99_ms == pytest.approx(970)


async def test_a_sender_that_is_held_up_counts_from_when_each_send_was_due() -> None:
    world, pace = World(), Pace(100, 3)

    async def send(ended: Callable[[], None]) -> None:
        if STALL[0] <= world.time_s < STALL[1]:
            await world.sleep(STALL[1] - world.time_s)
        world.at(world.time_s + SERVICE_S, ended)

    times = await send_paced(pace, send, world)
    await world.sleep(1)
    late = sorted(time for time in times if time > 2 * SERVICE_S)
    assert late == pytest.approx(sorted(left + SERVICE_S for left in due_in_the_stall(pace)))


async def test_a_send_that_is_never_acknowledged_has_no_latency() -> None:
    world = World()

    async def send(ended: Callable[[], None]) -> None:
        if world.time_s < 0.5:
            ended()

    assert await send_paced(Pace(10, 1), send, world) == [0.0] * 5


def test_a_pace_owes_its_sends_at_equal_distances() -> None:
    pace = Pace(4, 2)
    assert [pace.due_s(number) for number in range(pace.count)] == [
        *(0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75)
    ]
    assert Pace(1, 0.1).count == 1


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (1, 0), (-1, 1)])
def test_a_pace_without_sends_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Pace(rate, seconds)
