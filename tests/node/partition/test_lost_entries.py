"""What an appender says after an entry was lost, and who may make it believe that one was."""

from __future__ import annotations

import asyncio

import pytest

from rakit.api.v1 import error_pb2
from rakit.multiraft.effects import Completion
from rakit.node.errors import RakitError
from rakit.node.partition.appender import Appender
from rakit.node.partition.commands import Fence
from rakit.node.partition.partition import Partition, PartitionContext
from rakit.node.partition.producers import Stamp
from tests.node.partition.fakes import GROUP, SETTINGS, FakeHost, batch, nobody


def partition_on(host: FakeHost) -> Partition:
    context = PartitionContext(
        disk=host.disk,
        clock_ms=lambda: 1_000,
        fsynced=True,
        clock_trusted=lambda: True,
        runs_are_read=lambda: True,
    )
    return Partition(host, GROUP, lambda: SETTINGS, context, nobody)


async def leads() -> bool:
    return True


def give_up(host: FakeHost) -> None:
    """What a host does whose store has failed: everybody is answered, no role changes (S12)."""
    waiting, host.waiting = host.waiting, []
    for _entry, proposal in waiting:
        proposal.done.set_result(Completion(None, GROUP, proposal.entry, lost=True))


async def test_s12_a_retry_after_the_store_failed_is_not_called_a_duplicate() -> None:
    host = FakeHost()
    partition = partition_on(host)
    stamp = Stamp(7, 0, 1, 0)
    first = partition.append(batch(), stamp, None)
    give_up(host)
    with pytest.raises(RakitError) as unknown:
        await first
    assert unknown.value.may_be_applied
    assert partition.ready, "the role has not changed: the node is about to end"
    with pytest.raises(RakitError) as refused:
        partition.append(batch(), stamp, None)
    assert refused.value.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not refused.value.may_be_applied


async def test_s12_nothing_more_is_proposed_on_an_outlook_that_was_wrong() -> None:
    host = FakeHost()
    appender = Appender(
        host.leader.machine.state,
        lambda *pieces: host.propose(GROUP, *pieces),
        lambda: 1_000,
        lambda: 2,
        leads,
        may_gather=lambda: True,
        fsynced=True,
    )
    appender.append(batch(), None, None, SETTINGS)
    give_up(host)
    await asyncio.sleep(0)
    with pytest.raises(RakitError, match="is over"):
        appender.append(batch(), None, None, SETTINGS)
    with pytest.raises(RakitError, match="is over"):
        appender.maintain(Fence(7, 1, 1_000))
    assert not host.waiting


async def test_s21_a_caller_that_goes_away_does_not_settle_its_fence() -> None:
    host = FakeHost()
    partition = partition_on(host)
    asked = asyncio.create_task(partition.producer_state(7, 1, 5))
    await asyncio.sleep(0)
    assert len(host.waiting) == 1
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    # The fence is still pending, so a refusal that rests on it waits for it.
    refused = partition.append(batch(), Stamp(7, 0, 1, 0), None)
    await asyncio.sleep(0)
    assert not refused.done()
    host.commit()
    with pytest.raises(RakitError) as fenced:
        await refused
    assert fenced.value.reason == error_pb2.ERROR_REASON_PRODUCER_FENCED
