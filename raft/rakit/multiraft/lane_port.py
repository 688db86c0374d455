"""The port at which a peer takes its data lane as frames, as the link to that peer knows it.

The answer to a hello on gRPC names the port. This module opens streams there, says hello on them,
and remembers what came of it.

Rules:

- A port of which nothing bad is known is tried before the lane counts as up, so that the lane does
  not change its stream under way. That may take seconds where the port is shut off; so one that was
  of no use is tried beside the lane from then on, which stays on gRPC meanwhile, until frames have
  lasted. What broke soon after its hellos again and again, or never brought an answer, was of no
  use either: what is between two nodes may let hellos through and nothing else.
- Attempts beside the lane are twice as far apart each time. The first comes soon, since a name may
  have stood for a pod that is gone. Where answers failed to come they are rare, for each holds up
  what is replicated until that is noticed.
- A stream that was greeted beside the lane is the one that the lane goes over to.
- Whoever answers must be the same start of the peer as on gRPC. Nobody else is listened to.
- A port is not to blame for a peer that was found to be silent meanwhile, or has started anew.

Left out: the stream itself (`framed`), and what goes over it (`link`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from rakit.multiraft import codec
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.framed import FramedStream, dial
from rakit.peer.v1 import raft_service_pb2 as wire

#: A stream as frames that broke earlier did so because of what is between the nodes, perhaps.
LASTING_S: Final = 5.0
#: So often in a row with one start of the peer, and its port is of no use.
BREAKS_COUNT_MAX: Final = 3
#: How much rarer a port is tried where nothing was answered.
UNANSWERED_RETRY_FACTOR: Final = 10

_log = logging.getLogger(__name__)


class LinkEndedError(Exception):
    """The stream is over: the peer ended it, refused it, or did not answer in time."""


class SilentPeerError(LinkEndedError):
    """Nothing came back in time, not even a refusal."""


class UnansweredError(LinkEndedError):
    """Nothing that was sent on a stream was ever answered, for long."""


class OvertakenError(LinkEndedError):
    """What happened meanwhile makes the attempt pointless; the next one may succeed at once."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """A stream as frames on which both sides have said hello."""

    stream: FramedStream
    hello: wire.Hello

    async def go_over(self) -> None:
        """Tells the peer that the lane goes on here; raises `LinkEndedError` if it is over."""
        if self.stream.ended:
            raise LinkEndedError("what was opened for frames broke")
        self.stream.trust()
        await self.stream.write(b"")


class Greet(Protocol):
    """Says hello on a stream to the start of a peer that said hello elsewhere.

    Raises `LinkEndedError` or `MalformedMessageError`.
    """

    def __call__(
        self, call: FramedStream, timeout_ms: int, there: wire.Hello
    ) -> Awaitable[wire.Hello]:
        """Returns the peer's hello."""
        ...


class LanePort:
    """What one link knows of its peer's port for frames."""

    def __init__(self, node_id: int, address: str, config: LinkConfig, greet: Greet) -> None:
        self._node_id = node_id
        self._address = address
        self._config = config
        self._greet = greet
        self._port, self._boot_epoch = 0, 0
        self._forget()

    def _forget(self) -> None:
        self._was_overtaken = False
        self._was_of_no_use = False
        self._breaks_count = 0
        self._retry_ms = self._config.lane_retry_ms_min

    async def open(self, hello: wire.Hello, *, is_over: Callable[[], bool]) -> Greeted | None:
        """Opens the lane as frames before it is up, and goes over; None: it stays on gRPC.

        Raises `OvertakenError` if the lane is over meanwhile.
        """
        if hello.lane_port != self._port:
            self._port = hello.lane_port
            self._forget()
        if hello.boot_epoch != self._boot_epoch:
            self._boot_epoch = hello.boot_epoch
            self._breaks_count = 0
        if not self._port or self._was_of_no_use:
            return None
        try:
            greeted = await self._dial(hello)
            await greeted.go_over()
        except (OSError, LinkEndedError, codec.MalformedMessageError) as error:
            if isinstance(error, OvertakenError) and not self._was_overtaken:
                self._was_overtaken = True
                raise
            self._was_overtaken = False
            if is_over():
                raise OvertakenError("the control lane ended") from error
            self._is_of_no_use(str(error) or "no connection in time")
            return None
        self._was_overtaken = False
        return greeted

    async def open_beside(self, hello: wire.Hello) -> Greeted:
        """Opens the lane as frames beside the one on gRPC, however long it takes."""
        while True:
            await asyncio.sleep(self._retry_ms / 1000)
            longer_ms = min(2 * self._retry_ms, self._config.lane_retry_ms_max)
            self._retry_ms = max(self._retry_ms, longer_ms)
            with suppress(OSError, LinkEndedError, codec.MalformedMessageError):
                return await self._dial(hello)

    def ended(self, lasted_s: float, *, was_answered: bool, by_us: bool) -> None:
        """Notes what became of a lane that was up as frames.

        Not answered: it was given up for that. By us: this node ended it for another reason.
        """
        if not was_answered:
            self._is_of_no_use("nothing that was sent there was answered")
            self._retry_ms = UNANSWERED_RETRY_FACTOR * self._config.lane_retry_ms_max
        elif lasted_s >= LASTING_S:
            self._forget()
        elif not by_us:
            self._breaks_count += 1
            if self._breaks_count == BREAKS_COUNT_MAX:
                self._is_of_no_use("what was opened there broke soon")

    async def _dial(self, hello: wire.Hello) -> Greeted:
        """Opens a stream and says hello; raises `OSError` and what greeting does."""
        timeout_ms = self._config.lane_timeout_ms
        stream = await dial(self._address, hello.lane_port, timeout_ms / 1000)
        try:
            return Greeted(stream, await self._greet(stream, timeout_ms, hello))
        except BaseException:
            stream.cancel()
            raise

    def _is_of_no_use(self, reason: str) -> None:
        self._was_of_no_use = True
        _log.warning(
            "port %d of node %d is not reached (%s): what is replicated goes over gRPC, which costs"
            " more; see --lane-listen",
            self._port,
            self._node_id,
            reason,
        )


def check_is_same_start(here: wire.Hello, there: wire.Hello) -> None:
    """Raises `LinkEndedError` unless two hellos are of one start of a node."""
    if here.store_uuid != there.store_uuid:
        raise LinkEndedError(f"another store than that of node {there.from_node_id} answers there")
    if here.boot_epoch > there.boot_epoch:
        raise OvertakenError(f"node {there.from_node_id} started anew")
    if here.boot_epoch < there.boot_epoch:
        raise LinkEndedError(f"an older start of node {there.from_node_id} answers there")
