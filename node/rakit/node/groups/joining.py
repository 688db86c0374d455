"""What must hold for a JoinGroup before anybody is asked, and its defaults.

A resume needs neither topics nor settings: the session has them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from rakit.api.v1 import error_pb2, log_service_pb2
from rakit.api.v1.group_service_pb2 import JoinGroup
from rakit.node.errors import RakitError
from rakit.node.groups.names import NAME_CHARS_MAX, check_group_name, check_topic_patterns
from rakit.node.metadata.topics import check_topic_name

TOPICS_COUNT_MAX: Final = 256
PATTERNS_COUNT_MAX: Final = 16
PROCESSING_MS_DEFAULT: Final = 300_000
PROCESSING_MS_MIN: Final = 1_000
PROCESSING_MS_MAX: Final = 86_400_000
GRACE_MS_DEFAULT: Final = 10_000
GRACE_MS_INSTANCE_DEFAULT: Final = 60_000
GRACE_MS_MIN: Final = 1_000
GRACE_MS_MAX: Final = 1_800_000
_EDGES: Final = frozenset(log_service_pb2.Edge.values())


def completed(join: JoinGroup, *, resumes: bool) -> JoinGroup:
    """The join with its defaults filled in. Raises INVALID_REQUEST and what names deserve."""
    check_group_name(join.group)
    made = JoinGroup()
    made.CopyFrom(join)
    _check_subscription(made, resumes=resumes)
    for name, value in (
        ("instance_id", made.instance_id),
        ("client_id", made.client_id),
        ("rack", made.rack),
    ):
        if len(value) > NAME_CHARS_MAX or (value and not value.isprintable()):
            raise _invalid(f"{name} has at most {NAME_CHARS_MAX} characters, all printable.", join)
    if made.start not in _EDGES:
        raise _invalid(f"start is {made.start}; use EDGE_EARLIEST or EDGE_LATEST.", join)
    if made.credit_bytes < 0:
        raise _invalid(f"credit_bytes is {made.credit_bytes}; it must not be negative.", join)
    if not resumes or made.max_processing_ms:
        made.max_processing_ms = made.max_processing_ms or PROCESSING_MS_DEFAULT
        _within(
            join, "max_processing_ms", made.max_processing_ms, PROCESSING_MS_MIN, PROCESSING_MS_MAX
        )
    if not resumes or made.session_grace_ms:
        usual = GRACE_MS_INSTANCE_DEFAULT if made.instance_id else GRACE_MS_DEFAULT
        made.session_grace_ms = made.session_grace_ms or usual
        _within(join, "session_grace_ms", made.session_grace_ms, GRACE_MS_MIN, GRACE_MS_MAX)
    return made


def is_subscribed(topic: str, join: JoinGroup) -> bool:
    """Whether a join asks for a topic; one that only resumes asks for what the session has."""
    if not join.topics and not join.topic_patterns:
        return True
    return topic in join.topics or any(fnmatchcase(topic, each) for each in join.topic_patterns)


def _check_subscription(join: JoinGroup, *, resumes: bool) -> None:
    topics = list(dict.fromkeys(join.topics))
    patterns = list(dict.fromkeys(join.topic_patterns))
    if not topics and not patterns and not resumes:
        raise _invalid("The join names neither topics nor topic_patterns.", join)
    if len(topics) > TOPICS_COUNT_MAX:
        raise _too_many("topics", len(topics), TOPICS_COUNT_MAX, join)
    if len(patterns) > PATTERNS_COUNT_MAX:
        raise _too_many("topic_patterns", len(patterns), PATTERNS_COUNT_MAX, join)
    for topic in topics:
        check_topic_name(topic)
    check_topic_patterns(patterns)
    join.topics[:] = topics
    join.topic_patterns[:] = patterns


def _within(join: JoinGroup, name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _invalid(f"{name} is {value:,}; it may be {least:,} to {most:,}.", join)


def _too_many(name: str, count: int, most: int, join: JoinGroup) -> RakitError:
    error = _invalid(f"The join has {count} {name}; the limit is {most}.", join)
    error.metadata |= {"limit": str(most), "actual": str(count)}
    return error


def _invalid(message: str, join: JoinGroup) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, message, {"group": join.group})
