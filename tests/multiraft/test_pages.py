"""Memory of whole pages: it is nobody else's while anybody looks at it, and is used again after."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from rakit.multiraft import pages
from rakit.multiraft.pages import KEPT_BYTES_MAX, PAGE_BYTES, Lent

KIB = 1024


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What other tests have given back is none of these'."""
    monkeypatch.setattr(pages, "_kept", type(pages._kept)())  # pyright: ignore[reportPrivateUsage]
    yield
    assert pages.kept_bytes() <= KEPT_BYTES_MAX


def filled(data: bytes) -> memoryview:
    memory = pages.lend(len(data))
    memory[:] = data
    return memory.toreadonly()


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


def test_no_more_is_kept_than_its_limit_and_the_oldest_goes_first() -> None:
    values = [filled(bytes([number]) * (1 << 20)) for number in range(20)]
    newest = of(values[-1]).memory
    oldest = of(values[0]).memory
    while values:
        del values[0]
        assert pages.kept_bytes() <= KEPT_BYTES_MAX
    assert pages.kept_bytes() > KEPT_BYTES_MAX // 2
    kept = list(pages._kept)  # pyright: ignore[reportPrivateUsage]
    assert any(each is newest for each in kept)
    assert not any(each is oldest for each in kept)
    # A value that is larger than all that is kept has its memory alone, and leaves nothing.
    del kept
    filled(bytes(KEPT_BYTES_MAX + 1))
    assert pages.kept_bytes() <= KEPT_BYTES_MAX


def test_what_is_lent_is_hardly_more_than_what_it_is_counted_for() -> None:
    rng = random.Random(3)
    for _ in range(300):
        size = rng.randint(64 * KIB, 4 << 20)
        assert len(of(pages.lend(size)).memory) <= size + size // 4 + 2 * PAGE_BYTES


def test_threads_never_share_memory() -> None:
    """Each fills what it borrowed with its own bytes, and finds them there."""
    wrong: list[int] = []

    def borrow(mark: int) -> None:
        rng, held = random.Random(mark), list[memoryview]()
        for _ in range(400):
            held.append(filled(bytes([mark]) * rng.randint(50_000, 60_000)))
            if len(held) > 3:
                value = held.pop(rng.randrange(4))
                if bytes(value) != bytes([mark]) * len(value):
                    wrong.append(mark)

    threads = [threading.Thread(target=borrow, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
