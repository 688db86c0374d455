"""Memory of whole pages: it is nobody else's while anybody looks at it, and is used again after."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import random
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, cast

import pytest

from rakit.multiraft import pages
from rakit.multiraft.pages import KEPT_BYTES_MAX, PAGE_BYTES, Lent

KIB = 1024


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What other tests have given back is none of these', also what is garbage of theirs."""
    gc.collect()
    monkeypatch.setattr(pages, "_kept", type(pages._kept)())  # pyright: ignore[reportPrivateUsage]
    yield
    assert pages.kept_bytes() <= KEPT_BYTES_MAX


def filled(data: bytes) -> memoryview:
    memory = pages.lend(len(data))
    memory[:] = data
    return memory.toreadonly()


def kept_memory() -> list[mmap.mmap]:
    return [each.memory for each in pages._kept]  # pyright: ignore[reportPrivateUsage]


def of(value: memoryview) -> Lent:
    lent = pages.lent_for(value)
    assert lent is not None
    return lent


@pytest.mark.parametrize("size", [1, 13, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 100_000])
def test_a_value_is_whole_pages_with_zeros_behind_it(size: int) -> None:
    data = random.Random(size).randbytes(size)
    whole_bytes = size + -size % PAGE_BYTES
    used = filled(b"\xff" * whole_bytes)
    memory = of(used).memory
    del used
    value = filled(data)
    assert of(value).memory is memory, "it was used, so the zeros are not there by themselves"
    whole = pages.pages_of(value)
    assert whole is not None
    assert whole == data + bytes(-size % PAGE_BYTES)
    assert ctypes.addressof(cast("ctypes.Array[ctypes.c_char]", of(value))) % PAGE_BYTES == 0
    for view in (whole, of(value).whole()):
        assert view.readonly
    assert of(value).whole() == data


def test_a_part_of_a_value_is_no_whole_pages_but_knows_them() -> None:
    value = filled(b"head" + b"payload")
    payload = value[4:]
    assert pages.pages_of(payload) is None
    assert of(payload) is of(value)
    assert bytes(of(payload).whole()) == b"headpayload"
    for other in (b"bytes", memoryview(b"bytes"), memoryview(bytearray(5))):
        assert pages.lent_for(other) is None
        assert pages.pages_of(other) is None


@pytest.mark.parametrize("size", [70_000, 69_632 + 13, 8 * PAGE_BYTES])
@pytest.mark.parametrize("before", [13, 14, 90, PAGE_BYTES + 12, PAGE_BYTES + 13, 3 * PAGE_BYTES])
def test_the_end_of_a_message_becomes_a_value_where_it_lies(before: int, size: int) -> None:
    payload, head = random.Random(size).randbytes(size), b"thirteen-byte"
    used = filled(b"\xff" * (before + size + 2 * PAGE_BYTES))
    memory = of(used).memory
    del used
    message = pages.lend(before + size, page_at=before - len(head))
    message[:] = b"m" * before + payload
    assert of(message).memory is memory, "it was used, so the zeros are not there by themselves"
    assert of(message).whole() == message
    assert pages.pages_of(message.toreadonly()[:-1]) is None
    part = message.toreadonly()[before:]
    value = pages.become(part, head)
    assert value is not None
    assert value.readonly
    assert value == head + payload
    assert pages.lent_for(value) is of(part)
    whole = pages.pages_of(value)
    assert whole is not None
    assert pages.address_of(whole) % PAGE_BYTES == 0
    assert whole == head + payload + bytes(-(len(head) + size) % PAGE_BYTES)
    for other in (part, part[PAGE_BYTES:]):
        assert pages.become(other, b"another-value") is None, "it is one already"
    assert value == head + payload


def test_a_message_is_no_whole_pages_before_it_is_a_value() -> None:
    message = pages.lend(70_000, page_at=50)
    assert pages.pages_of(message.toreadonly()) is None
    in_place = pages.lend(70_000, page_at=PAGE_BYTES)
    in_place[:] = b"m" * 70_000
    whole = pages.pages_of(in_place.toreadonly())
    assert whole is not None
    assert whole == b"m" * 70_000 + bytes(-70_000 % PAGE_BYTES)


