"""Memory for what is large: whole pages, which a disk takes as they are, used again and again.

A disk that is written to past the operating system's cache wants memory that begins and ends with
pages. A value that lies in such memory from the moment it is put together is written from there;
from anywhere else it is copied once more, by a thread that holds the interpreter meanwhile (0024).
What comes from other nodes is read into such memory as well.

Rules:

- Memory is lent for one value, and is back when nobody holds any part of it any more: what waits
  for the disk, for a socket or for a reader stays what it is. Python's own count of who looks at
  memory says so; nobody gives anything back by hand.
- Whoever borrows memory fills it before anybody else sees it. Others get it to read only.
- Behind a value lie zeros, up to the end of its last page: they are written with it.
- A message may be placed so that its end lies where a value would. That can become one there, once
  (`become`), with a head before it, which is written over what of the message is done with.
- What is back is used for a value that needs most of it, or for a message that needs half, so
  nothing holds far more than it counts for. So much of it is kept, and no more; what has been back
  for longest goes first.

It is one for the process, as the allocator is, and of all its threads: each step of its own is one
that the interpreter does not divide.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections import deque
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple, cast

from rakit.raft import Payload

#: What O_DIRECT asks of places, lengths and memory, of any disk.
PAGE_BYTES: Final = 4096
#: What is kept for later values, in all: as much as comes back at a time where a node replicates
#: several busy groups, four times what the newest entries let go of at once (0024).
KEPT_BYTES_MAX: Final = 16 << 20

#: From this size on the system is asked for pages of that size, which cost less in every copy.
HUGE_PAGE_BYTES: Final = 2 << 20

#: Memory and no file: the process's own.
_FLAGS: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Lent:
    """Memory while it is lent for a value. Others see it by views, which keep it."""

    #: What was lent, where the value lies in it, and how long that is.
    memory: mmap.mmap
    start: int
    size_bytes: int
    #: Where the end of a message may become a value.
    place: int | None

    # A view has the hash of what it shows only if its memory has one.
    __hash__ = object.__hash__

    def __del__(self) -> None:
        """Take the memory back: no view of it is left, or all are garbage that is collected."""
        # Not where it was taken, but was not lent yet.
        if hasattr(self, "memory"):
            _back(_Back(self.memory, weakref.ref(self)))

    def whole(self) -> memoryview:
        """The value, to read."""
        return _bytes_of(self)[self.start : self.start + self.size_bytes].toreadonly()

    def pages(self) -> memoryview:
        """The value and the zeros behind it: whole pages."""
        return _bytes_of(self)[self.start : _end(self.start + self.size_bytes)].toreadonly()


class _Back(NamedTuple):
    """Memory that is back, and for what it was lent: what ends garbage may save a view of it."""

    memory: mmap.mmap
    lent: weakref.ref[Lent]


#: What is back, newest last.
_kept: deque[_Back] = deque()


def lend(size_bytes: int, *, briefly: bool = False, page_at: int | None = None) -> memoryview:
    """Memory for a value of this size, to be filled; what it held is not cleared.

    What is needed ``briefly`` may have up to twice as much: messages differ more than values.
    From byte ``page_at`` on it may become another value: that one lies at the beginning of a page.
    """
    at = page_at or 0
    assert 0 <= at < size_bytes, "a place in what is not empty"
    start = -at % PAGE_BYTES
    end = start + size_bytes
    spare_bytes = size_bytes if briefly else size_bytes // 4
    memory = _fitting(end, end + spare_bytes + PAGE_BYTES)
    lent: Lent = _kind(len(memory)).from_buffer(memory)
    lent.memory, lent.start, lent.size_bytes = memory, start, size_bytes
    lent.place = None if page_at is None else start + page_at
    view = _bytes_of(lent)
    view[end : _end(end)] = bytes(_end(end) - end)
    return view[start:end]


def become(part: memoryview, head: bytes) -> memoryview | None:
    """The end of a message as a value behind a head, if its memory was lent for that.

    None: it was not, and nothing is changed. Else what stood before it is gone.
    """
    lent = lent_for(part)
    if lent is None:
        return None
    at = address_of(part) - ctypes.addressof(cast("Any", lent))
    start, end = at - len(head), at + len(part)
    if start != lent.place or end != lent.start + lent.size_bytes:
        return None
    _bytes_of(lent)[start:at] = head
    lent.start, lent.size_bytes, lent.place = start, end - start, None
    return lent.whole()


def address_of(view: memoryview) -> int:
    """Where bytes lie that can be looked at, for what is written in C: as long as they are held."""
    buffer = _Buffer()
    _get_buffer(view, ctypes.byref(buffer), _SIMPLE)
    _release_buffer(ctypes.byref(buffer))
    return buffer.address or 0


class _Buffer(ctypes.Structure):
    """Py_buffer, of Python's own interface for C."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("object", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("item_bytes", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )
    address: int | None


