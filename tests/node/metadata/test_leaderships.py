# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from unittest.mock import patch

from rakit.node.metadata.leaderships import (
    HANDED_OVER_COUNT_MAX,
    LOOKED_AT_COUNT_MAX,
    STEADY_MS,
    Leaderships,
    Preference,
)
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.support import Log


def test_a_leadership_goes_only_to_a_node_that_has_been_fit_for_some_time() -> None:
    preference = Preference()
    assert preference.choose({7}, 0) == []
    assert preference.choose({7}, STEADY_MS - 1) == []
    assert preference.choose({7}, STEADY_MS) == [7]


def test_a_break_starts_the_time_anew() -> None:
    preference = Preference()
    preference.choose({7}, 0)
    preference.choose(set(), 1_000)
    assert preference.choose({7}, STEADY_MS) == []
    assert preference.choose({7}, 2 * STEADY_MS) == [7]


def test_a_transfer_that_failed_is_not_repeated_at_once() -> None:
    preference = Preference()
    preference.choose({7}, 0)
    assert preference.choose({7}, STEADY_MS) == [7]
    assert preference.choose({7}, STEADY_MS + 1_000) == []
    assert preference.choose({7}, 2 * STEADY_MS) == [7]


def test_few_leaderships_move_at_a_time_and_none_is_forgotten() -> None:
    preference = Preference()
    waiting = set(range(1, 26))
    preference.choose(waiting, 0)
    seen: list[list[int]] = []
    now_ms = STEADY_MS
    while waiting:
        chosen = preference.choose(waiting, now_ms)
        seen.append(chosen)
        waiting -= set(chosen)
        now_ms += 1_000
    assert [len(one) for one in seen] == [HANDED_OVER_COUNT_MAX, HANDED_OVER_COUNT_MAX, 5]


class Handing(FakeHost):
    """Notes what is handed over; nothing of it succeeds."""

    def __init__(self) -> None:
        super().__init__(1, Log())
        self.handed: list[int] = []

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        del to_replica
        self.handed.append(group_id)


def test_thousands_of_groups_led_for_others_are_looked_at_in_turn_and_all_have_theirs() -> None:
    host = Handing()
    leaderships = Leaderships(host, host.log.registry)
    leaderships._astray = dict.fromkeys(range(5 * LOOKED_AT_COUNT_MAX))
    looked_at: list[int] = []

    def heir(group_id: int) -> int:
        looked_at.append(group_id)
        return 2 << 24 | 1 if group_id % 2 else 0

    with patch.object(leaderships, "_heir", heir):
        for second in range(200):
            looked_at.clear()
            leaderships._look(1000 * second)
            assert len(looked_at) <= LOOKED_AT_COUNT_MAX + HANDED_OVER_COUNT_MAX
    assert {*host.handed} == {one for one in leaderships._astray if one % 2}
    leaderships.close()
