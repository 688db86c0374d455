"""What is replicated of a member: what it asked for when it joined, or when it resumed. Pure."""

from __future__ import annotations

from rakit.api.v1.group_service_pb2 import JoinGroup
from rakit.node.groups.joining import (
    GRACE_MS_DEFAULT,
    GRACE_MS_INSTANCE_DEFAULT,
    PROCESSING_MS_DEFAULT,
)
from rakit.peer.v1.group_command_pb2 import MemberRecord


def record_of(
    join: JoinGroup, member_id: str, known: MemberRecord | None, *, polls: bool
) -> MemberRecord:
    """A member as it asks to be, without an epoch and what it owns.

    A known member that says nothing of something goes on as before; its instance never changes.
    """
    record = MemberRecord(member_id=member_id, polls=polls)
    if known is not None:
        record.CopyFrom(known)
        record.polls = polls
        for name in ("epoch", "owned", "target"):
            record.ClearField(name)
    if known is None:
        grace_ms = GRACE_MS_INSTANCE_DEFAULT if join.instance_id else GRACE_MS_DEFAULT
        record.instance_id = join.instance_id
        record.max_processing_ms = PROCESSING_MS_DEFAULT
        record.session_grace_ms = grace_ms
    if join.topics or join.topic_patterns:
        record.topics[:] = sorted(set(join.topics))
        record.topic_patterns[:] = sorted(set(join.topic_patterns))
    record.client_id = join.client_id or record.client_id
    record.rack = join.rack or record.rack
    record.start = join.start or record.start
    record.max_processing_ms = join.max_processing_ms or record.max_processing_ms
    record.session_grace_ms = join.session_grace_ms or record.session_grace_ms
    record.layout = join.layout or record.layout
    if join.accept_codecs:
        record.accept_codecs[:] = join.accept_codecs
    return record


def asks_the_same(known: MemberRecord, record: MemberRecord) -> bool:
    """Whether nothing need be replicated anew for what a member asks."""
    asked = MemberRecord()
    asked.CopyFrom(known)
    for name in ("epoch", "owned", "target"):
        asked.ClearField(name)
    return asked == record
