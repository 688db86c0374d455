"""A single request whose answer does not come in time: what is known of it is told all the same."""

from __future__ import annotations

import asyncio

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.produce import answered

NO_LEADER = error_pb2.ERROR_REASON_NO_LEADER
UNKNOWN = error_pb2.ERROR_REASON_OUTCOME_UNKNOWN


@pytest.mark.parametrize(("is_doomed", "reason"), [(True, NO_LEADER), (False, UNKNOWN)])
async def test_a_doomed_request_without_an_answer_was_not_applied(
    is_doomed: bool, reason: error_pb2.ErrorReason.ValueType
) -> None:
    answer: asyncio.Future[Appended] = DoomedAnswer() if is_doomed else asyncio.Future()
    with pytest.raises(RakitError) as caught:
        await answered(answer, asyncio.get_running_loop().time())
    assert caught.value.reason == reason
    assert caught.value.may_be_applied is not is_doomed