def test_what_does_not_lie_in_place_becomes_nothing() -> None:
    content, head = random.Random(3).randbytes(80_000), b"thirteen-byte"
    in_place = pages.lend(len(content), page_at=100 - len(head))
    beside = pages.lend(len(content), page_at=101 - len(head))
    at_once = pages.lend(len(content), page_at=13 - len(head))
    no_place = pages.lend(len(content))
    for memory, parts in (
        (in_place, (slice(101, None), slice(100, -1), slice(100, 70_000))),
        (beside, (slice(100, None), slice(102, None), slice(101, -1))),
        (at_once, (slice(0, None), slice(100, None), slice(13, -1))),
        (no_place, (slice(13, None), slice(PAGE_BYTES + 13, None))),
    ):
        memory[:] = content
        for part in parts:
            assert pages.become(memory[part].toreadonly(), head) is None
        assert memory == content
    assert pages.become(memoryview(content)[100:], head) is None
    with pytest.raises(AssertionError, match="a place in what is not empty"):
        pages.lend(100, page_at=100)


def test_an_address_is_where_bytes_lie() -> None:
    data = random.Random(1).randbytes(1000)
    for holder in (data, bytearray(data)):
        view = memoryview(holder)[17:900]
        assert ctypes.string_at(pages.address_of(view), len(view)) == data[17:900]
    count = sys.getrefcount(data)
    for _ in range(100):
        pages.address_of(memoryview(data))
    assert sys.getrefcount(data) == count, "nothing holds what was looked at"
    with pytest.raises(TypeError):
        pages.address_of(cast("memoryview", 5))


def test_memory_is_nobody_elses_while_anybody_looks_at_a_part_of_it() -> None:
    value = filled(b"a" * 70_000)
    part, lent = value[60_000:60_001], of(value)
    whole = lent.pages()
    del value, lent
    assert pages.kept_bytes() == 0
    assert filled(b"b" * 70_000) == b"b" * 70_000
    assert pages.kept_bytes() > 0
    del whole
    others = [filled(b"c" * 70_000) for _ in range(3)]
    assert bytes(part) == b"a"
    kept = pages.kept_bytes()
    del part
    assert pages.kept_bytes() > kept, "it is back as soon as nobody looks at it"
    del others


def test_what_is_back_is_used_again_by_what_needs_most_of_it() -> None:
    first = filled(b"a" * 70_000)
    memory = of(first).memory
    del first
    for size in (30_000, 90_000):
        other = filled(b"b" * size)
        assert of(other).memory is not memory
    again = filled(b"c" * 69_000)
    assert of(again).memory is memory
    assert again == b"c" * 69_000


def test_what_is_needed_briefly_may_have_twice_as_much() -> None:
    first = filled(bytes(400_000))
    memory = of(first).memory
    del first
    for size, fits in ((150_000, False), (250_000, True)):
        assert (of(pages.lend(size, briefly=True)).memory is memory) is fits
    assert of(pages.lend(250_000)).memory is not memory


def test_no_more_is_kept_than_its_limit_and_the_oldest_goes_first() -> None:
    values = [filled(bytes([number]) * (1 << 20)) for number in range(20)]
    newest = of(values[-1]).memory
    oldest = of(values[0]).memory
    while values:
        del values[0]
        assert pages.kept_bytes() <= KEPT_BYTES_MAX
    assert pages.kept_bytes() > KEPT_BYTES_MAX // 2
    kept = kept_memory()
    assert any(each is newest for each in kept)
    assert not any(each is oldest for each in kept)
    filled(bytes(KEPT_BYTES_MAX + 1))
    assert kept_memory() == kept, "what is larger than all that is kept goes by itself"


