"""What the parts of one stream share: the member, its partitions, its credit, its way out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rakit.node.groups.credit import Credit
from rakit.node.groups.gateway import GroupSession
from rakit.node.groups.holdings import Held, Holdings
from rakit.node.groups.outbox import Outbox


@dataclass(slots=True)
class Processing:
    """Since when the member has records that it has done nothing about.

    A commit, a grant, a seek or letting go is a sign of life; after it the time begins anew, where
    something is left to be done.
    """

    since: float | None = None

    def sent(self, now: float) -> None:
        """The member gets records."""
        if self.since is None:
            self.since = now

    def sign(self, now: float, *, is_done: bool) -> None:
        """The member has shown that it is at work."""
        if self.since is not None:
            self.since = None if is_done else now

    def elapsed_ms(self, now: float) -> int:
        """For how long by now."""
        return 0 if self.since is None else int((now - self.since) * 1000)


@dataclass(slots=True)
class Membership:
    """One member on one stream."""

    session: GroupSession
    holdings: Holdings
    credit: Credit
    outbox: Outbox
    processing: Processing = field(default_factory=Processing)

    def may_be_served(self) -> bool:
        """Whether the lease holds at this moment (S25)."""
        session = self.session
        return session.ended is None and session.lease.holds(asyncio.get_running_loop().time())

    def sign(self) -> None:
        """The member has shown that it is at work."""
        held = self.holdings.all()
        is_done = self.credit.is_untouched or all(one.committed_to >= one.sent_to for one in held)
        self.processing.sign(asyncio.get_running_loop().time(), is_done=is_done)

    def forget(self, held: Held) -> None:
        """What the client was sent of a partition is nothing to wait for any more."""
        self.credit.forget(held.key)
        held.committed_to = held.sent_to
        self.sign()
