"""Up or down, from what happened and when; no clock, no socket."""

from __future__ import annotations

import pytest

from rakit.multiraft.config import LivenessConfig
from rakit.multiraft.liveness import Change, Liveness, NodeChange

CONFIG = LivenessConfig(ping_ms=250, silence_ms=1000, clock_skew_ms_max=5000)
CLOCK_MS = 1_700_000_000_000


def changes(found: list[NodeChange]) -> list[tuple[int, Change]]:
    return [(each.node_id, each.change) for each in found]


def greeted(*nodes: int) -> Liveness:
    """Peers that said hello at 0 and were answered nothing yet."""
    liveness = Liveness(CONFIG, 0)
    for node_id in nodes:
        liveness.watch(node_id, 0)
        assert liveness.hello(node_id, 100 + node_id, 0) == []
    return liveness


def answer(liveness: Liveness, node_id: int, now_ms: int, offset_ms: int = 0) -> list[NodeChange]:
    number = liveness.ping_due(node_id, now_ms)
    assert number is not None
    clocks = (CLOCK_MS + offset_ms, CLOCK_MS)
    return liveness.pong(node_id, number, 100 + node_id, clocks, now_ms)


def test_s15_a_peer_is_up_after_a_round_trip_and_not_before() -> None:
    liveness = greeted(2)
    assert not liveness.is_up(2)
    number = liveness.ping_due(2, 10)
    assert number is not None
    assert changes(liveness.pong(2, number, 102, (CLOCK_MS, CLOCK_MS), 14)) == [(2, Change.UP)]
    assert liveness.is_up(2)
    assert liveness.round_trip_ms(2) == 4
    assert liveness.up_nodes() == [2]


def test_an_answer_to_an_earlier_ping_is_told_without_a_time() -> None:
    liveness = greeted(2)
    first, second = liveness.ping_due(2, 0), liveness.ping_due(2, CONFIG.ping_ms)
    assert first is not None
    assert second is not None
    (found,) = liveness.pong(2, first, 102, (CLOCK_MS, CLOCK_MS), 400)
    assert found.reason == "it answered"
    assert liveness.round_trip_ms(2) is None


def test_s15_an_answer_of_an_earlier_boot_counts_for_nothing() -> None:
    liveness = greeted(2)
    number = liveness.ping_due(2, 10)
    assert number is not None
    assert liveness.pong(2, number, 101, (CLOCK_MS, CLOCK_MS), 14) == []
    assert not liveness.is_up(2)


def test_s15_a_new_boot_is_down_and_then_up() -> None:
    liveness = greeted(2)
    answer(liveness, 2, 10)
    found = liveness.hello(2, 999, 20)
    assert changes(found) == [(2, Change.DOWN)]
    assert found[0].reason == "its process was started again"
    number = liveness.ping_due(2, 20, at_once=True)
    assert number is not None
    assert changes(liveness.pong(2, number, 999, (CLOCK_MS, CLOCK_MS), 21)) == [(2, Change.UP)]


def test_the_same_boot_on_another_stream_changes_nothing() -> None:
    liveness = greeted(2)
    answer(liveness, 2, 10)
    assert liveness.hello(2, 102, 20) == []
    assert liveness.is_up(2)


def test_s16_a_refused_connection_is_down_at_once() -> None:
    liveness = greeted(2)
    answer(liveness, 2, 10)
    assert changes(liveness.refused(2)) == [(2, Change.DOWN)]
    assert liveness.refused(2) == []


def test_s16_silence_is_down_after_its_time_and_not_before() -> None:
    liveness = greeted(2)
    answer(liveness, 2, 10)
    for now_ms in range(50, 1010, 50):
        assert liveness.check(now_ms) == []
    assert changes(liveness.check(1010)) == [(2, Change.DOWN)]
    assert liveness.check(1060) == []


def test_a_pause_of_this_node_is_not_the_silence_of_others() -> None:
    liveness = greeted(2)
    answer(liveness, 2, 10)
    liveness.check(50)
    assert liveness.check(10_050) == []
    assert liveness.is_up(2)
    # But from then on the clock runs again.
    down = [now for now in range(10_100, 12_000, 50) if liveness.check(now)]
    assert len(down) == 1
    assert 10_600 <= down[0] <= 11_300


def test_pings_are_due_every_interval_whether_answered_or_not() -> None:
    liveness = greeted(2)
    due = [now for now in range(0, 1000, 50) if liveness.ping_due(2, now) is not None]
    assert due == [0, 250, 500, 750]
    assert liveness.ping_due(2, 760, at_once=True) is None, "one is under way"


def test_a_peer_that_left_is_forgotten() -> None:
    liveness = greeted(2, 3)
    answer(liveness, 2, 10)
    assert changes(liveness.forget(2)) == [(2, Change.DOWN)]
    assert liveness.forget(3) == []
    assert liveness.forget(4) == []
    assert liveness.refused(2) == []


@pytest.mark.parametrize(
    ("offsets", "skew"),
    [
        ([0, 0], 0),
        # One of three is wrong: it is alone, and accuses itself only.
        ([9000, 9000], -9000),
        ([0, 9000], 0),
        ([-300, 400], 0),
        # Of two nobody knows which: half the distance.
        ([12_000], -6000),
    ],
)
def test_s3_the_own_clock_is_judged_by_the_median(offsets: list[int], skew: int) -> None:
    nodes = list(range(2, 2 + len(offsets)))
    liveness = greeted(*nodes)
    for node_id, offset_ms in zip(nodes, offsets, strict=True):
        answer(liveness, node_id, 10, offset_ms)
    assert liveness.clock_skew_ms() == skew
    assert liveness.clock_is_wrong() is (abs(skew) > 5000)


def test_s3_without_another_clock_nothing_is_known() -> None:
    liveness = greeted(2)
    assert liveness.clock_skew_ms() is None
    assert not liveness.clock_is_wrong()
    answer(liveness, 2, 10, 9000)
    liveness.refused(2)
    assert liveness.clock_skew_ms() is None, "a clock of a node that is down is old news"
