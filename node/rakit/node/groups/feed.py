"""Records for one member: from the leaders of its partitions to its stream.

Like Read it asks for room before it looks where there is something to read, and waits without room
at the ends of the logs (`reading.budget`, `reading.fetcher`). What is more: partitions come and go,
the client's credit says how much may go out, and the lease whether anything may.

Rules:

- Of a partition that is behind a share is read at a time, and whoever was first is last the next
  time. Those at their ends are looked at each `FULL_LOOK_S` while others are behind.
- Nothing goes out without credit, and of a partition that was taken, sought or paused meanwhile.
- A partition without a leader is waited for as long as it takes; the others go on.
- One whose place is no longer kept begins anew (`Held.reopen`), which the client is told.
- One that fails otherwise is told as failed, and tried again each `REST_S`.
- A wait is broken off only where something to read may have come. A commit is not such a thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import Edge
from rakit.multiraft.bell import Bell
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.holdings import Held
from rakit.node.groups.membership import Membership
from rakit.node.groups.outbox import Parcel
from rakit.node.reading.budget import ANSWER_BYTES_MAX, Lease, ReadBudget
from rakit.node.reading.fetcher import Fetcher
from rakit.node.reading.local import Finding, Found, ReadLimits
from rakit.node.reading.render import Form, render
from rakit.node.routing import LEADER_WAIT_S, is_reroutable
from rakit.peer.v1.opaque_pb2 import (
    OpaqueDelivery,
    OpaquePartitionData,
    OpaqueSubscribeResponse,
)

#: While others are behind.
FULL_LOOK_S: Final = 0.05
#: One wait at the ends of the logs, after which leaders are looked up anew.
WAIT_S: Final = 5.0
#: What a wait takes along without having asked for room.
WAITING_BYTES: Final = 64 << 10
#: Made into rows in one go: the loop that renews the leases of this node stands still meanwhile.
ROWS_BYTES_MAX: Final = 512 << 10
#: Before a partition that failed is tried again.
REST_S: Final = 5.0

_GONE: Final = frozenset(
    {error_pb2.ERROR_REASON_UNKNOWN_TOPIC, error_pb2.ERROR_REASON_UNKNOWN_PARTITION}
)


@dataclass(slots=True)
class _Answer:
    held: Held
    turn: int
    reached: int
    size_bytes: int
    message: bytes


@dataclass(slots=True)
class _Step:
    """What one look comes to."""

    answers: list[_Answer] = field(default_factory=list[_Answer])
    size_bytes: int = 0


class Feed:
    """Sends one member its records."""

    def __init__(
        self,
        member: Membership,
        fetcher: Fetcher,
        budget: ReadBudget,
        *,
        form: Form,
        start: Edge.ValueType,
        reopened: Callable[[], None],
    ) -> None:
        self._member = member
        self._fetcher = fetcher
        self._budget = budget
        self._form = form
        self._step_bytes_max = ANSWER_BYTES_MAX if form.columns else ROWS_BYTES_MAX
        self._start: Edge.ValueType = start
        self._reopened = reopened
        self._bell = Bell()
        self._is_idle = False
        # What the next answer needs at least, where that is known.
        self._needed_bytes = 0
        self._turn = 0
        self._full_look_at = 0.0
        self._loop = asyncio.get_running_loop()

    def changed(self) -> None:
        """There may be something to read that is not waited for."""
        self._bell.ring()

    def nudge(self) -> None:
        """There may be credit or a lease again; a wait for records need not know."""
        if self._is_idle:
            self._bell.ring()

    async def run(self) -> None:
        """Sends records until it is cancelled."""
        while True:
            now = self._loop.time()
            readable = self._readable(now)
            if not readable or self._member.credit.left_bytes <= 0:
                await self._idle()
                continue
            if not self._member.may_be_served():
                await self._idle()
                continue
            behind = [each for each in readable if each.is_behind]
            if not behind:
                await self._wait(readable)
            elif now >= self._full_look_at:
                self._full_look_at = now + FULL_LOOK_S
                await self._read_on(readable)
            else:
                await self._read_on(behind)

    async def _idle(self) -> None:
        self._is_idle = True
        try:
            await self._bell.heard()
        finally:
            self._is_idle = False

    def _readable(self, now: float) -> list[Held]:
        held = [each for each in self._member.holdings.all() if each.is_readable(now)]
        # Whoever was first takes the largest share of a full answer: take turns.
        self._turn += 1
        first = self._turn % max(len(held), 1)
        return held[first:] + held[:first]

    async def _read_on(self, wanted: Sequence[Held]) -> None:
        """Sends what stands at the positions, as much as there is room and credit for."""
        with self._budget.ask(self._needed_bytes) as lease:
            await lease.given.wait()
            credit = self._member.credit.left_bytes
            now = self._loop.time()
            wanted = [each for each in wanted if each.is_readable(now)]
            if not wanted or credit <= 0:
                return
            max_bytes = min(lease.size_bytes, credit, self._step_bytes_max)
            limits = ReadLimits(1, max_bytes, wait_until=now)
            step = self._step(await self._look(wanted, limits), limits)
            if lease.has_room(step.size_bytes):
                self._needed_bytes = 0
                lease.keep(step.size_bytes)
                await self._send(step, lease)
            else:
                # One batch that is larger, or became so: once more, with what it takes.
                self._needed_bytes = step.size_bytes

    async def _wait(self, wanted: Sequence[Held]) -> None:
        """Waits for records, and sends them where they are few."""
        max_bytes = min(WAITING_BYTES, self._member.credit.left_bytes)
        until = self._loop.time() + WAIT_S
        limits = ReadLimits(1, max_bytes, wait_until=until, at_least_one=False)
        looking = asyncio.ensure_future(self._look(wanted, limits))
        changing = asyncio.ensure_future(self._bell.heard())
        try:
            await asyncio.wait({looking, changing}, return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                return
            step = self._step(await looking, limits)
        finally:
            looking.cancel()
            changing.cancel()
            await asyncio.gather(looking, changing, return_exceptions=True)
        if not step.answers:
            return
        lease = self._budget.ask_now(step.size_bytes)
        if lease is not None:
            with lease:
                await self._send(step, lease)
        else:
            for answer in step.answers:
                answer.held.is_behind = True

    async def _look(self, wanted: Sequence[Held], limits: ReadLimits) -> list[tuple[Held, Finding]]:
        """What is found, without what was found for an older turn."""
        turns = [each.turn for each in wanted]
        findings = await self._fetcher.fetch(
            [each.position for each in wanted],
            limits,
            give_up=limits.wait_until,
            lookup_until=self._loop.time() + LEADER_WAIT_S,
        )
        return [
            (held, finding)
            for held, turn, finding in zip(wanted, turns, findings, strict=True)
            if held.turn == turn and held.is_readable(self._loop.time())
        ]

    def _step(self, looked: list[tuple[Held, Finding]], limits: ReadLimits) -> _Step:
        """Turns what was found into bytes; it need not be kept any more."""
        step = _Step()
        for held, finding in looked:
            if isinstance(finding, RakitError):
                self._failed(held, finding)
            else:
                self._found(held, finding, limits, step)
        return step

    def _found(self, held: Held, finding: Found, limits: ReadLimits, step: _Step) -> None:
        message = OpaqueSubscribeResponse()
        data = message.records.data
        size = render(
            data,
            held.position,
            finding,
            self._form,
            limits.max_bytes - step.size_bytes,
            at_least_one=limits.at_least_one and not step.answers,
        )
        held.earliest = data.log_start_offset
        held.latest = data.high_watermark
        reached = max(data.next_offset, finding.from_offset)
        held.is_behind = reached < data.high_watermark
        if not data.records and not data.batches:
            held.position.offset = reached
            return
        message.records.charged_bytes = size
        answer = _Answer(held, held.turn, reached, size, message.SerializeToString())
        step.answers.append(answer)
        step.size_bytes += size

    async def _send(self, step: _Step, lease: Lease) -> None:
        for answer in step.answers:
            parcel = Parcel(self._member.outbox, partial(self._begin, answer))
            await lease.write(parcel, answer.message)

    def _begin(self, answer: _Answer) -> bool:
        """At the last moment: whether the records may go out. They count as sent from here on."""
        held = answer.held
        now = self._loop.time()
        if held.turn != answer.turn or not self._member.may_be_served():
            return False
        self._member.credit.charge(
            held.key, held.position.offset, answer.reached, answer.size_bytes
        )
        self._member.processing.sent(now)
        held.position.offset = held.sent_to = answer.reached
        return True

    def _failed(self, held: Held, error: RakitError) -> None:
        if is_reroutable(error):
            # The wait at the ends of the logs waits for leaders as well.
            held.is_behind = False
            return
        if error.reason == error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE:
            self._member.forget(held)
            held.reopen(self._start)
            self._reopened()
            return
        held.rest_until = self._loop.time() + REST_S
        held.is_behind = True
        self._loop.call_at(held.rest_until, self.changed)
        if error.reason in _GONE:
            # The coordinator is about to take it away.
            return
        topic, number = held.key
        error.metadata.setdefault("topic", topic)
        error.metadata.setdefault("partition", str(number))
        data = OpaquePartitionData(
            topic=topic,
            partition=number,
            next_offset=held.position.offset,
            error=to_status(error),
        )
        self._member.outbox.put(OpaqueSubscribeResponse(records=OpaqueDelivery(data=data)))
