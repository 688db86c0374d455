"""The window of append messages that are on their way to one peer.

Bounded in messages and in bytes. A message may overshoot the byte limit (an entry larger than the
limit must get through), but none follows it before it is acknowledged.

Invariants:

- Last indexes ascend strictly, so an acknowledgement frees a prefix.
- `bytes` is the sum over the messages in the window.
- An idle window holds no memory beyond an empty list. (An empty deque takes 600 bytes, and a node
  has three windows for each of its replicas; the front of the few that it holds is cheap to cut.)
"""

from __future__ import annotations


class Inflights:
    """The window of one peer: add when sent, free when acknowledged."""

    __slots__ = ("_bytes", "_bytes_max", "_messages", "_messages_max")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        # (last index of the message, its bytes)
        self._messages: list[tuple[int, int]] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def bytes(self) -> int:
        """Bytes in the window."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether another message has to wait."""
        return len(self._messages) >= self._messages_max or self._bytes >= self._bytes_max

    def add(self, last_index: int, size_bytes: int) -> None:
        """Notes a message that carries entries up to `last_index`."""
        assert not self.full, "a message was sent into a full window"
        assert not self._messages or self._messages[-1][0] < last_index, (
            "messages of one window must ascend"
        )
        self._messages.append((last_index, size_bytes))
        self._bytes += size_bytes

    def free_to(self, index: int) -> None:
        """Frees every message whose entries are acknowledged up to `index`."""
        messages = self._messages
        freed = 0
        while freed < len(messages) and messages[freed][0] <= index:
            self._bytes -= messages[freed][1]
            freed += 1
        del messages[:freed]
        assert self._bytes >= 0, "more bytes were freed than sent"
        assert messages or self._bytes == 0, "an empty window holds no bytes"

    def clear(self) -> None:
        """Forgets everything: the peer starts over from its acknowledged index."""
        self._messages.clear()
        self._bytes = 0
