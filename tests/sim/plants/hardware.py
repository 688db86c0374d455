"""Disks, clocks and stores that are not what they should be (`tests.sim.hazards`)."""

from __future__ import annotations

from collections.abc import Generator
from unittest.mock import patch

from rakit.multiraft.hello import StoreMemory, StoreStart
from rakit.multiraft.liveness import Liveness
from rakit.multiraft.stall import StallWatch
from rakit.multiraft.succession import Succession
from tests.sim.failing import FailingDisk
from tests.sim.hazards import Hazard
from tests.sim.node import SimNode
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.DURABLE_COMMIT, hazard=Hazard.DISKS)
def a_sync_that_failed_is_tried_again_and_believed() -> Generator[None]:
    """The kernel has thrown the pages away."""
    # As PostgreSQL did until 2018: the pages that could not be written are gone.
    original = FailingDisk.sync

    def sync(self: FailingDisk, number: int) -> None:
        if self.sync_error is not None:
            self.sync_error = None
            while self.pending and self.pending[0][0] <= number:
                self.pending.popleft()
        original(self, number)

    with patch.object(FailingDisk, "sync", sync):
        yield


@bug(Invariant.NO_DAMAGE, hazard=Hazard.DISKS)
def a_write_that_stalls_is_left_out() -> Generator[None]:
    """The library emptied the batch, and the retry writes nothing."""
    # The store's library empties a batch that it refuses: written again, it holds nothing.
    original = SimNode.retry

    def retry(self: SimNode) -> None:
        assert self.held is not None
        self.held.batch.ops.clear()
        original(self)

    with patch.object(SimNode, "retry", retry):
        yield


@bug(Invariant.CLOCKS, hazard=Hazard.CLOCKS)
def a_clock_is_always_trusted() -> Generator[None]:
    """One that is an hour fast deletes an hour."""

    def clock_is_wrong(self: Liveness) -> bool:
        del self
        return False

    with patch.object(Liveness, "clock_is_wrong", clock_is_wrong):
        yield


@bug(Invariant.WENT_BACK, hazard=Hazard.STORES)
def nobody_remembers_how_far_a_store_was() -> Generator[None]:
    """A directory restored from a copy votes again."""

    def went_back(self: StoreMemory, start: StoreStart) -> bool:
        del self, start
        return False

    with patch.object(StoreMemory, "went_back", went_back):
        yield


@bug(Invariant.HUNG_DISK, hazard=Hazard.SLOWNESS)
def a_leader_with_a_hung_disk_waits_for_a_successor_for_ever() -> Generator[None]:
    """Its clients wait with it."""

    def overdue(self: StallWatch, now: int) -> bool:
        del self, now
        return False

    def disk_stalled(self: Succession) -> None:
        del self

    with (
        patch.object(StallWatch, "overdue", overdue),
        patch.object(Succession, "disk_stalled", disk_stalled),
    ):
        yield
