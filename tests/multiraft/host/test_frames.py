"""Messages are cut out of a stream as they were put in, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.multiraft.frames import (
    BUFFER_BYTES,
    HEAD_BYTES,
    HELLO_BYTES_MAX,
    SPARE_BYTES_MAX,
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
def test_memory_that_is_given_back_is_used_again(sizes: list[int]) -> None:
    frames = Frames()
    frames.allow(1 << 20)
    kept: list[bytearray] = []
    for number, size in enumerate(sizes):
        message = one(frames, framed(bytes([number + 1]) * size))
        assert message == bytes([number + 1]) * size
        memory = cast("bytearray", message.obj)
        fitting = [each for each in kept if size <= len(each) <= 2 * size]
        assert memory is fitting[-1] if fitting else not any(memory is each for each in kept)
        kept = [*(each for each in kept if each is not memory), memory]
        frames.take_back(message)
        with pytest.raises(ValueError, match="released"):
            len(message)


def test_memory_that_somebody_looks_at_is_not_used_again() -> None:
    frames = Frames()
    frames.allow(1 << 20)
    first = one(frames, framed(b"1" * (2 * BUFFER_BYTES)))
    part = first[5:10]
    frames.take_back(first)
    assert one(frames, framed(b"2" * (2 * BUFFER_BYTES))) == b"2" * (2 * BUFFER_BYTES)
    assert bytes(part) == b"11111"


MEBIBYTE = 1 << 20


def memory_of(frames: Frames, *sizes: int) -> list[object]:
    """Reads messages of these sizes, gives all back, and returns what they were read into."""
    read = [one(frames, framed(bytes([at]) * size)) for at, size in enumerate(sizes)]
    assert [bytes(each) for each in read] == [bytes([at]) * size for at, size in enumerate(sizes)]
    memory: list[object] = [each.obj for each in read]
    for each in read:
        frames.take_back(each)
    return memory


def same(left: Sequence[object], right: Sequence[object]) -> bool:
    return [id(each) for each in left] == [id(each) for each in right]


def test_memory_of_several_messages_is_kept_within_a_limit() -> None:
    frames = Frames()
    frames.allow(SPARE_BYTES_MAX)
    # Four of a little over a mebibyte fit, and their successors may be a little larger.
    first = memory_of(frames, *[MEBIBYTE + 1] * 6)
    for _ in range(8):
        again = memory_of(frames, *[MEBIBYTE + 40] * 6)
        assert same(again[:4], first[:1:-1])
        assert not {id(each) for each in again[4:]} & {id(each) for each in first}
        first = again


@pytest.mark.parametrize("size", [MEBIBYTE // 2 - 1, 2 * MEBIBYTE])
def test_memory_is_used_for_what_needs_most_of_it_only(size: int) -> None:
    frames = Frames()
    frames.allow(SPARE_BYTES_MAX)
    fits = memory_of(frames, MEBIBYTE)
    for _ in range(20):
        assert same(memory_of(frames, size, MEBIBYTE)[1:], fits)
    # It is kept until there is no room: the oldest goes.
    memory_of(frames, *[size] * (SPARE_BYTES_MAX // size + 1))
    again = memory_of(frames, *[MEBIBYTE] * (SPARE_BYTES_MAX // MEBIBYTE))
    assert all(each is not fits[0] for each in again)


def test_one_very_large_message_costs_no_other_its_memory() -> None:
    frames = Frames()
    frames.allow(2 * SPARE_BYTES_MAX)
    held = memory_of(frames, MEBIBYTE)
    memory_of(frames, SPARE_BYTES_MAX + 1)
    assert same(memory_of(frames, MEBIBYTE), held)
    whole = memory_of(frames, SPARE_BYTES_MAX)
    assert same(memory_of(frames, SPARE_BYTES_MAX), whole)


def test_very_large_memory_is_not_kept() -> None:
    frames = Frames()
    frames.allow(4 * SPARE_BYTES_MAX)
    first = one(frames, framed(bytes(SPARE_BYTES_MAX + 1)))
    held = first.obj
    frames.take_back(first)
    with pytest.raises(ValueError, match="released"):
        len(first)
    assert one(frames, framed(bytes(SPARE_BYTES_MAX))).obj is not held


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
