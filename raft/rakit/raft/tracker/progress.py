"""How far one peer is, as its leader sees it (section 5.3; dissertation 10.2.1 on pipelining).

    PROBE      next is a guess; one message, then wait for its answer or a heartbeat's
    REPLICATE  the peer's log joins ours at match; send ahead as far as the window allows
    SNAPSHOT   the entries that the peer needs are gone; a base state is on its way; send nothing

Rules:

- Rule T1: within one term `match` never falls, and `next` is always greater (etcd-io/raft#149).
  The one exception is a peer that restarted in doubt about its own log (safety S8): what it
  acknowledged before the restart may be gone, so it starts over at nothing.
- Rule T2: a rejection that an earlier answer has overtaken changes nothing: in REPLICATE one at or
  below `match`, in PROBE one of anything but the entry before `next`. Nor does one of `match`: the
  peer has lost what it acknowledged, and there is nothing lower to ask about. Asking again at once
  would go on at the rate of the network; the next heartbeat does.
- Rule T3: each heartbeat lets one more append through, empty if the window is full: if a probe or
  every message of the window was lost, that append's answer tells (etcd-io/etcd#14633). Heartbeats
  between the ticks, which reads ask for, do not count: they would repeat a probe at their rate.
- Rule T4: any acknowledgement that joins the leader's log ends SNAPSHOT, also one below the
  snapshot's index (etcd-io/raft#110).
- Rule T5: a peer that the host holds is sent nothing, whatever else happens, until it is released.

The leader's own entry is kept here too: its `match` is what its own disk holds (safety S13).
"""

from __future__ import annotations

from enum import IntEnum

from rakit.raft.tracker.inflights import Inflights


class ProgressState(IntEnum):
    """How entries are sent to the peer."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """One peer as its leader sees it.

    Invariants:

    - `match < next`.
    - `pending_snapshot` is 0 unless the state is SNAPSHOT.
    - `sent_commit` is at most what the leader has committed.
    """

    __slots__ = (
        "absolve_index",
        "base_is_fresh",
        "boot",
        "boot_match",
        "counts",
        "doubtful",
        "heard_heartbeat",
        "held",
        "inflights",
        "is_learner",
        "lost_log",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "send_empty",
        "sent_commit",
        "state",
        "waits",
        "waits_for_fetch",
    )

    def __init__(self, match: int, next_index: int, inflights: Inflights, *, learner: bool) -> None:
        #: Last index known to be durable on the peer and equal to ours.
        self.match = match
        #: First index to send next.
        self.next = next_index
        self.state = ProgressState.PROBE
        #: Index of the snapshot on its way, in SNAPSHOT.
        self.pending_snapshot = 0
        #: The base was sent since the last quorum check; one that was sent earlier counts as lost.
        self.base_is_fresh = False
        #: Highest commit index that the peer has been sent with a log that covers it.
        self.sent_commit = 0
        #: The peer was heard since the last quorum check. New peers start as active, so
        #: that a leader does not step down because of a member that is just being set up.
        self.recent_active = True
        #: Nothing may be sent before an answer: a probe is out, or the window is full.
        self.waits = False
        #: The answer to the heartbeat of the last tick that sent one has been taken (rule T3).
        self.heard_heartbeat = False
        #: The next append goes out even without entries.
        self.send_empty = False
        #: The host is fetching entries for this peer.
        self.waits_for_fetch = False
        #: The host has no room for what would be sent (rule T5).
        self.held = False
        self.inflights = inflights
        self.is_learner = learner
        #: Number of the peer's boot, as far as it has told.
        self.boot = 0
        #: What it had acknowledged before that boot.
        self.boot_match = 0
        #: It came back without entries that it had acknowledged, and did not know.
        self.lost_log = False
        #: The peer doubts what it once promised (safety S8; the rules are in `doubt`).
        self.doubtful = False
        #: Whether acknowledgements of this peer count towards a quorum.
        self.counts = True
        #: The doubt ends when this index is committed without the peer and the peer holds it.
        self.absolve_index = 0

    @property
    def paused(self) -> bool:
        """Whether nothing may be sent now."""
        return (
            self.waits or self.held or self.waits_for_fetch or self.state is ProgressState.SNAPSHOT
        )

    def _become(self, state: ProgressState) -> None:
        self.waits = False
        self.pending_snapshot = 0
        self.inflights.clear()
        self.state = state
        assert self.match < self.next, "next must stay above match (rule T1)"

    def become_probe(self) -> None:
        """Starts guessing, from behind the snapshot that was delivered or from `match`."""
        snapshot = self.pending_snapshot if self.state is ProgressState.SNAPSHOT else 0
        self._become(ProgressState.PROBE)
        self.next = max(self.match, snapshot) + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Starts to send ahead: the peer's log joins ours at `match`."""
        self._become(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Stops sending until the base state as of `index` has arrived or failed."""
        assert index > self.match, "a base that the peer holds helps nobody"
        self._become(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.base_is_fresh = True
        self.next = index + 1
        self.sent_commit = index

    def restart(self) -> None:
        """Starts over with a peer that no longer vouches for what it acknowledged (rule T1)."""
        self.next = self.match + 1
        self.match = 0
        self._become(ProgressState.PROBE)
        self.sent_commit = 0

    def sent(self, count: int, last_index: int, size_bytes: int, commit: int) -> None:
        """Notes an append with `count` entries up to `last_index` that carries `commit`."""
        self.send_empty = False
        if self.state is ProgressState.REPLICATE:
            if count:
                assert last_index >= self.next, "an append must go forward"
                self.next = last_index + 1
                self.inflights.add(last_index, size_bytes)
            self.waits = self.inflights.full
        else:
            assert self.state is ProgressState.PROBE, "nothing is appended during a snapshot"
            # A probe carries a guess: whether or not it has entries, wait for its answer.
            self.waits = True
        self.sent_commit = commit

    def acknowledge(self, index: int) -> bool:
        """Raises `match` to `index` (5.3); tells whether that was news."""
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        self.waits = False
        return True

    def reject(self, rejected: int, hint: int) -> bool:
        """Takes a rejection of the entry at `rejected` (5.3); tells whether it is news (rule T2).

        `hint` is the highest index at which the two logs may agree.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
            return True
        if self.next - 1 != rejected or rejected == self.match:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        assert self.match < self.next <= max(rejected, self.match + 1), "a probe goes backwards"
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.waits = False
        return True

    def can_bump_commit(self, commit: int) -> bool:
        """Whether an empty append would tell the peer a commit index that it can use."""
        # A peer commits at most what it holds, and it was sent entries up to next - 1.
        return commit > self.sent_commit and self.sent_commit < self.next - 1
