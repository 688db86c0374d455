"""Room for answers: in the order of asking, less as it fills, and back from who sits on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.reading.budget import ANSWER_BYTES_MAX, ANSWER_BYTES_MIN, Lease, ReadBudget

MIB = 1 << 20
LONG_S = 60.0


class Client:
    """Takes answers while it reads."""

    def __init__(self, *, reads: bool = True) -> None:
        self.taken: list[bytes] = []
        self.ends: list[Callable[[], None]] = []
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()

    async def write_bytes(self, data: bytes) -> None:
        await self.reads.wait()
        self.taken.append(data)

    def on_end(self, callback: Callable[[], None]) -> None:
        self.ends.append(callback)

    def go(self) -> None:
        """The call is over."""
        while self.ends:
            self.ends.pop()()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def write(lease: Lease, client: Client, data: bytes = b"answer") -> asyncio.Task[None]:
    async def run() -> None:
        with lease:
            await lease.write(client, data)

    return asyncio.create_task(run())


async def test_room_is_smaller_the_fuller_the_budget_is() -> None:
    budget = ReadBudget(64 * MIB)
    sizes = [budget.ask().size_bytes for _ in range(200)]
    assert sizes[0] == ANSWER_BYTES_MAX
    assert sizes == sorted(sizes, reverse=True)
    held = [each for each in sizes if each > ANSWER_BYTES_MIN]
    assert len(held) > 20
    assert budget.held_bytes <= 64 * MIB
    assert budget.free_bytes < ANSWER_BYTES_MIN, "all of it is used"


async def test_room_comes_in_the_order_in_which_it_was_asked_for() -> None:
    budget = ReadBudget(4 * MIB)
    first = budget.ask(3 * MIB)
    large, small = budget.ask(2 * MIB), budget.ask()
    assert (first.is_held, large.is_held, small.is_held) == (True, False, False)
    assert budget.ask_now(1) is None, "there would be room, but others were first"
    with first:
        pass
    assert (large.is_held, small.is_held) == (True, True)
    assert budget.ask_now(1) is not None
    assert budget.ask_now(4 * MIB) is None


async def test_what_is_not_needed_goes_to_the_next() -> None:
    budget = ReadBudget(2 * MIB)
    first, second = budget.ask(2 * MIB), budget.ask(MIB)
    first.keep(3 * MIB)
    assert not second.is_held, "one cannot keep more than one has"
    first.keep(100)
    assert second.is_held
    assert budget.held_bytes == 100 + MIB


async def test_whoever_leaves_the_line_holds_nobody_up() -> None:
    budget = ReadBudget(2 * MIB)
    first = budget.ask(2 * MIB)
    with budget.ask(2 * MIB) as gone:
        last = budget.ask()
    first.keep(MIB)
    assert not gone.is_held
    assert last.is_held


async def test_an_answer_beyond_the_whole_budget_gets_all_of_it() -> None:
    budget = ReadBudget(2 * MIB)
    lease = budget.ask(5 * MIB)
    assert lease.size_bytes == 2 * MIB
    assert lease.has_room(5 * MIB), "asking again would bring no more"
    part = ReadBudget(64 * MIB).ask()
    assert part.has_room(part.size_bytes)
    assert not part.has_room(part.size_bytes + 1)


async def test_a_client_that_reads_gives_its_room_back() -> None:
    budget = ReadBudget(2 * MIB)
    client = Client()
    await write(budget.ask(2 * MIB), client)
    assert client.taken == [b"answer"]
    assert budget.held_bytes == 0


async def test_a_client_may_take_its_time_while_nobody_waits() -> None:
    budget = ReadBudget(2 * MIB, stalled_s=0.01)
    client = Client(reads=False)
    writing = write(budget.ask(2 * MIB), client)
    await asyncio.sleep(0.05)
    assert not writing.done()
    client.reads.set()
    await writing


async def test_a_client_that_keeps_others_waiting_is_given_up() -> None:
    budget = ReadBudget(2 * MIB, stalled_s=0.05)
    client = Client(reads=False)
    writing = write(budget.ask(2 * MIB), client)
    await settle()
    with budget.ask(MIB) as waits:
        await asyncio.wait_for(waits.given.wait(), 5)
        with pytest.raises(RakitError) as caught:
            await writing
        assert caught.value.reason == error_pb2.ERROR_REASON_THROTTLED
        assert caught.value.rule.retriable
        assert (budget.held_bytes, budget.stalled_bytes) == (MIB, 2 * MIB)
    client.go()
    assert (budget.held_bytes, budget.stalled_bytes) == (0, 0)


async def test_the_one_that_has_stalled_for_longest_goes_first_and_no_more_than_needed() -> None:
    budget = ReadBudget(2 * MIB, stalled_s=0.05)
    clients = [Client(reads=False) for _ in range(4)]
    writing = [write(budget.ask(), each) for each in clients]
    await settle()
    with budget.ask() as waits:
        await asyncio.wait_for(waits.given.wait(), 5)
        await asyncio.wait(writing, timeout=0.1)
        assert [each.done() for each in writing] == [True, False, False, False]
    for client in clients:
        client.reads.set()
    assert isinstance((await asyncio.gather(*writing, return_exceptions=True))[0], RakitError)


async def test_what_was_given_up_is_bounded_too() -> None:
    """It lies in the transport until the client reads on or goes, and nobody can take it back."""
    budget = ReadBudget(2 * MIB, stalled_s=0.01)
    clients = [Client(reads=False) for _ in range(2)]
    writing: list[asyncio.Task[None]] = []
    for client in clients:
        lease = budget.ask(2 * MIB)
        await asyncio.wait_for(lease.given.wait(), 5)
        writing.append(write(lease, client))
        await settle()
    with budget.ask() as waits:
        await asyncio.sleep(0.1)
        assert not waits.is_held, "the second one would be one too many"
        assert budget.stalled_bytes == 2 * MIB
        clients[0].go()
        await asyncio.wait_for(waits.given.wait(), 5)
    clients[1].go()
    await asyncio.gather(*writing, return_exceptions=True)
    assert (budget.held_bytes, budget.stalled_bytes) == (0, 0)


async def test_a_client_that_reads_on_in_the_moment_of_being_given_up_is_told() -> None:
    budget = ReadBudget(2 * MIB, stalled_s=LONG_S)
    client = Client(reads=False)
    lease = budget.ask(2 * MIB)
    writing = write(lease, client)
    await settle()
    budget._give_up(lease)
    client.reads.set()
    with pytest.raises(RakitError):
        await writing
    client.go()
    assert (budget.held_bytes, budget.stalled_bytes) == (0, 0)


async def test_a_stream_that_breaks_in_the_moment_of_being_given_up_is_counted_out() -> None:
    budget = ReadBudget(2 * MIB, stalled_s=LONG_S)
    client = Client(reads=False)
    lease = budget.ask(2 * MIB)
    writing = write(lease, client)
    await settle()
    budget._give_up(lease)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    client.go()
    assert (budget.held_bytes, budget.stalled_bytes) == (0, 0)
