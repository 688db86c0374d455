"""What bounds a turn of the step loop, and when a request is worked off; the driver is a script."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import cast

import pytest

from rakit.multiraft.config import HostConfig
from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.hello import StoreMemory
from rakit.multiraft.inbox import Arrival
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.step_loop import Rim, StepLoop
from rakit.multiraft.store.rocks import RocksStore
from rakit.raft import MessageType
from tests.multiraft.host.support import DictDisk, append, message, until

KIB = 1 << 10
CONFIG = HostConfig(round_bytes_max=64 * KIB, round_steps_max=8, tick_ms=200)


class Script:
    """A driver that wants what it was told to want, a step at a time."""

    def __init__(self) -> None:
        self.laps = 0
        self.steps: deque[Callable[[], Effects]] = deque()
        self.received: list[Envelope] = []
        self.events: list[str] = []
        self._number = 0

    def wants(
        self, *, moved: int = 0, written: int = 0, busy_s: float = 0, ends_a_lap: bool = False
    ) -> None:
        def step() -> Effects:
            self._number += 1
            self.laps += ends_a_lap
            effects = Effects(self._number, moved_bytes=moved, applied=[7])
            if written:
                effects.batch.put(b"key", bytes(written))
                effects.must_sync = True
            done_at = time.monotonic() + busy_s
            while time.monotonic() < done_at:
                pass
            return effects

        self.steps.append(step)

    def advance(self) -> Effects | None:
        if not self.steps:
            return None
        self.events.append("step")
        return self.steps.popleft()()

    def receive(self, envelope: Envelope) -> None:
        self.received.append(envelope)

    def tick(self) -> None:
        self.events.append("tick")

    def written(self, number: int) -> None: ...

    def synced(self, number: int) -> None: ...


class Disk:
    """A store that counts its writes; flushes wait while the gate is shut."""

    def __init__(self) -> None:
        self.last_number = self.synced_counter = 1
        self.loss = SimpleNamespace(doubt=b"")
        self.witness_interval_seconds = 60.0
        self.gate = threading.Event()
        self.gate.set()
        self.movable_count = self.upkeep_count = 0

    def write(self, batch: WriteBatch) -> int:
        del batch
        self.last_number += 1
        return self.last_number

    def flush_some(self) -> int:
        number = self.last_number
        assert self.gate.wait(30), "a test must let the disk go on"
        self.synced_counter = number
        return number

    upkeep_is_urgent = False

    def upkeep(self) -> bool:
        """Moves something as long as there is something to move."""
        self.upkeep_count += 1
        if self.movable_count:
            self.movable_count -= 1
            self.last_number += 1
            return True
        return False

    def watch_room(self) -> None:
        """There is always room."""


class Requests:
    """A stream of requests, and what was told of them."""

    def __init__(self) -> None:
        self.worked_off: list[tuple[int, int]] = []

    def stepped(self, number: int, write: int) -> None:
        self.worked_off.append((number, write))


class Stage:
    def __init__(self, config: HostConfig = CONFIG) -> None:
        self.script, self.disk, self.requests = Script(), Disk(), Requests()
        rim = Rim(
            send=lambda _: False,
            can_send=lambda: True,
            synced=lambda _: None,
            deliver=lambda _: None,
            prepare=lambda: None,
            tick=lambda: None,
            failed=lambda _: None,
        )
        memory = StoreMemory(DictDisk())
        driver, store = cast("Driver", self.script), cast("RocksStore", self.disk)
        self.loop = StepLoop(config, driver, store, memory, rim)

    async def start(self) -> None:
        await self.loop.start(WriteBatch())
        await until(lambda: self.loop.flushed)

    async def request(self, number: int, size: int = 10, *, urgent: bool = False) -> None:
        kind = MessageType.HEARTBEAT
        envelope = message(kind, 1, 2) if urgent else append(size)
        await self.loop.inbox.put(Arrival([envelope], size, urgent, self.requests, number))

    async def others_take_turns(self) -> None:
        """What every other task of the node has: one turn whenever the loop lets go."""
        while True:
            self.script.events.append("other")
            await asyncio.sleep(0)

    async def run_script(self) -> list[str]:
        """Has the script carried out; returns the steps, and the turns of the others between."""
        self.script.events.clear()
        other = asyncio.create_task(self.others_take_turns())
        self.loop.wake()
        await until(lambda: not self.script.steps)
        other.cancel()
        return [event for event in self.script.events if event != "tick"]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await made.start()
    yield made
    made.disk.gate.set()
    assert await made.loop.stop()


def longest_run(events: list[str]) -> int:
    """How many steps were made at most while nobody else had a turn."""
    return max(len(run) for run in "".join(event[0] for event in events).split("o"))


async def test_a_turn_ends_when_enough_was_sent_and_applied(stage: Stage) -> None:
    for _ in range(12):
        stage.script.wants(moved=32 * KIB)
    assert longest_run(await stage.run_script()) == 2


async def test_a_turn_ends_when_enough_was_written(stage: Stage) -> None:
    for _ in range(12):
        stage.script.wants(written=32 * KIB)
    assert longest_run(await stage.run_script()) == 2


async def test_a_turn_ends_after_so_many_steps_though_they_cost_nothing(stage: Stage) -> None:
    for _ in range(40):
        stage.script.wants()
    assert longest_run(await stage.run_script()) == 8


async def test_a_turn_ends_when_the_next_tick_is_due() -> None:
    stage = Stage(HostConfig(tick_ms=20))
    await stage.start()
    for _ in range(12):
        stage.script.wants(busy_s=0.008)
    events = await stage.run_script()
    assert longest_run(events) <= 3, "three of these steps take longer than a tick"
    await stage.loop.stop()


async def test_a_pause_is_a_warning_when_it_may_have_cost_leaderships(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for away_s in (CONFIG.tick_ms * 10 / 1000, CONFIG.tick_ms * 21 / 1000):
        stage.loop._ticked_at -= away_s
        stage.loop._tick()
    told = [each for each in caplog.records if "stood still" in each.message]
    assert [each.levelno for each in told] == [logging.INFO, logging.WARNING]


async def test_what_is_little_is_done_in_one_turn(stage: Stage) -> None:
    for _ in range(6):
        stage.script.wants(moved=KIB, written=KIB)
    assert longest_run(await stage.run_script()) == 6


async def test_a_request_is_worked_off_when_what_was_written_for_it_is_durable(
    stage: Stage,
) -> None:
    stage.disk.gate.clear()
    stage.script.wants(written=KIB)
    await stage.request(1)
    await until(lambda: bool(stage.requests.worked_off))
    assert stage.requests.worked_off == [(1, stage.disk.last_number)]
    # What wrote nothing waits for nothing.
    stage.disk.gate.set()
    await until(lambda: stage.loop.flushed)
    await stage.request(2)
    await until(lambda: len(stage.requests.worked_off) == 2)
    assert stage.requests.worked_off[1] == (2, 0)


async def test_upkeep_goes_on_by_itself_on_an_idle_node_a_step_for_each_sync(
    stage: Stage,
) -> None:
    stage.disk.movable_count = 30
    stage.loop.wake()
    await until(lambda: not stage.disk.movable_count)
    await until(lambda: stage.disk.synced_counter == stage.disk.last_number)


async def test_s13_upkeep_gives_a_disk_that_hangs_nothing_more_to_do(stage: Stage) -> None:
    stage.disk.gate.clear()
    stage.disk.movable_count = 30
    stage.loop.wake()
    await until(lambda: stage.disk.movable_count == 29)
    done = stage.disk.upkeep_count
    # Ticks, each with a turn.
    ticks = stage.script.events.count("tick")
    await until(lambda: stage.script.events.count("tick") >= ticks + 3)
    assert stage.disk.upkeep_count == done
    stage.disk.gate.set()
    await until(lambda: not stage.disk.movable_count)


async def test_a_request_stays_open_while_a_group_may_have_had_no_turn(stage: Stage) -> None:
    stage.disk.gate.clear()
    # Four turns; the lap under way ends in the second, the one after it in the third.
    for turn in range(4):
        stage.script.wants(written=64 * KIB, ends_a_lap=turn in (1, 2))
    worked_off: list[int] = []
    advance = stage.script.advance

    def watched() -> Effects | None:
        worked_off.append(len(stage.requests.worked_off))
        return advance()

    stage.script.advance = watched  # type: ignore[method-assign]
    await stage.request(1)
    await until(lambda: len(worked_off) == 5)
    assert worked_off == [0, 0, 0, 1, 1]
    assert stage.requests.worked_off == [(1, stage.disk.last_number - 1)]


async def test_a_node_that_is_behind_takes_in_no_more_data_but_every_sign_of_life(
    stage: Stage,
) -> None:
    for _ in range(6):
        stage.script.wants(moved=64 * KIB)
    taken: list[tuple[int, int]] = []
    advance = stage.script.advance

    def watched() -> Effects | None:
        kinds = [each.message.type for each in stage.script.received]
        taken.append((kinds.count(MessageType.APP), kinds.count(MessageType.HEARTBEAT)))
        return advance()

    stage.script.advance = watched  # type: ignore[method-assign]
    for number in range(1, 5):
        await stage.request(number, 40 * KIB)
        await stage.request(number + 4, urgent=True)
    await until(lambda: len(stage.requests.worked_off) == 8)
    behind = taken[:6]
    assert [data for data, _ in behind] == [2] * 6, "64 KiB are in hand, and not worked off"
    assert behind[0][1] == 4
    assert taken[-1][0] == 4
    assert stage.loop.flushed


async def test_s17_a_sign_of_life_is_worked_off_at_once_by_a_node_that_is_behind(
    stage: Stage,
) -> None:
    """Else votes and heartbeats of all groups would wait, on their one stream, behind a replay."""
    for _ in range(6):
        stage.script.wants(moved=64 * KIB)
    worked_off: list[list[tuple[int, int]]] = []
    advance = stage.script.advance

    def watched() -> Effects | None:
        worked_off.append(list(stage.requests.worked_off))
        return advance()

    stage.script.advance = watched  # type: ignore[method-assign]
    await stage.request(1, 40 * KIB)
    await stage.request(2, urgent=True)
    await until(lambda: len(stage.requests.worked_off) == 2)
    assert worked_off[0] == [(2, 0)]
