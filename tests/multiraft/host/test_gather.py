"""What waits for a lane and when it may leave: limits, the window, and what is worked off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.multiraft.config import LinkConfig
from rakit.multiraft.effects import Envelope
from rakit.multiraft.gather import (
    REQUEST_COUNT_MAX,
    Arrears,
    Gather,
    LinkProtocolError,
    Window,
    check_senders,
)
from rakit.multiraft.machine import replica_id
from rakit.raft import Entry, EntryType, Message, MessageType

KIB = 1 << 10


def append(size: int, sender: int = 1) -> Envelope:
    entries = (Entry(1, 1, EntryType.NORMAL, b"x" * size),)
    return Envelope(1, sender, 2, Message(MessageType.APP, 2, sender, 1, entries=entries))


def test_what_waits_leaves_in_order_and_together() -> None:
    queue = Gather(100 * KIB, 100)
    sent = [append(10) for _ in range(5)]
    assert all(queue.offer(each) for each in sent)
    assert queue.take(100 * KIB) == sent
    assert queue.size_bytes == 0
    assert not len(queue)


def test_a_request_is_closed_at_its_size_but_a_larger_message_leaves_alone() -> None:
    queue = Gather(100 * KIB, 100)
    for size in (3 * KIB, 3 * KIB, 20 * KIB, 1 * KIB):
        assert queue.offer(append(size))
    taken: list[int] = []
    while len(queue):
        taken.append(len(queue.take(7 * KIB)))
    assert taken == [2, 1, 1]


def test_s17_a_full_queue_refuses_the_new_and_keeps_the_old() -> None:
    queue = Gather(4 * KIB, 100)
    first = append(3 * KIB)
    assert queue.offer(first)
    assert not queue.offer(append(3 * KIB))
    assert queue.refused_count == 1
    assert queue.take(KIB) == [first]


def test_a_queue_is_bounded_by_count_too() -> None:
    queue = Gather(100 * KIB, 3)
    assert [queue.offer(append(1)) for _ in range(4)] == [True, True, True, False]


def test_an_empty_queue_takes_a_message_larger_than_its_limit() -> None:
    queue = Gather(4 * KIB, 100)
    assert queue.offer(append(17 * KIB))
    assert len(queue.take(KIB)) == 1


def test_one_small_request_is_in_flight_and_bulk_opens_the_window() -> None:
    window = Window(LinkConfig(bulk_bytes_min=256 * KIB, bulk_in_flight_count_max=3))
    assert window.is_open(10)
    assert window.next_number() == 1
    assert not window.is_open(10)
    assert not window.is_open(256 * KIB - 1)
    assert window.is_open(256 * KIB)
    window.next_number()
    window.next_number()
    assert not window.is_open(1 << 30)
    window.worked_off(2)
    assert not window.is_open(10)
    assert window.is_open(256 * KIB)
    window.worked_off(3)
    assert window.is_open(10)


@pytest.mark.parametrize("number", [0, 3])
def test_a_peer_that_worked_off_what_cannot_be_is_refused(number: int) -> None:
    window = Window(LinkConfig())
    window.next_number()
    window.next_number()
    window.worked_off(1)
    with pytest.raises(LinkProtocolError, match="1 to 2 is possible"):
        window.worked_off(number)


def test_a_request_without_a_write_is_worked_off_at_once() -> None:
    arrears = Arrears()
    assert arrears.stepped(1, 0)
    assert arrears.processed == 1
    assert not arrears


def test_a_request_with_a_write_is_worked_off_when_that_is_durable() -> None:
    arrears = Arrears()
    assert not arrears.stepped(1, 40)
    assert not arrears.synced(39)
    assert arrears.synced(40)
    assert arrears.processed == 1


def test_a_request_without_a_write_waits_for_the_one_before_it() -> None:
    arrears = Arrears()
    arrears.stepped(1, 40)
    assert not arrears.stepped(2, 0)
    assert arrears.processed == 0
    assert arrears.synced(40)
    assert arrears.processed == 2


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_every_request_is_worked_off_in_the_end(waits: list[int]) -> None:
    # Otherwise the sender's window would stay closed for ever.
    arrears, seen = Arrears(), [0]
    for number, write in enumerate(waits, 1):
        arrears.stepped(number, write)
        seen.append(arrears.processed)
    for write in range(1, 6):
        arrears.synced(write)
        seen.append(arrears.processed)
    assert seen == sorted(seen)
    assert arrears.processed == len(waits)


def test_a_node_may_speak_for_its_own_replicas_only() -> None:
    check_senders(4, [append(1, replica_id(4, 9))])
    with pytest.raises(LinkProtocolError, match="node 5 speaks for replica"):
        check_senders(5, [append(1, replica_id(4, 9))])


def news(commit: int, to: int = 2) -> Envelope:
    return Envelope(1, 1, to, Message(MessageType.APP, to, 1, 1, commit=commit))


def test_news_of_a_commit_wait_for_company_and_newer_ones_replace_them() -> None:
    queue = Gather(100 * KIB, 100)
    for commit in (1, 2, 3):
        assert queue.offer_news(news(commit))
    assert queue.offer_news(news(7, to=3))
    assert not len(queue), "they are no reason to send"
    assert queue.has_news
    assert [each.message.commit for each in queue.take(KIB)] == [3, 7]
    assert not queue.has_news


def test_news_never_overtake_entries() -> None:
    # A follower would reject a commit behind entries that it has not got yet.
    queue = Gather(100 * KIB, 100)
    first, second = append(3 * KIB), append(3 * KIB)
    queue.offer(first)
    queue.offer(second)
    queue.offer_news(news(2))
    assert queue.take(4 * KIB) == [first]
    assert queue.take(4 * KIB) == [second, news(2)]


def test_an_append_takes_the_place_of_older_news_of_its_receiver_only() -> None:
    queue = Gather(100 * KIB, 100)
    queue.offer_news(news(1))
    queue.offer_news(news(1, to=3))
    entries = append(10)
    queue.offer(entries)
    assert queue.take(KIB) == [entries, news(1, to=3)]


def test_s17_a_request_carries_a_bounded_number_of_messages_and_leaves_none_behind() -> None:
    queue = Gather(100 * KIB, 10_000)
    for _ in range(REQUEST_COUNT_MAX + 10):
        assert queue.offer(append(1, sender=1))
    for to in range(2, REQUEST_COUNT_MAX + 2):
        assert queue.offer_news(news(1, to=to))
    taken: list[int] = []
    while len(queue) or queue.has_news:
        taken.append(len(queue.take(10_000 * KIB)))
    assert taken == [REQUEST_COUNT_MAX, REQUEST_COUNT_MAX, 10]


def test_news_are_bounded_and_forgotten_with_the_rest() -> None:
    queue = Gather(100 * KIB, 2)
    assert [queue.offer_news(news(1, to=to)) for to in (2, 3, 4)] == [True, True, False]
    queue.clear()
    assert not queue.has_news
