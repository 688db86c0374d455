"""One ProduceStream to one node: writes batches in order, hands answers back, and ends once.

The link knows which batch belongs to which tag and which lanes the node has stopped taking after a
failure; everything about order and retries is the lanes' and the engine's business.

Rules:

- After a failed request the node refuses the partition's later requests until it is told to restart
  (contract 10). So a lane that failed on this link is restarted in front of its next batch.
- A link ends exactly once, whatever ends it: the node, the network, us, or an exception that nobody
  expected. `on_end` then hears why, and every lane with something in flight here is told by the
  engine. Nothing may end a link in silence: its batches would wait for ever.
- What waits to be written is bounded by what lanes allow in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import grpc.aio

from rakit.api.v1.log_service_pb2 import ProduceStreamRequest, ProduceStreamResponse
from rakit.client.connections import Stubs, is_cancelled
from rakit.client.errors import LocalReason, RakitError, from_rpc_error, make_error
from rakit.client.producing.batch import Batch
from rakit.client.producing.encoding import encode_request
from rakit.client.producing.lane import Lane

#: Answers to restart messages carry this tag; no batch does.
_RESTART_TAG: Final = 0


class Link:
    """A produce stream to the node at one address."""

    def __init__(
        self,
        stubs: Stubs,
        on_answer: Callable[[Link, Lane, Batch, ProduceStreamResponse], None],
        on_end: Callable[[Link, RakitError], None],
    ) -> None:
        self.address = stubs.address
        # When the oldest unanswered batch was handed in, or the last answer came; loop's clock.
        self.waiting_since_s = 0.0
        self._on_answer = on_answer
        self._on_end = on_end
        self._call = stubs.produce_stream()
        # Each serialised, in pieces.
        self._outgoing: deque[Sequence[bytes]] = deque()
        self._wake = asyncio.Event()
        self._pending: dict[int, tuple[Lane, Batch]] = {}
        self._next_tag = _RESTART_TAG + 1
        # Why the call was cancelled, if we did it.
        self._why = "the stream was closed"
        # Lanes that the node refuses until they are restarted.
        self._broken: set[Lane] = set()
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())

    @property
    def is_idle(self) -> bool:
        """Nothing is unanswered."""
        return not self._pending

    def send(self, lane: Lane, batch: Batch, now_s: float) -> None:
        """Queues a batch for writing."""
        if not self._pending:
            self.waiting_since_s = now_s
        if lane in self._broken:
            self._broken.discard(lane)
            restart = ProduceStreamRequest(tag=_RESTART_TAG)
            restart.restart.topic = lane.topic
            restart.restart.partition = lane.partition
            self._outgoing.append([restart.SerializeToString()])
        self._pending[self._next_tag] = (lane, batch)
        self._outgoing.append(encode_request(self._next_tag, batch.request, batch.columns))
        self._next_tag += 1
        self._wake.set()

    def abandon(self) -> None:
        """Gives the stream up; `on_end` follows."""
        self._why = "it does not answer, and was given up"
        self._call.cancel()

    async def close(self) -> None:
        """Ends the stream without telling anybody."""
        self._reader.cancel()
        self._writer.cancel()
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)
        self._call.cancel()

    async def _write(self) -> None:
        try:
            while True:
                while self._outgoing:
                    await self._call.write(self._outgoing.popleft())
                self._wake.clear()
                await self._wake.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call is over. The reader hears why from the same call.
            self._call.cancel()
        except Exception as failure:
            self._why = f"writing failed: {failure!r}"
            self._call.cancel()

    async def _read(self) -> None:
        error = await self._read_to_end()
        self._writer.cancel()
        self._on_end(self, error)

    async def _read_to_end(self) -> RakitError:
        """Takes answers until the stream is over; returns why it is."""
        try:
            while True:
                answer = await self._call.read()
                if not isinstance(answer, ProduceStreamResponse):
                    return make_error(LocalReason.UNREACHABLE, f"{self.address} ended the stream")
                self._take(answer)
        except grpc.aio.AioRpcError as failure:
            return from_rpc_error(failure, self.address)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return make_error(LocalReason.UNREACHABLE, f"{self.address}: {self._why}")
        except Exception as failure:
            # An answer that cannot be, such as one out of order. Nothing on this stream can be
            # believed any more; what is in flight is in doubt and goes elsewhere.
            self._call.cancel()
            return make_error(LocalReason.PROTOCOL_VIOLATION, f"{self.address}: {failure!r}")

    def _take(self, answer: ProduceStreamResponse) -> None:
        if answer.tag == _RESTART_TAG:
            return
        assert answer.tag in self._pending, f"an answer with the tag {answer.tag} that nobody gave"
        lane, batch = self._pending.pop(answer.tag)
        self.waiting_since_s = asyncio.get_running_loop().time()
        if answer.HasField("error"):
            self._broken.add(lane)
        self._on_answer(self, lane, batch, answer)
