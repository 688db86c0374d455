"""The rim: who is answered, what needs a barrier, and what clients are told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from rakit.api.v1 import error_pb2, log_service_pb2
from rakit.multiraft.errors import StoreCorruptError, StoreUnreadableError
from rakit.node.errors import RakitError
from rakit.node.partition.answers import Appended
from rakit.node.partition.commands import Append, append_pieces
from rakit.node.partition.inquiry import ProducerAnswer
from rakit.node.partition.partition import Offsets, Partition, PartitionContext
from rakit.node.partition.producers import PRODUCER_IDLE_MS_MAX, Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import Stored
from rakit.raft import Entry, Role
from tests.node.partition.fakes import (
    GROUP,
    MEMBERS,
    FakeHost,
    FakeReplica,
    MemoryLog,
    batch,
    new_machine,
)


class Setting:
    def __init__(self, topic: TopicSettings | None = None) -> None:
        self.host = FakeHost()
        self.now_ms = 1_000
        self.topic = topic or TopicSettings()
        self.trusted = True
        self.runs = True
        self.clock_ms: Callable[[], int] = lambda: self.now_ms
        self.stirred: list[int] = []
        self.context = PartitionContext(
            disk=self.host.disk,
            clock_ms=self.clock,
            fsynced=True,
            clock_trusted=lambda: self.trusted,
            runs_are_read=lambda: self.runs,
        )
        self.partition = self.made()

    def made(self) -> Partition:
        return Partition(self.host, GROUP, lambda: self.topic, self.context, self.stirred.append)

    def clock(self) -> int:
        return self.clock_ms()

    def append(self, count: int = 1, stamp: Stamp | None = None) -> None:
        """Appends and commits."""
        self.partition.append(batch(count), stamp, None)
        self.host.commit()

    def follow(self, leader: int) -> None:
        self.host.leader.ready = False
        self.host.leader.role = Role.FOLLOWER
        self.host.leader.leader_replica = leader


async def every_call(setting: Setting) -> list[RakitError]:
    """What each call that only a leader serves is answered."""
    partition = setting.partition
    errors: list[RakitError] = []
    for call in (
        lambda: partition.append(batch(), None, None),
        lambda: partition.read(0, 100),
        partition.offsets,
        lambda: partition.offset_at(5),
        partition.latest,
        lambda: partition.producer_state(7, 1, None),
        lambda: partition.producer_state(7, 1, 2),
    ):
        with pytest.raises(RakitError) as caught:
            await call()
        errors.append(caught.value)
    with pytest.raises(RakitError) as caught:
        partition.earliest()
    return [*errors, caught.value]


async def test_s20_a_follower_names_the_leader() -> None:
    setting = Setting()
    setting.follow(MEMBERS[2])
    for error in await every_call(setting):
        assert error.reason == error_pb2.ERROR_REASON_NOT_LEADER
        assert error.message == "The partition is led by node 3."
        assert error.metadata == {"leader_node_id": "3", "leader_term": "1"}


async def test_without_a_leader_nobody_is_named() -> None:
    setting = Setting()
    setting.follow(0)
    for error in await every_call(setting):
        assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
        assert "has no leader at the moment" in error.message
        assert error.rule.retriable


async def test_s14_a_leader_that_is_not_ready_takes_nothing() -> None:
    setting = Setting()
    setting.host.leader.ready = False
    for error in await every_call(setting):
        assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
        assert error.message == "The partition's new leader is not ready yet."
        assert error.metadata["retry_delay_ms"] == "20"


async def test_a_node_without_the_replica_is_unavailable() -> None:
    setting = Setting()
    setting.host.replica = None
    for error in await every_call(setting):
        assert error.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE


async def test_what_is_appended_is_read() -> None:
    setting = Setting()
    for count in (2, 3):
        setting.append(count)
    chunk = await setting.partition.read(0, 1000)
    assert [(each.base_offset, each.record_count) for each in chunk.batches] == [(0, 2), (2, 3)]
    assert chunk.next_offset == chunk.high_watermark == 5
    assert (await setting.partition.read(5, 1000)).batches == ()
    assert setting.host.barriers == 0, "a plain read costs no round"


async def test_s20_out_of_range_above_the_log_is_said_after_a_barrier_only() -> None:
    setting = Setting()
    setting.append(2)
    setting.partition.append(batch(3), None, None)
    setting.host.during_barrier = setting.host.commit
    chunk = await setting.partition.read(4, 1000)
    assert setting.host.barriers == 1
    assert chunk.batches[0].base_offset == 2
    with pytest.raises(RakitError) as caught:
        await setting.partition.read(9, 1000)
    assert setting.host.barriers == 2
    assert caught.value.reason == error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE
    assert caught.value.metadata == {"earliest": "0", "latest": "5"}
    text = "Offset 9 is outside of the log, which holds 0 up to, not including, 5."
    assert caught.value.message == text


async def test_s20_without_a_quorum_nothing_linearizable_is_said() -> None:
    setting = Setting()
    setting.host.barrier_fails = True
    for call in (
        setting.partition.read(9, 1000),
        setting.partition.latest(),
        setting.partition.offsets(),
        setting.partition.producer_state(7, 1, None),
    ):
        with pytest.raises(RakitError) as caught:
            await call
        assert caught.value.reason == error_pb2.ERROR_REASON_NO_QUORUM
        assert caught.value.rule.retriable


async def test_s20_latest_counts_what_a_barrier_brings() -> None:
    setting = Setting()
    setting.append(2)
    setting.partition.append(batch(3), None, None)
    setting.host.during_barrier = setting.host.commit
    assert setting.partition.earliest() == 0
    assert await setting.partition.latest() == 5


async def test_offsets_by_time() -> None:
    setting = Setting()
    for now_ms in (1_000, 2_000, 3_000):
        setting.now_ms = now_ms
        setting.append(10)
    size = setting.host.leader.machine.state.log_bytes
    assert await setting.partition.offsets() == Offsets(0, 30, None, size)
    for time_ms, offset in ((0, 0), (1_000, 0), (1_001, 10), (2_000, 10), (3_000, 20), (3_001, 30)):
        assert (await setting.partition.offsets(time_ms)).at_time == offset
        barriers = setting.host.barriers
        assert await setting.partition.offset_at(time_ms) == offset
        assert setting.host.barriers == barriers + (offset == 30), "only the end needs a barrier"


async def test_s14_each_leadership_begins_with_the_applied_state() -> None:
    setting = Setting()
    setting.append(5)
    lost = setting.partition.append(batch(3), None, None)
    setting.host.lose()
    with pytest.raises(RakitError):
        await lost
    setting.host.lead_again()
    answer = setting.partition.append(batch(2), None, 5)
    setting.host.commit()
    assert (await answer).stored.base_offset == 5


async def test_retention_cuts_the_log_and_reads_below_are_out_of_range() -> None:
    setting = Setting(TopicSettings(retention_ms=10_000, segment_ms=1_000))
    setting.append(10)
    setting.now_ms += 5_000
    setting.partition.look_after()
    setting.host.commit()
    setting.append(10)
    assert (await setting.partition.read(0, 1000)).log_start_offset == 0
    setting.now_ms += 10_000
    setting.trusted = False
    setting.partition.look_after()
    setting.host.commit()
    assert setting.partition.earliest() == 0, "a clock that is off deletes nothing (S3)"
    setting.trusted = True
    setting.partition.look_after()
    setting.partition.look_after()
    assert len(setting.host.waiting) == 1, "what is pending is not proposed again"
    setting.host.commit()
    assert setting.partition.earliest() == 10
    assert (await setting.partition.read(10, 1000)).batches[0].base_offset == 10
    with pytest.raises(RakitError) as caught:
        await setting.partition.read(9, 1000)
    assert caught.value.reason == error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE
    assert caught.value.metadata == {"earliest": "10", "latest": "20"}


async def test_a_quiet_log_costs_nothing() -> None:
    setting = Setting(TopicSettings(retention_ms=10_000))
    for _ in range(5):
        setting.now_ms += 10**9
        assert setting.partition.look_after() is None
    assert not setting.host.waiting


async def test_only_a_leader_does_the_upkeep() -> None:
    setting = Setting(TopicSettings(segment_ms=1_000))
    setting.append(10)
    setting.now_ms += 10_000
    setting.follow(MEMBERS[1])
    setting.partition.look_after()
    setting.host.replica = None
    setting.partition.look_after()
    assert not setting.host.waiting


async def test_damage_shuts_the_replica_out_and_is_reported() -> None:
    setting = Setting()
    setting.append(5)
    setting.host.log.damage = StoreCorruptError("entry 3 fails its checksum")
    with pytest.raises(RakitError) as caught:
        await setting.partition.read(0, 1000)
    assert caught.value.reason == error_pb2.ERROR_REASON_CORRUPT_RECORD
    assert "This replica is damaged and was taken out of service" in caught.value.message
    assert setting.host.quarantined == [("entry 3 fails its checksum", True)]
    with pytest.raises(RakitError) as caught:
        await setting.partition.read(0, 1000)
    assert caught.value.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE


async def test_who_took_the_place_of_a_removed_replica_is_not_shut_out_for_its_missing_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting()
    setting.append(5)

    def entries(lo: int, hi: int, max_bytes: int) -> list[Entry]:
        del lo, hi, max_bytes
        setting.host.replica = FakeReplica(new_machine(), MemoryLog())
        raise StoreCorruptError("entry 3 is missing")

    monkeypatch.setattr(setting.host.log, "entries", entries)
    with pytest.raises(RakitError) as caught:
        await setting.partition.digest(2, 2)
    assert caught.value.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE
    assert not setting.host.quarantined


async def test_s9_a_read_that_fails_without_damage_is_no_corrupt_record() -> None:
    setting = Setting()
    setting.append(5)
    setting.host.log.damage = StoreUnreadableError("a read failed: Too many open files")
    with pytest.raises(RakitError) as caught:
        await setting.partition.read(0, 1000)
    assert caught.value.reason == error_pb2.ERROR_REASON_NODE_UNAVAILABLE
    assert "cannot be read and was taken out of service" in caught.value.message
    assert setting.host.quarantined == [("a read failed: Too many open files", False)]


async def test_p9_equal_logs_have_equal_digests_and_unequal_ones_have_not() -> None:
    settings = [Setting() for _ in range(3)]
    for at, setting in enumerate(settings):
        for count in (1, 2, 3):
            setting.append(count)
        setting.follow(MEMBERS[at])
    log = settings[2].host.log
    log.held[1] = replace(log.held[1], term=2)
    assert settings[0].partition.index_range() == (2, 4)
    digests = [await setting.partition.digest(2, 4) for setting in settings]
    assert digests[0] == digests[1]
    assert digests[0].end_offset == 6
    assert digests[0].hexadecimal != digests[2].hexadecimal
    shorter = await settings[0].partition.digest(2, 3)
    assert (shorter.end_offset, len(shorter.hexadecimal)) == (3, 32)
    assert shorter.hexadecimal != digests[0].hexadecimal
    for first, last in ((1, 3), (2, 5), (3, 2)):
        with pytest.raises(RakitError, match="This replica holds the entries 2 to 4"):
            await settings[0].partition.digest(first, last)


APPLIED = log_service_pb2.BATCH_STATE_APPLIED
PENDING = log_service_pb2.BATCH_STATE_PENDING
NOT_SEEN = log_service_pb2.BATCH_STATE_NOT_SEEN
FORGOTTEN = log_service_pb2.BATCH_STATE_FORGOTTEN


async def test_s21_a_stored_batch_is_applied_with_its_answer() -> None:
    setting = Setting()
    setting.append(3, Stamp(7, 4, 1, 0))
    answer = await setting.partition.producer_state(7, 1, None)
    stored = Stored(0, 3, 1_000, 1, 2)
    assert answer == ProducerAnswer(APPLIED, stored, last_sequence=1, epoch=4, final=True)
    assert setting.host.barriers == 1, "answered after ReadIndex"


async def test_s21_a_batch_under_way_is_pending() -> None:
    setting = Setting()
    setting.partition.append(batch(), Stamp(7, 4, 1, 0), None)
    answer = await setting.partition.producer_state(7, 1, None)
    assert answer == ProducerAnswer(PENDING, None, last_sequence=0, epoch=0, final=False)


async def test_s21_not_seen_is_final_only_with_a_fence() -> None:
    setting = Setting()
    setting.append(1, Stamp(7, 4, 1, 0))
    answer = await setting.partition.producer_state(7, 2, None)
    assert answer == ProducerAnswer(NOT_SEEN, None, last_sequence=1, epoch=4, final=False)
    asked = asyncio.ensure_future(setting.partition.producer_state(7, 2, 5))
    await asyncio.sleep(0)
    assert not asked.done(), "the fence is committed first"
    late = setting.partition.append(batch(), Stamp(7, 4, 2, 1), None)
    setting.host.commit()
    answer = await asked
    assert answer == ProducerAnswer(NOT_SEEN, None, last_sequence=1, epoch=5, final=True)
    with pytest.raises(RakitError) as caught:
        await late
    assert caught.value.reason == error_pb2.ERROR_REASON_PRODUCER_FENCED
    assert caught.value.metadata == {"current_epoch": "5"}


async def asked(
    setting: Setting, sequence: int, fence_epoch: int | None, sent_epoch: int | None = None
) -> ProducerAnswer:
    question = setting.partition.producer_state(7, sequence, fence_epoch, sent_epoch)
    answer = asyncio.ensure_future(question)
    await asyncio.sleep(0)
    setting.host.commit()
    return await answer


async def test_s21_a_fence_at_the_batchs_own_epoch_settles_nothing() -> None:
    setting = Setting()
    setting.append(1, Stamp(7, 3, 1, 0))
    answer = await asked(setting, 2, fence_epoch=3)
    assert (answer.state, answer.epoch, answer.final) == (NOT_SEEN, 3, False)
    setting.append(1, Stamp(7, 3, 2, 1))
    late = await asked(setting, 2, fence_epoch=None)
    assert late.state == APPLIED, "the late one was stored"


async def test_s21_whoever_names_the_batchs_epoch_gets_a_final_answer_again_and_again() -> None:
    setting = Setting()
    setting.append(1, Stamp(7, 3, 1, 0))
    open_ = await asked(setting, 2, fence_epoch=None, sent_epoch=3)
    assert not open_.final
    for fence_epoch in (4, 4, None):
        answer = await asked(setting, 2, fence_epoch, sent_epoch=3)
        assert (answer.state, answer.epoch, answer.final) == (NOT_SEEN, 4, True)
    assert not (await asked(setting, 2, fence_epoch=4)).final, "it raised nothing, and cannot know"
    with pytest.raises(RakitError) as caught:
        await setting.partition.producer_state(7, 2, 3, 3)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert caught.value.message == (
        "fence_epoch is 3, but the batch was sent with epoch 3: only a higher one keeps it out."
        " InitProducer gives it."
    )


async def test_s24_a_producer_that_was_forgotten_is_told_no_lie() -> None:
    """Sequence 1 is stored; its answer was lost, and so was the memory of it."""
    setting = Setting()
    setting.append(1, Stamp(7, 1, 1, 0))
    setting.now_ms += 8 * 24 * 3_600_000
    setting.partition.look_after()
    setting.host.commit()
    with pytest.raises(RakitError) as caught:
        await setting.partition.append(batch(), Stamp(7, 1, 1, 0), None)
    assert caught.value.reason == error_pb2.ERROR_REASON_UNKNOWN_PRODUCER
    assert caught.value.may_be_applied
    answer = await asked(setting, 1, fence_epoch=2)
    assert (answer.state, answer.final) == (FORGOTTEN, True)
    with pytest.raises(RakitError) as caught:
        await setting.partition.append(batch(), Stamp(7, 1, 1, 0), None)
    assert caught.value.reason == error_pb2.ERROR_REASON_PRODUCER_FENCED
    assert caught.value.may_be_applied
    assert setting.host.leader.machine.state.next_offset == 1, "not stored a second time"
    setting.append(1, Stamp(7, 2, 2))
    setting.append(1, Stamp(7, 2, 3, 2))
    setting.append(1, Stamp(8, 0, 1, 0))
    assert setting.host.leader.machine.state.next_offset == 4, "what is new goes on"


async def test_s24_a_log_in_which_a_forgotten_producer_named_zero_is_applied() -> None:
    """Older leaders took it; whoever applies an entry must not be stricter than they were."""
    setting = Setting()
    setting.append(1, Stamp(7, 1, 1, 0))
    setting.now_ms += 8 * 24 * 3_600_000
    setting.partition.look_after()
    setting.host.commit()
    command = Append(1, 1, setting.now_ms, Stamp(7, 1, 2, 0), 5, compressed=False, checkpoint=False)
    setting.host.propose(GROUP, *append_pieces(command, b"content"))
    setting.host.commit()
    assert setting.host.leader.machine.state.next_offset == 2


async def test_s21_a_fence_settles_a_batch_that_was_under_way() -> None:
    setting = Setting()
    setting.partition.append(batch(), Stamp(7, 4, 1, 0), None)
    asked = asyncio.ensure_future(setting.partition.producer_state(7, 1, 5))
    await asyncio.sleep(0)
    setting.host.commit()
    answer = await asked
    assert (answer.state, answer.final, answer.epoch) == (APPLIED, True, 5)


async def test_s21_a_fence_that_is_lost_leaves_the_outcome_unknown() -> None:
    setting = Setting()
    asked = asyncio.ensure_future(setting.partition.producer_state(7, 1, 5))
    await asyncio.sleep(0)
    setting.host.lose()
    with pytest.raises(RakitError) as caught:
        await asked
    assert caught.value.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN


async def test_s21_a_fence_needs_an_epoch() -> None:
    with pytest.raises(RakitError) as caught:
        await Setting().partition.producer_state(7, 1, 0)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert caught.value.message == "fence_epoch is 0; it must be from 1 to 2147483647."


async def test_s21_what_the_table_no_longer_holds_is_forgotten_not_unseen() -> None:
    setting = Setting()
    for sequence in range(1, 70):
        setting.append(1, Stamp(7, 0, sequence))
        await asyncio.sleep(0)
    below = await setting.partition.producer_state(7, 5, None)
    assert (below.state, below.final, below.last_sequence) == (FORGOTTEN, True, 69)
    setting.append(1, Stamp(7, 0, 75))
    between = await setting.partition.producer_state(7, 71, None)
    assert (between.state, between.final) == (NOT_SEEN, True), "it can never be stored any more"
    setting.now_ms += 8 * 24 * 3_600_000
    setting.partition.look_after()
    setting.host.commit()
    expired = await setting.partition.producer_state(7, 75, None)
    assert (expired.state, expired.last_sequence) == (FORGOTTEN, 0)
    newer = await setting.partition.producer_state(8, 1, None)
    assert newer.state == NOT_SEEN, "an id above all that were forgotten was never seen"


async def test_sequence_zero_asks_for_the_producer_only() -> None:
    setting = Setting()
    setting.append(1, Stamp(7, 4, 9))
    answer = await setting.partition.producer_state(7, 0, None)
    unspecified = log_service_pb2.BATCH_STATE_UNSPECIFIED
    assert answer == ProducerAnswer(unspecified, None, last_sequence=9, epoch=4, final=False)


async def test_a_closed_partition_lets_go_of_the_host() -> None:
    setting = Setting()
    woken: list[int] = []
    setting.partition.subscribe(lambda: woken.append(1))
    setting.partition.close()
    assert woken == [1]
    assert not setting.host.callbacks


async def entries_of_three_calls(setting: Setting) -> int:
    """Returns how many entries three unary calls become."""
    for _ in range(3):
        setting.partition.append(batch(), None, None, gather=True)
    setting.partition.append(batch(), None, None)
    count = len(setting.host.waiting) - 1
    setting.host.commit()
    await asyncio.sleep(0)
    return count


async def test_entries_of_several_batches_wait_until_every_node_reads_them() -> None:
    setting = Setting()
    setting.runs = False
    assert await entries_of_three_calls(setting) == 3
    setting.runs = True
    assert await entries_of_three_calls(setting) == 2


async def gathered(setting: Setting, stamp: Stamp | None = None) -> asyncio.Future[Appended]:
    """A batch that waits behind another one."""
    setting.partition.append(batch(), None, None)
    answer = setting.partition.append(batch(3), stamp, None, gather=True)
    assert len(setting.host.waiting) == 1
    return answer


async def test_s3_upkeep_is_decided_behind_what_has_gathered() -> None:
    """Or an entry would be older than the one before it, and stop every replica."""
    setting = Setting(TopicSettings(retention_bytes=10, segment_bytes=40))
    for _ in range(12):
        setting.append(5)
    await asyncio.sleep(0)
    answer = await gathered(setting)
    clock = itertools.count(2_000)
    setting.clock_ms = lambda: next(clock)
    setting.partition.look_after()
    assert len(setting.host.waiting) > 2, "the log is cut"
    setting.host.commit()
    assert (await answer).stored.base_offset == 61
    assert setting.host.leader.machine.state.start_offset > 0


async def test_s24_a_producer_whose_batch_has_gathered_is_not_idle() -> None:
    setting = Setting()
    stamp = Stamp(7, 0, 1)
    setting.append(1, stamp)
    await asyncio.sleep(0)
    setting.now_ms += PRODUCER_IDLE_MS_MAX + 1
    newest = Stamp(7, 0, 2)
    answer = await gathered(setting, newest)
    setting.partition.look_after()
    setting.host.commit()
    await answer
    again = await setting.partition.append(batch(3), newest, None)
    assert again.duplicate
    assert again.stored == answer.result().stored


async def test_s14_what_has_gathered_is_not_proposed_in_a_later_term() -> None:
    """By then others may have appended, of whom its leadership knows nothing."""
    setting = Setting()
    answer = await gathered(setting)
    setting.host.lead_again()
    setting.host.commit()
    async with asyncio.timeout(10):
        with pytest.raises(RakitError) as caught:
            await answer
    assert caught.value.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not caught.value.may_be_applied
    assert not setting.host.waiting


async def test_s21_what_gathers_is_judged_before_it_is_asked_about() -> None:
    setting = Setting()
    setting.partition.append(batch(), None, None, gather=True)
    setting.partition.append(batch(), Stamp(7, 0, 1, 0), None, gather=True)
    assert len(setting.host.waiting) == 1
    answer = await setting.partition.producer_state(7, 1, None)
    assert answer.state == log_service_pb2.BATCH_STATE_PENDING
    assert len(setting.host.waiting) == 2
    setting.host.commit()
    answer = await setting.partition.producer_state(7, 1, None)
    assert answer.state == log_service_pb2.BATCH_STATE_APPLIED


async def test_s14_a_leadership_has_one_view_of_what_is_pending() -> None:
    """A second one would give out offsets again, and every replica would stop."""
    setting = Setting()
    setting.partition.append(batch(3), None, None)
    again = setting.made()
    with pytest.raises(RakitError) as caught:
        again.append(batch(), None, None)
    assert caught.value.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not caught.value.may_be_applied
    assert len(setting.host.waiting) == 1
    setting.host.commit()
    await asyncio.sleep(0)
    answer = again.append(batch(), None, None)
    setting.host.commit()
    assert (await answer).stored.base_offset == 3