def test_what_does_not_fit_stays_where_it_was() -> None:
    sizes = [100_000, 200_000, 400_000]
    values = [filled(bytes(size)) for size in sizes]
    memory = [of(value).memory for value in values]
    while values:
        del values[0]
    value = filled(bytes(200_000))
    assert of(value).memory is memory[1]
    assert kept_memory() == [memory[0], memory[2]]


def test_garbage_that_is_saved_keeps_its_memory() -> None:
    """Garbage is ended in any order: what ends last may save what has given its memory back."""

    class Keeper:
        saved: memoryview | None = None

        def __init__(self, view: memoryview) -> None:
            self.view, self.me = view, self

        def __del__(self) -> None:
            Keeper.saved = self.view

    Keeper(filled(b"a" * 70_000))
    gc.collect()
    assert Keeper.saved is not None
    others = [filled(b"b" * 70_000) for _ in range(2)]
    assert bytes(Keeper.saved) == b"a" * 70_000
    del others


def test_what_is_lent_is_hardly_more_than_what_it_is_counted_for() -> None:
    rng = random.Random(3)
    for _ in range(300):
        size = rng.randint(64 * KIB, 4 << 20)
        assert len(of(pages.lend(size)).memory) <= size + size // 4 + 2 * PAGE_BYTES


def at_line(stop: int, of: CodeType, act: Callable[[], None]) -> Callable[[], None]:
    """Has something happen between two lines of a function, by its own thread; returns the end."""
    lines, before = iter(range(1, 1000)), sys.gettrace()

    def on_line(_: FrameType, event: str, __: object) -> Any:
        if event == "line" and next(lines) == stop:
            sys.settrace(before)
            act()
        return on_line

    def on_call(frame: FrameType, *_: object) -> Any:
        return on_line if frame.f_code is of else None

    sys.settrace(on_call)
    return lambda: sys.settrace(before)


def test_threads_never_share_memory() -> None:
    """Another thread may borrow between any two lines of one that is about to."""
    met = 0
    for stop in range(1, 40):
        pages._kept.clear()  # pyright: ignore[reportPrivateUsage]
        for value in [filled(bytes(70_000)) for _ in range(3)]:
            del value
        others: list[memoryview] = []

        def borrow(into: list[memoryview] = others) -> None:
            into.append(filled(b"o" * 70_000))

        end = at_line(stop, pages._fitting.__code__, borrow)  # pyright: ignore[reportPrivateUsage]
        try:
            memory = pages.lend(70_000)
        finally:
            end()
        memory[:] = b"m" * 70_000
        met += len(others)
        assert all(other == b"o" * 70_000 for other in others)
    assert met > 5, "it was met in many places"


def test_no_more_is_kept_also_if_much_comes_back_while_memory_is_looked_for() -> None:
    most, eighth = 0, bytes(KEPT_BYTES_MAX // 8)
    for stop in range(1, 60):
        pages._kept.clear()  # pyright: ignore[reportPrivateUsage]
        held = [filled(eighth) for _ in range(8)]
        for value in [filled(eighth) for _ in range(8)]:
            del value
        end = at_line(stop, pages._fitting.__code__, held.clear)  # pyright: ignore[reportPrivateUsage]
        try:
            value = pages.lend(3 * len(eighth))
        finally:
            end()
        most = max(most, pages.kept_bytes())
        del value
    assert 0 < most <= KEPT_BYTES_MAX


def test_where_the_system_has_no_memory_what_is_kept_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = filled(bytes(70_000))
    del value
    real, refusals = mmap.mmap, [1]

    def refusing(*args: Any, **kwargs: Any) -> mmap.mmap:
        if refusals and pages.kept_bytes() >= refusals[0]:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return real(*args, **kwargs)

    monkeypatch.setattr(mmap, "mmap", refusing)
    assert bytes(filled(b"a" * 200_000)) == b"a" * 200_000
    assert pages.kept_bytes() > 0, "what was lent is back"
    refusals[0] = 0
    with pytest.raises(MemoryError, match="the system has no 3145728 bytes for a value"):
        pages.lend(3 << 20)
    assert pages.kept_bytes() == 0
