"""What a leader does about the length of its log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.node.partition import producers, retention
from rakit.node.partition.commands import Checkpoint, Expire, Fence, Trim
from rakit.node.partition.producers import PRODUCER_IDLE_MS_MAX, Stamp
from rakit.node.partition.retention import decide, next_due_ms
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.snapshots import decode_state, encode_state
from rakit.node.partition.state import LogState
from tests.node.partition.fakes import SyncLeader, batch

WEEK_MS = 7 * 24 * 3_600_000


def log(times_ms: list[int], size: int = 1000) -> LogState:
    """A log with a batch and a mark at each time."""
    leader = SyncLeader()
    for time_ms in times_ms:
        leader.now_ms = time_ms
        leader.append(batch(10, content=bytes(size)))
        leader.run(leader.outlook.maintain(Checkpoint(time_ms)))
    return leader.machine.state


def trimmed_to(state: LogState, settings: TopicSettings, now_ms: int) -> int | None:
    due = decide(state, settings, now_ms, clock_trusted=True)
    trims = [command for command in due if isinstance(command, Trim)]
    assert len(trims) <= 1
    if not trims:
        return None
    assert (trims[0].start_offset, trims[0].checkpoint_index) in {
        (mark.next_offset, mark.index) for mark in state.marks
    }
    return trims[0].start_offset


def test_without_limits_nothing_is_due() -> None:
    assert decide(log([1, 2, 3]), TopicSettings(), 10**15, clock_trusted=True) == []


def due_at(state: LogState, settings: TopicSettings, now_ms: int) -> bool:
    return bool(decide(state, settings, max(now_ms, state.append_time_ms), clock_trusted=True))


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("append", "stamped", "fence", "upkeep")), st.integers(0, 4 * 3_600_000)
        ),
        max_size=8,
    ),
    settings=st.builds(
        TopicSettings,
        retention_ms=st.none() | st.integers(0, 2 * WEEK_MS),
        retention_bytes=st.none() | st.integers(0, 200),
        segment_ms=st.integers(1_000, WEEK_MS),
    ),
)
def test_nothing_becomes_due_by_time_before_it_was_said_to(
    steps: list[tuple[str, int]], settings: TopicSettings
) -> None:
    leader = SyncLeader()
    for at, (step, later_ms) in enumerate(steps):
        leader.now_ms += later_ms
        if step == "upkeep":
            due = decide(leader.machine.state, settings, leader.now_ms, clock_trusted=True)
            for command in due:
                leader.run(leader.outlook.maintain(command))
        elif step == "fence":
            leader.run(leader.outlook.maintain(Fence(at, 1, leader.now_ms)))
        else:
            stamp = Stamp(at, 0, 1) if step == "stamped" else None
            leader.append(batch(), stamp, settings)
    state, now_ms = leader.machine.state, leader.now_ms
    due_ms = next_due_ms(state, settings)
    if due_at(state, settings, now_ms):
        return  # it is to be looked at again whatever the time
    if due_ms is None:
        assert not due_at(state, settings, 10**15)
    else:
        assert due_ms > now_ms
        assert not due_at(state, settings, due_ms - 1)
        assert due_at(state, settings, due_ms)


def test_a_log_that_nobody_wrote_to_never_becomes_due_and_others_do() -> None:
    settings = TopicSettings(segment_ms=1_000, retention_ms=500)
    assert next_due_ms(LogState(), settings) is None
    assert next_due_ms(log([7, 9]), settings) == 7 + 500
    assert next_due_ms(log([7]), TopicSettings(retention_bytes=1)) is None
    leader = SyncLeader()
    leader.append(batch(1))
    assert next_due_ms(leader.machine.state, settings) == 2_000, "it will need a checkpoint"
    fenced = SyncLeader()
    fenced.run(fenced.outlook.maintain(Fence(7, 1, 1)))
    fenced.run(fenced.outlook.maintain(Checkpoint(1)))
    due_ms = next_due_ms(fenced.machine.state, TopicSettings())
    assert due_ms == 1 + WEEK_MS, "its producer will be forgotten"


def test_s3_age_counts_from_the_append_time_of_the_mark() -> None:
    state = log([10_000, 20_000, 30_000])
    settings = TopicSettings(retention_ms=5_000)
    assert trimmed_to(state, settings, 30_000) == 20
    assert trimmed_to(state, settings, 34_999) == 20
    assert trimmed_to(state, settings, 35_000) == 30


def kept_bytes(state: LogState, offset: int) -> int:
    """Bytes that are left when the log is cut at the mark of this offset."""
    at = next(mark for mark in state.marks if mark.next_offset == offset)
    return state.appended_bytes - at.appended_bytes


def test_bytes_are_kept_up_to_the_limit() -> None:
    state = log([1, 2, 3, 4, 5])
    whole = state.appended_bytes
    assert trimmed_to(state, TopicSettings(retention_bytes=whole), 5) is None
    assert trimmed_to(state, TopicSettings(retention_bytes=whole - 1), 5) == 10
    for offset in (20, 30, 40):
        left = kept_bytes(state, offset)
        assert trimmed_to(state, TopicSettings(retention_bytes=left), 5) == offset
        assert trimmed_to(state, TopicSettings(retention_bytes=left - 1), 5) == offset + 10
    assert trimmed_to(state, TopicSettings(retention_bytes=1), 5) == 50


def test_the_stricter_limit_decides() -> None:
    state = log([1_000, 2_000, 3_000, 4_000])
    much, little = kept_bytes(state, 10), kept_bytes(state, 30)
    assert trimmed_to(state, TopicSettings(retention_ms=2_000), 4_000) == 20
    for allowed, offset in ((much, 20), (little, 30)):
        both = TopicSettings(retention_ms=2_000, retention_bytes=allowed)
        assert trimmed_to(state, both, 4_000) == offset


def test_a_log_gone_quiet_gets_one_checkpoint_and_no_second() -> None:
    leader = SyncLeader()
    leader.append(batch())
    settings = TopicSettings(segment_ms=60_000)
    assert decide(leader.machine.state, settings, 60_999, clock_trusted=True) == []
    due = decide(leader.machine.state, settings, 61_000, clock_trusted=True)
    assert due == [Checkpoint(61_000)]
    for command in due:
        leader.run(leader.outlook.maintain(command))
    assert decide(leader.machine.state, settings, 10**12, clock_trusted=True) == []


def test_s3_a_clock_that_is_off_neither_trims_nor_forgets() -> None:
    leader = SyncLeader()
    leader.append(batch(), Stamp(1, 0, 1))
    leader.run(leader.outlook.maintain(Checkpoint(leader.now_ms)))
    leader.append(batch())
    settings = TopicSettings(retention_ms=1_000)
    now = leader.now_ms + 2 * WEEK_MS
    trusted = decide(leader.machine.state, settings, now, clock_trusted=True)
    assert [type(command) for command in trusted] == [Checkpoint, Trim, Expire]
    off = decide(leader.machine.state, settings, now, clock_trusted=False)
    assert [type(command) for command in off] == [Checkpoint]


def test_producers_are_forgotten_after_seven_idle_days() -> None:
    assert PRODUCER_IDLE_MS_MAX == WEEK_MS
    leader = SyncLeader(now_ms=1_000)
    leader.append(batch(), Stamp(1, 0, 1))
    leader.now_ms = 2_000
    leader.append(batch(), Stamp(2, 0, 1))
    leader.run(leader.outlook.maintain(Fence(3, 1, 2_500)))
    leader.now_ms = 3_000
    leader.append(batch(), Stamp(1, 0, 2))
    state = leader.machine.state
    assert retention.idle_producers(state, 2_000 + WEEK_MS - 1) == ()
    assert retention.idle_producers(state, 2_000 + WEEK_MS) == (2,)
    assert retention.idle_producers(state, 2_500 + WEEK_MS) == (2, 3)
    assert retention.idle_producers(state, 3_000 + WEEK_MS) == (2, 3, 1)


def test_above_the_limit_the_longest_idle_producers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert producers.PRODUCER_COUNT_MAX == 10_000
    monkeypatch.setattr(retention, "PRODUCER_COUNT_MAX", 3)
    leader = SyncLeader()
    for producer in (4, 2, 9, 1, 7):
        leader.now_ms += 10
        leader.append(batch(), Stamp(producer, 0, 1))
    leader.now_ms += 10
    leader.append(batch(), Stamp(4, 0, 2))
    assert retention.idle_producers(leader.machine.state, leader.now_ms) == (2, 9)
    restored = decode_state(encode_state(leader.machine.state))
    assert retention.idle_producers(restored, leader.now_ms) == (2, 9), "also after a restart"
    monkeypatch.setattr(retention, "EXPIRED_COUNT_MAX", 1)
    assert retention.idle_producers(leader.machine.state, leader.now_ms) == (2,)


def test_the_log_is_cut_in_steps_that_fit_what_is_kept() -> None:
    mib = 1 << 20
    assert TopicSettings(segment_bytes=64 * mib).step_bytes == 64 * mib
    assert TopicSettings(segment_bytes=64 * mib, retention_bytes=64 * mib).step_bytes == 16 * mib
    assert TopicSettings(segment_bytes=64 * mib, retention_bytes=1).step_bytes == 64 * 1024
    assert TopicSettings(segment_ms=600_000, retention_ms=60_000).step_ms == 15_000
    assert TopicSettings(segment_ms=600_000, retention_ms=1).step_ms == 1_000
    assert TopicSettings(segment_ms=600_000).step_ms == 600_000
