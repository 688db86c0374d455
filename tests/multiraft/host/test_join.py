"""Joined appends bring a receiver to the same log and commit as the appends one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rakit.multiraft.effects import Envelope
from rakit.multiraft.join import join_appends
from rakit.raft import Entry, EntryType, Message, MessageType
from rakit.raft.messages import encode_boot


def append(
    index: int,
    *terms: int,
    log_term: int = 1,
    term: int = 1,
    commit: int = 0,
    group: int = 1,
    data: bytes = b"x",
    context: bytes = b"",
) -> Envelope:
    entries = tuple(
        Entry(each, index + 1 + position, EntryType.NORMAL, data)
        for position, each in enumerate(terms)
    )
    message = Message(
        MessageType.APP, 2, 1, term, log_term, index, entries, commit, context=context
    )
    return Envelope(group, 1, 2, message)


class Follower:
    """A receiver that knows nothing but the rules of an append (section 5.3)."""

    def __init__(self) -> None:
        self.terms: dict[int, list[int]] = {}
        self.commit: dict[int, int] = {}

    def receive(self, envelope: Envelope) -> None:
        message = envelope.message
        log = self.terms.setdefault(envelope.group_id, [0, 1, 1])
        if message.index >= len(log) or log[message.index] != message.log_term:
            return
        for entry in message.entries:
            if entry.index < len(log) and log[entry.index] != entry.term:
                del log[entry.index :]
            if entry.index == len(log):
                log.append(entry.term)
        last = message.index + len(message.entries)
        commit = self.commit.get(envelope.group_id, 0)
        self.commit[envelope.group_id] = max(commit, min(message.commit, last))


STEPS = st.tuples(
    st.integers(1, 2),  # group
    st.integers(0, 3),  # entries
    st.integers(-1, 1),  # gap or overlap before them; 0 mostly means that they follow
    st.booleans(),
)


@given(st.lists(STEPS, max_size=12))
def test_a_receiver_ends_where_it_would_have_ended(steps: list[tuple[int, int, int, bool]]) -> None:
    ends = {1: 2, 2: 2}
    sent: list[Envelope] = []
    for group, count, gap, news in steps:
        index = max(0, ends[group] + (gap if news else 0))
        commit = index + count - (1 if count and not news else 0)
        log_term = 1 if index else 0
        sent.append(append(index, *[1] * count, log_term=log_term, commit=commit, group=group))
        ends[group] = index + count
    one_by_one, joined = Follower(), Follower()
    for each in sent:
        one_by_one.receive(each)
    for each in join_appends(sent):
        joined.receive(each)
    assert joined.terms == one_by_one.terms
    assert joined.commit == one_by_one.commit


def test_what_follows_is_one_append_with_the_newest_commit() -> None:
    found = join_appends([append(4, 1, 1, commit=3), append(6, 1, commit=4), append(7, commit=6)])
    assert found == [append(4, 1, 1, 1, commit=6)]


def test_groups_do_not_mix() -> None:
    sent = [append(4, 1, group=1), append(4, 1, group=2), append(5, 1, group=1)]
    assert join_appends(sent) == [append(4, 1, 1, group=1), append(4, 1, group=2)]


def test_what_does_not_follow_stays_apart() -> None:
    for other in (
        append(6, 1),  # a gap
        append(5, 2, log_term=2, term=2),  # another term
        append(5, 1, log_term=9),  # another past
    ):
        sent = [append(4, 1), other]
        assert join_appends(sent) == sent


def test_s8_the_word_that_ends_a_doubt_is_neither_lost_nor_said_too_early() -> None:
    """It stands for what its own append covers; an earlier one may not be there yet."""
    word = encode_boot(7)
    sent = [append(4, 1), append(5, 1, context=word), append(6, 1)]
    assert join_appends(sent) == sent
    both = [append(4, 1, context=word), append(5, 1, context=word)]
    assert join_appends(both) == [append(4, 1, 1, context=word)]


def test_bulk_is_not_copied_together() -> None:
    sent = [append(4, 1, data=b"x" * 100_000), append(5, 1, data=b"x" * 100_000), append(6, 1)]
    assert join_appends(sent) == sent


def test_other_messages_keep_their_place() -> None:
    snapshot = Envelope(1, 1, 2, Message(MessageType.SNAP, 2, 1, 1))
    sent = [append(4, 1), snapshot, append(5, 1)]
    assert join_appends(sent) == sent


def test_the_sender_s_own_messages_are_not_changed() -> None:
    first = append(4, 1)
    join_appends([first, append(5, 1)])
    assert first == append(4, 1)
