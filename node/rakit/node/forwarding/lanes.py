"""What stays in order: the requests of one produce stream for one partition.

A lane sends requests to the partition's leader one after another without waiting for answers, and
hands the answers back in the order of the requests. It is driven by `submit`, `refuse` and
`restart`, and by the futures of what it sent; it has a task only while requests must wait.

Rules (contract 10):

- Nothing passes a failure. After one request failed the later ones fail with
  EARLIER_REQUEST_FAILED, until the client restarts the partition. At a leader on another node the
  same rule is kept by the receiver, for what was under way there when the failure happened. What
  follows a request that is known to fail, but not yet why (`DoomedAnswer`), waits for that.
- What is sent while nothing is in flight begins an order at the receiver (`restart`). Everything
  else follows something that the receiver must know; where it does not, because the stream to it is
  a new one, what came before has failed, and it refuses.
- A restart begins a new era. What was sent before it and fails after it breaks the old era only:
  the client has been told of the failure that it restarted for, and of nothing since.
- The leader is changed only while nothing is in flight: what is sent to a new one could otherwise
  be stored before what still travels to the old one.
- What came back with nothing applied because the leader has moved is sent again, in order, until
  its time is up; the client does not see it.
- A lane that waits for a leader holds no other lane up. What waits is bounded (`Parking`): beyond
  it requests are refused at once instead of filling the stream for everybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.multiraft.leaders import LeaderInfo
from rakit.node.errors import RakitError
from rakit.node.forwarding.receiver import earlier_failed
from rakit.node.metadata.registry import PartitionInfo
from rakit.node.partition.answers import Appended, DoomedAnswer
from rakit.node.partition.batches import Batch
from rakit.node.partition.producers import Stamp
from rakit.node.produce import Dispatch
from rakit.node.routing import Router, is_reroutable, no_leader, not_misled

#: Of one stream, waiting for a leader: half of what the stream may have unanswered.
PARKED_BYTES_MAX: Final = 16 << 20
PARKED_COUNT_MAX: Final = 1024


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way through a lane."""

    tag: int
    size_bytes: int
    # Until when it may wait for a leader, on the loop's clock.
    give_up: float
    batch: Batch | None = None
    stamp: Stamp | None = None
    expected_offset: int | None = None
    # The caller's listener, where forwarding is not wanted.
    leader_only_listener: str | None = None
    # What became of it; None while that is open. A restart ends with True.
    outcome: Appended | RakitError | bool | None = None
    parked: bool = False
    # Which restart of the lane it came after.
    era: int = 0


