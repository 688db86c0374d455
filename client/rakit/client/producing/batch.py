"""A batch from its first record to its acknowledgement, and the handle that a sender gets.

A batch is open while records are added, then sealed: its columns are built once. It gets a sequence
that it keeps over all attempts, and it travels. It ends with a receipt or an error, once.

The path that adds a record runs a few hundred thousand times a second, so it appends to plain lists
and makes one small `Delivery`; futures exist only for deliveries that somebody waits for. What few
records have (headers, times) is kept sparsely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, Self

from rakit.api.v1.log_service_pb2 import ProduceRequest
from rakit.client import codecs
from rakit.client.codecs import CodecName
from rakit.client.errors import RakitError
from rakit.client.model import Receipt
from rakit.client.producing.encoding import encode_columns
from rakit.client.producing.intake import Columns
from rakit.client.records import HeaderPairs

#: The index of a delivery that stands for a batch as a whole.
_WHOLE: Final = -1


class Batch:
    """Records of one partition that are stored together or not at all."""

    __slots__ = (
        "_waiters",
        "attempts",
        "callbacks",
        "codec",
        "columns",
        "created_s",
        "doubt",
        "headers",
        "heard",
        "is_due",
        "keys",
        "outcome",
        "record_count",
        "request",
        "sequence",
        "size_bytes",
        "timestamps_ms",
        "values",
    )

    def __init__(self, created_s: float, codec: CodecName | None) -> None:
        self.values: list[bytes | None] = []
        self.keys: list[bytes | None] = []
        self.headers: dict[int, HeaderPairs] = {}
        self.timestamps_ms: dict[int, int] = {}
        self.codec: CodecName | None = codec
        self.size_bytes = 0
        # Set when it is sealed; while it is open the length of `values` counts.
        self.record_count = 0
        # When its first record came, on the loop's clock.
        self.created_s = created_s
        # It has lingered for long enough.
        self.is_due = False
        # 0 until it has its place behind other batches.
        self.sequence = 0
        # All of the request but plain columns, which are here beside it: serialised, in pieces.
        self.request = ProduceRequest()
        self.columns: list[bytes] = []
        self.attempts = 0
        # An attempt ended without anybody knowing whether it took effect.
        self.doubt = False
        self.outcome: Receipt | RakitError | None = None
        # Deliveries that somebody waits for, or whose end somebody has seen, by their index.
        self.heard: set[int] = set()
        self.callbacks: list[tuple[Callable[[Delivery], None], Delivery]] = []
        self._waiters: list[asyncio.Future[None]] = []

    @classmethod
    def of(cls, columns: Columns, created_s: float, codec: CodecName | None) -> Self:
        """Returns a sealed batch; raises what is wrong with an element."""
        batch = cls(created_s, codec)
        batch.size_bytes = columns.size_bytes
        batch._build(columns.values, columns.keys, columns.headers, columns.times_ms)
        return batch

    def seal(self) -> None:
        """Builds what travels and lets go of the records."""
        places = range(len(self.values))
        headers = [self.headers.get(at, ()) for at in places] if self.headers else ()
        times = [self.timestamps_ms.get(at, 0) for at in places] if self.timestamps_ms else ()
        self._build(self.values, self.keys, headers, times)
        self.values, self.keys, self.headers, self.timestamps_ms = [], [], {}, {}

    def _build(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        headers: Sequence[HeaderPairs],
        timestamps_ms: Sequence[int],
    ) -> None:
        assert not self.record_count, "a batch is sealed once"
        self.record_count = len(values)
        columns = encode_columns(values, keys, headers, timestamps_ms, self.size_bytes)
        if self.codec is None:
            self.columns = columns
            return
        packed = codecs.compress(self.codec, b"".join(columns), self.record_count)
        self.request.compressed.CopyFrom(packed)

    def place(self, sequence: int, topic: str, partition: int) -> None:
        """Gives the sealed batch its place behind those before it."""
        assert not self.sequence, "a batch is numbered once"
        self.sequence = sequence
        self.request.topic = topic
        self.request.partition = partition

    @property
    def is_heard(self) -> bool:
        """Somebody hears, or has heard, of every record in it."""
        return _WHOLE in self.heard or len(self.heard) >= self.record_count

    def finish(self, outcome: Receipt | RakitError) -> None:
        """Ends the batch and wakes whoever waits."""
        assert self.outcome is None, "a batch ends once"
        self.outcome = outcome
        self.request, self.columns = ProduceRequest(), []
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        callbacks, self.callbacks = self.callbacks, []
        if callbacks:
            # Together: an entry in the loop's queue for each of hundreds costs as much again.
            asyncio.get_running_loop().call_soon(_call_back, iter(callbacks))

    def wait(self) -> asyncio.Future[None]:
        """Returns a future of one waiter's own, so that its cancellation disturbs nobody else."""
        waiter = asyncio.get_running_loop().create_future()
        if self.outcome is None:
            self._waiters.append(waiter)
        else:
            waiter.set_result(None)
        return waiter


def _call_back(callbacks: Iterator[tuple[Callable[[Delivery], None], Delivery]]) -> None:
    """Calls all; one that raises is reported and disturbs nobody, as if each had its own turn."""
    loop = asyncio.get_running_loop()
    for callback, delivery in callbacks:
        try:
            try:
                callback(delivery)
            except Exception as failure:
                message = f"a callback of a delivery failed: {callback!r}"
                loop.call_exception_handler({"message": message, "exception": failure})
        except BaseException:
            # The program ends by it. Who comes after has a turn for as long as the loop runs.
            loop.call_soon(_call_back, callbacks)
            raise


class Delivery:
    """What becomes of a record, or of a batch: await it for the `Receipt`, or for its error.

    Awaiting is optional; `Producer.flush()` reports failures of deliveries that nobody awaited. It
    may be awaited more than once; waiting that was cancelled does not count.
    """

    __slots__ = ("batch", "index")

    batch: Batch
    # Of the record, or `_WHOLE`.
    index: int

    @classmethod
    def of(cls, batch: Batch, index: int = _WHOLE) -> Self:
        """Returns the delivery of a record or, without an index, of the batch.

        `send()` makes one for each record, and does this in line: any call doubles what it costs.
        """
        self = cls()
        self.batch, self.index = batch, index
        return self

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.batch.outcome is not None

    def add_done_callback(self, callback: Callable[[Delivery], None]) -> None:
        """Calls `callback` with this delivery when it has ended; at once when it has already."""
        self.batch.heard.add(self.index)
        if self.batch.outcome is None:
            self.batch.callbacks.append((callback, self))
        else:
            callback(self)

    def result(self) -> Receipt:
        """Returns the receipt or raises the error. It must be done."""
        outcome = self.batch.outcome
        assert outcome is not None, "the delivery is still under way: await it"
        if isinstance(outcome, RakitError):
            self.batch.heard.add(self.index)
            # A new one each time: an exception that is raised twice gathers both tracebacks.
            raise outcome.again()
        return outcome if self.index == _WHOLE else outcome.of_record(self.index)

    def __await__(self) -> Generator[object, None, Receipt]:
        if self.batch.outcome is None:
            self.batch.heard.add(self.index)
            try:
                yield from self.batch.wait()
            except BaseException:
                self.batch.heard.discard(self.index)
                raise
        return self.result()
