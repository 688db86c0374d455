"""Small batches of many callers: when they wait, when they leave, and what each is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rakit.api.v1 import error_pb2
from rakit.multiraft.errors import NotLeadingError, OverloadedError
from rakit.node.errors import RakitError
from rakit.node.partition import gathering
from rakit.node.partition.answers import Appended, DoomedAnswer, GatheredAnswer
from rakit.node.partition.appender import Appender
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Expire, Fence
from rakit.node.partition.gathering import BATCH_BYTES_MAX, BYTES_MAX, COUNT_MAX, Gathering
from rakit.node.partition.producers import Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.stored import batches_of
from rakit.node.produce import answered
from rakit.raft import Payload
from tests.node.partition.fakes import GROUP, SETTINGS, FakeHost, FakeProposal, batch
from tests.node.partition.test_lost_entries import give_up

LONG_S = 3600.0


class TellingHost(FakeHost):
    """Tells of proposals."""

    def __init__(self) -> None:
        super().__init__()
        self.proposed = asyncio.Event()

    def propose(self, group_id: int, *pieces: Payload) -> FakeProposal:
        self.proposed.set()
        return super().propose(group_id, *pieces)


class Setting:
    """An appender whose callers stand in no order."""

    def __init__(self) -> None:
        self.host = TellingHost()
        self.may_gather = True
        self.leads = True
        self.appender = Appender(
            self.host.leader.machine.state,
            lambda *pieces: self.host.propose(GROUP, *pieces),
            lambda: 1_000,
            lambda: 2,
            self.still_leads,
            may_gather=lambda: self.may_gather,
            fsynced=True,
        )

    async def still_leads(self) -> bool:
        await asyncio.sleep(0)
        return self.leads

    def call(
        self,
        count: int = 1,
        stamp: Stamp | None = None,
        expected: int | None = None,
        data: Batch | None = None,
    ) -> asyncio.Future[Appended]:
        return self.appender.append(data or batch(count), stamp, expected, SETTINGS, gather=True)

    @property
    def entries(self) -> list[list[int]]:
        """The number of records of each batch of each entry that is under way."""
        return [[each.record_count for each in batches_of(entry)] for entry, _ in self.host.waiting]

    async def commit(self) -> None:
        """Commits what is under way, and lets those go on who wait for it."""
        self.host.commit()
        await asyncio.sleep(0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may come back is waited for."""
    monkeypatch.setattr(gathering, "HOLD_S", LONG_S)
    monkeypatch.setattr(gathering, "HOLD_S_MAX", LONG_S)


async def error_of(answer: asyncio.Future[Appended]) -> RakitError:
    with pytest.raises(RakitError) as caught:
        await answer
    return caught.value


async def places(answers: Sequence[asyncio.Future[Appended]]) -> list[tuple[int, int, bool]]:
    appended = [await each for each in answers]
    return [(each.stored.base_offset, each.stored.end_offset, each.duplicate) for each in appended]


@pytest.mark.usefixtures("held")
async def test_a_caller_that_is_alone_waits_for_nobody() -> None:
    setting = Setting()
    for _ in range(3):
        answer = setting.call()
        assert setting.entries == [[1]]
        await setting.commit()
        assert not (await answer).duplicate


@pytest.mark.usefixtures("held")
async def test_what_comes_while_an_entry_is_under_way_leaves_when_as_many_came_back() -> None:
    setting = Setting()
    first = setting.call(1)
    second, third = setting.call(2), setting.call(3)
    assert setting.entries == [[1]]
    await setting.commit()
    await first
    assert setting.entries == [], "the one that was answered may come back"
    fourth = setting.call(4)
    assert setting.entries == [[2, 3, 4]]
    await setting.commit()
    assert await places([second, third, fourth]) == [(1, 3, False), (3, 6, False), (6, 10, False)]
    assert len({(await each).stored.index for each in (second, third, fourth)}) == 1


