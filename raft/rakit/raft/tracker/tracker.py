"""The current configuration together with the progress of everyone in it.

The configuration changes when a committed change is *applied* (section 6 as etcd does it), never
when it is appended. This module holds the result; `confchange` computes it.

Invariants:

- `progress` has exactly one entry for each replica of the configuration.
- `learners` and the voters of both halves share no replica; `learners_next` are outgoing voters.
- Iteration is always in ascending order of ids, so that runs repeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rakit.raft.quorum import JointConfig, VoteResult
from rakit.raft.tracker.inflights import Inflights
from rakit.raft.tracker.progress import Progress
from rakit.raft.types import ConfState


@dataclass(frozen=True, slots=True)
class Membership:
    """Who has which part: the shape of a configuration without progress."""

    voters: JointConfig = field(default_factory=JointConfig)
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """Everyone in the configuration, sorted."""
        return tuple(sorted({*self.voters.incoming, *self.voters.outgoing, *self.learners}))

    def conf_state(self) -> ConfState:
        """Returns the form in which the caller stores the configuration."""
        return ConfState(
            voters=self.voters.incoming,
            learners=self.learners,
            voters_outgoing=self.voters.outgoing,
            learners_next=self.learners_next,
            auto_leave=self.auto_leave,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """The limits of what may be on its way to one peer."""

    messages_max: int
    bytes_max: int

    def make(self) -> Inflights:
        """Returns an empty window."""
        return Inflights(self.messages_max, self.bytes_max)


class Tracker:
    """Progress by replica id, under the current configuration."""

    __slots__ = ("membership", "peers", "progress", "voters")

    def __init__(self) -> None:
        self.membership = Membership()
        #: Short cut to `membership.voters`, read for every acknowledgement.
        self.voters = JointConfig()
        self.progress: dict[int, Progress] = {}
        #: Everyone but ourselves, in ascending order of ids.
        self.peers: tuple[tuple[int, Progress], ...] = ()

    def install(self, own_id: int, membership: Membership, progress: dict[int, Progress]) -> None:
        """Replaces configuration and progress together."""
        assert tuple(sorted(progress)) == membership.ids, (
            "progress must cover the configuration exactly"
        )
        self.membership = membership
        self.voters = membership.voters
        self.progress = progress
        self.peers = tuple((id_, progress[id_]) for id_ in sorted(progress) if id_ != own_id)

    def restart(self, own_id: int, last_index: int, durable_index: int, window: Window) -> None:
        """Forgets what is known about everyone: a new leader starts by guessing (section 5.3)."""
        progress = {
            id_: Progress(0, last_index + 1, window.make(), learner=old.is_learner)
            for id_, old in self.progress.items()
        }
        own = progress[own_id]
        own.match = durable_index
        own.become_replicate()
        self.install(own_id, self.membership, progress)

    def counts(self, replica_id: int) -> bool:
        """Tells whether what the replica says may be relied on (rules D2 and D5 of `doubt`)."""
        return self.progress[replica_id].counts

    def durable_match(self, replica_id: int) -> int:
        """Returns the last index that counts as durable on the replica."""
        progress = self.progress[replica_id]
        return progress.match if progress.counts else 0

    def committed_index(self) -> int:
        """Returns the largest index that is durable on a quorum (5.3)."""
        return self.voters.committed_index(self.durable_match)

    def quorum_recently_active(self, own_id: int) -> bool:
        """Tells whether a quorum that counts was heard since the last check, us too (6.2)."""
        heard: Mapping[int, bool] = {
            id_: progress.counts and (id_ == own_id or progress.recent_active)
            for id_, progress in self.progress.items()
        }
        return self.voters.vote_result(heard) is VoteResult.WON

    def is_sole_voter(self, replica_id: int) -> bool:
        """Tells whether the replica is a quorum by itself."""
        return self.voters.incoming == (replica_id,) and not self.voters.outgoing
