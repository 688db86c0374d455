"""Fetch over several partitions of this node: a long poll with one byte budget.

Bytes are shared in two rounds: first every position gets an equal share, so that a full partition
cannot starve the others, then whoever has more takes what is left, beginning at a place that moves
from call to call. A batch that alone exceeds the whole budget is returned only when there is
nothing else, so an answer is at most the budget or one batch. A caller may do without that.

While there are fewer than `min_bytes`, the poll sleeps until one of its partitions has applied
something or changed its role; it never asks in a loop. It ends early when a position fails, because
its reader must act, and when what comes next does not fit into the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from rakit.node.errors import RakitError
from rakit.node.partition.partition import Partition
from rakit.node.partition.reader import Chunk
from rakit.node.partition.stored import StoredBatch

#: So that with many positions the first round does not cut the budget into crumbs.
SHARE_BYTES_MIN: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Want:
    """One position of a poll, already an offset."""

    partition: Partition
    offset: int
    #: Stop before this offset.
    end_offset: int | None = None


@dataclass(slots=True)
class _Progress:
    want: Want
    next_offset: int
    batches: list[StoredBatch] = field(default_factory=list[StoredBatch])
    chunk: Chunk | None = None
    error: RakitError | None = None
    #: Room in which what comes next had no place; 0: nothing came next, or no room was left.
    too_small_bytes: int = 0

    @property
    def has_more(self) -> bool:
        """What comes next is there already, and did not fit."""
        if self.chunk is None or self.ended:
            return False
        return self.next_offset < self.chunk.high_watermark

    @property
    def ended(self) -> bool:
        """The position's end is reached; nothing more can come."""
        end = self.want.end_offset
        return end is not None and self.next_offset >= end

    def outcome(self) -> Chunk | RakitError:
        """What was read, or the error if nothing was."""
        if self.error is not None and not self.batches:
            return self.error
        assert self.chunk is not None, "every position was read once"
        return Chunk(
            tuple(self.batches),
            self.next_offset,
            self.chunk.high_watermark,
            self.chunk.log_start_offset,
        )


class Poller:
    """Runs the polls of a node; holds nothing but where the next one begins."""

    def __init__(self) -> None:
        self._turns = count()

    async def poll(
        self,
        wants: Sequence[Want],
        *,
        max_bytes: int,
        min_bytes: int,
        max_wait_ms: int,
        at_least_one: bool = True,
    ) -> list[Chunk | RakitError]:
        """Returns what stands at each position, in order, waiting while that is too little.

        Without `at_least_one` the budget holds for a single batch as well.
        """
        turn = next(self._turns) % max(len(wants), 1)
        states = [_Progress(want, want.offset) for want in wants]
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max_wait_ms / 1000
        with ExitStack() as subscriptions:
            for want in wants:
                subscriptions.callback(want.partition.subscribe(woken.set))
            size = await _gather(states, turn, max_bytes, 0, at_least_one=at_least_one)
            while not _enough(states, size, min(min_bytes, max_bytes)) and loop.time() < deadline:
                try:
                    async with asyncio.timeout_at(deadline):
                        await woken.wait()
                except TimeoutError:
                    break
                woken.clear()
                size = await _gather(states, turn, max_bytes, size, at_least_one=at_least_one)
        return [state.outcome() for state in states]


def _enough(states: list[_Progress], size: int, min_bytes: int) -> bool:
    if size >= min_bytes or all(state.ended for state in states):
        return True
    # Waiting would not make an answer fuller that has no room for what is there.
    return any(state.error is not None or state.has_more for state in states)


async def _gather(
    states: list[_Progress], turn: int, max_bytes: int, size: int, *, at_least_one: bool
) -> int:
    """Reads on at every position within the budget; returns the bytes read so far."""
    share = max(max_bytes // max(len(states), 1), SHARE_BYTES_MIN)
    for state in states:
        size += await _read_on(state, min(share, max_bytes - size), at_least_one=False)
    for state in [*states[turn:], *states[:turn]]:
        alone = at_least_one and size == 0
        size += await _read_on(state, max_bytes - size, at_least_one=alone)
    return size


async def _read_on(state: _Progress, max_bytes: int, *, at_least_one: bool) -> int:
    """Reads on at one position; returns how many bytes that gave."""
    has_room = max_bytes > (0 if at_least_one else state.too_small_bytes)
    wanted = state.chunk is None or (has_room and not state.ended)
    if not wanted or state.error is not None:
        return 0
    want = state.want
    try:
        chunk = await want.partition.read(
            state.next_offset, max_bytes, want.end_offset, at_least_one=at_least_one
        )
    except RakitError as error:
        state.error = error
        return 0
    state.chunk = chunk
    state.next_offset = chunk.next_offset
    state.batches.extend(chunk.batches)
    size = chunk.size_bytes
    state.too_small_bytes = max(0, max_bytes - size) if state.has_more else 0
    return size
