"""What waits for a lane, and when it may leave: the pure half of a link.

A gRPC operation costs a tenth of a millisecond on either side, whatever it carries. So a lane keeps
one small request in flight and lets the rest gather until the peer says that it has worked that one
off; only bulk is worth several at once. This module decides, `link` acts.

Rules:

- A queue is bounded by bytes and by count. What does not fit is refused, never something older
  thrown out to make room for it: the caller knows what a refusal means for its group (S17).
- A request carries a bounded number of messages: they are read and stepped in one go, during which
  the peer answers no ping. Thousands of groups may have something to say at one moment.
- A message larger than a request leaves alone, so everything that was accepted leaves some time.
- News of a commit, an append without entries, is worth no request of its own: it waits for company
  for a moment, and newer news of the same replica takes its place.
- A window closes only while the peer owes an answer, and the peer answers every request even if
  it threw away all that was in it, so a lane cannot lock itself.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from rakit.multiraft.codec import message_bytes
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.effects import Envelope
from rakit.multiraft.join import join_appends
from rakit.multiraft.machine import node_of

#: Messages in one request or response: a few tens of milliseconds of the receiver.
REQUEST_COUNT_MAX: Final = 512


class LinkProtocolError(Exception):
    """The peer broke the rules of the stream."""


def check_senders(node_id: int, envelopes: list[Envelope]) -> None:
    """Raises `LinkProtocolError` when a node speaks for replicas of another one."""
    for each in envelopes:
        if node_of(each.from_replica) != node_id:
            raise LinkProtocolError(f"node {node_id} speaks for replica {each.from_replica}")


class Gather:
    """A bounded queue of messages, in order."""

    __slots__ = ("_bytes_max", "_count_max", "_items", "_news", "refused_count", "size_bytes")

    def __init__(self, bytes_max: int, count_max: int) -> None:
        self._items: deque[tuple[int, Envelope]] = deque()
        #: By group and receiver, each newer than all of `_items` for the same receiver. So news
        #: leave when nothing else is left: before its entries, a commit would be rejected.
        self._news: dict[tuple[int, int], Envelope] = {}
        self._bytes_max = bytes_max
        self._count_max = count_max
        #: Of what waits.
        self.size_bytes = 0
        #: Messages that found the queue full.
        self.refused_count = 0

    def __len__(self) -> int:
        return len(self._items)

    def holds(self, bytes_min: int, count_min: int) -> bool:
        """Tells whether so much waits, by either measure."""
        return self.size_bytes >= bytes_min or len(self._items) >= count_min

    @property
    def has_news(self) -> bool:
        """Whether something waits for company."""
        return bool(self._news)

    def offer_news(self, envelope: Envelope) -> bool:
        """Takes an append without entries, which may wait for company."""
        key = (envelope.group_id, envelope.to_replica)
        if key not in self._news and len(self._news) >= self._count_max:
            self.refused_count += 1
            return False
        self._news[key] = envelope
        return True

    def offer(self, envelope: Envelope) -> bool:
        """Takes a message unless the queue is full; an empty queue takes any message."""
        size = message_bytes(envelope.message)
        over = self.size_bytes + size > self._bytes_max or len(self._items) >= self._count_max
        if over and self._items:
            self.refused_count += 1
            return False
        if self._news:
            # Its commit index is at least that of the news.
            self._news.pop((envelope.group_id, envelope.to_replica), None)
        self._items.append((size, envelope))
        self.size_bytes += size
        return True

    def take(self, bytes_max: int) -> list[Envelope]:
        """Returns the oldest messages, at most `bytes_max` and so many but at least one, then news.

        Appends that follow each other are joined.
        """
        items, taken, size = self._items, list[Envelope](), 0
        while (
            items
            and len(taken) < REQUEST_COUNT_MAX
            and (not taken or size + items[0][0] <= bytes_max)
        ):
            one, envelope = items.popleft()
            size += one
            taken.append(envelope)
        if not items and self._news:
            for key in tuple(islice(self._news, REQUEST_COUNT_MAX - len(taken))):
                taken.append(self._news.pop(key))
        self.size_bytes -= size
        assert self.size_bytes >= 0, "a queue cannot hold less than nothing"
        return join_appends(taken)

    def clear(self) -> None:
        """Forgets what waits; the receiver of all of it is gone."""
        self._items.clear()
        self._news.clear()
        self.size_bytes = 0


class Window:
    """Numbers the requests of one stream and knows how many the peer has not worked off.

    Invariant: processed <= sent.
    """

    __slots__ = ("_bulk_bytes_min", "_bulk_count_max", "processed", "sent")

    def __init__(self, config: LinkConfig) -> None:
        self._bulk_bytes_min = config.bulk_bytes_min
        self._bulk_count_max = config.bulk_in_flight_count_max
        #: Number of the newest request.
        self.sent = 0
        #: Number up to which the peer has worked requests off.
        self.processed = 0

    def is_open(self, waiting_bytes: int) -> bool:
        """Tells whether a request may leave when this much waits."""
        in_flight = self.sent - self.processed
        if in_flight == 0:
            return True
        return waiting_bytes >= self._bulk_bytes_min and in_flight < self._bulk_count_max

    def next_number(self) -> int:
        """Counts one more request and returns its number."""
        self.sent += 1
        return self.sent

    def worked_off(self, number: int) -> None:
        """Notes how far the peer is; raises `LinkProtocolError` when that cannot be."""
        if not self.processed <= number <= self.sent:
            raise LinkProtocolError(
                f"the peer has worked off {number}; {self.processed} to {self.sent} is possible"
            )
        self.processed = number


class Arrears:
    """The receiving end of a window: which requests are worked off, in their order.

    A request that wrote something counts when its write is durable; one that wrote nothing counts
    at once, unless an earlier one still waits.
    """

    __slots__ = ("_waiting", "processed")

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int]] = deque()
        #: Every request up to this number is worked off.
        self.processed = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def stepped(self, number: int, write: int) -> bool:
        """Notes that a request was stepped; `write` names the write that it waits for, 0 for none.

        Returns whether `processed` grew.
        """
        newest = self._waiting[-1][0] if self._waiting else self.processed
        assert number > newest, f"request {number} was stepped after {newest}"
        if self._waiting:
            self._waiting.append((number, max(write, self._waiting[-1][1])))
            return False
        if write:
            self._waiting.append((number, write))
            return False
        self.processed = number
        return True

    def synced(self, write: int) -> bool:
        """Notes that every write up to this one is durable; returns whether `processed` grew."""
        before = self.processed
        while self._waiting and self._waiting[0][1] <= write:
            self.processed = self._waiting.popleft()[0]
        return self.processed > before
