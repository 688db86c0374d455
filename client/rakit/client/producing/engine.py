"""Between lanes and links: who is sent what, through which node, and what happens when that fails.

Every lane goes to the leader of its partition by the shortest way: a stream to the leader, which is
told not to forward. While the leader is not known or not reachable the lane goes through any other
node instead, which holds the batch until there is a leader; so a failover costs one detour and no
polling. The lane returns to the direct way as soon as it has nothing in flight.

Rules:

- A lane changes its link only while nothing of it is in flight: batches on two ways could overtake
  each other. (The partition would refuse that, but a refusal costs a round trip.)
- A broken stream puts its batches back in doubt, a refusal says what it is. Retries end with the
  delivery timeout, never sooner: what is older when it comes back has failed.
- A link that is silent for `SUSPECT_S` with something unanswered makes us ask another node; when
  the leader has moved, the link is given up. A node that hangs keeps its connections open, so a
  link is also given up `SUSPECT_S` after the delivery timeout of what is in flight on it.
- A fenced producer is at its end: everything that waits fails, and so does every later record. So
  is one in which something fails that never should: a task or a callback that ends by an exception
  would leave its batches waiting for ever.

Left out: what users see of it (`producer`) and the order within a partition (`lane`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from rakit.api.v1.log_service_pb2 import GetProducerStateRequest, ProduceStreamResponse
from rakit.client.config import ClientConfig, ProducerConfig
from rakit.client.connections import Connections, is_nodes_fault
from rakit.client.errors import (
    LocalReason,
    ProducerFencedError,
    RakitError,
    from_status,
    make_error,
)
from rakit.client.freed_memory import keep_freed_memory
from rakit.client.metadata import Metadata
from rakit.client.model import Receipt
from rakit.client.producing.batch import Batch
from rakit.client.producing.lane import NEVER, Lane, Verdict
from rakit.client.producing.link import Link

#: Silence with something unanswered, after which another node is asked about the leader.
SUSPECT_S: Final = 1.0
#: How often silence and age are looked at.
SWEEP_S: Final = 0.25
#: Refusals in a row that are answered at once; from then on each is followed by a pause.
QUICK_RETRIES: Final = 3
#: Between two questions about the leaders of one topic.
RELEARN_S: Final = 0.1
#: Pauses double this often.
BACKOFF_STEPS_MAX: Final = 10
#: Questions about where numbering goes on, under way at once.
INQUIRIES_COUNT_MAX: Final = 32
#: Memory that is used again at least: a batch is joined, and gRPC has its copy, however few of them
#: may be under way.
KEPT_BYTES_MIN: Final = 4 << 20


@dataclass(slots=True)
class Identity:
    """Who the producer is to the partitions. An id of 0: not idempotent."""

    producer_id: int = 0
    epoch: int = 0
    # An instance of the same name may have been here before, so lanes ask where it stopped.
    is_known_name: bool = False


class Engine:
    """Sends what lanes have and reacts to what comes back."""

    def __init__(
        self,
        connections: Connections,
        metadata: Metadata,
        configs: tuple[ClientConfig, ProducerConfig],
        on_finished: Callable[[Batch], None],
    ) -> None:
        self.identity = Identity()
        # Why the producer has ended; nothing is sent any more.
        self.fatal: RakitError | None = None
        self._connections = connections
        self._metadata = metadata
        self._client_config, self._config = configs
        self._timeout_s = self._config.delivery_timeout_ms / 1000
        self._on_finished = on_finished
        self._loop = asyncio.get_running_loop()
        self.lanes: list[Lane] = []
        self._links: dict[str, Link] = {}
        # The link of a lane's last batch.
        self._link_of: dict[Lane, Link] = {}
        self._woken: set[Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Lane, asyncio.TimerHandle] = {}
        self._relearning: set[str] = set()
        self._suspected: set[Link] = set()
        self._is_closed = False
        keep_freed_memory(max(self._config.unacknowledged_bytes_max, KEPT_BYTES_MIN))
        self._spawn(self._sweep())

    async def add_lanes(self, lanes: list[Lane]) -> None:
        """Takes over lanes. Those of a known name first learn where their numbering goes on."""
        if self.identity.is_known_name:
            gate = asyncio.Semaphore(INQUIRIES_COUNT_MAX)
            await asyncio.gather(*(self._learn_sequence(lane, gate) for lane in lanes))
        self.lanes.extend(lanes)

    async def close(self, error: RakitError) -> None:
        """Stops everything at once. Batches that are not acknowledged fail with the error."""
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in list(self._links.values()):
            await link.close()
        self._links.clear()
        for lane in self.lanes:
            self._finish_all(lane.disconnected(error), error)
            lane.settle()
        self.end(error)

    def spoiled(self, batch: Batch, error: RakitError) -> None:
        """Takes a batch of a lane that could not be built."""
        self._finish(batch, error)

    def wake(self, lane: Lane) -> None:
        """Looks after a lane soon; what else is added until then goes out together."""
        lane.trigger_bytes = NEVER
        if lane not in self._woken:
            self._woken.add(lane)
            self._loop.call_soon(self._pump, lane)

    def wake_in(self, lane: Lane, batch: Batch, delay_s: float) -> None:
        """Looks after a lane when its new batch has lingered for so long."""
        self._loop.call_later(delay_s, self._end_linger, lane, batch)

    def _end_linger(self, lane: Lane, batch: Batch) -> None:
        batch.is_due = True
        self._pump(lane)

    def _pump(self, lane: Lane) -> None:
        """Sends what the lane lets go."""
        self._woken.discard(lane)
        if self._is_closed:
            return
        try:
            self._send(lane)
        except Exception as failure:
            self._fail(failure)

    def _send(self, lane: Lane) -> None:
        if self.fatal is not None:
            self._finish_all(lane.drain(), self.fatal)
            return
        now = self._loop.time()
        link = self._link_for(lane)
        if link is None:
            return
        while (batch := lane.next_batch()) is not None:
            produce = batch.request
            produce.leader_only = self._is_direct(lane, link)
            if self.identity.producer_id:
                produce.producer.producer_id = self.identity.producer_id
                produce.producer.epoch = self.identity.epoch
            link.send(lane, batch, now)

    def _is_direct(self, lane: Lane, link: Link) -> bool:
        return link.address == self._metadata.leader_address(lane.topic, lane.partition)

    def _link_for(self, lane: Lane) -> Link | None:
        """The link that the lane uses now; None while it waits to change."""
        address = self._metadata.leader_address(lane.topic, lane.partition)
        used = self._link_of.get(lane)
        if not address or self._connections.is_avoided(address):
            # Stay with a detour that works.
            keep = used is not None and not self._connections.is_avoided(used.address)
            address = used.address if used is not None and keep else self._connections.pick()
        link = self._links.get(address)
        if used is not None and used is link:
            return used
        if lane.in_flight:
            return None
        if link is None:
            stubs = self._connections.stubs(address)
            link = self._links[address] = Link(stubs, self._answered, self._ended)
        self._link_of[lane] = link
        return link

    def _answered(
        self, link: Link, lane: Lane, batch: Batch, answer: ProduceStreamResponse
    ) -> None:
        if answer.HasField("result"):
            # First, because it may fail: until the lane has let go, the batch comes back with the
            # link.
            receipt = Receipt.from_message(lane.topic, answer.result)
            lane.acknowledged(batch)
            try:
                lane.settle()
                self._connections.served(link.address)
                # What waits goes out before all those hear who wait for one of these records.
                self._pump(lane)
            finally:
                # The lane has let go of it.
                batch.finish(receipt)
                self._on_finished(batch)
            if not self._is_direct(lane, link):
                self._relearn(lane.topic)
        else:
            self._refused(lane, batch, from_status(answer.error))

    def _refused(self, lane: Lane, batch: Batch, error: RakitError) -> None:
        verdict = lane.refused(batch, error)
        if verdict is Verdict.FAILED:
            self._finish(batch, error)
            if isinstance(error, ProducerFencedError):
                # The doubt is this batch's own: what was never sent cannot have been stored.
                facts = error.metadata
                self.end(make_error(error.reason, error.message, facts, maybe_applied=False))
        elif error.reason in {"NOT_LEADER", "NO_LEADER"} and not self._metadata.learn_leader(
            error, lane.topic, lane.partition
        ):
            self._relearn(lane.topic)
        self._go_on(lane, verdict, error.number("retry_delay_ms") or 0)

    def _go_on(self, lane: Lane, verdict: Verdict, delay_ms: int) -> None:
        """After the last answer of a lane that was refused: sends again, now or in a while."""
        if not lane.settle():
            return
        # What came back may be too old to be sent again, and would not be seen while it travels.
        self._expire(lane)
        hinted = self._metadata.leader_address(lane.topic, lane.partition)
        used = self._link_of.get(lane)
        moves = bool(hinted) and used is not None and used.address != hinted
        quick = lane.failure_count <= QUICK_RETRIES
        if quick and (verdict is not Verdict.AGAIN_LATER or moves):
            self.wake(lane)
            return
        config = self._client_config
        backoff_ms = config.backoff_ms * 2 ** min(lane.failure_count, BACKOFF_STEPS_MAX)
        pause_ms = max(delay_ms, backoff_ms * random.uniform(0.5, 1.0))
        # Short enough that a batch which comes during the pause is tried before it is given up.
        longest_ms = min(config.backoff_ms_max, self._config.delivery_timeout_ms / 10)
        self._hold(lane, min(pause_ms, longest_ms) / 1000)

    def _hold(self, lane: Lane, pause_s: float) -> None:
        lane.is_held = True
        if lane not in self._timers:
            self._timers[lane] = self._loop.call_later(pause_s, self._release, lane)

    def _release(self, lane: Lane) -> None:
        self._timers.pop(lane, None)
        lane.is_held = False
        self._pump(lane)

    def _ended(self, link: Link, error: RakitError) -> None:
        """A stream is over."""
        if self._is_closed:
            return
        try:
            self._take_back(link, error)
        except Exception as failure:
            self._fail(failure)

    def _take_back(self, link: Link, error: RakitError) -> None:
        """What was in flight goes back to its lanes, in doubt."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
        if is_nodes_fault(error):
            self._connections.failed(link.address)
        for lane in self._lanes_on(link):
            self._metadata.forget_leader(lane.topic, lane.partition, link.address)
            self._finish_all(lane.disconnected(error), error)
            self._relearn(lane.topic)
            # Another node takes it at once; only when that fails too there is a pause.
            verdict = Verdict.AGAIN if lane.failure_count < 2 else Verdict.AGAIN_LATER
            self._go_on(lane, verdict, 0)

    def _lanes_on(self, link: Link) -> list[Lane]:
        """The lanes that have something in flight on a link."""
        return [lane for lane in self.lanes if lane.in_flight and self._link_of.get(lane) is link]

    def _relearn(self, topic: str) -> None:
        """Asks for the leaders of a topic, once at a time."""
        if topic not in self._relearning:
            self._relearning.add(topic)
            self._spawn(self._refresh_once(topic))

    async def _refresh_once(self, topic: str) -> None:
        await self._metadata.refresh_quietly(topic)
        await asyncio.sleep(RELEARN_S)
        self._relearning.discard(topic)

    async def _learn_sequence(self, lane: Lane, gate: asyncio.Semaphore) -> None:
        """Fences earlier instances in this partition and continues their numbering."""
        request = GetProducerStateRequest(
            topic=lane.topic,
            partition=lane.partition,
            producer_id=self.identity.producer_id,
            fence_epoch=self.identity.epoch,
        )
        async with gate:
            answer = await self._connections.call(
                lambda stubs: stubs.log.GetProducerState, request, self._config.delivery_timeout_ms
            )
        lane.start_after(answer.last_sequence)

    async def _sweep(self) -> None:
        """Looks at what has waited for long."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            for link in [link for link in self._links.values() if not link.is_idle]:
                oldest = min(
                    (lane.in_flight[0].created_s for lane in self._lanes_on(link)), default=now
                )
                if oldest < now - self._timeout_s - SUSPECT_S:
                    link.abandon()
                elif link.waiting_since_s < now - SUSPECT_S:
                    self._spawn(self._suspect(link))
            for lane in self.lanes:
                self._expire(lane)

    def _expire(self, lane: Lane) -> None:
        """Fails what a lane has had for too long."""
        expired = lane.expire(self._timeout_s)
        if not expired:
            return
        text = (
            f"{lane.topic}/{lane.partition} did not acknowledge within"
            f" {self._config.delivery_timeout_ms} ms"
        )
        facts = {"topic": lane.topic, "partition": str(lane.partition)}
        if lane.trouble is not None:
            text += f": {lane.trouble.message} ({lane.trouble.reason})"
            facts["cause"] = lane.trouble.reason
        error = make_error(LocalReason.DELIVERY_TIMEOUT, text, facts, maybe_applied=False)
        self._finish_all(expired, error)

    async def _suspect(self, link: Link) -> None:
        """Asks another node whether the partitions of a silent link are led elsewhere by now."""
        if link in self._suspected:
            return
        self._suspected.add(link)
        self._connections.failed(link.address)
        for topic in {lane.topic for lane in self._lanes_on(link)}:
            await self._metadata.refresh_quietly(topic)
        moved = any(
            self._metadata.leader_address(lane.topic, lane.partition) not in {"", link.address}
            for lane in self._lanes_on(link)
        )
        self._suspected.discard(link)
        if moved:
            link.abandon()

    def _fail(self, failure: BaseException) -> None:
        """Something failed that never should: ends the producer, so that nobody waits for ever."""
        if isinstance(failure, RakitError):
            error = failure
        else:
            error = make_error(LocalReason.CLIENT_FAILED, f"a bug in the client: {failure!r}")
            context = {"message": "the producer ends by a bug in it", "exception": failure}
            self._loop.call_exception_handler(context)
        for lane in self.lanes:
            self._finish_all(lane.disconnected(error), error)
            lane.settle()
        self.end(error)
        for link in self._links.values():
            link.abandon()

    def end(self, error: RakitError) -> None:
        """The producer is at its end: fails everything that it has and everything that comes."""
        self.fatal = error
        for lane in self.lanes:
            self._finish_all(lane.drain(), error)

    def _finish_all(self, batches: list[Batch], error: RakitError) -> None:
        for batch in batches:
            self._finish(batch, error)

    def _finish(self, batch: Batch, error: RakitError) -> None:
        batch.finish(error.as_maybe_applied() if batch.doubt else error)
        self._on_finished(batch)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self._fail(failure)
