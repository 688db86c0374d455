"""Subscribe without a transport: what a member hears, in which order, and how its stream ends."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from rakit.api.v1 import error_pb2
from rakit.api.v1.error_pb2 import ErrorReason
from rakit.api.v1.group_service_pb2 import OffsetCommit, Sought
from rakit.api.v1.log_service_pb2 import EDGE_LATEST
from rakit.node.errors import RakitError
from rakit.node.groups import feed, outbox, pipeline
from rakit.node.routing import no_leader
from rakit.node.services.handlers import Stream
from rakit.peer.v1.opaque_pb2 import OpaqueDelivery, OpaquePartitionData, OpaqueSubscribeResponse
from tests.node.groups.world import Client, join_of, node
from tests.node.metadata.machines import until


def reason_of(error: RakitError | None) -> str:
    assert error is not None
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


# Joining and beginning.


async def test_a_member_joins_is_assigned_and_gets_its_records() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        member = await it.join(0)
        told = await member.client.until(lambda told: "0: 0-3" in told)
        assert told == ["joined", "assigned 0@0", "0: 0-3"]
        it.logs.put(10, 1)
        await member.client.hears("0: 3-4")


async def test_what_has_a_commit_begins_there_and_what_has_none_where_the_member_begins() -> None:
    async with node() as it:
        it.logs.put(10, 5)
        it.logs.put(11, 5)
        it.coordinator.offsets[1] = 4
        member = await it.join(0, 1, start=EDGE_LATEST)
        await member.client.hears("assigned 0@5 1@4c", "1: 4-5")
        it.logs.put(10, 1)
        await member.client.hears("0: 5-6")


@pytest.mark.parametrize(("start", "at"), [(0, 3), (EDGE_LATEST, 6)])
async def test_a_commit_that_is_no_longer_kept_begins_anew_and_says_so(start: int, at: int) -> None:
    async with node() as it:
        it.logs.put(10, 6)
        it.logs.starts[10] = 3
        it.coordinator.offsets[0] = 2
        member = await it.join(0, start=start)
        await member.client.hears(f"assigned 0@{at}r")


async def test_a_partition_whose_place_goes_while_it_is_read_begins_anew_and_says_so() -> None:
    async with node() as it:
        member = await it.join(0, credit_bytes=60)
        it.logs.put(10, 2)
        await member.client.hears("0: 0-1", "0: 1-2")
        it.logs.put(10, 6)
        it.logs.starts[10] = 5
        member.client.grant(1000)
        await member.client.hears("assigned 0@5r", "0: 5-8")


async def test_a_partition_without_a_leader_does_not_hold_up_the_others() -> None:
    async with node() as it:
        it.logs.put(11, 2)
        it.logs.leaders.announced(1, [], [10], complete=False)
        member = await it.join(0, 1)
        await member.client.hears("assigned 1@0", "1: 0-2")
        it.logs.put(10, 1)
        it.logs.lead(1, 10, term=2)
        await member.client.hears("assigned 0@0", "0: 0-1")


async def test_records_come_in_order_and_partitions_take_turns() -> None:
    async with node() as it:
        it.logs.put(10, 500)
        it.logs.put(11, 500)
        member = await it.join(0, 1, credit_bytes=100)

        def grant_on(told: list[str]) -> bool:
            if told and told[-1].startswith(("0:", "1:")):
                member.client.grant(100)
            return len(member.client.delivered(0)) + len(member.client.delivered(1)) >= 60

        await member.client.until(grant_on)
        zero, one = member.client.delivered(0), member.client.delivered(1)
        assert zero == list(range(len(zero)))
        assert one == list(range(len(one)))
        assert abs(len(zero) - len(one)) <= 4


async def test_new_records_of_one_partition_come_while_another_is_far_behind() -> None:
    async with node() as it:
        it.logs.put(10, 100_000)
        member = await it.join(0, 1, credit_bytes=100)

        def grant_on(told: list[str]) -> bool:
            if told and told[-1].startswith(("0:", "1:")):
                member.client.grant(100)
            if len(told) == 10:
                it.logs.put(11, 1)
            return "1: 0-1" in told

        await member.client.until(grant_on)
        assert len(member.client.delivered(0)) < 100_000


# Credit.


async def test_nothing_goes_out_without_credit_and_an_oversized_first_batch_does() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        member = await it.join(0, credit_bytes=1)
        await member.client.hears("0: 0-1")
        charged = member.client.answers[-1].records.charged_bytes
        assert charged > 1
        for _ in range(20):
            await asyncio.sleep(0)
        assert member.client.delivered(0) == [0]
        # The credit is negative: what makes it zero is not enough.
        member.client.grant(charged - 1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert member.client.delivered(0) == [0]
        member.client.grant(1)
        await member.client.hears("0: 1-2")


async def test_commits_refill_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rakit.node.groups.credit.WINDOW_BYTES", 100)
    monkeypatch.setattr("rakit.node.groups.credit.Window.__init__.__defaults__", (100,))
    async with node() as it:
        it.logs.put(10, 10)
        member = await it.join(0)
        await member.client.until(lambda told: len(told) > 2)
        first = len(member.client.delivered(0))
        assert first < 10
        member.client.commit(1, (0, first))
        await member.client.until(lambda _: len(member.client.delivered(0)) > first)


async def test_too_much_credit_ends_the_stream() -> None:
    async with node() as it:
        member = await it.join(credit_bytes=5)
        member.client.grant(64 << 20)
        assert reason_of(await member.end()) == "CREDIT_EXCEEDED"


# Commits.


async def test_commits_gather_while_one_is_under_way_and_each_is_answered() -> None:
    async with node() as it:
        it.logs.put(10, 9)
        it.logs.put(11, 9)
        member = await it.join(0, 1)
        await member.client.hears("0: 0-9", "1: 0-9")
        it.coordinator.commits_go.clear()
        member.client.commit(1, (0, 1))
        await until(lambda: len(it.coordinator.commits) == 1)
        member.client.commit(2, (0, 2))
        member.client.commit(3, (0, 3), (1, 5))
        member.client.commit(4, (1, 4))
        await until(lambda: len(member.session._pipeline._items) == 3)
        it.coordinator.commits_go.set()
        await member.client.hears("committed 1", "committed 2", "committed 3", "committed 4")
        first, second = it.coordinator.commits
        assert [(one.partition, one.offset) for one in first.offsets] == [(0, 1)]
        assert [(one.partition, one.offset) for one in second.offsets] == [(0, 3), (1, 4)]
        assert (second.group, second.member_id, second.member_epoch) == ("g", member.id, 2)


async def test_a_commit_is_refused_for_the_partitions_that_it_is_wrong_for_only() -> None:
    async with node() as it:
        it.logs.put(10, 9)
        it.coordinator.refusals[1] = error_pb2.ERROR_REASON_STALE_MEMBER_EPOCH
        member = await it.join(0, 1)
        await member.client.hears("0: 0-9")
        member.client.commit(7, (0, 9), (1, 0), (2, 0))
        told = await member.client.until(lambda told: told[-1].startswith("committed 7"))
        assert set(told[-1].split()[2:]) == {"2=PARTITION_NOT_OWNED", "1=STALE_MEMBER_EPOCH"}
        assert it.coordinator.offsets == {0: 9}


async def test_a_commit_outside_of_the_log_is_refused_by_the_leaders_word() -> None:
    async with node() as it:
        it.logs.put(10, 5)
        member = await it.join(0, credit_bytes=1)
        await member.client.hears("0: 0-1")
        questions = len(it.logs.asked)
        member.client.commit(1, (0, 5))
        await member.client.hears("committed 1")
        assert len(it.logs.asked) == questions, "what the feed has seen settles it"
        it.logs.put(10, 2)
        member.client.commit(2, (0, 7))
        await member.client.hears("committed 2")
        member.client.commit(3, (0, 8))
        await member.client.hears("committed 3 0=COMMIT_OUT_OF_RANGE")
        metadata = member.client.answers[-1].committed.errors[0].error
        assert b"earliest" in metadata.SerializeToString()


async def test_a_commit_that_makes_no_sense_is_refused_whole_and_the_stream_goes_on() -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
        member.client.commit(1, (0, 1), (0, 0))
        member.client.commit(2, (0, -1))
        member.client.commit(3, *((each, 0) for each in range(1025)))
        large = OffsetCommit(topic="t", partition=0, offset=1, metadata="x" * 4097)
        member.client.send(commit={"tag": 4, "offsets": [large]})
        member.client.commit(5, (0, 1))
        await member.client.hears(
            *(f"committed {tag} INVALID_REQUEST" for tag in (1, 2, 3, 4)), "committed 5"
        )


async def test_a_commit_that_reaches_no_coordinator_says_so() -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
        it.coordinator.is_reachable = False
        member.client.commit(1, (0, 1))
        await member.client.hears("committed 1 NO_LEADER")


async def test_no_more_is_taken_while_commits_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WAITING_BYTES_MAX", 40)
    async with node() as it:
        it.logs.put(10, 100)
        member = await it.join(0)
        await member.client.until(lambda _: len(member.client.delivered(0)) == 100)
        it.coordinator.commits_go.clear()
        for tag in range(100):
            member.client.commit(tag + 1, (0, tag))
        await until(lambda: len(it.coordinator.commits) == 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert member.client.requests.qsize() > 90
        it.coordinator.commits_go.set()
        await member.client.hears("committed 100")


async def test_no_more_is_taken_while_answers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "EVENTS_COUNT_MAX", 5)
    async with node() as it:
        member = await it.join()
        member.client.reads.clear()
        for tag in range(100):
            member.client.seek(tag, 0, offset=0)
        for _ in range(500):
            await asyncio.sleep(0)
        assert member.client.requests.qsize() > 90
        member.client.reads.set()
        await member.client.hears("sought 99 PARTITION_NOT_OWNED")


# Letting go.


async def test_what_is_revoked_gets_no_more_records_and_moves_when_the_client_is_done() -> None:
    async with node() as it:
        member = await it.join(0, 1)
        it.logs.put(10, 1)
        await member.client.hears("0: 0-1")
        it.coordinator.revoke(member.id, 0)
        await member.client.hears("revoking 0 1")
        assert member.client.answers[-1].revoking.deadline_ms == 300_000
        it.logs.put(10, 1)
        it.logs.put(11, 1)
        await member.client.hears("1: 0-1")
        assert member.client.delivered(0) == [0]
        assert it.coordinator.released == []
        member.client.commit(1, (0, 1))
        member.client.revoked(0)
        await until(lambda: it.coordinator.released == [[0]])
        assert it.coordinator.offsets == {0: 1}
        member.client.commit(2, (0, 2))
        await member.client.hears("committed 2 0=PARTITION_NOT_OWNED")


async def test_letting_go_waits_for_the_commits_before_it() -> None:
    async with node() as it:
        it.logs.put(10, 5)
        member = await it.join(0)
        await member.client.hears("0: 0-5")
        it.coordinator.revoke(member.id, 0)
        await member.client.hears("revoking 0 1")
        it.coordinator.commits_go.clear()
        member.client.commit(1, (0, 3))
        member.client.commit(2, (0, 5))
        member.client.revoked(0)
        await until(lambda: len(it.coordinator.commits) == 1)
        assert it.coordinator.released == []
        it.coordinator.commits_go.set()
        await until(lambda: it.coordinator.released == [[0]])
        assert it.coordinator.offsets == {0: 5}
        await member.client.hears("committed 1", "committed 2")


async def test_letting_go_is_told_until_it_is_heard() -> None:
    async with node() as it:
        member = await it.join(0)
        await member.client.hears("assigned 0@0")
        it.coordinator.revoke(member.id, 0)
        await member.client.hears("revoking 0 1")
        it.coordinator.is_reachable = False
        member.client.revoked(0)
        await until(lambda: it.coordinator.release_calls >= 2)
        it.coordinator.is_reachable = True
        await until(lambda: it.coordinator.released == [[0]])


async def test_what_a_client_lets_go_of_unasked_comes_anew() -> None:
    """It may mean an ownership of before that it was to let go of."""
    async with node() as it:
        it.logs.put(10, 5)
        member = await it.join(0)
        await member.client.hears("0: 0-5")
        member.client.commit(1, (0, 2))
        member.client.revoked(0)
        await until(lambda: it.coordinator.released == [[0]])
        it.coordinator.give(member.id, 0)
        await member.client.hears("assigned 0@2c", "0: 2-5")


async def test_letting_go_of_what_was_not_told_yet_means_something_else() -> None:
    async with node() as it:
        it.logs.failures[10] = no_leader("t", 0)
        member = await it.join(0)
        await until(lambda: len(member.session._member.holdings.all()) == 1)
        member.client.revoked(0)
        member.client.commit(1, (0, 0))
        await member.client.hears("committed 1 0=PARTITION_NOT_OWNED")
        it.logs.failures.clear()
        await member.client.hears("assigned 0@0")
        assert it.coordinator.released == []


async def test_a_partition_that_comes_back_begins_at_its_commit() -> None:
    async with node() as it:
        it.logs.put(10, 5)
        member = await it.join(0)
        await member.client.hears("0: 0-5")
        it.coordinator.revoke(member.id, 0)
        await member.client.hears("revoking 0 1")
        member.client.commit(1, (0, 2))
        member.client.revoked(0)
        await until(lambda: it.coordinator.released == [[0]])
        it.coordinator.give(member.id, 0)
        await member.client.hears("assigned 0@2c", "0: 2-5")


async def test_a_topic_that_is_gone_is_told_and_its_commits_fail_with_unknown_topic() -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
        it.logs.topics.clear()
        it.coordinator.revoke(member.id, 0)
        await member.client.hears("revoking 0 2")
        member.client.commit(1, (0, 1))
        await member.client.hears("committed 1 0=UNKNOWN_TOPIC")
        member.client.revoked(0)
        await until(lambda: it.coordinator.released == [[0]])
        member.client.commit(2, (0, 1))
        await member.client.hears("committed 2 0=UNKNOWN_TOPIC")


async def test_records_that_were_made_before_a_revocation_do_not_follow_it() -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
        # The answer to a commit is what the client does not take; the records wait behind it.
        member.client.reads.clear()
        member.client.commit(1, (0, 1))
        await until(member.session._member.outbox._writing.locked)
        it.logs.put(10, 1)
        await until(lambda: it.budget.held_bytes > 0)
        it.coordinator.revoke(member.id, 0)
        await until(lambda: member.session._member.holdings.all()[0].revoking)
        member.client.reads.set()
        await member.client.hears("revoking 0 1")
        await until(lambda: it.budget.held_bytes == 0)
        assert member.client.told[-2:] == ["committed 1", "revoking 0 1"]


async def test_events_go_before_records_that_were_made_after_them() -> None:
    client = Client()
    out = outbox.Outbox(Stream(cast("Any", client), asyncio.Event()))
    out.put(OpaqueSubscribeResponse(sought=Sought(tag=1, offset=5)))
    delivery = OpaqueDelivery(data=OpaquePartitionData(partition=0, next_offset=6))
    delivery.data.batches.add(base_offset=5)
    records = OpaqueSubscribeResponse(records=delivery).SerializeToString()
    await out.send(records, lambda: True)
    assert client.told == ["sought 1 at 5", "0: 5-6"]


# Seek and pause.


async def test_records_from_the_new_place_follow_the_answer_to_a_seek() -> None:
    async with node() as it:
        it.logs.put(10, 8)
        member = await it.join(0)
        await member.client.hears("0: 0-8")
        member.client.seek(3, 0, offset=6)
        told = await member.client.until(lambda told: "0: 6-8" in told)
        assert told.index("sought 3 at 6") < told.index("0: 6-8")
        member.client.seek(4, 0, edge=EDGE_LATEST)
        await member.client.hears("sought 4 at 8")


async def test_a_seek_that_cannot_be_done_leaves_the_partition_where_it_was() -> None:
    async with node() as it:
        it.logs.put(10, 2)
        member = await it.join(0)
        await member.client.hears("0: 0-2")
        member.client.seek(1, 0, offset=99)
        member.client.seek(2, 1, offset=0)
        member.client.seek(3, 0, time_ms=-1)
        await member.client.hears(
            "sought 1 OFFSET_OUT_OF_RANGE",
            "sought 2 PARTITION_NOT_OWNED",
            "sought 3 INVALID_REQUEST",
        )
        it.logs.put(10, 1)
        await member.client.hears("0: 2-3")


async def test_a_paused_partition_sends_nothing_until_it_goes_on() -> None:
    async with node() as it:
        member = await it.join(0, 1)
        await member.client.hears("assigned 0@0 1@0")
        member.client.pause(0)
        await until(lambda: member.session._member.holdings.all()[0].paused)
        it.logs.put(10, 1)
        it.logs.put(11, 1)
        await member.client.hears("1: 0-1")
        it.logs.put(11, 1)
        await member.client.hears("1: 1-2")
        assert member.client.delivered(0) == []
        member.client.pause(0, paused=False)
        await member.client.hears("0: 0-1")


# The end.


async def test_leaving_ends_the_stream_with_ok_after_the_commits() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        member = await it.join(0)
        await member.client.hears("0: 0-3")
        member.client.commit(1, (0, 3))
        member.client.leave()
        assert await member.end() is None
        assert member.client.told[-1] == "committed 1"
        assert [each.detach for each in it.coordinator.left] == [False]
        assert it.gateway.session_count == 0


async def test_a_client_that_finishes_is_answered_and_its_grace_begins() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        member = await it.join(0)
        await member.client.hears("0: 0-3")
        member.client.commit(1, (0, 3))
        member.client.finish()
        assert await member.end() is None
        assert member.client.told[-1] == "committed 1"
        await until(lambda: [each.detach for each in it.coordinator.left] == [True])


async def test_a_broken_stream_detaches_its_session() -> None:
    async with node() as it:
        member = await it.join(0)
        member.running.cancel()
        await until(lambda: [each.detach for each in it.coordinator.left] == [True])
        assert it.gateway.session_count == 0
        assert it.coordinator.left[0].session_id == it.coordinator.joins[0].session_id


async def test_a_token_resumes_the_session_where_its_commits_are() -> None:
    async with node() as it:
        it.logs.put(10, 5)
        member = await it.join(0)
        await member.client.hears("0: 0-5")
        member.client.commit(1, (0, 2))
        await member.client.hears("committed 1")
        member.running.cancel()
        it.coordinator.members[member.id].owned[0].committed_offset = 2
        again = it.open()
        again.client.send(join=join_of(resume_token=member.token))
        await again.client.hears("resumed", "assigned 0@2c", "0: 2-5")
        assert again.id == member.id


async def test_p5_a_member_that_resumes_is_asked_for_what_was_revoked_meanwhile() -> None:
    async with node() as it:
        it.logs.put(10, 5)
        member = await it.join(0)
        await member.client.hears("0: 0-5")
        member.running.cancel()
        it.coordinator.revoke(member.id, 0)
        again = it.open()
        again.client.send(join=join_of(resume_token=member.token))
        await again.client.hears("resumed", "assigned ", "revoking 0 1")
        (owned,) = [e.assigned.owned for e in again.client.answers if e.HasField("assigned")]
        assert [each.partition for each in owned] == [0], "until it lets go"
        again.client.commit(1, (0, 3))
        await again.client.hears("committed 1")
        # The coordinator is asked in order: before this commit it was told of nothing.
        assert it.coordinator.released == []
        again.client.revoked(0)
        await until(lambda: it.coordinator.released == [[0]])


async def test_a_member_that_resumes_with_nothing_left_is_told_so() -> None:
    async with node() as it:
        member = await it.join()
        member.running.cancel()
        again = it.open()
        again.client.send(join=join_of(resume_token=member.token))
        await again.client.hears("resumed", "assigned ")


async def test_what_is_owned_is_told_whole_though_a_leader_is_away() -> None:
    async with node() as it:
        member = await it.join(0, 1)
        await member.client.hears("assigned 0@0 1@0")
        member.running.cancel()
        it.logs.failures[11] = no_leader("t", 1)
        again = it.open()
        again.client.send(join=join_of(resume_token=member.token))
        await again.client.hears("resumed", "assigned 0@0")
        (first,) = [e.assigned for e in again.client.answers if e.HasField("assigned")]
        assert [each.partition for each in first.owned] == [0, 1]
        assert [each.topic_id for each in first.added] == [1]


async def test_a_second_stream_of_a_member_ends_the_first() -> None:
    async with node() as it:
        member = await it.join(0)
        again = it.open()
        again.client.send(join=join_of(resume_token=member.token))
        await again.client.hears("resumed")
        error = await member.end()
        assert reason_of(error) == "MEMBER_FENCED"
        assert error is not None
        assert error.metadata["fence_reason"] == "INSTANCE_REPLACED"
        assert it.gateway.session_count == 1
        assert it.coordinator.left == [], "the member is not detached: it goes on elsewhere"


@pytest.mark.parametrize("reason", ["PROCESSING_TOO_LONG", "SESSION_EXPIRED", "GROUP_DELETED"])
async def test_a_fenced_member_hears_why(reason: str) -> None:
    async with node() as it:
        member = await it.join(0)
        it.coordinator.fence(member.id, reason)
        error = await member.end()
        assert reason_of(error) == "MEMBER_FENCED"
        assert error is not None
        assert error.metadata["fence_reason"] == reason
        assert it.coordinator.left == []


async def test_a_draining_node_answers_what_it_took_and_sends_its_members_away() -> None:
    async with node() as it:
        it.logs.put(10, 3)
        member = await it.join(0)
        await member.client.hears("0: 0-3")
        it.coordinator.commits_go.clear()
        member.client.commit(1, (0, 3))
        await until(lambda: len(it.coordinator.commits) == 1)
        it.closing.set()
        for _ in range(20):
            await asyncio.sleep(0)
        it.coordinator.commits_go.set()
        assert reason_of(await member.end()) == "NODE_UNAVAILABLE"
        assert member.client.told[-1] == "committed 1"
        await until(lambda: [each.detach for each in it.coordinator.left] == [True])


async def test_a_quiet_stream_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HEARTBEAT_S", 0.05)
    async with node() as it:
        member = await it.join()
        await member.client.until(lambda told: told.count("heartbeat") >= 3)


async def test_a_partition_that_cannot_be_read_says_so_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "REST_S", 0.05)
    async with node() as it:
        member = await it.join(0, 1)
        await member.client.hears("assigned 0@0 1@0")
        broken = RakitError(error_pb2.ERROR_REASON_CORRUPT_RECORD, "as the test says")
        it.logs.failures[10] = broken
        it.logs.put(11, 1)
        await member.client.hears("0: CORRUPT_RECORD", "1: 0-1")
        del it.logs.failures[10]
        it.logs.put(10, 1)
        await member.client.hears("0: 0-1")


async def test_members_of_one_node_share_one_call_to_their_coordinator() -> None:
    async with node() as it:
        members = [await it.join() for _ in range(5)]
        await until(lambda: [len(each.members) for each in it.coordinator.syncs[-1:]] == [5])
        it.coordinator.give(members[2].id, 0)
        await members[2].client.hears("assigned 0@0")
        assert it.coordinator.syncs_now_max == 1


async def test_a_client_that_does_not_read_is_given_up_while_others_wait_for_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that room is asked for.
    monkeypatch.setattr(feed, "WAITING_BYTES", 100)
    async with node() as it:
        it.budget._bytes_max = 512 << 10
        it.budget._stalled_s = 0.1
        slow = await it.join(0)
        fast = await it.join(1)
        await slow.client.hears("assigned 0@0")
        await fast.client.hears("assigned 1@0")
        slow.client.reads.clear()
        it.logs.put(10, 50)
        await until(lambda: it.budget.held_bytes > 0)
        it.logs.put(11, 50)
        assert reason_of(await slow.end()) == "THROTTLED"
        await fast.client.until(lambda _: len(fast.client.delivered(1)) > 0)
        assert it.gateway.session_count == 1
