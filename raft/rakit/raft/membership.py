"""Changes of the configuration: when one may be proposed, and what follows when it is applied.

A change takes effect when its entry is *applied*, on each replica at its own time (section 6, in
etcd's variant). `confchange` computes the configurations; here are the rules around them:

- Rule M1: one change at a time. A change is proposed only when every earlier one is applied, those
  of former leaders included: a new leader waits until its own first entry is applied.
- Rule M2: a change is tried out before it is proposed. Since nothing can come between (M1), what
  is valid then is valid when it is applied, on every replica.
- Rule M3: a replica with a committed change that it has not applied does not campaign; it might
  count by the wrong voters (checked in `election`).
- Rule M4: a leader that the new configuration does not let vote steps down when it applies it.
- Rule M5: the leader of a joint configuration with `auto_leave` proposes its end, again and again
  until it is committed; a new leader takes that over.
- Rule M6: a smaller quorum may complete commits and reads that were waiting.
- Rule M7: a learner is given a vote only when it vouches for every change so far, its own addition
  among them. Before that it does not vote (E7): with one more failure nobody could be elected, and
  nobody could tell it. It learns of a change together with its commit, for its leader has applied
  its addition before it sends it anything.
"""

from __future__ import annotations

from rakit.raft import confchange, reads, trace
from rakit.raft.errors import (
    ConfChangeInvalidError,
    ConfChangePendingError,
    ConfigurationLostError,
)
from rakit.raft.leader import check_can_propose, end_transfer
from rakit.raft.replication import append_own, maybe_commit
from rakit.raft.state import Raft
from rakit.raft.types import ConfChange, ConfState, Entry, EntryID, EntryType, Role


def propose(raft: Raft, change: ConfChange) -> EntryID:
    """Appends a change, or raises without having done anything (4.1; rules M1, M2 and M7)."""
    check_can_propose(raft)
    if raft.log.applied < raft.pending_conf_index:
        raise ConfChangePendingError(
            f"changes up to {raft.pending_conf_index} may not be applied yet"
            f" (applied {raft.log.applied})"
        )
    follows = confchange.follow(raft.tracker.membership, change)
    late = [
        id_
        for id_, progress in raft.tracker.peers
        if progress.is_learner and id_ in follows.voters.incoming and not holds_changes(raft, id_)
    ]
    if late:
        raise ConfChangePendingError(f"{late} do not know yet that they belong to the group")
    return _append(raft, change)


def holds_changes(raft: Raft, id_: int) -> bool:
    """Tells whether a member vouches for every change of this leader and those before it (M7)."""
    return raft.tracker.durable_match(id_) >= raft.pending_conf_index


def _append(raft: Raft, change: ConfChange) -> EntryID:
    assert raft.log.applied >= raft.pending_conf_index, "one change at a time (rule M1)"
    data = change.encode()
    index = raft.log.last_index + 1
    raft.uncommitted_bytes += len(data)
    raft.pending_conf_index = index
    if raft.tracer is not None:
        trace.change_conf(raft, change)
    append_own(raft, [Entry(raft.term, index, EntryType.CONF_CHANGE, data)])
    return raft.term, index


def apply(raft: Raft, change: ConfChange) -> ConfState:
    """Makes a committed change the current configuration (section 6); the caller stores the result.

    Raises `ConfigurationLostError` if it cannot follow the current one, which rule M2 excludes as
    long as every replica applies the same changes.
    """
    try:
        membership = confchange.follow(raft.tracker.membership, change)
    except ConfChangeInvalidError as error:
        raise ConfigurationLostError(f"a committed change cannot follow: {error}") from error
    raft.install_membership(membership)
    _after_change(raft)
    return raft.tracker.membership.conf_state()


def _after_change(raft: Raft) -> None:
    if not raft.promotable and raft.role is not Role.FOLLOWER:
        # Rule M4 (4.2.2); a candidate that may not stand any more gives up likewise.
        raft.become_follower(raft.term, 0)
        return
    if raft.role is not Role.LEADER:
        return
    if raft.lead_transferee not in raft.tracker.voters.incoming:
        end_transfer(raft)
    maybe_commit(raft)
    reads.release_confirmed(raft)
    # New peers are probed at once.
    raft.append_pending = True


def maybe_leave_joint(raft: Raft) -> None:
    """Proposes the end of a joint phase that ends on its own (4.3, rule M5)."""
    if (
        raft.role is not Role.LEADER
        or not raft.tracker.membership.auto_leave
        or raft.lead_transferee
        or raft.log.applied < raft.pending_conf_index
    ):
        return
    _append(raft, ConfChange())


def is_settled(raft: Raft) -> bool:
    """Tells whether no change is on its way and no joint phase is open."""
    return raft.log.applied >= raft.pending_conf_index and not raft.tracker.voters.is_joint
