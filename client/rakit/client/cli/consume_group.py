"""`rakit consume --group`: as a member of a group, from where it stands.

What was printed is committed: at least each second, before a partition is let go of, and at the
end. What was not printed is not, so nothing is left out, whatever ends the command.

A session that the cluster has ended, because nothing was heard of us for too long, is no end: it
joins again and goes on at the group's commits. What was printed and is committed by nobody comes
again, and a line on stderr says so.

Without --follow it ends when the partitions that it owns were read up to where their logs ended
when it began. Other members read theirs; with nothing to own it ends after a moment.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final, Literal, cast

from rakit.client.cli.complaints import MisuseError, complain
from rakit.client.cli.connect import connect
from rakit.client.cli.consume import PATIENCE_MS, Printer, Wanted, printer
from rakit.client.cli.streams import Output
from rakit.client.client import Client
from rakit.client.config import GroupConfig
from rakit.client.consuming.consumer import GroupConsumer, Hooks
from rakit.client.consuming.places import TopicPartition
from rakit.client.consuming.session import Partitions
from rakit.client.errors import MemberFencedError, NotOwnerError
from rakit.client.records import RecordBatch

COMMIT_EVERY_S: Final = 1.0
#: How often it is looked whether the end is reached.
LOOK_S: Final = 0.2
#: A member gets what others have only when those have let go of it. Looks, and not seconds: a
#: process that stood still has not been waiting meanwhile.
SETTLE_LOOKS: Final = 15
COMMIT_S_MAX: Final = 5.0


async def run(bootstrap: str | None, topic: str, wanted: Wanted) -> int:
    """Prints records until there are enough, the end is reached, or somebody stops it."""
    if wanted.start not in {"earliest", "latest"}:
        raise MisuseError(
            "--group begins where the group stands: --from is earliest or latest, for partitions"
            " that it never read; `rakit group reset` moves it elsewhere"
        )
    printed = printer(wanted)
    try:
        async with connect(bootstrap) as client, Output() as output:
            await _Member(client, topic, wanted, printed, output).run()
    except asyncio.CancelledError:
        if not wanted.follow:
            raise
    return 0


class Settling:
    """Whether it can be believed that a member owns nothing."""

    def __init__(self) -> None:
        self._empty_looks = 0

    def look(self, *, owns: bool) -> bool:
        """Counts the looks in a row at which it owned nothing; True when they are enough."""
        self._empty_looks = 0 if owns else self._empty_looks + 1
        return owns or self._empty_looks > SETTLE_LOOKS


class _Member:
    """Prints what the group gives it."""

    def __init__(
        self, client: Client, topic: str, wanted: Wanted, printed: Printer, output: Output
    ) -> None:
        self._client = client
        self._topic = topic
        self._wanted = wanted
        self._left = wanted.count
        self._printed = printed
        self._output = output
        # Printed and not committed; the next offset of each partition.
        self._due: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Prints to the end."""
        # Also tells what is wrong with the topic, which a group would wait for.
        ends = {
            TopicPartition(self._topic, each.partition): each.latest
            for each in await self._client.admin.get_offsets(self._topic)
        }
        config = GroupConfig(
            auto_commit_ms=None,
            client_id="rakit consume",
            retry_timeout_ms=None if self._wanted.follow else PATIENCE_MS,
        )
        from_ = cast("Literal['earliest', 'latest']", self._wanted.start)
        async with self._client.group_consumer(
            self._wanted.group,
            [self._topic],
            from_=from_,
            hooks=Hooks(revoking=self._let_go, lost=self._lost),
            config=config,
        ) as consumer:
            self._consumer = consumer
            try:
                await self._print(consumer, None if self._wanted.follow else ends)
            finally:
                await self._commit_last()

    async def _commit_last(self) -> None:
        """The end must not wait for a cluster that is gone."""
        try:
            async with asyncio.timeout(COMMIT_S_MAX):
                await self._commit()
        except TimeoutError:
            complain("the last commit was not answered: some records may come again")

    async def _print(self, consumer: GroupConsumer, ends: dict[TopicPartition, int] | None) -> None:
        loop = asyncio.get_running_loop()
        committed_s = loop.time()
        settling = Settling()
        async with aclosing(consumer.batches()) as batches:
            pending = asyncio.ensure_future(anext(batches, None))
            try:
                while True:
                    done, _ = await asyncio.wait({pending}, timeout=LOOK_S)
                    if done:
                        batch = await pending
                        if batch is None or await self._print_batch(batch):
                            return
                        pending = asyncio.ensure_future(anext(batches, None))
                    if loop.time() - committed_s >= COMMIT_EVERY_S:
                        await self._commit()
                        committed_s = loop.time()
                    is_settled = settling.look(owns=bool(consumer.assignment))
                    # A batch that came during the commit counts as handed over, and is not printed.
                    is_idle = not pending.done()
                    if ends is not None and is_settled and is_idle and self._is_at_end(ends):
                        return
            finally:
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)

    def _is_at_end(self, ends: dict[TopicPartition, int]) -> bool:
        """Everything that is owned was printed, up to where its log ended."""
        positions = self._consumer.positions()
        return all(positions[name] >= ends.get(name, 0) for name in positions)

    async def _print_batch(self, batch: RecordBatch) -> bool:
        """Returns whether there are enough now."""
        shown = len(batch) if self._left is None else min(self._left, len(batch))
        await self._output.write(self._printed(batch, shown))
        self._due[TopicPartition(batch.topic, batch.partition)] = batch.base_offset + shown
        if self._left is None:
            return False
        self._left -= shown
        return not self._left

    async def _let_go(self, partitions: Partitions) -> None:
        await self._commit(partitions)

    async def _lost(self, partitions: Partitions) -> None:
        """Whoever owns them now has begun at an earlier commit."""
        complain("the session was lost, and joined anew: some records may come again")
        for name in partitions:
            self._due.pop(name, None)

    async def _commit(self, partitions: Partitions | None = None) -> None:
        names = list(self._due) if partitions is None else partitions
        due = {name: self._due[name] for name in names if name in self._due}
        if not due:
            return
        try:
            await self._consumer.commit(offsets=due)
        except (MemberFencedError, NotOwnerError):
            # The session was lost while it was asked for. A member whose place was taken for good
            # hears so where it takes its next record.
            complain("a commit came too late: some records may come again")
        for name, offset in due.items():
            # What was printed meanwhile is due, and so is what was not committed.
            if self._due.get(name) == offset:
                del self._due[name]