async def test_callers_that_do_not_come_back_are_not_waited_for_long() -> None:
    setting = Setting()
    setting.call(1)
    second = setting.call(2)
    await setting.commit()
    setting.host.proposed.clear()
    async with asyncio.timeout(10):
        await setting.host.proposed.wait()
    assert setting.entries == [[2]]
    await setting.commit()
    assert await places([second]) == [(1, 3, False)]


@pytest.mark.usefixtures("held")
async def test_a_hold_that_is_over_says_nothing_about_the_next() -> None:
    setting = Setting()
    setting.call(1)
    setting.call(2)
    await setting.commit()
    setting.call(3)
    assert setting.entries == [[2, 3]]
    setting.call(4)
    setting.call(5)
    assert setting.entries == [[2, 3]], "these wait for that entry"
    await setting.commit()
    assert setting.entries == []
    setting.call(6)
    assert setting.entries == [], "two were answered"
    setting.call(7)
    assert setting.entries == [[4, 5, 6, 7]]


@pytest.mark.usefixtures("held")
async def test_what_gathers_is_bounded_and_leaves_beside_what_is_under_way() -> None:
    setting = Setting()
    setting.call()
    for _ in range(COUNT_MAX):
        assert len(setting.entries) == 1
        setting.call()
    assert [len(entry) for entry in setting.entries] == [1, COUNT_MAX]
    large = batch(content=bytes(BATCH_BYTES_MAX))
    for _ in range(BYTES_MAX // BATCH_BYTES_MAX):
        assert len(setting.entries) == 2
        setting.call(data=large)
    assert [len(entry) for entry in setting.entries] == [1, COUNT_MAX, BYTES_MAX // BATCH_BYTES_MAX]


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("why", ["large", "expected offset", "in an order", "upkeep"])
async def test_whatever_does_not_gather_comes_behind_what_does(why: str) -> None:
    setting = Setting()
    setting.call(1)
    gathered = setting.call(2)
    other: asyncio.Future[Appended] | None = None
    if why == "large":
        other = setting.call(data=batch(3, content=bytes(BATCH_BYTES_MAX + 1)))
    elif why == "expected offset":
        other = setting.call(3, expected=3)
    elif why == "in an order":
        other = setting.appender.append(batch(3), None, None, SETTINGS)
    else:
        with pytest.raises(AssertionError, match="comes before what is decided"):
            setting.appender.maintain(Fence(7, 1, 1_000))
        setting.appender.flush()
        setting.appender.maintain(Fence(7, 1, 1_000))
    assert setting.entries == [[1], [2], [3] if other else []]
    await setting.commit()
    assert await places([gathered]) == [(1, 3, False)]
    if other is not None:
        assert await places([other]) == [(3, 6, False)]


@pytest.mark.usefixtures("held")
async def test_a_producer_with_several_batches_under_way_waits_for_none() -> None:
    setting = Setting()
    setting.call(1)
    answers = [
        setting.call(2, Stamp(7, 0, 1, 0)),
        setting.call(3, Stamp(8, 0, 1, 0)),
        setting.call(4, Stamp(7, 0, 2, 1)),
        setting.call(5, Stamp(7, 0, 3, 2)),
    ]
    assert setting.entries == [[1], [2, 3], [4], [5]]
    await setting.commit()
    assert await places(answers) == [(1, 3, False), (3, 6, False), (6, 10, False), (10, 15, False)]
    last = setting.call(6, Stamp(7, 0, 4, 3))
    assert setting.entries == [[6]]
    await setting.commit()
    assert await places([last]) == [(15, 21, False)]


@pytest.mark.usefixtures("held")
async def test_s24_retries_that_gather_with_their_original_are_stored_once() -> None:
    setting = Setting()
    stamp, other = Stamp(7, 0, 1, 0), Stamp(8, 0, 1, 0)
    await_first = setting.call(1, other)
    answers = [setting.call(2), setting.call(3, stamp), setting.call(3, stamp)]
    assert setting.entries == [[1], [2, 3]], "a retry has its original judged"
    again = setting.call(1, other)
    await setting.commit()
    assert await places([await_first, *answers, again]) == [
        (0, 1, False),
        (1, 3, False),
        (3, 6, False),
        (3, 6, True),
        (0, 1, True),
    ]
    late = setting.call(3, stamp)
    assert await places([late]) == [(3, 6, True)]


@pytest.mark.usefixtures("held")
async def test_a_refused_batch_costs_the_others_nothing() -> None:
    setting = Setting()
    setting.call(1)
    good, bad, last = setting.call(2), setting.call(9, Stamp(7, 0, 5, 4)), setting.call(3)
    setting.appender.flush()
    assert setting.entries == [[1], [2, 3]]
    await setting.commit()
    assert await places([good, last]) == [(1, 3, False), (3, 6, False)]
    error = await error_of(bad)
    assert error.reason == error_pb2.ERROR_REASON_UNKNOWN_PRODUCER


@pytest.mark.usefixtures("held")
async def test_a_refusal_that_is_not_certain_is_not_told() -> None:
    setting = Setting()
    setting.leads = False
    setting.call(1)
    bad = setting.call(9, Stamp(7, 0, 5, 4))
    setting.appender.flush()
    await setting.commit()
    assert (await error_of(bad)).reason == error_pb2.ERROR_REASON_NO_LEADER


@pytest.mark.usefixtures("held")
async def test_a_caller_that_goes_away_is_not_proposed() -> None:
    setting = Setting()
    setting.call(1)
    gone, stays = setting.call(2), setting.call(3)
    gone.cancel()
    setting.appender.flush()
    assert setting.entries == [[1], [3]]
    await setting.commit()
    assert await places([stays]) == [(1, 4, False)]


@pytest.mark.usefixtures("held")
async def test_s12_what_gathered_behind_a_lost_entry_is_known_not_to_be_stored() -> None:
    """Also where the role has not changed, as when the store has failed."""
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    lost, retry, other = setting.call(1, stamp), setting.call(1, stamp), setting.call(2)
    give_up(setting.host)
    assert (await error_of(lost)).may_be_applied
    assert (await error_of(retry)).may_be_applied
    error = await error_of(other)
    assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not error.may_be_applied
    assert not setting.host.waiting


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        (OverloadedError("full"), error_pb2.ERROR_REASON_THROTTLED),
        (NotLeadingError(0, 2), error_pb2.ERROR_REASON_NO_LEADER),
    ],
    ids=["overloaded", "no leader"],
)
async def test_when_nothing_can_be_proposed_each_is_told(
    refuse: OverloadedError | NotLeadingError, reason: error_pb2.ErrorReason.ValueType
) -> None:
    setting = Setting()
    setting.call(1)
    stamp = Stamp(7, 0, 1, 0)
    answers = [setting.call(2), setting.call(3, stamp)]
    setting.host.refuse = refuse
    setting.appender.flush()
    errors = [await error_of(answer) for answer in answers]
    for error in errors:
        assert error.reason == reason
        assert not error.may_be_applied
    assert errors[0] is not errors[1], "who raises it adds to it"
    setting.host.refuse = None
    await setting.commit()
    again = setting.call(3, stamp)
    await setting.commit()
    assert await places([again]) == [(1, 4, False)], "it left no trace"


