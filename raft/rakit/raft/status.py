"""What a host, a console or a test may know about a replica: copies, never the state itself."""

from __future__ import annotations

from dataclasses import dataclass

from rakit.raft import leader, membership
from rakit.raft.state import Raft
from rakit.raft.tracker import ProgressState
from rakit.raft.types import ConfState, Role


@dataclass(frozen=True, slots=True)
class BasicStatus:
    """The cheap part: no walk over peers."""

    id: int
    term: int
    vote: int
    lead: int
    role: Role
    commit: int
    applied: int
    last_index: int
    #: Last index that is on this replica's disk.
    durable_index: int
    #: Target of a transfer under way, else 0.
    lead_transferee: int
    #: Leads, and has applied an entry of its own term (safety S14).
    leader_ready: bool
    #: The applied configuration has a part for this replica.
    is_member: bool
    #: It had one before, and has none now.
    removed: bool
    #: It cannot vouch for what it promised before its last start (safety S8).
    doubtful: bool


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One member as its leader sees it."""

    id: int
    match: int
    next: int
    state: ProgressState
    is_learner: bool
    recent_active: bool
    paused: bool
    pending_snapshot: int
    inflight_messages: int
    inflight_bytes: int
    doubtful: bool
    #: It vouches for every configuration change so far, so it may be given a vote (rule M7).
    holds_changes: bool
    #: It lost entries that it had acknowledged: replace it by a new replica.
    lost_log: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """Everything."""

    basic: BasicStatus
    conf_state: ConfState
    #: A leader's view of every member including itself, in ascending order; else empty.
    peers: tuple[PeerStatus, ...]


@dataclass(frozen=True, slots=True)
class QuiesceStatus:
    """Whether a group may go quiet, and who would have to be woken later (safety S15).

    The message by which a leader asks its followers to go quiet is tagged (term, commit).
    """

    #: This replica leads and has nothing left to do but to bring the peers in `lagging` up to date.
    idle: bool
    #: Why not, for people; empty if idle.
    reason: str
    term: int
    commit: int
    #: Everyone but this replica, in ascending order; empty if it does not lead.
    peers: tuple[int, ...]
    #: Peers that do not hold the whole log. A host goes quiet if none of them is on a live node.
    lagging: tuple[int, ...]

    @property
    def quiet(self) -> bool:
        """Whether the group may go quiet without conditions."""
        return self.idle and not self.lagging


def basic_status(raft: Raft) -> BasicStatus:
    """Returns the cheap part."""
    log = raft.log
    return BasicStatus(
        id=raft.id,
        term=raft.term,
        vote=raft.vote,
        lead=raft.lead,
        role=raft.role,
        commit=log.committed,
        applied=log.applied,
        last_index=log.last_index,
        durable_index=log.durable_index,
        lead_transferee=raft.lead_transferee,
        leader_ready=leader.ready_to_serve(raft),
        is_member=raft.is_member,
        removed=raft.removed,
        doubtful=raft.doubtful,
    )


def status(raft: Raft) -> Status:
    """Returns everything."""
    ids = sorted(raft.tracker.progress) if raft.role is Role.LEADER else []
    return Status(
        basic=basic_status(raft),
        conf_state=raft.tracker.membership.conf_state(),
        peers=tuple(_peer(raft, id_) for id_ in ids),
    )


def quiesce_status(raft: Raft) -> QuiesceStatus:
    """Tells whether the group may go quiet."""
    log = raft.log
    # Asked of every group that nobody uses, as long as it is awake: no more than what is needed.
    peers = raft.tracker.peers if raft.role is Role.LEADER else ()
    reason, last = _not_idle(raft), log.last_index
    return QuiesceStatus(
        idle=not reason,
        reason=reason,
        term=raft.term,
        commit=log.committed,
        peers=tuple([id_ for id_, _ in peers]),
        lagging=tuple([id_ for id_, peer in peers if peer.match != last or peer.doubtful]),
    )


def _not_idle(raft: Raft) -> str:
    """Returns what keeps this replica from going quiet."""
    log = raft.log
    last = log.last_index
    reason = ""
    if raft.role is not Role.LEADER:
        reason = "does not lead"
    elif log.committed != last:
        reason = "entries wait for commit"
    elif log.applied != last:
        reason = "entries wait to be applied"
    elif log.durable_index != last:
        reason = "entries wait for the disk"
    elif raft.lead_transferee:
        reason = "a transfer is under way"
    elif len(raft.reads):
        reason = "reads wait"
    elif not membership.is_settled(raft):
        reason = "a configuration change is under way"
    elif raft.doubtful:
        reason = "doubts its log"
    return reason


def _peer(raft: Raft, id_: int) -> PeerStatus:
    progress = raft.tracker.progress[id_]
    return PeerStatus(
        id=id_,
        match=progress.match,
        next=progress.next,
        state=progress.state,
        is_learner=progress.is_learner,
        recent_active=progress.recent_active,
        paused=progress.paused,
        pending_snapshot=progress.pending_snapshot,
        inflight_messages=len(progress.inflights),
        inflight_bytes=progress.inflights.bytes,
        doubtful=progress.doubtful,
        holds_changes=membership.holds_changes(raft, id_),
        lost_log=progress.lost_log,
    )
