from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.raft import (
    ENTRY_OVERHEAD_BYTES,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    MalformedConfChangeError,
    MessageType,
    message_bytes,
    payload_bytes,
)

changes = st.builds(
    ConfChange,
    st.lists(
        st.builds(
            ConfChangeSingle,
            st.sampled_from(list(ConfChangeType)),
            st.integers(min_value=1, max_value=2**53),
        ),
        max_size=6,
    ).map(tuple),
    st.sampled_from(list(ConfChangeTransition)),
    st.binary(max_size=40),
)


@given(changes)
def test_a_change_survives_its_encoding(change: ConfChange) -> None:
    assert ConfChange.decode(change.encode()) == change


@given(changes)
def test_equal_changes_are_equal_bytes(change: ConfChange) -> None:
    copy = ConfChange(change.changes, change.transition, change.context)
    assert copy.encode() == change.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02\x00\x00\x00",
        b"\x01\x09\x00\x00",
        b"\x01\x00\x00\x01",
        b"\x01\x00\x00\x01\x07" + bytes(8),
    ],
    ids=["empty", "cut head", "version", "transition", "missing step", "kind of step"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedConfChangeError):
        ConfChange.decode(data)


def test_the_encoding_is_fixed() -> None:
    """Stored logs hold it: these bytes must stay readable for ever."""
    change = ConfChange(
        (
            ConfChangeSingle(ConfChangeType.ADD_LEARNER, 7),
            ConfChangeSingle(ConfChangeType.REMOVE, 1 << 24 | 2),
        ),
        ConfChangeTransition.JOINT_EXPLICIT,
        b"op-9",
    )
    assert change.encode().hex() == (
        "01020002" + "030000000000000007" + "010000000001000002" + "6f702d39"
    )


def test_only_an_empty_automatic_change_leaves_a_joint_configuration() -> None:
    assert ConfChange().leaves_joint
    assert ConfChange(context=b"why").leaves_joint
    assert not ConfChange(transition=ConfChangeTransition.JOINT_EXPLICIT).leaves_joint


def test_two_steps_or_a_wish_make_a_change_joint() -> None:
    one = (ConfChangeSingle(ConfChangeType.ADD_VOTER, 4),)
    assert not ConfChange(one).enters_joint
    assert ConfChange(one * 2).enters_joint
    assert ConfChange(one, ConfChangeTransition.JOINT_IMPLICIT).enters_joint


def test_message_numbers_are_those_of_raftpb() -> None:
    assert {kind.name: kind.value for kind in MessageType} == {
        "HUP": 0,
        "BEAT": 1,
        "PROP": 2,
        "APP": 3,
        "APP_RESP": 4,
        "VOTE": 5,
        "VOTE_RESP": 6,
        "SNAP": 7,
        "HEARTBEAT": 8,
        "HEARTBEAT_RESP": 9,
        "UNREACHABLE": 10,
        "SNAP_STATUS": 11,
        "CHECK_QUORUM": 12,
        "TRANSFER_LEADER": 13,
        "TIMEOUT_NOW": 14,
        "READ_INDEX": 15,
        "READ_INDEX_RESP": 16,
        "PRE_VOTE": 17,
        "PRE_VOTE_RESP": 18,
        "FORGET_LEADER": 23,
        # Not raftpb's: between hosts.
        "BASE_PULL": 101,
        "BASE_PART": 102,
    }
    assert (EntryType.NORMAL, EntryType.CONF_CHANGE) == (0, 1)


def test_an_empty_entry_still_weighs_something_in_a_message() -> None:
    entries = [Entry(1, 1), Entry(1, 2, data=b"xyz")]
    assert payload_bytes(entries) == 3
    assert message_bytes(entries) == 3 + 2 * ENTRY_OVERHEAD_BYTES


@pytest.mark.parametrize("part", ["voters", "learners", "voters_outgoing", "learners_next"])
def test_a_configuration_knows_its_members_in_any_part(part: str) -> None:
    parts: dict[str, Any] = {part: (3,)}
    state = ConfState(**parts)
    assert 3 in state
    assert 4 not in state
