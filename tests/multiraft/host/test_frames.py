"""Messages are cut out of a stream as they were put in, however the bytes arrive."""

from __future__ import annotations

import random
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.multiraft import codec, pages, stored_entries
from rakit.multiraft.effects import Envelope
from rakit.multiraft.frames import (
    BUFFER_BYTES,
    HEAD_BYTES,
    HELLO_BYTES_MAX,
    Frames,
    FrameTooLongError,
    head,
)
from rakit.multiraft.pages import Lent
from rakit.raft import Entry, EntryType, Message, MessageType
from tests.multiraft.host.support import encoded

EDGE = BUFFER_BYTES - HEAD_BYTES
SIZES = st.one_of(
    st.integers(0, 300),
    st.integers(EDGE - 2, EDGE + 2),
    st.sampled_from([0, 1, BUFFER_BYTES // 2, BUFFER_BYTES * 2, BUFFER_BYTES * 5 + 3]),
)


def framed(*messages: bytes) -> bytes:
    return b"".join(head(len(each)) + each for each in messages)


def fed(frames: Frames, data: bytes, steps: list[int]) -> list[bytes]:
    """Feeds bytes as a socket would: no more at a time than a step, and than there is room for."""
    messages: list[bytes] = []
    at = 0
    for step in cycle(steps):
        if at == len(data):
            return messages
        into = frames.buffer()
        assert len(into) > 0, "a socket is always given room"
        count = min(step, len(into), len(data) - at)
        into[:count] = data[at : at + count]
        at += count
        messages += [bytes(each) for each in frames.filled(count)]
    raise AssertionError("unreachable: steps repeat")


@given(st.lists(SIZES, max_size=8), st.lists(st.integers(1, 200_000), min_size=1, max_size=6))
def test_what_was_put_in_comes_out(sizes: list[int], steps: list[int]) -> None:
    messages = [bytes([at % 251]) * size for at, size in enumerate(sizes)]
    if len(framed(*messages)) > 100 * min(steps):
        steps = [max(each, 4001) for each in steps]
    frames = Frames()
    frames.allow(1 << 20)
    assert fed(frames, framed(*messages), steps) == messages


def test_a_byte_at_a_time_is_enough() -> None:
    messages = [b"", b"one", b"", b"four" * 100]
    assert fed(Frames(), framed(*messages), [1]) == messages


def one(frames: Frames, data: bytes, first: int = 1 << 30, step: int = 1 << 30) -> memoryview:
    """The one large message that these bytes complete, so many at first and then at a time."""
    at = 0
    while True:
        into = frames.buffer()
        count = min(len(into), len(data) - at, step if at else first)
        into[:count] = data[at : at + count]
        at += count
        if found := frames.filled(count):
            assert isinstance(found[0], memoryview)
            return found[0]


@given(st.lists(st.integers(BUFFER_BYTES, 4 * BUFFER_BYTES), min_size=1, max_size=8))
def test_a_large_message_is_read_into_memory_that_is_lent(sizes: list[int]) -> None:
    frames = Frames()
    frames.allow(1 << 20)
    for number, size in enumerate(sizes):
        message = one(frames, framed(bytes([number + 1]) * size))
        assert message == bytes([number + 1]) * size
        assert message.readonly
        assert pages.lent_for(message) is not None


def append(number: int, *sizes: int) -> Envelope:
    entries = tuple(
        Entry(3, 11 + at, EntryType.NORMAL, random.Random(number).randbytes(size))
        for at, size in enumerate(sizes)
    )
    return Envelope(7, 1, 2, Message(MessageType.APP, 2, 1, 3, 3, 10, entries, 10))


@settings(report_multiple_bugs=False)
@given(st.integers(BUFFER_BYTES + 1, 6 * BUFFER_BYTES), st.integers(1, 3 * BUFFER_BYTES))
def test_an_entry_that_ends_its_message_is_stored_where_it_was_read(size: int, step: int) -> None:
    sent, frames = append(size, size), Frames()
    frames.allow(1 << 20)
    message = one(frames, framed(encoded(5, [sent])), 4 + 200, step)
    lent = pages.lent_for(message)
    del message
    (got,) = codec.read_request(whole(lent))[1]
    assert got == sent
    value = stored_entries.encode_entry(7, got.message.entries[0])
    assert isinstance(value, memoryview)
    assert pages.lent_for(value) is lent
    assert stored_entries.decode_entry(7, 11, bytes(value)) == sent.message.entries[0]
    written = pages.pages_of(value)
    assert written is not None
    assert written == bytes(value) + bytes(-len(value) % pages.PAGE_BYTES)
    # It holds no more than it would by itself.
    assert len(lent_of(value).memory) <= len(value) + len(value) // 4 + 2 * pages.PAGE_BYTES


def test_what_stands_before_it_is_read_before_an_entry_takes_its_place() -> None:
    sent, frames = [append(1, 9000), append(2, 100_000)], Frames()
    frames.allow(1 << 20)
    message = one(frames, framed(encoded(5, sent)), 20_000, BUFFER_BYTES)
    got = codec.read_request(message)[1]
    assert got == sent
    held = [pages.lent_for(memoryview(each.message.entries[0].data)) for each in got]
    assert held == [None, pages.lent_for(message)]


def test_an_entry_does_not_keep_much_that_stands_before_it() -> None:
    sent, frames = [append(1, 15_000), append(2, 66_000)], Frames()
    frames.allow(1 << 20)
    message = one(frames, framed(encoded(5, sent)), 20_000, BUFFER_BYTES)
    got = codec.read_request(message)[1]
    assert got == sent
    value = stored_entries.encode_entry(7, got[1].message.entries[0])
    assert isinstance(value, memoryview)
    assert len(lent_of(value).memory) <= len(value) + len(value) // 4 + 2 * pages.PAGE_BYTES


@pytest.mark.parametrize("first", [4, 5, 20, 30], ids=str)
@pytest.mark.parametrize("sizes", [(100_000,), (100_000, 100_000), (70_000, 3)], ids=str)
def test_what_is_not_read_in_place_is_stored_alike(sizes: tuple[int, ...], first: int) -> None:
    sent, frames = append(1, *sizes), Frames()
    frames.allow(1 << 20)
    message = one(frames, framed(encoded(5, [sent])), first, BUFFER_BYTES)
    lent = pages.lent_for(message)
    (got,) = codec.read_request(message)[1]
    assert got == sent
    for entry, there in zip(got.message.entries, sent.message.entries, strict=True):
        value = stored_entries.encode_entry(7, entry)
        assert stored_entries.decode_entry(7, entry.index, bytes(value)) == there
        assert not isinstance(value, memoryview) or pages.lent_for(value) is not lent


def test_an_entry_that_was_damaged_on_the_way_is_found_in_place() -> None:
    data = bytearray(encoded(5, [append(1, 100_000)]))
    data[-7] ^= 1
    frames = Frames()
    frames.allow(1 << 20)
    message = one(frames, framed(bytes(data)), 300, BUFFER_BYTES)
    with pytest.raises(codec.MalformedMessageError, match="entry 11 of group 7 was damaged"):
        codec.read_request(message)


def whole(lent: Lent | None) -> memoryview:
    assert lent is not None
    return lent.whole()


def lent_of(value: memoryview) -> Lent:
    lent = pages.lent_for(value)
    assert lent is not None
    return lent


def test_a_message_stays_what_it_is_while_somebody_looks_at_a_part_of_it() -> None:
    frames = Frames()
    frames.allow(1 << 20)
    part = one(frames, framed(b"1" * (2 * BUFFER_BYTES)))[5:10]
    others = [one(frames, framed(b"2" * (2 * BUFFER_BYTES))) for _ in range(3)]
    assert all(other == b"2" * (2 * BUFFER_BYTES) for other in others)
    assert bytes(part) == b"11111"


def test_before_the_hello_was_judged_only_a_hello_fits() -> None:
    frames = Frames()
    hello = b"h" * HELLO_BYTES_MAX
    assert fed(frames, framed(hello), [1000]) == [hello]
    with pytest.raises(FrameTooLongError, match=r"4097 bytes was announced, 4096 are allowed"):
        fed(frames, head(HELLO_BYTES_MAX + 1), [4])
    frames = Frames()
    frames.allow(HELLO_BYTES_MAX + 1)
    assert len(fed(frames, framed(hello + b"!"), [1000])[0]) == HELLO_BYTES_MAX + 1


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6))
def test_the_limit_may_rise_behind_the_next_message_only(steps: list[int]) -> None:
    frames, long = Frames(), b"x" * (HELLO_BYTES_MAX + 1)
    frames.allow(1 << 20, behind_next=True)
    assert fed(frames, framed(b"", long, long), steps) == [b"", long, long]
    frames = Frames()
    frames.allow(1 << 20, behind_next=True)
    with pytest.raises(FrameTooLongError):
        fed(frames, framed(long), steps)


def test_nothing_is_set_aside_for_what_is_too_long() -> None:
    with pytest.raises(FrameTooLongError):
        fed(Frames(), b"GET / HTTP/1.1\r\n", [1000])
