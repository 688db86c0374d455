"""Messages are cut out of a stream as they were put in, however the bytes arrive."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.multiraft import pages
from rakit.multiraft.frames import (
    BUFFER_BYTES,
    HEAD_BYTES,
    HELLO_BYTES_MAX,
    Frames,
    FrameTooLongError,
    head,
)

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


def one(frames: Frames, data: bytes) -> memoryview:
    """The one large message that these bytes complete."""
    at = 0
    while True:
        into = frames.buffer()
        count = min(len(into), len(data) - at)
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
