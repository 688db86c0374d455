"""Finds calls of ours that would hold the event loop while they wait for a disk, a lock or a clock.

One loop serves every group and every client of a node. A call that waits inside it delays all of
their heartbeats at once, and looks like a dead node from outside. The library `blockbuster` knows
the blocking functions of the standard library; here are added `os.fsync`, which it leaves out, and
RocksDB's flush, which belongs to the syncer's thread alone (S13).

Only calls that come from below `rakit` count: a test may read a file. A finding is written down and
the call goes on: an exception would end in some supervisor of the code under test, and the test
might pass all the same.

RocksDB's reads and unsynced writes do run in the loop, by design (they are memory and page cache),
and are not watched.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from blockbuster import BlockBuster, BlockBusterFunction
from rocksdict import Rdict

import rakit.client
import rakit.multiraft
import rakit.node

WATCHED = tuple(
    f"{Path(each.__file__ or '').parent}/" for each in (rakit.multiraft, rakit.node, rakit.client)
)
FRAMES_SHOWN = 8
ADDED = ((os, "fsync"), (os, "fdatasync"), (os, "writev"), (Rdict, "flush"))
# Where a short operation on a small local file is meant to happen in the loop, and why.
ALLOWED: dict[tuple[str, str], str] = {
    ("multiraft/store/rocks.py", "open"): "a store opens before its node serves anybody",
    ("multiraft/store/rocks.py", "adopt"): "once in a life, when the node becomes a member",
    ("multiraft/store/rocks.py", "close"): "the last thing that a node does; nobody is served",
    (
        "multiraft/store/space.py",
        "look",
    ): "asks the kernel for free space, ten times a second at most",
    ("client/bench/target.py", "own_cluster"): "a command makes room for nodes of its own",
    ("node/metadata/record.py", "load"): "the note of a founding, 1 KiB, is read at start-up",
    ("node/config.py", "load"): "in a real node it is over before there is a loop",
    ("psutil/_common.py", "cat"): "a file of /proc is the kernel's memory",
    ("logging/__init__.py", "emit"): "a log line goes straight to stderr, in order",
}


def verdict(name: str, allowed: list[tuple[str, str]]) -> str:
    """The way to a blocking call, when it began in our code and is not allowed there."""
    # Nearer are the library's wrapper and two functions of this module.
    frame: FrameType | None = sys._getframe(3)
    way: list[str] = []
    ours = False
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if function in {"join", "_wait_for_tstate_lock"} and _is_of_grpc(
            frame.f_locals.get("self")
        ):
            return ""
        if any(file.endswith(tail) and function == caller for tail, caller in allowed):
            return ""
        ours |= file.startswith(WATCHED)
        if ours or not way:  # the library that we called is of no interest
            way.append(f"{file}:{frame.f_lineno} {function}")
        frame = frame.f_back
    return "\n  ".join([f"{name} in the event loop:", *way[:FRAMES_SHOWN]]) if ours else ""


def _is_of_grpc(thread: object) -> bool:
    """With the last channel gRPC ends a thread of its own: when that is freed, maybe by chance.

    A process that serves always has one.
    """
    return isinstance(thread, threading.Thread) and "_poll_wrapper" in thread.name


def recorder(function: BlockBusterFunction, found: list[str]) -> Callable[..., bool]:
    """Takes the place of a predicate: lets every call pass, and writes the bad ones down."""
    harmless = function.can_block_predicate
    allowed = [(file, name) for file, names in function.can_block_functions for name in names]
    allowed += ALLOWED

    def passes(*args: object, **kwargs: object) -> bool:
        if not harmless(*args, **kwargs):
            way = verdict(function.full_name, allowed)
            if way and way not in found:
                found.append(way)
        return True

    return passes


@contextmanager
def watched_loop() -> Generator[list[str]]:
    """Watches every event loop of this process for a while; yields what is found."""
    found: list[str] = []
    guard = BlockBuster()
    for owner, name in ADDED:
        function = BlockBusterFunction(owner, name)
        guard.functions[function.full_name] = function
    for function in guard.functions.values():
        function.can_block_predicate = recorder(function, found)
    guard.activate()
    try:
        yield found
    finally:
        guard.deactivate()
