"""Names of groups, patterns, and where a group lives."""

from __future__ import annotations

import pytest

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.groups.names import check_group_name, check_topic_patterns, group_partition
from rakit.node.metadata.topics import GROUP_PARTITIONS_COUNT, GROUPS_TOPIC


def test_s25_where_a_group_lives_never_changes() -> None:
    """Written down: another answer would lose every group of a cluster that exists."""
    assert (GROUPS_TOPIC, GROUP_PARTITIONS_COUNT) == ("__groups", 16)
    names = ["orders", "g", "", "Gruppe-ü", "a" * 249]
    assert [group_partition(name) for name in names] == [11, 7, 2, 5, 15]


@pytest.mark.parametrize("name", ["a", "with space", "ü", "x" * 249])
def test_a_group_name_is_printable(name: str) -> None:
    check_group_name(name)


@pytest.mark.parametrize("name", ["", "x" * 250, "a\nb", "\x00"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(RakitError, match="1 to 249 printable characters") as caught:
        check_group_name(name)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_GROUP_NAME


@pytest.mark.parametrize("pattern", ["", "a b", "[ab]", "a|b", "x" * 250, "a/b"])
def test_a_pattern_is_a_glob_over_the_characters_of_topic_names(pattern: str) -> None:
    check_topic_patterns(["orders.*", "?", "*"])
    with pytest.raises(RakitError, match="is no topic pattern") as caught:
        check_topic_patterns(["*", pattern])
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_TOPIC_PATTERN