class Parking:
    """Bounds what waits for a leader on one stream, over all of its lanes."""

    def __init__(
        self, bytes_max: int = PARKED_BYTES_MAX, count_max: int = PARKED_COUNT_MAX
    ) -> None:
        self._bytes_max = bytes_max
        self._count_max = count_max
        self.size_bytes = 0
        self.count = 0

    def enter(self, request: Request) -> bool:
        """Parks a request; False when there is no room."""
        over = self.size_bytes + request.size_bytes > self._bytes_max
        if self.count >= self._count_max or (over and self.count):
            return False
        request.parked = True
        self.size_bytes += request.size_bytes
        self.count += 1
        return True

    def leave(self, request: Request) -> None:
        """Lets a request go on; one that is not parked is no matter."""
        if request.parked:
            request.parked = False
            self.size_bytes -= request.size_bytes
            self.count -= 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the lanes of one stream share."""

    router: Router
    dispatch: Dispatch
    parking: Parking
    # Takes a request with its outcome, in the order of the lane.
    respond: Callable[[Lane, Request], None]
    # Runs a task that ends with the stream.
    spawn: Callable[[Coroutine[None, None, None]], object]


class Lane:
    """The order of one partition's requests on one stream."""

    def __init__(
        self, topic: str, partition: int, surroundings: Surroundings, *, is_broken: bool = False
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._router = surroundings.router
        self._dispatch = surroundings.dispatch
        self._parking = surroundings.parking
        self._respond = surroundings.respond
        self._spawn = surroundings.spawn
        self._number = self._dispatch.new_lane()
        # Every request without an answer, oldest first; answers leave from its head.
        self._order: deque[Request] = deque()
        # Waiting to be sent, oldest first.
        self._queue: deque[Request] = deque()
        # Came back with nothing applied, oldest first; older than all of the queue.
        self._returned: list[Request] = []
        self._in_flight_count = 0
        # The last of them is going to fail.
        self._is_doomed = False
        self._idle = asyncio.Event()
        self._target = 0
        self._visited: set[int] = set()
        self._place: PartitionInfo | None = None
        self._era = 0
        self._broken = is_broken
        # The next batch begins an order at the receiver although something is in flight: that is
        # of an earlier era.
        self._restart = False
        self._is_waiting = False
        self._is_closed = False

    def submit(self, request: Request) -> None:
        """Takes a request: sends it at once where that is possible."""
        request.era = self._era
        self._order.append(request)
        if self._broken:
            self._finish(request, earlier_failed())
        elif self._returned or self._queue or not self._sent_at_once(request):
            self._park(request)

    def refuse(self, request: Request, error: RakitError) -> None:
        """Takes a request that is bad in itself, which is a failure like any other."""
        self._order.append(request)
        error = earlier_failed() if self._broken else error
        self._broken = True
        self._finish(request, error)

    def restart(self, request: Request) -> None:
        """Lets the lane go on after a failure."""
        self._order.append(request)
        self._era += 1
        self._restart = True
        self._broken = False
        self._finish(request, outcome=True)

    def close(self) -> None:
        """The stream has ended: nobody waits for the answers any more."""
        self._is_closed = True
        self._dispatch.end_lane(self._number, self._visited)

    def _sent_at_once(self, request: Request) -> bool:
        topic = self._router.known_topic(self.topic)
        if topic is None or self.partition >= len(topic.partitions):
            return False
        place = topic.partitions[self.partition]
        leader = self._router.known_leader(place.group_id)
        if leader is None or not self._may_send_to(leader):
            return False
        self._place = place
        self._send(request, leader)
        return True

    def _may_send_to(self, leader: LeaderInfo) -> bool:
        if not self._in_flight_count:
            return True
        return leader.node_id == self._target and not self._is_doomed

    def _send(self, request: Request, leader: LeaderInfo) -> None:
        assert self._place is not None, "a place is looked up before anything is sent there"
        assert request.batch is not None, "a request without a batch is never sent"
        self._target = leader.node_id
        self._parking.leave(request)
        try:
            if request.leader_only_listener is not None and leader.node_id != self._router.node_id:
                raise self._router.not_leader(
                    self.topic, self.partition, leader, request.leader_only_listener
                )
            answer = self._dispatch.send(
                leader.node_id,
                self._place.group_id,
                request.batch,
                request.stamp,
                request.expected_offset,
                lane=self._number,
                restart=self._restart or not self._in_flight_count,
            )
        except RakitError as error:
            self._failed(request, error)
            return
        if leader.node_id != self._router.node_id:
            self._visited.add(leader.node_id)
        self._restart = False
        self._is_doomed = isinstance(answer, DoomedAnswer)
        self._in_flight_count += 1
        self._idle.clear()
        answer.add_done_callback(partial(self._answered, request))

    def _answered(self, request: Request, answer: asyncio.Future[Appended]) -> None:
        self._in_flight_count -= 1
        if not self._in_flight_count:
            self._idle.set()
        error = answer.exception()
        if error is None:
            self._finish(request, answer.result())
        else:
            assert isinstance(error, RakitError), f"a batch ended with {error!r}"
            self._failed(request, error)

    def _failed(self, request: Request, error: RakitError) -> None:
        now = asyncio.get_running_loop().time()
        moved = is_reroutable(error) and request.leader_only_listener is None
        behind = error.reason == error_pb2.ERROR_REASON_EARLIER_REQUEST_FAILED
        again = (moved and now < request.give_up) or (behind and bool(self._returned))
        if again and not self._broken and not self._is_closed:
            self._returned.append(request)
            self._wait()
            return
        if request.leader_only_listener is None:
            error = not_misled(error, self.topic, self.partition)
        self._finish(request, error)
        self._break(request.era)

    def _break(self, era: int) -> None:
        """Refuses everything up to this era that was taken and is not under way."""
        if era == self._era:
            self._broken = True
        while self._returned and self._returned[0].era <= era:
            self._finish(self._returned.pop(0), no_leader(self.topic, self.partition))
        while self._queue and self._queue[0].era <= era:
            self._finish(self._queue.popleft(), earlier_failed())

    def _park(self, request: Request) -> None:
        if not self._parking.enter(request):
            self._finish(request, no_leader(self.topic, self.partition))
            self._broken = True
            return
        self._queue.append(request)
        self._wait()

    def _wait(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._spawn(self._forward_waiting())

    async def _forward_waiting(self) -> None:
        """Sends what waits, in order, each time that there is a leader to send it to."""
        try:
            while self._queue or self._returned:
                if self._in_flight_count:
                    self._idle.clear()
                    await self._idle.wait()
                    continue
                if self._returned:
                    self._queue.extendleft(reversed(self._returned))
                    self._returned.clear()
                    await self._look_again()
                await self._send_waiting()
        finally:
            self._is_waiting = False

    async def _look_again(self) -> None:
        assert self._place is not None, "only what was sent comes back"
        stale = self._router.known_leader(self._place.group_id)
        if stale is not None:
            await self._router.look_again(self._place.group_id, stale, self._queue[0].give_up)

    async def _send_waiting(self) -> None:
        head = self._queue[0]
        try:
            _, self._place = await self._router.partition(self.topic, self.partition, head.give_up)
            leader = await self._router.leader(self.topic, self._place, head.give_up)
        except RakitError as error:
            if self._queue and self._queue[0] is head:
                self._finish(self._queue.popleft(), error)
            self._break(head.era)
            return
        while self._queue and not self._returned and self._may_send_to(leader):
            self._send(self._queue.popleft(), leader)

    def _finish(self, request: Request, outcome: Appended | RakitError | bool) -> None:
        self._parking.leave(request)
        request.outcome = outcome
        while self._order and self._order[0].outcome is not None:
            self._respond(self, self._order.popleft())
