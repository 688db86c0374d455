"""Members of one consumer group in this process, and one that can be killed.

`Members` holds members with a connection of their own each, notes who owns what from their hooks,
and waits for what is to become of it: the first error of any of them ends the wait. `process` is a
member in a process of its own, `python -m rakit.client.bench.members BOOTSTRAP GROUP TOPIC`: it
prints a line each time it is given partitions, and serves until its stdin ends, so it cannot
outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from rakit.client.bench.background import running
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client
from rakit.client.consuming.consumer import GroupConsumer, Hooks
from rakit.client.consuming.places import TopicPartition

#: Longer than any rebalance; beyond it the group is broken.
WAIT_S_MAX: Final = 120.0


def is_even(shares: Sequence[int], partitions: int) -> bool:
    """Whether everything is owned, and nobody has two more than another one."""
    return sum(shares) == partitions and max(shares) - min(shares) <= 1


class Members:
    """Those in this process."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self.group = group
        self._bootstrap = bootstrap
        self._topic = topic
        self._owned: dict[GroupConsumer, set[TopicPartition]] = {}
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    @property
    def shares(self) -> list[int]:
        """How many partitions each member has."""
        return [len(each) for each in self._owned.values()]

    def pause(self) -> None:
        """Lets nobody get any more records."""
        for consumer, owned in self._owned.items():
            consumer.pause(*owned)

    def resume(self) -> None:
        """Lets them go on."""
        for consumer, owned in self._owned.items():
            consumer.resume(*owned)

    @asynccontextmanager
    async def member(
        self, read: Callable[[GroupConsumer], Awaitable[None]]
    ) -> AsyncGenerator[GroupConsumer]:
        """Joins, and reads until the block ends; then it leaves."""
        owned = set[TopicPartition]()

        async def assigned(partitions: Sequence[TopicPartition]) -> None:
            owned.update(partitions)
            self.note()

        async def taken(partitions: Sequence[TopicPartition]) -> None:
            owned.difference_update(partitions)
            self.note()

        hooks = Hooks(assigned, taken, taken)
        async with Client(self._bootstrap) as client:
            consumer = client.group_consumer(self.group, [self._topic], hooks=hooks)
            self._owned[consumer] = owned
            try:
                async with consumer, running(self._reading(read, consumer)):
                    yield consumer
            finally:
                del self._owned[consumer]

    async def _reading(
        self, read: Callable[[GroupConsumer], Awaitable[None]], consumer: GroupConsumer
    ) -> None:
        try:
            await read(consumer)
        except Exception as error:
            self._error = self._error or error
            self.note()

    def note(self) -> None:
        """Something changed that `until` may be about."""
        self._changed.set()

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Waits until something is so; raises the first error of a member."""
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                while True:
                    if self._error is not None:
                        raise self._error
                    if is_so():
                        return
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise CommandError(
                f"{what}: not within {WAIT_S_MAX:.0f} s; the members have {self.shares} partitions"
            ) from None

    @asynccontextmanager
    async def process(self) -> AsyncGenerator[asyncio.subprocess.Process]:
        """A further member in a process of its own, once it has partitions."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rakit.client.bench.members"),
            *(self._bootstrap, self.group, self._topic),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C is for us.
            start_new_session=True,
        )
        try:
            assert process.stdout is not None, "stdout is a pipe"
            if not await process.stdout.readline():
                raise CommandError("a member's process ended before it was given a partition")
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def serve(bootstrap: str, group: str, topic: str) -> None:
    """Is a member until stdin ends."""

    async def assigned(partitions: Sequence[TopicPartition]) -> None:
        if partitions:
            sys.stdout.write(f"{len(partitions)}\n")
            sys.stdout.flush()

    async def read(consumer: GroupConsumer) -> None:
        async for _ in consumer.batches():
            pass

    async with (
        Client(bootstrap) as client,
        client.group_consumer(group, [topic], hooks=Hooks(assigned)) as consumer,
        running(read(consumer)) as reading,
    ):
        await reading.during(asyncio.to_thread(sys.stdin.read))


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
