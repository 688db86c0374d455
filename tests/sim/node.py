"""One simulated node: the real driver, a simulated disk, and the shell's order of effects.

The shell does what the asyncio host does, in the same order: sends leave, the batch is written,
the driver is told, completions are handed out, one sync at a time is under way and covers what
was written before it began. The world may crash the node at every one of these boundaries.

A write that the disk pushes back is held: nothing of the node moves until the same batch is taken
(S12). A write or a sync that fails raises `StoreFailedError` out of everything: the process has
ended.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

from rakit.multiraft.driver import Driver
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.machine import MachineFactory
from rakit.multiraft.store.errors import StoreFailedError, WriteStalledError
from tests.sim.disk import SimDisk


class CrashError(Exception):
    """The node lost its power in the middle of a step."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a node needs of its world."""

    send: Callable[[int, list[Envelope]], None]
    start_sync: Callable[[int], None]
    hand_out: Callable[[int, Effects], None]
    may_crash: Callable[[int, str], None]  # raises CrashError where the power goes
    wrote: Callable[[int, Effects], None]
    synced: Callable[[int, int], None]
    stepped: Callable[[int], None]
    stalled: Callable[[int], None]  # a write is held; somebody is to call `retry`


class SimNode:
    """A node with its disk. `driver` is None while it is down."""

    def __init__(
        self, node_id: int, wiring: Wiring, config: DriverConfig, factory: MachineFactory
    ) -> None:
        self.node_id = node_id
        self.wiring = wiring
        self.config = config
        self.factory = factory
        self.disk = SimDisk()
        self.driver: Driver | None = None
        self.boot = 0
        self.written = 0
        self.syncing = False
        self.sync_began_ms = 0
        self.paused_until_ms = 0
        # It works, but slowly, and is at something else until then.
        self.busy_until_ms = 0
        # What the disk would not take yet.
        self.held: Effects | None = None
        # What will hand it in again, when, and from when on the node is silent for it.
        self.resume: Callable[[], None] | None = None
        self.resume_ms = self.mute_from_ms = 0
        # The store was cut at its tail, and the driver's marks of that are not durable yet (S8).
        self.was_cut = False

    @property
    def up(self) -> bool:
        return self.driver is not None

    def answers(self, now_ms: int) -> bool:
        """Whether a ping is answered: the process runs and makes turns, or lately did."""
        muted = self.held is not None and self.mute_from_ms <= now_ms
        return self.driver is not None and self.paused_until_ms <= now_ms and not muted

    def start(self, rng: random.Random) -> None:
        assert self.driver is None, "a running node cannot be started"
        self.boot += 1
        self.written, self.syncing = 0, False
        self.held, self.busy_until_ms = None, 0
        config = dataclasses.replace(self.config, boot=self.boot, doubtful=self.was_cut)
        driver = Driver(config, self.node_id, self.disk, self.factory, rng)
        self.disk.at_work = True
        try:
            driver.load()
        finally:
            self.disk.at_work = False
        self.driver = driver

    def crash(self, rng: random.Random) -> int:
        """Loses the process; returns the number of the last write that survives."""
        self.driver = None
        return self.disk.crash(rng)

    def step(self) -> None:
        """Carries out all that the driver asks for; raises CrashError where the power goes."""
        driver, disk = self.driver, self.disk
        assert driver is not None, "a node that is down does not step"
        while self.held is None:
            disk.at_work = True
            try:
                effects = driver.advance()
            finally:
                disk.at_work = False
            if effects is None:
                return
            if effects.sends:
                self.wiring.send(self.node_id, effects.sends)
            self.wiring.may_crash(self.node_id, "before the write")
            self._write(effects)

    def retry(self) -> None:
        """Hands the held batch in once more, before anything else."""
        effects, self.held = self.held, None
        assert effects is not None, "only a write that was held is repeated"
        self._write(effects)
        self.step()

    def _write(self, effects: Effects) -> None:
        driver, number = self.driver, effects.number
        assert driver is not None, "a node that is down writes nothing"
        try:
            if effects.batch:  # the host hands in no other
                self.disk.write(number, effects.batch)
        except WriteStalledError:
            self.held = effects
            self.wiring.stalled(self.node_id)
            return
        except StoreFailedError:
            if self.disk.holds(number):  # nobody knows
                self.wiring.wrote(self.node_id, effects)
            raise
        self.wiring.wrote(self.node_id, effects)
        self.written = number
        self.wiring.may_crash(self.node_id, "after the write")
        driver.written(number)
        self.wiring.hand_out(self.node_id, effects)
        self.wiring.stepped(self.node_id)
        if effects.must_sync and not self.syncing:
            self.syncing = True
            self.wiring.start_sync(self.node_id)

    def sync_done(self, number: int) -> None:
        """A flush that covered every write up to `number` has returned."""
        assert self.driver is not None, "a node that is down has no syncer"
        self.disk.sync(number)
        self.wiring.synced(self.node_id, number)
        self.wiring.may_crash(self.node_id, "after the sync")
        self.driver.synced(number)
        self.was_cut = False
        self.step()
