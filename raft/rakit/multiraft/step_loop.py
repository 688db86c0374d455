"""The one task that owns every group: inbox, ticks, driver, disk, in this order, for ever.

Each turn takes what came in, makes the ticks that are due, and carries out the driver's effects:
sends leave, the batch is written (not synced), results are delivered, and the syncer thread is
asked for a flush. While a flush is under way turns go on and the next batch gathers (group commit).

A turn ends when the driver has nothing left to do, or earlier: when it has written, sent and
applied `round_bytes_max`, after `round_steps_max` steps however small, and when the next tick is
due. One step of the driver is bounded too (`step_bytes_max`), so the other tasks of the node
(pings, health, signals, clients) wait for less than a tick and a step, whatever is to be replayed
or sent.

Rules:

- Nothing else steps the driver. Others only give it inputs (propose, node_down, ...) and `wake`.
- Batches reach the store in the driver's order. A write that RocksDB stalls is tried again,
  unchanged, before anything else moves (S12): no step, no tick, no input is taken meanwhile, so
  a stall is felt by producers as back-pressure and by the cluster as silence.
- After any other error of the store nothing is sent any more, and `on_failed` is called once.
- A sync, or a stall, that takes longer than `sync_stall_ms_max` makes the driver give up its
  leaderships (S13): a node whose disk hangs must not keep its followers waiting.
- A process that was paused makes up for a few ticks only; heartbeats that arrived during the pause
  are stepped before them.
- A request of a peer is worked off when every group that it concerns has had its turn (the driver
  has nothing left, or has gone through all groups since) and, if something had to be durable, when
  it is. Until then it takes the room of others: a node that is behind takes in no more. One of a
  control lane is worked off at once, or votes and signs of life would wait behind a replay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rakit.multiraft.bell import Bell
from rakit.multiraft.config import HostConfig
from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.hello import StoreMemory
from rakit.multiraft.inbox import Arrival, Inbox
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store.errors import StoreFailedError, WriteStalledError
from rakit.multiraft.store.rocks import RocksStore
from rakit.multiraft.store.syncer import Syncer
from rakit.multiraft.upkeep import Upkeep

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rim:
    """What the loop calls outwards; everything returns at once."""

    #: Tells whether anything may leave at once.
    send: Callable[[list[Envelope]], bool]
    #: Whether an append to some peer would leave at once.
    can_send: Callable[[], bool]
    #: Every write up to this number is durable.
    synced: Callable[[int], None]
    #: Completions, reads, roles, applied groups and quarantined ones.
    deliver: Callable[[Effects], None]
    #: Called before the driver is asked for effects: rounds of reads begin here.
    prepare: Callable[[], None]
    tick: Callable[[], None]
    failed: Callable[[StoreFailedError], None]


class StepLoop:
    """Runs a driver on a store."""

    def __init__(
        self,
        config: HostConfig,
        driver: Driver,
        store: RocksStore,
        memory: StoreMemory,
        rim: Rim,
    ) -> None:
        self._config = config
        self._driver = driver
        self._store = store
        self._memory = memory
        self._rim = rim
        self._loop = asyncio.get_running_loop()
        self._wake = Bell()
        self.inbox = Inbox(config.inbox_bytes_max, self._wake.ring)
        self._syncer = Syncer(
            store, self._synced_elsewhere, self._failed_elsewhere, self._ended_elsewhere
        )
        self._syncer_ended = asyncio.Event()
        self._upkeep = Upkeep(store, self._syncer.request, self._wake.ring)
        #: (write, effects) numbers that wait for a flush, ascending.
        self._unsynced: deque[tuple[int, int]] = deque()
        #: Newest durable write, as the syncer told; and as the driver knows.
        self._durable_write = store.synced_counter
        self._known_write = self._durable_write
        #: Requests that were given to the driver and are not worked off, each with the driver's
        #: laps at that time; their size; and the write that they wait for.
        self._taken: deque[tuple[int, Arrival]] = deque()
        self._taken_bytes = 0
        self._turn_write = 0
        self._proposed_bytes = 0
        self._ticked_at = self._loop.time()
        self._in_doubt = bool(store.loss.doubt)
        self._stalled_since: float | None = None
        self._stall_told_at = 0.0
        self._failure: StoreFailedError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        #: How late the newest tick was; the loop was busy or the process stopped for that long.
        self.lag_ms = 0.0
        self.lag_ms_max = 0.0

    async def start(self, first: WriteBatch) -> None:
        """Writes a first batch, and starts the syncer, the timer and the task."""
        await self._write(first)
        self._syncer.start()
        self._ticked_at = self._loop.time()
        self._set_timer()
        self._task = asyncio.create_task(self._run(), name="step loop")
        self.wake()

    async def stop(self) -> bool:
        """Ends the task and the syncer; what was written stays for the store's own close.

        False when a flush did not return in time: the disk hangs, and nobody may touch the store.
        """
        self._upkeep.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is None:
            return True
        self._task.cancel()
        await asyncio.wait([self._task])
        self._syncer.stop()
        try:
            async with asyncio.timeout(self._config.stop_sync_ms_max / 1000):
                await self._syncer_ended.wait()
        except TimeoutError:
            self._syncer.abandon()
            return False
        return True

    def wake(self) -> None:
        """Has a turn made soon, since the driver was given an input."""
        self._wake.ring()

    def proposed(self, size_bytes: int) -> None:
        """Has a turn made for a proposal when that helps it.

        While every link waits for its peer and the disk has a flush under way, an entry can neither
        leave nor become durable sooner. It then waits for the turn that the next answer of either
        brings, together with all that are proposed until then: a turn and a batch for each would
        cost far more.
        """
        self._proposed_bytes += size_bytes
        helps = not self._unsynced or self._rim.can_send()
        if helps or self._proposed_bytes >= self._config.gather_bytes_max:
            self._wake.ring()

    @property
    def responsive(self) -> bool:
        """Whether turns are made: not before the start, nor while the store stalls a write."""
        since = self._stalled_since
        limit = self._config.sync_stall_ms_max / 1000
        return self._task is not None and (since is None or time.monotonic() - since < limit)

    @property
    def flushed(self) -> bool:
        """Whether everything that was written is durable and the driver knows it."""
        return not self._unsynced and not self._taken and not len(self.inbox)

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.heard()
                await self._turn()
                if self._wake.is_rung:
                    await asyncio.sleep(0)  # it would not be waited for, and others want a turn
        except StoreFailedError as error:
            self._fail(error)
        except Exception as error:
            _log.exception("the step loop broke")
            self._fail(StoreFailedError(f"the step loop broke: {error!r}", disk_full=False))

    async def _turn(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._take_syncs()
        self._proposed_bytes = 0
        self._take_arrivals()
        self._tick()
        self._upkeep.step()
        if self._memory.is_urgent:
            await self._note_stores()
        ends_at = self._ticked_at + self._config.tick_ms / 1000
        steps = cost = 0
        while True:
            self._rim.prepare()
            effects = self._driver.advance()
            if effects is None:
                self._settle(over=True)
                return
            steps += 1
            cost += effects.batch.size_bytes + effects.moved_bytes
            await self._carry_out(effects)
            if (
                cost >= self._config.round_bytes_max
                or steps >= self._config.round_steps_max
                or self._loop.time() >= ends_at
            ):
                self._wake.ring()  # for the next turn, once others had theirs
                self._settle(over=False)
                return

    def _take_arrivals(self) -> None:
        """Gives the driver what came in, unless it is behind with what it has."""
        room, laps = self._config.round_bytes_max, self._driver.laps
        for arrival in self.inbox.take(room, room - self._taken_bytes):
            for envelope in arrival.envelopes:
                self._driver.receive(envelope)
            if arrival.requester is None:
                continue
            if arrival.urgent:
                arrival.requester.stepped(arrival.number, 0)
                continue
            self._taken.append((laps, arrival))
            self._taken_bytes += arrival.size_bytes
        if len(self.inbox):
            self._wake.ring()

    async def _carry_out(self, effects: Effects) -> None:
        if effects.sends and self._rim.send(effects.sends):
            # An answer and the mark that its request is worked off leave together.
            self._rim.synced(self._known_write)
            if effects.batch:
                # They leave before this node's write holds the interpreter: others work meanwhile.
                await asyncio.sleep(0)
        if effects.batch:
            if self._memory.has_news:
                effects.batch.extend(self._memory.take_notes())
            await self._write(effects.batch)
        self._driver.written(effects.number)
        self._rim.deliver(effects)
        if effects.must_sync:
            self._want_sync(effects.number)

    async def _write(self, batch: WriteBatch) -> None:
        """Writes a batch, however often the store pushes back."""
        while True:
            try:
                self._store.write(batch)
            except WriteStalledError:
                if self._stalled_since is None:
                    self._stalled_since = time.monotonic()
                    size = batch.size_bytes
                    _log.warning("the store stalls writes; a batch of %d bytes waits", size)
                self._judge_stall(self._stalled_since, "write")
                self._syncer.request(self._store.last_number)  # it may be the log that is full
                await asyncio.sleep(self._config.write_retry_ms / 1000)
            else:
                self._stalled_since = None
                return

    def _want_sync(self, effects_number: int) -> None:
        """Asks for a flush of everything written so far; an empty batch may need one as well."""
        write = self._store.last_number
        if write <= self._known_write and not self._unsynced:
            self._driver.synced(effects_number)
            return
        self._unsynced.append((write, effects_number))
        self._turn_write = write
        self._syncer.request(write)

    def _take_syncs(self) -> None:
        """Tells the driver and the peers what became durable."""
        durable = self._durable_write
        if durable == self._known_write:
            return
        self._known_write = durable
        newest = 0
        while self._unsynced and self._unsynced[0][0] <= durable:
            newest = self._unsynced.popleft()[1]
        if newest:
            self._driver.synced(newest)
            if self._in_doubt:
                # The replicas' own marks of doubt were in the first batch of this start (S8).
                self._in_doubt = False
                self._store.settle_doubt()

    def _settle(self, *, over: bool) -> None:
        """What every group concerned has seen is worked off, or waits for the newest write.

        `over`: the driver has nothing left. Else, two laps: the one that was under way when the
        request came and the whole one after it.
        """
        waits_for = self._turn_write if self._turn_write > self._known_write else 0
        laps = self._driver.laps
        while self._taken and (over or self._taken[0][0] + 2 <= laps):
            arrival = self._taken.popleft()[1]
            self._taken_bytes -= arrival.size_bytes
            assert arrival.requester is not None, "only requests are worked off"
            arrival.requester.stepped(arrival.number, waits_for)
        if over:
            self._turn_write = 0
        self._rim.synced(self._known_write)

    def _tick(self) -> None:
        now = self._loop.time()
        tick = self._config.tick_ms / 1000
        due = int((now - self._ticked_at) / tick)
        if due <= 0:
            return
        skipped = max(0, due - self._config.tick_catch_up_count_max)
        self._ticked_at += due * tick
        if skipped:
            # Shorter than an election timeout it has changed nothing for anybody.
            costly = due >= self._config.driver.election_ticks
            _log.log(
                logging.WARNING if costly else logging.INFO,
                "this process stood still for %d ms%s",
                due * self._config.tick_ms,
                "; others may have taken its leaderships" if costly else "",
            )
        for _each in range(due - skipped):
            self._driver.tick()
        self._rim.tick()
        self._judge_stall(self._syncer.in_flight_since(), "sync")

    def _judge_stall(self, since: float | None, what: str) -> None:
        """Gives up leaderships when the disk has not answered for too long (S13)."""
        now, limit = time.monotonic(), self._config.sync_stall_ms_max / 1000
        if since is None or now - since < limit or now - self._stall_told_at < limit:
            return
        _log.error("a %s has taken %.1f s; giving up leaderships", what, now - since)
        self._stall_told_at = now
        self._driver.disk_stalled()

    async def _note_stores(self) -> None:
        """Writes down what was heard of other stores and must not wait for company (S7)."""
        await self._write(self._memory.take_notes())
        self._syncer.request(self._store.last_number)

    def _set_timer(self) -> None:
        self._timer = self._loop.call_at(
            self._ticked_at + self._config.tick_ms / 1000, self._timer_rang
        )

    def _timer_rang(self) -> None:
        now, tick = self._loop.time(), self._config.tick_ms / 1000
        self.lag_ms = max(0.0, (now - self._ticked_at - tick) * 1000)
        self.lag_ms_max = max(self.lag_ms_max, self.lag_ms)
        self._wake.ring()
        self._timer = self._loop.call_at(now + tick, self._timer_rang)

    def _synced_elsewhere(self, write: int) -> None:
        """Called on the syncer's thread."""
        self._loop.call_soon_threadsafe(self._synced_here, write)

    def _synced_here(self, write: int) -> None:
        self._durable_write = max(self._durable_write, write)
        self._wake.ring()

    def _ended_elsewhere(self) -> None:
        """Called on the syncer's thread."""
        self._loop.call_soon_threadsafe(self._syncer_ended.set)

    def _failed_elsewhere(self, error: StoreFailedError) -> None:
        """Called on the syncer's thread."""
        self._loop.call_soon_threadsafe(self._failed_here, error)

    def _failed_here(self, error: StoreFailedError) -> None:
        self._failure = error
        self._wake.ring()

    def _fail(self, error: StoreFailedError) -> None:
        self._upkeep.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._failure = error
        self._rim.failed(error)
