"""What a leader does about the length of its log: decided here, purely, and proposed elsewhere.

The leader looks at the state as it will be after its pending entries and at its settings, within a
second of a change of either and of the time that `next_due_ms` names; between those nothing becomes
due (`rakit.node.partitions` sees to it). A look gives at most one command of each kind:

- `Checkpoint`: the log has gone quiet with records after the last mark, which could otherwise never
  be removed, and with more to replay at a restart than need be.
- `Trim`: to the newest mark that retention by age allows, or to the first one at which no more than
  the allowed bytes are kept, whichever cuts more (S1). Age counts from the mark: everything before
  it was appended no later.
- `Expire`: producers idle for seven days and, above 10,000, the longest idle (contract 9).

Time is the leader's append time, never a replica's clock (S3). While the leader's clock is off by
more than its peers tolerate, nothing is trimmed and nobody is forgotten: a clock that runs ahead by
a week would otherwise delete a week. A checkpoint deletes nothing and goes on.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from rakit.node.partition.commands import Checkpoint, Expire, Trim
from rakit.node.partition.producers import PRODUCER_COUNT_MAX, PRODUCER_IDLE_MS_MAX
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import LogState, Mark

#: So that one command stays small; the next tick goes on.
EXPIRED_COUNT_MAX: Final = 1_000

Upkeep: TypeAlias = Checkpoint | Trim | Expire


def next_due_ms(state: LogState, settings: TopicSettings) -> int | None:
    """Returns from when on something is due by its age; None: never, as with an empty log.

    Whatever is due for another reason is so at once, and not before the next change.
    """
    times_ms: list[int] = []
    if state.segment_time_ms:
        times_ms.append(state.segment_time_ms + settings.step_ms)
    if state.marks and settings.retention_ms is not None:
        times_ms.append(state.marks[0].append_time_ms + settings.retention_ms)
    for producer in state.producers.values():
        times_ms.append(producer.last_append_time_ms + PRODUCER_IDLE_MS_MAX)
        break  # the table is ordered by idleness
    return min(times_ms, default=None)


def decide(
    state: LogState, settings: TopicSettings, now_ms: int, *, clock_trusted: bool
) -> list[Upkeep]:
    """Returns the commands that are due, in the order in which they are to be proposed."""
    assert now_ms >= state.append_time_ms, "the leader's time never falls (S3)"
    due: list[Upkeep] = []
    if state.segment_time_ms and now_ms - state.segment_time_ms >= settings.step_ms:
        due.append(Checkpoint(now_ms))
    if not clock_trusted:
        return due
    mark = mark_to_trim_to(state, settings, now_ms)
    if mark is not None:
        due.append(Trim(mark.next_offset, mark.index, now_ms))
    idle = idle_producers(state, now_ms)
    if idle:
        due.append(Expire(idle, now_ms))
    return due


def mark_to_trim_to(state: LogState, settings: TopicSettings, now_ms: int) -> Mark | None:
    """Returns the mark that the log is to be cut at; None when nothing is to go."""
    chosen: Mark | None = None
    if settings.retention_ms is not None:
        oldest_ms = now_ms - settings.retention_ms
        for mark in state.marks:
            if mark.append_time_ms > oldest_ms:
                break
            chosen = mark
    if settings.retention_bytes is not None and state.log_bytes > settings.retention_bytes:
        for mark in state.marks:
            if chosen is None or mark.index > chosen.index:
                chosen = mark
            if state.appended_bytes - mark.appended_bytes <= settings.retention_bytes:
                break
    return chosen


def idle_producers(state: LogState, now_ms: int) -> tuple[int, ...]:
    """Returns the producers to be forgotten, at most `EXPIRED_COUNT_MAX`, longest idle first."""
    surplus = len(state.producers) - PRODUCER_COUNT_MAX
    kept_after_ms = now_ms - PRODUCER_IDLE_MS_MAX
    chosen: list[int] = []
    for producer_id, producer in state.producers.items():
        due = len(chosen) < surplus or producer.last_append_time_ms <= kept_after_ms
        # The table is ordered by idleness: nobody after this one is due either.
        if not due or len(chosen) == EXPIRED_COUNT_MAX:
            break
        chosen.append(producer_id)
    return tuple(chosen)
