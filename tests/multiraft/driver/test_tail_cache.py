"""What of all logs stays in memory: the newest, and what is still needed, within bounds."""

from __future__ import annotations

import pytest

from rakit.multiraft import tail_cache
from rakit.multiraft.tail_cache import GroupTail, TailCache
from rakit.raft import Entry


def test_the_cache_drops_the_oldest_appends_of_all_groups() -> None:
    cache = TailCache(4000, 1000)
    first, second = cache.tail(), cache.tail()
    first.append([Entry(1, 1, data=b"x" * 800)])
    for index in range(1, 4):
        second.append([Entry(1, index, data=b"x" * 800)])
    assert first.first_index == 1
    second.append([Entry(1, 4, data=b"x" * 800)])
    assert first.first_index == 0
    assert second.first_index == 2
    assert cache.size_bytes <= 3500


def add(tail: GroupTail, index: int) -> None:
    tail.append([Entry(1, index, data=b"x" * 800)])


def test_the_cache_drops_first_what_its_group_needs_no_more() -> None:
    cache = TailCache(4000, 1000)
    slow, fast = cache.tail(), cache.tail()
    slow.needed_from = lambda: 1
    add(slow, 1)
    for index in range(1, 5):
        add(fast, index)
    assert (slow.first_index, fast.first_index) == (1, 3)
    fast.needed_from = lambda: 4
    add(slow, 2)
    add(fast, 5)
    assert (slow.first_index, fast.first_index) == (1, 4)
    # Now all of it is needed, and the oldest goes as ever.
    add(fast, 6)
    assert (slow.first_index, fast.first_index) == (2, 5)
    assert cache.size_bytes <= 3500


def test_what_is_needed_may_take_more_but_not_any_amount() -> None:
    cache = TailCache(4000, 1000, 8000)
    tail, needed = cache.tail(), [1]
    tail.needed_from = lambda: needed[0]
    for index in range(1, 9):
        add(tail, index)
    assert (tail.first_index, cache.size_bytes) == (1, 8000)
    add(tail, 9)
    assert (tail.first_index, cache.size_bytes) == (3, 7000)
    needed[0] = 9
    add(tail, 10)
    assert (tail.first_index, cache.size_bytes) == (8, 3000)
    add(tail, 11)
    needed[0] = 12
    add(tail, 12)
    assert cache.size_bytes <= 4000


def test_a_full_cache_asks_seldom_and_few_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_cache, "_ASKED_COUNT_MAX", 3)
    cache, asked = TailCache(80_000, 1000, 160_000), [0]
    slow, fast = cache.tail(), cache.tail()

    def all_of_it() -> int:
        asked[0] += 1
        return 1

    slow.needed_from = all_of_it
    for index in range(1, 121):
        add(slow, index)
    assert slow.first_index == 1
    assert asked[0] == 4, "once for each eighth of what is not kept for long"
    for index in range(1, 100):
        add(fast, index)
    assert slow.first_index > 1, "what nobody asks for does not keep it for ever"
    assert cache.size_bytes <= 160_000


def test_small_appends_stay_within_the_bound_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_cache, "_ASKED_COUNT_MAX", 3)
    cache = TailCache(80_000, 10_000, 160_000)
    tails = [cache.tail() for _ in range(7)]
    for index in range(1, 300):
        for tail in tails:
            tail.append([Entry(1, index, data=b"small")])
            assert cache.size_bytes <= 80_000


def test_what_a_log_has_let_go_of_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_cache, "_ASKED_COUNT_MAX", 3)
    cache = TailCache(20_000, 1000, 40_000)
    gone, other = cache.tail(), cache.tail()
    gone.needed_from = lambda: 1
    for index in range(1, 11):
        add(gone, index)
    gone.clear()
    for index in range(1, 100):
        add(other, index)
        assert cache.size_bytes <= 20_000


def test_what_is_needed_no_more_makes_room() -> None:
    cache = TailCache(20_000, 1000, 40_000)
    first, second = cache.tail(), cache.tail()
    first.needed_from = lambda: 1
    for index in range(1, 36):
        add(first, index)
    first.drop_through(35)
    for index in range(1, 100):
        add(second, index)
        assert cache.size_bytes <= 20_000


def test_a_full_count_of_appends_is_cut_by_an_eighth_whatever_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail_cache, "_ASKED_COUNT_MAX", 3)
    cache, asked = TailCache(10**6, 80), [0]
    tail = cache.tail()

    def all_of_it() -> int:
        asked[0] += 1
        return 1

    tail.needed_from = all_of_it
    for index in range(1, 402):
        add(tail, index)
        assert cache.appends_count <= 81
    assert asked[0] <= 400 // 10 + 1


def test_the_cache_forgets_appends_beyond_its_count() -> None:
    cache = TailCache(10**6, 16)
    tail = cache.tail()
    for index in range(1, 1000):
        tail.append([Entry(1, index)])
        tail.drop_through(index)
    assert cache.appends_count <= 16
    assert cache.size_bytes == 0
