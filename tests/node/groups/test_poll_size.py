"""How large a PollGroup answer becomes where a member owns very much."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rakit.api.v1.group_service_pb2 import PollGroupRequest, PollGroupResponse
from rakit.api.v1.log_service_pb2 import Position
from rakit.api.v1.record_pb2 import Records
from rakit.node.reading.local import Found, ReadLimits
from rakit.node.services.poll import Polls, _Poll, _Reading
from rakit.peer.v1.coordinator_service_pb2 import MemberPartition
from rakit.peer.v1.group_command_pb2 import OwnedPartition
from tests.node.groups.world import join_of, node

#: In the place of the 4 MiB that clients in all languages take by default.
MESSAGE_BYTES_MAX = 200_000
COUNT = 500


async def test_an_answer_stays_within_what_clients_take_however_much_is_owned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rakit.node.services.poll.MESSAGE_BYTES_MAX", MESSAGE_BYTES_MAX)
    async with node() as it:
        it.logs.put(10, 1)
        now = asyncio.get_running_loop().time()
        limits = ReadLimits(1, 1 << 20, now)
        asked = [Position(topic="t", partition=0, offset=0)]
        (found,) = await it.parts.fetcher.fetch(asked, limits, now + 1, now + 2)
        assert isinstance(found, Found)
        (batch,) = found.chunk.batches
        large = replace(batch, content=Records(values=[bytes(10_000)]).SerializeToString())
        full = replace(found, chunk=replace(found.chunk, batches=(large,)))
        none = replace(found, chunk=replace(found.chunk, batches=()))
        session = await it.gateway.join(join_of(), "", now + 1, polls=True)
        topic = "t" * 200
        for at in range(COUNT):
            owned = OwnedPartition(topic_id=2**50, partition=at, since_epoch=1)
            session.answer.owned.append(MemberPartition(partition=owned, topic=topic))
        readings = [
            _Reading(
                each,
                Position(topic=topic, partition=each.partition.partition, offset=0),
                is_given=False,
                finding=full if at < 100 else none,
            )
            for at, each in enumerate(session.answer.owned)
        ]
        request = PollGroupRequest(group="g", join=join_of())
        poll = _Poll(request, session, now + 1, now + 1, is_new=True)
        polls = Polls(it.parts)
        response = polls._response(poll)
        polls._fill(response, poll, readings, MESSAGE_BYTES_MAX * 3 // 4, serves=True)
        data = response.SerializeToString()
        assert len(data) < MESSAGE_BYTES_MAX
        answer = PollGroupResponse.FromString(data)
        assert len(answer.owned) == COUNT, "what it owns is told whole"
        assert {each.topic_id for each in answer.owned} == {2**50}
        assert sum(bool(each.batches) for each in answer.data) >= 1
        it.gateway.forget(session)
