"""Every fault that the simulator knows is really met, within few seeds."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest

from tests.sim.runner import run_seed
from tests.sim.world import World

SEEDS = range(1, 401)
#: Counted where they take effect, not where they are drawn: a read that raised, a batch that tore.
FAULTS = {
    # The ways between nodes.
    "loss",
    "duplicate",
    "reordering",
    "one-way cut",
    "isolate a leader",
    "break a link",
    "full lane",
    # Crashes, at every persist boundary, and what they leave.
    "crash before the write",
    "crash after the write",
    "crash after the sync",
    "crash all",
    "lost tail",
    "torn batch",
    # Disks (S12, S13).
    "read error",
    "no start",
    "IO error: write",
    "IO error: fdatasync",
    "exit 10",
    "exit 11",
    "write stall",
    "slow disk",
    "hung disk",
    # Stores that go back, and come back as others (S7, S11).
    "rollback",
    "new store",
    # Time (S3).
    "slow node",
    "pause",
    "clock forwards",
    "clock back",
    "clock alarm",
    "deletion",
    # Members, bases, transfers, deletions.
    "members",
    "base",
    "base to a leader",
    "base, leader",
    "base, newcomer",
    "base, boundary",
    "base, way",
    "transfer",
    "damage",
    "delete",
    # Clients.
    "conditional append",
    "conditional append refused",
    "read by a client",
}


@pytest.mark.timeout(600)  # hundreds of runs, on a machine that may have others to do
def test_runs_meet_every_fault() -> None:
    met: Counter[str] = Counter()
    run = World.run

    def counted(world: World) -> None:
        run(world)
        met.update(world.faults)

    with patch.object(World, "run", counted):
        for seed in SEEDS:
            outcome = run_seed(seed)
            assert not outcome.error, f"seed {seed}: {outcome.error}"
            if set(met) >= FAULTS:
                break
    assert set(met) >= FAULTS, f"never met: {sorted(FAULTS - set(met))}"
