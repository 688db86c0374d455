"""One constructor for each kind of message: which fields the kind uses, and what must hold.

`Message` has the fields of all kinds. Built only here, a message of a kind always has the fields
that this kind needs and no others, and its claims are checked where they are made.

What the fields mean by kind (prev: the entry before the first one carried):

    APP             index, log_term of prev; entries; commit; context: absolved boot (`doubt`)
    APP_RESP        index acknowledged, or rejected prev with reject_hint and its log_term;
                    context: stamp of the boot (`doubt`)
    HEARTBEAT(_RESP)  commit; context: number of the read round
    VOTE, PRE_VOTE  index, log_term of the last entry; context: FORCED in a transfer
    (PRE_)VOTE_RESP reject; context: stamp of the boot
    READ_INDEX      context of the caller; no term, since it promises nothing
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from rakit.raft.types import Entry, Message, MessageType, Snapshot

#: Context of a vote request that the leader itself asked for: it passes the lease.
FORCED: Final = b"forced"

# Number of the boot, and whether the replica doubts what it promised before (`doubt`).
_STAMP: Final = Struct(">Q?")
_BOOT: Final = Struct(">Q")


def encode_stamp(boot: int, *, doubtful: bool) -> bytes:
    """Returns the stamp of acknowledgements and votes; nothing if boots are not numbered."""
    return _STAMP.pack(boot, doubtful) if boot else b""


def decode_stamp(stamp: bytes) -> tuple[int, bool]:
    """Returns the boot and whether it is in doubt; anything but a stamp is boot 0."""
    if len(stamp) != _STAMP.size:
        return 0, False
    boot, doubtful = _STAMP.unpack(stamp)
    return boot, doubtful


def encode_boot(boot: int) -> bytes:
    """Returns the word by which a leader ends the doubt of that boot."""
    return _BOOT.pack(boot)


def decode_boot(word: bytes) -> int:
    """Returns the boot that an absolution names."""
    return int(_BOOT.unpack(word)[0])


def append(
    to: int,
    sender: int,
    term: int,
    *,
    prev: tuple[int, int],
    entries: tuple[Entry, ...],
    commit: int,
    context: bytes,
) -> Message:
    """Returns entries to append behind `prev`, which is (term, index)."""
    prev_term, prev_index = prev
    if entries:
        assert entries[0].index == prev_index + 1, "an append must start right behind prev"
        assert entries[-1].index == prev_index + len(entries), "an append must have no gap"
        assert prev_term <= entries[0].term <= entries[-1].term <= term, "terms must not fall"
    return Message(
        MessageType.APP,
        to,
        sender,
        term,
        prev_term,
        prev_index,
        entries,
        commit,
        context=context,
    )


def append_ack(to: int, sender: int, term: int, index: int, stamp: bytes) -> Message:
    """Returns the promise that everything up to `index` is durable and equals the leader's."""
    return Message(MessageType.APP_RESP, to, sender, term, index=index, context=stamp)


def append_reject(
    to: int, sender: int, term: int, *, rejected: int, hint: tuple[int, int], stamp: bytes
) -> Message:
    """Returns the answer that prev at `rejected` is not here; `hint` is (term, index)."""
    hint_term, hint_index = hint
    assert hint_index <= rejected, "a hint cannot lie above what was rejected"
    return Message(
        MessageType.APP_RESP,
        to,
        sender,
        term,
        log_term=hint_term,
        index=rejected,
        reject=True,
        reject_hint=hint_index,
        context=stamp,
    )


def heartbeat(to: int, sender: int, term: int, commit: int, context: bytes) -> Message:
    """Returns a sign of life; `commit` is at most what the peer is known to hold."""
    return Message(MessageType.HEARTBEAT, to, sender, term, commit=commit, context=context)


def heartbeat_response(to: int, sender: int, term: int, context: bytes) -> Message:
    """Returns the answer to a heartbeat, with its read round."""
    return Message(MessageType.HEARTBEAT_RESP, to, sender, term, context=context)


def snapshot(to: int, sender: int, term: int, base: Snapshot) -> Message:
    """Returns a base state for a peer whose next entries are gone."""
    assert base.index > 0, "an empty base helps nobody"
    return Message(MessageType.SNAP, to, sender, term, snapshot=base)


def vote_request(
    to: int, sender: int, term: int, last: tuple[int, int], *, pre_vote: bool, forced: bool
) -> Message:
    """Returns a request to elect the sender in `term`; `last` is its last entry (term, index)."""
    last_term, last_index = last
    assert last_term < term, "a candidate's log is older than the term that it stands for"
    return Message(
        MessageType.PRE_VOTE if pre_vote else MessageType.VOTE,
        to,
        sender,
        term,
        last_term,
        last_index,
        context=FORCED if forced else b"",
    )


def vote_response(
    to: int, sender: int, term: int, *, pre_vote: bool, reject: bool, stamp: bytes
) -> Message:
    """Returns a vote: granted with the request's term, refused with the sender's own."""
    return Message(
        MessageType.PRE_VOTE_RESP if pre_vote else MessageType.VOTE_RESP,
        to,
        sender,
        term,
        reject=reject,
        context=stamp,
    )


def timeout_now(to: int, sender: int, term: int) -> Message:
    """Returns the request to campaign at once (dissertation 3.10)."""
    return Message(MessageType.TIMEOUT_NOW, to, sender, term)


def read_index(to: int, sender: int, context: bytes) -> Message:
    """Returns a follower's request for a read index."""
    return Message(MessageType.READ_INDEX, to, sender, context=context)


def read_index_response(to: int, sender: int, term: int, index: int, context: bytes) -> Message:
    """Returns the index that the follower's read must wait for."""
    return Message(MessageType.READ_INDEX_RESP, to, sender, term, index=index, context=context)


def read_index_refusal(to: int, sender: int, term: int, context: bytes) -> Message:
    """Returns the answer that this read will never be confirmed here."""
    return Message(MessageType.READ_INDEX_RESP, to, sender, term, reject=True, context=context)
