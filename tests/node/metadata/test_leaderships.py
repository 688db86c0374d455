from __future__ import annotations

from rakit.node.metadata.leaderships import HANDED_OVER_COUNT_MAX, STEADY_MS, Preference


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