_SIMPLE: Final = 0
#: A handle of its own: what others make of Python's functions is nothing to us, nor ours to them.
_python: Final = ctypes.PyDLL(None)
_get_buffer: Final = cast("Any", _python.PyObject_GetBuffer)
_get_buffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_release_buffer: Final = cast("Any", _python.PyBuffer_Release)
_release_buffer.argtypes = (ctypes.c_void_p,)
_release_buffer.restype = None


def lent_for(value: Payload) -> Lent | None:
    """The memory that was lent for what this is a part of; None if it lies elsewhere."""
    if not isinstance(value, memoryview):
        return None
    memory = cast("object", value.obj)
    return memory if isinstance(memory, Lent) else None


def pages_of(value: Payload) -> memoryview | None:
    """A value as whole pages, zeros behind it, if it was put together in such."""
    lent = lent_for(value)
    if lent is None or lent.start % PAGE_BYTES or lent.size_bytes != len(value):
        return None
    return lent.pages()


def kept_bytes() -> int:
    """What is back and kept."""
    # A list is made before it is filled: to make it may collect garbage, and bring memory back.
    return sum([len(each.memory) for each in list(_kept)])


def _fitting(size_bytes: int, most_bytes: int) -> mmap.mmap:
    passed: list[_Back] = []
    found: mmap.mmap | None = None
    for _ in range(len(_kept)):
        try:
            each = _kept.pop()
        except IndexError:  # another thread has it
            break
        if each.lent() is not None:
            continue
        if size_bytes <= len(each.memory) <= most_bytes:
            found = each.memory
            break
        passed.append(each)
    if passed:
        _kept.extend(reversed(passed))
        _trim(KEPT_BYTES_MAX)  # others may have brought theirs back meanwhile
    return _fresh(size_bytes) if found is None else found


def _fresh(size_bytes: int) -> mmap.mmap:
    # In an eighth of its size: a value a little longer than the one before may have its memory.
    step = max(PAGE_BYTES, 1 << max(0, size_bytes.bit_length() - 4))
    length = size_bytes + -size_bytes % step
    try:
        memory = mmap.mmap(-1, length, flags=_FLAGS)
    except OSError:
        _kept.clear()
        memory = _last_resort(length)
    if length >= HUGE_PAGE_BYTES:
        with suppress(OSError, AttributeError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _last_resort(length: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, length, flags=_FLAGS)
    except OSError as error:
        raise MemoryError(f"the system has no {length} bytes for a value: {error}") from error


def _back(back: _Back) -> None:
    if len(back.memory) > KEPT_BYTES_MAX:
        return
    _trim(KEPT_BYTES_MAX - len(back.memory))
    _kept.append(back)


def _trim(bytes_max: int) -> None:
    kept = kept_bytes()
    with suppress(IndexError):  # another thread has it
        while kept > bytes_max:
            kept -= len(_kept.popleft().memory)


def _end(size_bytes: int) -> int:
    return size_bytes + -size_bytes % PAGE_BYTES


def _bytes_of(lent: Lent) -> memoryview:
    # It is an array of ctypes as well, whose memory Python can look at.
    return memoryview(cast("bytes", lent)).cast("B")


@cache
def _kind(length: int) -> Any:
    """The type of memory of a length. There are eight for each doubling."""
    return type("Lent", (Lent, ctypes.c_char * length), {})
