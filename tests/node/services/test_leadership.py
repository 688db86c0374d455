"""Which replica a leader hands over to when nobody is named."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rakit.multiraft.machine import replica_id
from rakit.node.services.leadership import transfer
from rakit.raft import ConfState, PeerStatus, Status
from rakit.raft.tracker import ProgressState
from tests.raft.single import Single

LEADER, BEHIND, LONGEST = (replica_id(node_id, 1) for node_id in (1, 2, 3))

VOTERS = ConfState((LEADER, BEHIND, LONGEST))


def peer(identity: int, match: int) -> PeerStatus:
    return PeerStatus(
        id=identity,
        match=match,
        next=match + 1,
        state=ProgressState.REPLICATE,
        is_learner=False,
        recent_active=True,
        paused=False,
        pending_snapshot=0,
        inflight_messages=0,
        inflight_bytes=0,
        doubtful=False,
        holds_changes=True,
    )


@dataclass
class Leading:
    """A group of three that this node leads."""

    peers: tuple[PeerStatus, ...]
    conf_state: ConfState = VOTERS
    ready: bool = True

    def status(self) -> Status:
        return replace(Single().node.status(), peers=self.peers)


@dataclass
class Host:
    """Takes down whom leadership was given to; every node is up."""

    leading: Leading
    node_id: int = 1
    successor: int = 0

    def group(self, group_id: int) -> Leading | None:
        return self.leading if group_id == 7 else None

    def node_is_up(self, node_id: int) -> bool:
        return node_id > 0

    def transfer_leader(self, group_id: int, to_replica: int) -> None:
        assert group_id == 7
        self.successor = to_replica


def successor(longest: PeerStatus) -> int:
    host = Host(Leading((peer(LEADER, 9), peer(BEHIND, 5), longest)))
    transfer(host, 7, 0)
    return host.successor


def test_the_longest_log_leads_next() -> None:
    assert successor(peer(LONGEST, 8)) == LONGEST


def test_s8_who_would_be_refused_is_not_asked_while_another_can_lead() -> None:
    assert successor(replace(peer(LONGEST, 8), doubtful=True)) == BEHIND
    assert successor(replace(peer(LONGEST, 8), lost_log=True)) == BEHIND
