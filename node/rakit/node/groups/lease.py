"""For how long a gateway may serve a member without hearing from its coordinator (S25).

The coordinator may give a member's partitions away some time after the last renewal that it has
confirmed. The gateway stops before that: its lease begins when it *sent* a request that was
confirmed, so however long the answer took, the coordinator counts from later.

Rules:

- A lease is never longer than `LEASE_S`, whatever an answer says: the coordinator's own minimum is
  made for that.
- Only a confirmed request renews; an answer that comes late renews what it would have renewed.
- The clock is the event loop's. A process that was not scheduled for a while finds its leases over.
"""

from __future__ import annotations

from typing import Final

#: The coordinator gives no partition away before 6 s after the renewal (0013).
LEASE_S: Final = 4.0


class Lease:
    """Until when one member may be served."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        #: On the loop's clock.
        self.until = float("-inf")

    def confirmed(self, sent_at: float, lease_ms: int | None = None) -> None:
        """A request that was sent then was confirmed by a majority of the coordinator's group."""
        length_s = LEASE_S if lease_ms is None else min(LEASE_S, lease_ms / 1000)
        self.until = max(self.until, sent_at + length_s)

    def holds(self, now: float) -> bool:
        """Whether the member may be served at this moment."""
        return now < self.until
