"""Whether each peer node is there, decided from round trips between pairs of nodes (S15, S16).

One node's groups lean on this instead of on heartbeats of their own when they are quiet. It is a
matter of liveness only: no vote, no acknowledgement and no read rests on it.

The rules, as a pure function of what happened and when:

- A peer is up once a ping that this node sent came back with the boot epoch of the peer's hello.
- A connection that is refused means that no process listens there: down at once. (A process that
  dies resets its connections, the link calls again at once, and the kernel refuses.)
- Silence for `silence_ms` is down as well: the cable was cut, nothing was reset.
- A new boot epoch is down and then up, however short the absence: what the old process had in
  memory is gone, and groups must look again.
- Time in which this node did not run itself counts for nobody: after a pause every peer is given
  it back, or a stopped process would believe that the others had stopped.

A pong also tells the peer's clock; half the round trip is taken off. The own clock is judged
against the median of all known clocks, its own included (S3), so that among three one bad clock
accuses only itself. Of two clocks nobody can tell which is wrong; a large difference accuses both,
since what hangs on it is the deletion of data.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from enum import Enum

from rakit.multiraft.config import LivenessConfig


class Change(Enum):
    """What became of a peer."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A peer that came or went, with the reason for the log."""

    node_id: int
    change: Change
    reason: str


@dataclass(slots=True)
class _Peer:
    up: bool = False
    #: Of the process that we speak to; 0 before its first hello.
    boot_epoch: int = 0
    #: When something was last heard; before the first pong, when we began to listen.
    heard_ms: int = 0
    #: The one ping that is not answered yet: number and time; 0 for none.
    ping_number: int = 0
    ping_sent_ms: int = 0
    pinged_ms: int = -1_000_000
    #: Of the newest pong; -1 before the first.
    round_trip_ms: int = -1
    #: The peer's clock minus ours, by the newest pong.
    clock_offset_ms: int | None = None


class Liveness:
    """The state of every peer. Times are milliseconds of a monotonic clock, given by the caller."""

    def __init__(self, config: LivenessConfig, now_ms: int) -> None:
        self._config = config
        self._peers: dict[int, _Peer] = {}
        self._number = 0
        self._checked_ms = now_ms

    def watch(self, node_id: int, now_ms: int) -> None:
        """Begins to watch a peer, which is down until it has answered."""
        self._peers.setdefault(node_id, _Peer(heard_ms=now_ms))

    def forget(self, node_id: int) -> list[NodeChange]:
        """Ends the watch of a peer that left the cluster."""
        peer = self._peers.pop(node_id, None)
        if peer is None or not peer.up:
            return []
        return [NodeChange(node_id, Change.DOWN, "it is no longer a peer")]

    def is_up(self, node_id: int) -> bool:
        """Tells whether the peer answered lately."""
        peer = self._peers.get(node_id)
        return peer is not None and peer.up

    def boot_epoch(self, node_id: int) -> int:
        """Returns which start of a peer's process answers; 0 when none does."""
        peer = self._peers.get(node_id)
        return 0 if peer is None or not peer.up else peer.boot_epoch

    def up_nodes(self) -> list[int]:
        """Returns the peers that are up, ascending."""
        return sorted(node_id for node_id, peer in self._peers.items() if peer.up)

    def round_trip_ms(self, node_id: int) -> int | None:
        """Returns how long the last ping took; None before the first."""
        peer = self._peers.get(node_id)
        return None if peer is None or peer.round_trip_ms < 0 else peer.round_trip_ms

    def ping_due(self, node_id: int, now_ms: int, *, at_once: bool = False) -> int | None:
        """Returns the number of a ping to send now, or None.

        An unanswered ping does not hold back the next one that is due: only the newest counts.
        """
        peer = self._peers.get(node_id)
        if peer is None or (at_once and peer.ping_number):
            return None
        if not at_once and now_ms - peer.pinged_ms < self._config.ping_ms:
            return None
        self._number += 1
        peer.ping_number = self._number
        peer.ping_sent_ms = peer.pinged_ms = now_ms
        return self._number

    def hello(self, node_id: int, boot_epoch: int, now_ms: int) -> list[NodeChange]:
        """Takes in the hello of a peer, on a stream of either direction."""
        peer = self._peers.get(node_id)
        if peer is None or peer.boot_epoch == boot_epoch:
            return []
        restarted = peer.boot_epoch != 0 and peer.up
        peer.boot_epoch = boot_epoch
        peer.heard_ms = now_ms
        peer.ping_number = 0
        if not restarted:
            return []
        peer.up = False
        return [NodeChange(node_id, Change.DOWN, "its process was started again")]

    def pong(
        self, node_id: int, number: int, boot_epoch: int, clocks_ms: tuple[int, int], now_ms: int
    ) -> list[NodeChange]:
        """Takes in the answer to a ping; `clocks_ms` are the peer's clock and our own."""
        peer = self._peers.get(node_id)
        if peer is None or boot_epoch != peer.boot_epoch:
            return []  # of a process that is gone
        peer.heard_ms = now_ms
        reason = "it answered"  # an earlier ping than the newest: a sign of life, no measurement
        if number == peer.ping_number:
            peer.round_trip_ms = now_ms - peer.ping_sent_ms
            theirs, ours = clocks_ms
            peer.clock_offset_ms = theirs + peer.round_trip_ms // 2 - ours
            peer.ping_number = 0
            reason = f"it answered in {peer.round_trip_ms} ms"
        if peer.up:
            return []
        peer.up = True
        return [NodeChange(node_id, Change.UP, reason)]

    def refused(self, node_id: int) -> list[NodeChange]:
        """Takes in that a connection to the peer was refused."""
        peer = self._peers.get(node_id)
        if peer is None or not peer.up:
            return []
        peer.up = False
        return [NodeChange(node_id, Change.DOWN, "its connection was reset and none is accepted")]

    def check(self, now_ms: int) -> list[NodeChange]:
        """Looks for silence; to be called at every tick."""
        pause = now_ms - self._checked_ms - self._config.ping_ms
        self._checked_ms = now_ms
        changes: list[NodeChange] = []
        for node_id, peer in sorted(self._peers.items()):
            if pause > 0:
                peer.heard_ms = min(now_ms, peer.heard_ms + pause)
            silence = now_ms - peer.heard_ms
            if peer.up and silence >= self._config.silence_ms:
                peer.up = False
                changes.append(NodeChange(node_id, Change.DOWN, f"silent for {silence} ms"))
        return changes

    def clock_skew_ms(self) -> int | None:
        """Returns our clock minus the median of all clocks; None without a clock to compare."""
        offsets = [
            peer.clock_offset_ms
            for peer in self._peers.values()
            if peer.up and peer.clock_offset_ms is not None
        ]
        return None if not offsets else -int(statistics.median([0, *offsets]))

    def clock_is_wrong(self) -> bool:
        """Tells whether this node must not decide about retention with its clock (S3)."""
        skew = self.clock_skew_ms()
        return skew is not None and abs(skew) > self._config.clock_skew_ms_max
