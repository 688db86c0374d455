"""One append instead of several that follow each other.

While a lane waits for its peer, a busy group puts one small append after the other into its queue,
and behind them the news of a commit. On the way and at the receiver each costs as much as one that
carries all their entries: encoding, a step of the core, an acknowledgement. So what leaves together
is joined: entries that continue an earlier append of the same group to the same replica move into
that one, and the newest commit index counts.

Nothing changes for Raft. The joined append says what the last of its parts would have said, given
that the earlier ones arrived; its acknowledgement covers them all, and the sender's window of
unacknowledged appends frees everything up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rakit.multiraft.effects import Envelope
from rakit.raft import Entry, Message, MessageType, message_bytes

#: An append of this size costs what it carries, not what it is; joining it would only copy.
_SMALL_BYTES_MAX: Final = 64 << 10


class _Run:
    """An append and what continues it."""

    __slots__ = ("commit", "entries", "head", "parts")

    def __init__(self, head: Envelope) -> None:
        self.head = head
        self.entries: list[Entry] = list(head.message.entries)
        self.commit = head.message.commit
        self.parts = 1

    def is_continued_by(self, message: Message) -> bool:
        """Tells whether a message says what comes right behind this run."""
        head = self.head.message
        last_term = self.entries[-1].term if self.entries else head.log_term
        return (
            message.index == head.index + len(self.entries)
            and message.log_term == last_term
            and message.term == head.term
            and message.context == head.context
        )

    def add(self, message: Message) -> None:
        self.entries += message.entries
        self.commit = max(self.commit, message.commit)
        self.parts += 1

    def envelope(self) -> Envelope:
        if self.parts == 1:
            return self.head
        old = self.head.message
        joined = Message(
            MessageType.APP,
            old.to,
            old.from_,
            old.term,
            old.log_term,
            old.index,
            tuple(self.entries),
            self.commit,
            context=old.context,
        )
        return Envelope(self.head.group_id, self.head.from_replica, self.head.to_replica, joined)


def join_appends(envelopes: Sequence[Envelope]) -> list[Envelope]:
    """Returns the messages with appends joined; the order within a group stays."""
    if len(envelopes) < 2:
        return list(envelopes)
    runs: list[_Run] = []
    newest: dict[tuple[int, int], _Run] = {}
    for each in envelopes:
        message = each.message
        key = (each.group_id, each.to_replica)
        small = (
            message.type is MessageType.APP and message_bytes(message.entries) < _SMALL_BYTES_MAX
        )
        run = newest.get(key)
        if small and run is not None and run.is_continued_by(message):
            run.add(message)
            continue
        run = _Run(each)
        runs.append(run)
        if small:
            newest[key] = run
        else:
            newest.pop(key, None)
    return [run.envelope() for run in runs]