@pytest.mark.usefixtures("held")
async def test_where_a_node_cannot_read_runs_each_has_an_entry() -> None:
    setting = Setting()
    setting.may_gather = False
    setting.call(1)
    setting.call(2)
    assert setting.entries == [[1], [2]]


@pytest.mark.usefixtures("held")
async def test_time_that_is_up_says_what_is_known() -> None:
    setting = Setting()
    setting.call(1, Stamp(7, 0, 1))
    await setting.commit()
    setting.call(1)
    waits, stored = setting.call(2), setting.call(3)
    at_once = asyncio.get_running_loop().time()
    with pytest.raises(RakitError) as caught:
        await answered(waits, at_once)
    assert caught.value.reason == error_pb2.ERROR_REASON_NO_QUORUM
    assert not caught.value.may_be_applied
    doomed = setting.call(9, Stamp(7, 0, 5, 4))
    setting.appender.flush()
    assert setting.entries == [[1], [3]], "who was told so is not stored"
    with pytest.raises(RakitError) as caught:
        await answered(doomed, at_once)
    assert caught.value.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not caught.value.may_be_applied
    with pytest.raises(RakitError) as caught:
        await answered(stored, at_once)
    assert caught.value.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
    assert isinstance(doomed, GatheredAnswer)
    assert not isinstance(doomed, DoomedAnswer)


