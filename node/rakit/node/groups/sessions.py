"""Who holds which member's session, since when nothing was heard of it, and whose time is up. Pure.

It belongs to one coordinator and is not replicated: a new coordinator knows none of it and gives
everybody a full grace. Times are the caller's, on one monotonic clock.

Rules (S25):

- A session counts as renewed from when its gateway's request arrived, and only after a majority
  has confirmed the coordinator: the gateway's lease began before that.
- While a gateway may serve a member by its lease, nobody takes the member's place and its session
  does not expire, whatever its grace: `SERVED_S` is longer than the lease.
- A session that is to end is over from that moment: it is not renewed any more, though the member
  goes only when the log says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from rakit.node.groups.limits import SERVED_S
from rakit.node.groups.reconcile import revoking
from rakit.node.groups.state import Key, key_of
from rakit.peer.v1.group_command_pb2 import MemberRecord

#: Ended sessions whose reason is remembered; the oldest are told UNKNOWN_MEMBER.
_ENDED_COUNT_MAX: Final = 4_096


@dataclass(slots=True)
class Session:
    """One member's attachment."""

    group: str
    member_id: str
    #: "": whoever asks first, under a new coordinator.
    session_id: str
    #: 0: not known yet.
    gateway_node_id: int
    #: The last confirmed sign of life, or when it was detached.
    renewed_at: float
    grace_s: float
    processing_s: float
    polls: bool
    #: Its gateway serves it, as far as known.
    attached: bool = True
    #: Why it is over.
    ending: str = ""
    #: For how long the member was busy, as its gateway said last.
    busy_s: float = 0.0
    #: What is revoked from it, and when it was told so first.
    told: dict[tuple[Key, int], float] = field(default_factory=dict[tuple[Key, int], float])

    @property
    def served_until(self) -> float:
        """Until when somebody may serve the member by a lease."""
        return self.renewed_at + SERVED_S if self.attached else self.renewed_at

    @property
    def expires_at(self) -> float:
        """When its grace is over."""
        # Between two calls of a client that polls, nobody else says that it is alive.
        grace_s = max(self.grace_s, self.processing_s) if self.polls else self.grace_s
        return max(self.renewed_at + grace_s, self.served_until)

    def over(self, now: float) -> str:
        """Why the session's time is up; "" while it is not."""
        if now >= self.expires_at:
            return "SESSION_EXPIRED"
        if self.busy_s > self.processing_s:
            return "PROCESSING_TOO_LONG"
        if self.told and now >= min(self.told.values()) + self.processing_s:
            return "REVOKE_TOO_LONG"
        return ""

    def tells(self, member: MemberRecord, now: float) -> None:
        """Notes that the member is told what is revoked from it."""
        revoked = [(key_of(each), each.since_epoch) for each in revoking(member)]
        self.told = {each: self.told.get(each, now) for each in revoked}


class Sessions:
    """The sessions of all members of one internal partition."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], Session] = {}
        self._ended: dict[tuple[str, str], str] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, group: str, member_id: str) -> Session | None:
        """The session of a member."""
        return self._sessions.get((group, member_id))

    def expect(self, group: str, members: Iterable[MemberRecord], now: float) -> None:
        """Takes in members whose sessions an earlier coordinator knew."""
        for member in members:
            if (group, member.member_id) not in self._sessions:
                self.begin(group, member, "", 0, now).tells(member, now)

    def begin(
        self, group: str, member: MemberRecord, session_id: str, gateway_node_id: int, now: float
    ) -> Session:
        """A session begins, or another one takes the place of the one there was."""
        known = self.get(group, member.member_id)
        session = Session(
            group=group,
            member_id=member.member_id,
            session_id=session_id,
            gateway_node_id=gateway_node_id,
            renewed_at=now,
            grace_s=member.session_grace_ms / 1000,
            processing_s=member.max_processing_ms / 1000,
            polls=member.polls,
        )
        if known is not None:
            # A later attachment is no way around the deadline of a revocation.
            session.told = known.told
            session.renewed_at = max(now, known.renewed_at)
        self._sessions[group, member.member_id] = session
        return session

    def claim(self, session: Session, session_id: str, gateway_node_id: int) -> bool:
        """Whether this is the member's session; under a new coordinator the first one is."""
        if not session.session_id:
            session.session_id = session_id
            session.gateway_node_id = gateway_node_id
        return session.session_id == session_id

    def detach(self, session: Session, now: float) -> None:
        """Its gateway serves it no more; its grace runs from now."""
        session.attached = False
        session.busy_s = 0.0
        session.renewed_at = max(now, session.renewed_at)

    def end(self, group: str, member_id: str, reason: str) -> None:
        """The member is gone, and whoever asks is told why."""
        self._sessions.pop((group, member_id), None)
        self._ended[group, member_id] = reason
        if len(self._ended) > _ENDED_COUNT_MAX:
            del self._ended[next(iter(self._ended))]

    def reason(self, group: str, member_id: str) -> str:
        """Why a member is gone."""
        return self._ended.get((group, member_id), "UNKNOWN_MEMBER")

    def forgive(self, seconds: float) -> None:
        """Gives everybody the time back in which nobody could be heard."""
        for each in self._sessions.values():
            each.renewed_at += seconds
            each.told = {key: at + seconds for key, at in each.told.items()}

    def overdue(self, now: float) -> list[tuple[Session, str]]:
        """Those whose time is up, and why."""
        return [
            (each, reason)
            for each in self._sessions.values()
            if not each.ending and (reason := each.over(now))
        ]
