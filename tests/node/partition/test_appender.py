"""From a batch to its answer: what producers wait for, and what they are told."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProduceResponse
from rakit.multiraft.errors import OverloadedError, UnknownGroupError
from rakit.node.errors import RakitError
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.appender import Appender
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.node.partition.state import Stored
from tests.node.partition.fakes import GROUP, SETTINGS, FakeHost, batch


class Setting:
    """An appender over a host whose commits the test decides."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.now_ms = 1_000
        #: What a majority says, when it is asked whether the leadership still holds.
        self.leads = True
        self.questions = 0
        self.may_gather = True
        self.appender = self.lead()

    def lead(self) -> Appender:
        return Appender(
            self.host.leader.machine.state,
            lambda *pieces: self.host.propose(GROUP, *pieces),
            lambda: self.now_ms,
            lambda: 2,
            self.still_leads,
            may_gather=lambda: self.may_gather,
            fsynced=True,
        )

    async def still_leads(self) -> bool:
        self.questions += 1
        await asyncio.sleep(0)
        return self.leads

    def append(
        self, data: Batch | None = None, stamp: Stamp | None = None, expected: int | None = None
    ) -> asyncio.Future[Appended]:
        return self.appender.append(data or batch(), stamp, expected, SETTINGS)


def _note(order: list[int], at: int, _done: asyncio.Future[Appended]) -> None:
    order.append(at)


async def reason_of(answer: asyncio.Future[Appended]) -> RakitError:
    with pytest.raises(RakitError) as caught:
        await answer
    return caught.value


async def test_an_answer_comes_with_the_commit_and_in_order() -> None:
    setting = Setting()
    answers = [setting.append(batch(count)) for count in (2, 3, 4)]
    order: list[int] = []
    for at, answer in enumerate(answers):
        answer.add_done_callback(partial(_note, order, at))
    await asyncio.sleep(0)
    assert not any(answer.done() for answer in answers)
    setting.host.commit(2)
    first, second = await answers[0], await answers[1]
    assert not answers[2].done()
    assert first == Appended(Stored(0, 2, 1_000, 1, 2), replicas=2, fsynced=True, duplicate=False)
    assert second.stored == Stored(2, 5, 1_000, 1, 3)
    setting.host.commit()
    assert (await answers[2]).stored.base_offset == 5
    assert order == [0, 1, 2]


async def test_the_answer_fills_the_response() -> None:
    answer = Appended(Stored(5, 9, 1_000, 3, 77), replicas=3, fsynced=True, duplicate=True)
    response = ProduceResponse(partition=4)
    answer.fill(response)
    assert response == ProduceResponse(
        partition=4,
        base_offset=5,
        end_offset=9,
        append_time_ms=1_000,
        term=3,
        index=77,
        replicas=3,
        fsynced=True,
        duplicate=True,
    )


async def test_s14_a_duplicate_of_a_pending_batch_is_answered_with_it() -> None:
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    first = setting.append(stamp=stamp)
    again = [setting.append(stamp=stamp) for _ in range(3)]
    assert len(setting.host.waiting) == 1, "nothing is proposed twice"
    first.cancel()
    setting.host.commit()
    for answer in again:
        got = await answer
        assert got.duplicate
        assert got.stored == Stored(0, 1, 1_000, 1, 2)


async def test_s24_a_duplicate_of_an_applied_batch_gets_the_original_answer() -> None:
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    first = setting.append(stamp=stamp)
    setting.host.commit()
    await first
    setting.now_ms = 99_000
    again = await setting.append(stamp=stamp)
    assert again.stored == first.result().stored
    assert again.duplicate
    assert again.replicas == 2, "a majority, which every committed batch is on"
    assert not setting.host.waiting


async def test_lost_leadership_makes_every_outcome_unknown() -> None:
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    answers = [setting.append(stamp=stamp), setting.append(stamp=stamp), setting.append()]
    setting.host.lose()
    for answer in answers:
        error = await reason_of(answer)
        assert error.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
        assert error.may_be_applied
        assert "it may or may not have been stored" in error.message
    assert setting.appender.outlook.pending_count == 0
    with pytest.raises(RakitError) as caught:
        setting.append()
    assert caught.value.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not caught.value.may_be_applied


async def test_s24_a_retry_after_a_leader_change_finds_what_was_committed() -> None:
    setting = Setting()
    kept, lost = Stamp(7, 0, 1, 0), Stamp(7, 0, 2, 1)
    first = setting.append(stamp=kept)
    second = setting.append(stamp=lost)
    setting.host.commit(1)
    setting.host.lose()
    await first
    await reason_of(second)
    setting.host.lead_again()
    setting.appender = setting.lead()
    assert (await setting.append(stamp=kept)).duplicate
    retried = setting.append(stamp=lost)
    setting.host.commit()
    assert not (await retried).duplicate
    assert (await retried).stored == Stored(1, 2, 1_000, 3, 3)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_refusal_on_pending_entries_comes_when_they_are_committed() -> None:
    setting = Setting()
    first = setting.append(batch(5))
    refused = setting.append(expected=0)
    assert isinstance(refused, DoomedAnswer), "that it fails is known before"
    await settle()
    assert not refused.done()
    assert setting.questions == 0, "the leadership is confirmed after that"
    setting.host.commit()
    await first
    error = await reason_of(refused)
    assert error.reason == error_pb2.ERROR_REASON_OFFSET_MISMATCH
    assert error.metadata["next_offset"] == "5"
    assert setting.questions == 1


async def test_a_refusal_on_entries_that_were_lost_says_that_nothing_was_stored() -> None:
    setting = Setting()
    setting.append(batch(5))
    refused = setting.append(expected=0)
    setting.host.lose()
    error = await reason_of(refused)
    assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not error.may_be_applied
    assert "Nothing of this request was stored." in error.message


async def test_too_much_that_is_uncommitted_is_throttled_and_leaves_no_trace() -> None:
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    setting.host.refuse = OverloadedError("full")
    with pytest.raises(RakitError) as caught:
        setting.append(stamp=stamp)
    assert caught.value.reason == error_pb2.ERROR_REASON_THROTTLED
    assert caught.value.metadata["retry_delay_ms"] == "50"
    setting.host.refuse = None
    answer = setting.append(stamp=stamp, expected=0)
    setting.host.commit()
    assert not (await answer).duplicate


async def test_a_group_that_is_gone_is_said_to_be_unavailable() -> None:
    setting = Setting()
    setting.host.refuse = UnknownGroupError(GROUP)
    with pytest.raises(RakitError) as caught:
        setting.append()
    assert caught.value.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE


async def test_a_host_that_stops_leaves_the_outcome_unknown() -> None:
    setting = Setting()
    cancelled, failed = setting.append(), setting.append()
    setting.host.waiting[0][1].done.cancel()
    setting.host.waiting[1][1].done.set_exception(RuntimeError("the store failed"))
    for answer in (cancelled, failed):
        assert (await reason_of(answer)).reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN


async def test_a_caller_that_has_gone_disturbs_nobody() -> None:
    setting = Setting()
    gone, stays = setting.append(), setting.append()
    gone.cancel()
    setting.host.commit()
    assert (await stays).stored.base_offset == 1
    assert setting.appender.outlook.pending_count == 0
