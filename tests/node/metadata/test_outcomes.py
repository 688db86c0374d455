"""A change of the metadata is told as it is, also when the time runs out in the middle (S22)."""

from __future__ import annotations

import asyncio

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.effects import Completion
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands
from rakit.node.metadata.client import MetadataClient
from rakit.raft import EntryID
from tests.node.metadata.doubles import FakeHost, FakeProposal
from tests.node.metadata.support import Log


class SilentHost(FakeHost):
    """A leader without a quorum: what it takes is neither committed nor lost."""

    def propose(self, group_id: int, data: bytes) -> FakeProposal:
        del group_id, data
        entry: EntryID = (1, 5)
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        return FakeProposal(entry, done)


class LateHost(FakeHost):
    """A leader whose own replica does not get to the entry that it has committed."""

    def propose(self, group_id: int, data: bytes) -> FakeProposal:
        proposal = super().propose(group_id, data)
        self.here.applied = 0
        return proposal


async def test_s22_a_command_that_waits_for_a_quorum_until_the_end_is_unknown() -> None:
    host = SilentHost(1, Log().found())
    host.leaders.becomes(1)
    client = MetadataClient(host, host.log.registry, lambda: 77)
    with pytest.raises(RakitError) as error:
        await client.submit(commands.create_topic(CreateTopicRequest(name="t")), 0.05)
    assert reason_name(error.value.reason) == "OUTCOME_UNKNOWN"
    assert error.value.may_be_applied


async def test_s22_a_command_that_was_applied_is_answered_though_this_node_is_behind() -> None:
    host = LateHost(1, Log().found())
    host.leaders.becomes(1)
    client = MetadataClient(host, host.log.registry, lambda: 77)
    result = await client.submit(commands.create_topic(CreateTopicRequest(name="t")), 0.05)
    assert result.topic_changed.name == "t"
