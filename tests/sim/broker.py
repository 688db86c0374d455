"""The leader's side of appending and reading, as the broker does it, without tasks: the real
`Outlook` and `Reader` over the real driver.

One `Broker` per node and life of its process. It answers each request at most once, with what the
broker would answer: stored (where), refused (nothing was appended), or unknown. As in
`rakit.node.partition.refusals`, a refusal that rests on the log is told when what was pending is
applied and a read has confirmed the leadership. As in `rakit.node.partition.gathering`, batches
wait for each other and share an entry: every other one does, so that both ways are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Completion, ReadReady, RoleChange
from rakit.multiraft.errors import ProposalRefusedError, StoreUnreadableError
from rakit.multiraft.group import Group
from rakit.node.errors import RakitError
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Expire, Trim
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.pending import Draft, Known, Outlook, Refusal, Run, Wait
from rakit.node.partition.producers import Stamp
from rakit.node.partition.reader import Chunk, Reader
from rakit.node.partition.retention import decide
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import Stored
from tests.sim.disk import SimDisk


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was appended; `elsewhere` when another node may take it."""

    reason: str
    elsewhere: bool
    # Where the next record would have gone; None: that was not why.
    next_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The batch may be in the log, or may still get there."""


Answer: TypeAlias = Stored | Refused | Unknown
Reply: TypeAlias = Callable[[Answer], None]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A refusal that is not certain yet; the token of the read that makes it so."""

    reply: Reply
    error: RakitError
    outlook: Outlook

    def refused(self, *, elsewhere: bool) -> Refused:
        end = self.error.metadata.get("next_offset")
        return Refused(str(self.error), elsewhere, None if end is None else int(end))


@dataclass(frozen=True, slots=True)
class Promise:
    """Somebody who is told where a batch went when an entry is applied."""

    reply: Reply
    # Which one of the entry it is.
    at: int = 0
    # Where it went, if that is known: it is a duplicate.
    original: Stored | None = None

    def keep(self, result: object) -> None:
        if isinstance(result, tuple):
            result = cast("tuple[object, ...]", result)[self.at]
        if isinstance(stored := self.original or result, Stored):
            self.reply(stored)


@dataclass(frozen=True, slots=True)
class Request:
    """A batch that waits for others."""

    batch: Batch
    stamp: Stamp | None
    reply: Reply


@dataclass(slots=True)
class Waiting:
    """Requests that go on when an entry is applied."""

    promises: list[Promise | Held]


@dataclass(frozen=True, slots=True)
class Clock:
    """A node's clock, and what is made of it."""

    now_ms: Callable[[], int]
    trusted: Callable[[], bool]
    # A leader proposes to delete something of a group.
    deletes: Callable[[int], None]


def _producer(request: Request) -> int:
    return request.stamp.producer_id if request.stamp else 0


