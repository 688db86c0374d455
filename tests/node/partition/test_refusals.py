"""When a leader may say no for good: after a majority has confirmed that it still leads."""

from __future__ import annotations

import asyncio

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.producers import Stamp
from tests.node.partition.fakes import batch
from tests.node.partition.test_partition import Setting

CASES = {
    "out of order": (Stamp(7, 1, 9, 8), None, "OUT_OF_ORDER_SEQUENCE"),
    "never stored": (Stamp(7, 1, 4), None, "OUT_OF_ORDER_SEQUENCE"),
    "reused": (Stamp(7, 1, 6, 5), None, "SEQUENCE_REUSED"),
    "too old": (Stamp(7, 1, 2), None, "SEQUENCE_TOO_OLD"),
    "fenced": (Stamp(7, 0, 7, 6), None, "PRODUCER_FENCED"),
    "unknown producer": (Stamp(8, 1, 3, 2), None, "UNKNOWN_PRODUCER"),
    "an offset that is taken": (None, 0, "OFFSET_MISMATCH"),
    "an offset that is not there yet": (None, 9, "OFFSET_MISMATCH"),
}


def with_a_producer() -> Setting:
    """Sequences 3, 5 and 6 of producer 7 are stored, at the offsets 0 to 2."""
    setting = Setting()
    for sequence in (3, 5, 6):
        setting.append(1, Stamp(7, 1, sequence))
    return setting


def refused(setting: Setting, case: str) -> asyncio.Future[Appended]:
    stamp, expected, _ = CASES[case]
    return setting.partition.append(batch(content=b"other"), stamp, expected)


async def error_of(answer: asyncio.Future[Appended]) -> RakitError:
    with pytest.raises(RakitError) as caught:
        await asyncio.wait_for(answer, 5)
    return caught.value


def name(error: RakitError) -> str:
    return error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


@pytest.mark.parametrize("case", CASES)
async def test_s20_a_refusal_is_told_after_a_barrier(case: str) -> None:
    setting = with_a_producer()
    answer = refused(setting, case)
    assert isinstance(answer, DoomedAnswer), "that it fails is known at once (contract 10)"
    assert not answer.done()
    assert name(await error_of(answer)) == CASES[case][2]
    assert setting.host.barriers == 1


@pytest.mark.parametrize("case", CASES)
async def test_s20_a_replaced_leader_refuses_nothing_for_good(case: str) -> None:
    """What it says no to may follow what another leader has stored since."""
    setting = with_a_producer()
    setting.host.barrier_fails = True
    error = await error_of(refused(setting, case))
    assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert error.rule.retriable
    assert not error.may_be_applied


async def test_s20_a_leadership_that_was_lost_in_between_confirms_nothing() -> None:
    """The barrier of a replica that leads again, in a later term, does not speak for the first."""
    setting = with_a_producer()

    def replaced_for_a_moment() -> None:
        setting.host.lose()
        setting.host.lead_again()

    setting.host.during_barrier = replaced_for_a_moment
    error = await error_of(refused(setting, "out of order"))
    assert error.reason == error_pb2.ERROR_REASON_NO_LEADER


async def test_s20_the_commit_of_an_older_entry_confirms_nothing() -> None:
    """Its acknowledgement may have been under way since before another leader was elected."""
    setting = with_a_producer()
    pending = setting.partition.append(batch(), None, None)
    answer = refused(setting, "out of order")
    setting.host.barrier_fails = True
    setting.host.commit()
    await pending
    assert (await error_of(answer)).reason == error_pb2.ERROR_REASON_NO_LEADER
    assert setting.host.barriers == 1


async def test_a_refusal_stays_true_whatever_is_stored_behind_it() -> None:
    """It speaks of the place in the log where it was made, so it is not judged a second time."""
    setting = with_a_producer()
    answer = setting.partition.append(batch(), None, 4)
    setting.host.during_barrier = lambda: setting.append(1)
    error = await error_of(answer)
    assert name(error) == "OFFSET_MISMATCH"
    assert error.metadata == {"expected_offset": "4", "next_offset": "3"}


async def test_refusals_share_their_barriers() -> None:
    setting = with_a_producer()
    answers = [refused(setting, case) for case in CASES for _ in range(10)]
    assert [name(await error_of(each)) for each in answers] == [
        reason for _, _, reason in CASES.values() for _ in range(10)
    ]
    assert setting.host.barriers == 1


async def test_a_refusal_that_comes_during_a_barrier_waits_for_the_next_one() -> None:
    setting = with_a_producer()
    late: list[asyncio.Future[Appended]] = []

    def another() -> None:
        if not late:
            late.append(refused(setting, "fenced"))

    setting.host.during_barrier = another
    await error_of(refused(setting, "reused"))
    assert name(await error_of(late[0])) == "PRODUCER_FENCED"
    assert setting.host.barriers == 2


async def test_what_succeeds_pays_for_no_barrier() -> None:
    setting = with_a_producer()
    again = setting.partition.append(batch(), Stamp(7, 1, 6), None)
    assert (await again).duplicate
    setting.append(1, Stamp(7, 1, 7, 6))
    assert setting.host.barriers == 0


async def test_a_caller_that_has_gone_holds_no_refusal_up() -> None:
    setting = with_a_producer()
    gone, stays = refused(setting, "fenced"), refused(setting, "reused")
    gone.cancel()
    assert name(await error_of(stays)) == "SEQUENCE_REUSED"
