from __future__ import annotations

import pytest

from rakit.raft import (
    ConfChange,
    ConfState,
    DropKind,
    Dropped,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    PeerStatus,
    ProgressState,
    ReadState,
    Ready,
    Role,
    Snapshot,
    SoftState,
)
from rakit.raft.describe import (
    conf_change_text,
    conf_state_text,
    entry_text,
    message_text,
    peer_text,
    ready_text,
)
from tests.raft.script import parse_change


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(2, 7), "2/7"),
        (Entry(2, 7, data=b"hello"), '2/7 "hello"'),
        (Entry(2, 7, data=b"\xff\x00"), '2/7 "\\xff\x00"'),
        (Entry(2, 7, data=b"a" * 30), '2/7 "' + "a" * 24 + '"+6'),
        (Entry(2, 7, EntryType.CONF_CHANGE, ConfChange().encode()), "2/7 conf[leave joint]"),
    ],
)
def test_entries(entry: Entry, text: str) -> None:
    assert entry_text(entry) == text


def test_a_malformed_change_is_shown_as_such() -> None:
    assert "malformed" in entry_text(Entry(1, 2, EntryType.CONF_CHANGE, b"?"))


def test_changes_and_configurations() -> None:
    change = parse_change(["v4", "l5", "r1"])
    assert conf_change_text(change) == "add_voter 4, add_learner 5, remove 1; auto"
    state = ConfState((2, 4), (5,), (1, 2), (1,), auto_leave=True)
    assert conf_state_text(state) == (
        "voters=(2 4) outgoing=(1 2) learners=(5) learners_next=(1) auto_leave"
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            Message(MessageType.APP, 2, 1, 3, 2, 5, (Entry(3, 6),), 4),
            "1->2 APP term=3 prev=2/5 commit=4 [3/6]",
        ),
        (
            Message(MessageType.APP_RESP, 1, 2, 3, log_term=2, index=9, reject=True, reject_hint=5),
            "2->1 APP_RESP term=3 index=9 reject hint=2/5",
        ),
        (Message(MessageType.PRE_VOTE, 2, 1, 4, 3, 6), "1->2 PRE_VOTE term=4 last=3/6"),
        (
            Message(MessageType.SNAP, 2, 1, 4, snapshot=Snapshot(8, 3, ConfState((1, 2)))),
            "1->2 SNAP term=4 base=3/8 voters=(1 2)",
        ),
        (
            Message(MessageType.HEARTBEAT, 2, 1, 4, commit=6, context=bytes(8)),
            "1->2 HEARTBEAT term=4 commit=6 context=0000000000000000",
        ),
        (Message(MessageType.READ_INDEX, 1, 2, context=b"r1"), "2->1 READ_INDEX context=r1"),
    ],
)
def test_messages(message: Message, text: str) -> None:
    assert message_text(message) == text


def test_a_ready_is_shown_in_the_order_of_work() -> None:
    ready = Ready(
        4,
        SoftState(1, Role.LEADER),
        HardState(3, 1, 6),
        [Entry(3, 7)],
        Snapshot(5, 2, ConfState((1,))),
        must_sync=True,
        messages=[Message(MessageType.TIMEOUT_NOW, 2, 1, 3)],
        messages_after_persist=[Message(MessageType.APP_RESP, 2, 1, 3, index=7)],
        committed_entries=[Entry(3, 6)],
        read_states=[ReadState(6, b"r1")],
        dropped=[Dropped(DropKind.READ, context=b"r2"), Dropped(DropKind.PROPOSALS, 3, 6)],
    )
    assert ready_text(ready) == [
        "ready 4 sync",
        "  role LEADER lead=1",
        "  send 1->2 TIMEOUT_NOW term=3",
        "  install base 2/5 voters=(1)",
        "  write [3/7]",
        "  write term=3 vote=1 commit=6",
        "  then send 1->2 APP_RESP term=3 index=7",
        "  apply [3/6]",
        "  read r1 at 6",
        "  drop read r2",
        "  drop proposals of term 3 above 6",
    ]


def test_peers() -> None:
    peer = PeerStatus(
        id=4,
        match=3,
        next=9,
        state=ProgressState.SNAPSHOT,
        is_learner=True,
        recent_active=False,
        paused=True,
        pending_snapshot=8,
        inflight_messages=2,
        inflight_bytes=10,
        doubtful=True,
        holds_changes=False,
        lost_log=True,
    )
    assert peer_text(peer) == (
        "4: SNAPSHOT match=3 next=9 learner paused base=8 silent inflight=2 doubtful lost-log"
    )