class Broker:
    """Takes appends, and reads, for every group that its node leads."""

    def __init__(
        self, driver: Driver, disk: SimDisk, settings: TopicSettings, clock: Clock
    ) -> None:
        self.driver = driver
        self.disk = disk
        self.settings = settings
        self.clock = clock
        self.now_ms = clock.now_ms
        self.outlooks: dict[int, Outlook] = {}
        self.waiting: dict[tuple[int, int], Waiting] = {}
        self.gathered: dict[int, list[Request]] = {}
        self.appends = 0
        # Each with the replica that it reads; one that is made anew gets another.
        self.readers: dict[int, tuple[Group, Reader]] = {}

    def read(self, group_id: int, offset: int, max_bytes: int) -> Chunk | None:
        """Returns what stands from `offset` on, as `Partition.read` does; None: ask elsewhere.

        Where the log begins later, nothing but that. Above it, whoever leads may not know yet.
        """
        group = self.driver.group(group_id)
        if group is None or not group.ready:
            return None
        machine = group.machine
        assert isinstance(machine, PartitionMachine), "what is read is a partition"
        start, end = machine.state.start_offset, machine.state.next_offset
        if offset > end:
            return None
        if offset < start:
            return Chunk((), offset, end, start)
        held = self.readers.get(group_id)
        if held is None or held[0] is not group:
            reader = Reader(self.disk, group.storage, machine)
            held = self.readers[group_id] = (group, reader)
        self.disk.at_work = True
        try:
            return held[1].read(offset, max_bytes)
        except StoreUnreadableError as error:
            self.driver.quarantine(group_id, str(error), for_good=False)
            return None
        finally:
            self.disk.at_work = False

    def append(
        self,
        group_id: int,
        batch: Batch,
        stamp: Stamp | None,
        reply: Reply,
        expected_offset: int | None = None,
    ) -> None:
        outlook = self.outlooks.get(group_id)
        if outlook is None:
            reply(Refused("not leading", elsewhere=True))
            return
        self.appends += 1
        waiting = self.gathered.get(group_id, ())
        if (
            expected_offset is None
            and self.appends % 2
            and outlook.pending_count
            and outlook.is_news(stamp)
            and not any(stamp and stamp.producer_id == _producer(each) for each in waiting)
        ):
            self.gathered.setdefault(group_id, []).append(Request(batch, stamp, reply))
            return
        self.flush(group_id, outlook)
        try:
            verdict = outlook.append(batch, stamp, expected_offset, self.now_ms(), self.settings)
        except RakitError as error:
            reply(Refused(str(error), elsewhere=False))
            return
        if isinstance(verdict, Draft):
            self._propose(group_id, outlook, verdict, [Promise(reply)])
        else:
            self._answer(group_id, outlook, verdict, reply)

    def flush(self, group_id: int, outlook: Outlook) -> None:
        """Proposes what has gathered."""
        run, promises = Run(), list[Promise | Held]()
        for request in self.gathered.pop(group_id, ()):
            try:
                verdict = outlook.objection(request.batch, request.stamp, run)
            except RakitError as error:
                request.reply(Refused(str(error), elsewhere=False))
                continue
            if verdict is None:
                promises.append(Promise(request.reply, len(run.batches)))
                run.add(request.batch, request.stamp)
            else:
                self._answer(group_id, outlook, verdict, request.reply)
        if promises:
            self._propose_run(group_id, outlook, run, promises)

    def _propose_run(
        self, group_id: int, outlook: Outlook, run: Run, promises: list[Promise | Held]
    ) -> None:
        draft = outlook.join(run, self.now_ms(), self.settings)
        self._propose(group_id, outlook, draft, promises)

    def _answer(
        self, group_id: int, outlook: Outlook, verdict: Known | Wait | Refusal, reply: Reply
    ) -> None:
        if isinstance(verdict, Known):
            reply(verdict.stored)
        elif isinstance(verdict, Wait):
            duplicate = Promise(reply, original=verdict.stored)
            self.waiting[group_id, verdict.stored.index].promises.append(duplicate)
        else:
            held = Held(reply, verdict.error, outlook)
            if verdict.index:
                self.waiting[group_id, verdict.index].promises.append(held)
            else:
                self._confirm(group_id, held)

    def _confirm(self, group_id: int, held: Held) -> None:
        try:
            self.driver.read_index(group_id, held)
        except ProposalRefusedError as error:
            held.reply(Refused(str(error), elsewhere=True))

    def confirmed(self, held: Held, answer: ReadReady) -> None:
        """Takes the end of a read that asked whether this node still leads."""
        leads = not answer.lost and self.outlooks.get(answer.group_id) is held.outlook
        held.reply(held.refused(elsewhere=not leads))

    def _propose(
        self, group_id: int, outlook: Outlook, draft: Draft, promises: list[Promise | Held]
    ) -> None:
        outlook.check(draft)
        try:
            term, index = self.driver.propose(group_id, draft.pieces, (group_id, outlook))
        except ProposalRefusedError as error:
            for promise in promises:
                promise.reply(Refused(str(error), elsewhere=True))
            return
        outlook.proposed(draft, term, index)
        self.waiting[group_id, index] = Waiting(promises)

    def maintain(self, group_id: int) -> None:
        """What the retention tick does: trims the log where the settings allow."""
        outlook = self.outlooks.get(group_id)
        if outlook is None:
            return
        self.flush(group_id, outlook)
        now_ms = outlook.stamp_time(self.now_ms())
        trusted = self.clock.trusted()
        for command in decide(outlook.ahead, self.settings, now_ms, clock_trusted=trusted):
            if isinstance(command, (Trim, Expire)):
                self.clock.deletes(group_id)
            self._propose(group_id, outlook, outlook.maintain(command), [])

    def role_changed(self, change: RoleChange) -> None:
        self._end(change.group_id)
        group = self.driver.group(change.group_id)
        machine = None if group is None else group.machine
        if change.ready and isinstance(machine, PartitionMachine):
            self.outlooks[change.group_id] = Outlook(machine.state)

    def _end(self, group_id: int) -> None:
        """A leadership is over, or an entry of it was lost: its outlook says nothing more."""
        self.outlooks.pop(group_id, None)
        for request in self.gathered.pop(group_id, ()):
            request.reply(Refused("the leadership is over", elsewhere=True))

    def completed(self, completion: Completion) -> None:
        group_id, index = completion.group_id, completion.entry[1]
        token = completion.token
        assert isinstance(token, tuple), "every proposal names its outlook"
        outlook = self.outlooks.get(group_id)
        if outlook is not None and outlook is token[1] and outlook.is_pending(index):
            outlook.settled(index)
            if completion.lost:
                self._end(group_id)
        waiting = self.waiting.pop((group_id, index), None)
        if waiting is None:
            return
        for promise in waiting.promises:
            if isinstance(promise, Held):
                if completion.lost:
                    promise.reply(Refused("the leadership is lost", elsewhere=True))
                else:
                    self._confirm(group_id, promise)
            elif completion.lost:
                promise.reply(Unknown())
            else:
                promise.keep(completion.result)
        if outlook is self.outlooks.get(group_id) and outlook and not outlook.pending_count:
            self.flush(group_id, outlook)