@pytest.mark.usefixtures("held")
async def test_time_that_is_up_for_a_retry_of_a_pending_batch_says_nothing() -> None:
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    setting.call(1, stamp)
    retry = setting.call(1, stamp)
    with pytest.raises(RakitError) as caught:
        await answered(retry, asyncio.get_running_loop().time())
    assert caught.value.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN


@pytest.mark.usefixtures("held")
async def test_s24_what_is_stored_already_is_told_at_once() -> None:
    """A retry that waited could run out of time, and be told that nothing was stored."""
    setting = Setting()
    stamp = Stamp(7, 0, 1, 0)
    setting.call(1, stamp)
    await setting.commit()
    setting.call(2)
    retry = setting.call(1, stamp)
    assert await places([retry]) == [(0, 1, True)]


@pytest.mark.usefixtures("held")
async def test_a_refusal_that_gathered_is_held_behind_what_is_pending() -> None:
    setting = Setting()
    setting.call(1)
    bad = setting.call(9, Stamp(7, 0, 5, 4))
    setting.appender.flush()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not bad.done(), "it may speak of what is lost"
    setting.host.lose()
    assert (await error_of(bad)).reason == error_pb2.ERROR_REASON_NO_LEADER


@pytest.mark.usefixtures("held")
async def test_a_caller_that_goes_away_from_a_refusal_is_forgotten() -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    setting = Setting()
    setting.call(1)
    gone, stays = setting.call(9, Stamp(7, 0, 5, 4)), setting.call(9, Stamp(8, 0, 5, 4))
    setting.appender.flush()
    gone.cancel()
    await setting.commit()
    await error_of(stays)
    assert complaints == []


@pytest.mark.usefixtures("held")
async def test_s24_a_retry_of_a_producer_that_may_be_forgotten_does_not_wait() -> None:
    """Nobody knows what became of it, and that its time is up must not say more."""
    setting = Setting()
    setting.call(1, Stamp(7, 0, 3))
    await setting.commit()
    setting.appender.maintain(Expire((7,), 1_000))
    await setting.commit()
    assert setting.host.leader.machine.state.may_have_forgotten(7)
    setting.call(1)
    retry = setting.call(1, Stamp(7, 0, 3))
    assert setting.entries == [[1], [1]]
    with pytest.raises(RakitError) as caught:
        await answered(retry, asyncio.get_running_loop().time())
    assert caught.value.may_be_applied


@pytest.mark.usefixtures("held")
async def test_s14_an_outlook_that_a_bug_has_broken_judges_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting()
    setting.call(1)
    answer = setting.call(2)

    def fail(*_all: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(setting.appender.outlook, "proposed", fail)
    with pytest.raises(AssertionError, match="a bug"):
        setting.appender.flush()
    assert (await error_of(answer)).may_be_applied
    with pytest.raises(RakitError, match="is over"):
        setting.call(3)


@pytest.mark.usefixtures("held")
async def test_a_bug_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    setting.call(1)
    answers = [setting.call(2), setting.call(3)]

    def fail(*_all: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(setting.appender.outlook, "join", fail)
    with pytest.raises(AssertionError, match="a bug"):
        setting.appender.flush()
    for answer in answers:
        error = await error_of(answer)
        assert error.reason == error_pb2.ERROR_REASON_INTERNAL
        assert error.may_be_applied


class Timers:
    """What a gathering asks the loop for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays_s: list[float] = []
        self.cancelled = 0
        self.left: list[int] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self.call_later)
        self.gathering = Gathering(lambda requests: self.left.append(len(requests)))

    def call_later(self, delay_s: float, _callback: object) -> Timers:
        self.delays_s.append(delay_s)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def add(self, count: int, behind: int, size_bytes: int = 1) -> None:
        for _ in range(count):
            self.gathering.add(batch(content=bytes(size_bytes)), None, behind)


async def test_the_hold_is_as_long_as_what_may_come_is_worth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers(monkeypatch)
    for answered_count in (0, 1, 4, 500):
        timers.add(1, behind=5)
        timers.gathering.settled(5, answered_count)
        timers.gathering.flush()
    hold_s = gathering.HOLD_S
    assert timers.delays_s == [0, hold_s, 4 * hold_s, gathering.HOLD_S_MAX]
    assert timers.cancelled == 4, "a hold ends with what it holds"
    timers.gathering.flush()
    assert timers.cancelled == 4
    assert timers.left == [1, 1, 1, 1]


async def test_it_waits_for_the_entry_that_was_under_way_when_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers(monkeypatch)
    timers.add(1, behind=5)
    timers.add(1, behind=6)
    timers.gathering.settled(4, 1)
    assert timers.delays_s == []
    timers.gathering.settled(5, 1)
    assert len(timers.delays_s) == 1
    timers.gathering.settled(6, 1)
    assert len(timers.delays_s) == 1
    timers.gathering.flush()
    timers.gathering.settled(5, 1)
    assert len(timers.delays_s) == 1, "nobody waits"


async def test_what_left_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers(monkeypatch)
    for _ in range(3):
        timers.add(BYTES_MAX // BATCH_BYTES_MAX, behind=5, size_bytes=BATCH_BYTES_MAX)
    assert timers.left == 3 * [BYTES_MAX // BATCH_BYTES_MAX]
    timers.add(1, behind=5)
    timers.gathering.settled(5, COUNT_MAX)
    timers.add(COUNT_MAX - 1, behind=6)
    assert timers.left[3:] == [COUNT_MAX], "never more, whoever else may come"


@pytest.mark.usefixtures("held")
async def test_upkeep_answers_nobody_who_could_come_back() -> None:
    setting = Setting()
    setting.appender.maintain(Fence(7, 1, 1_000))
    setting.call(1)
    setting.host.proposed.clear()
    await setting.commit()
    async with asyncio.timeout(10):
        await setting.host.proposed.wait()
    assert setting.entries == [[1]]


async def test_the_settings_of_the_newest_request_hold() -> None:
    setting = Setting()
    setting.call(1)
    often = TopicSettings(segment_bytes=1)
    setting.appender.append(batch(2), None, None, often, gather=True)
    setting.appender.flush()
    await setting.commit()
    assert len(setting.host.leader.machine.state.marks) == 1


@pytest.mark.usefixtures("held")
async def test_a_producer_gathers_again_once_its_batch_has_left() -> None:
    setting = Setting()
    for sequence in (1, 2, 3):
        setting.call(1)
        setting.call(2, Stamp(7, 0, sequence))
        setting.call(3, Stamp(8, 0, sequence))
        setting.appender.flush()
        assert setting.entries == [[1], [2, 3]]
        await setting.commit()


async def test_s3_what_would_stop_every_replica_is_not_proposed() -> None:
    setting = Setting()
    setting.call(1)
    with pytest.raises(AssertionError, match="times never fall"):
        setting.appender.maintain(Fence(7, 1, 999))
    assert setting.entries == [[1]]
