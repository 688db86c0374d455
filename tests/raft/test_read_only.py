from __future__ import annotations

from functools import partial
from operator import ne

from hypothesis import given
from hypothesis import strategies as st

from rakit.raft.quorum import JointConfig
from rakit.raft.read_only import ReadOnly

THREE = JointConfig((1, 2, 3))


def everybody_counts(_replica_id: int) -> bool:
    return True


def contexts(reads: ReadOnly, voters: JointConfig = THREE) -> list[bytes]:
    return [read.context for read in reads.confirmed(1, voters, everybody_counts)]


def test_reads_that_come_together_share_a_round() -> None:
    reads = ReadOnly()
    reads.add(1, b"a", 5)
    reads.add(1, b"b", 6)
    round_ = reads.send_round()
    assert contexts(reads) == []
    reads.acknowledge(2, round_)
    assert contexts(reads) == [b"a", b"b"]
    assert contexts(reads) == []


def test_a_read_after_the_round_left_waits_for_the_next() -> None:
    reads = ReadOnly()
    reads.add(1, b"a", 5)
    first = reads.send_round()
    reads.add(1, b"b", 6)
    assert reads.needs_heartbeat
    reads.acknowledge(2, first)
    assert contexts(reads) == [b"a"]
    reads.acknowledge(2, reads.send_round())
    assert contexts(reads) == [b"b"]


def test_a_later_answer_confirms_earlier_rounds() -> None:
    reads = ReadOnly()
    reads.add(1, b"a", 5)
    reads.send_round()
    reads.add(1, b"b", 6)
    second = reads.send_round()
    reads.acknowledge(3, second)
    assert contexts(reads) == [b"a", b"b"]


def test_equal_contexts_do_not_confirm_each_other() -> None:
    """Known bug 20 (etcd-io/etcd#20418)."""
    reads = ReadOnly()
    reads.add(2, b"same", 5)
    first = reads.send_round()
    reads.acknowledge(2, first)
    assert [r.requester for r in reads.confirmed(1, THREE, everybody_counts)] == [2]
    reads.add(3, b"same", 9)
    reads.send_round()
    reads.acknowledge(2, first)
    assert contexts(reads) == []


def test_a_number_that_was_never_sent_confirms_nothing() -> None:
    reads = ReadOnly()
    reads.add(1, b"a", 5)
    reads.send_round()
    reads.acknowledge(2, (99).to_bytes(8, "big"))
    reads.acknowledge(3, b"short")
    assert contexts(reads) == []


def test_both_halves_must_answer() -> None:
    reads = ReadOnly()
    joint = JointConfig((1, 4, 5), (1, 2, 3))
    reads.add(1, b"a", 5)
    round_ = reads.send_round()
    reads.acknowledge(2, round_)
    reads.acknowledge(3, round_)
    assert contexts(reads, joint) == []
    reads.acknowledge(4, round_)
    assert contexts(reads, joint) == [b"a"]


def test_a_smaller_quorum_confirms_what_waited() -> None:
    reads = ReadOnly()
    reads.add(1, b"a", 5)
    round_ = reads.send_round()
    five = JointConfig((1, 2, 3, 4, 5))
    reads.acknowledge(2, round_)
    assert contexts(reads, five) == []
    assert contexts(reads, THREE) == [b"a"]


def test_a_voter_that_does_not_count_confirms_nothing() -> None:
    """Rule R3: also when it stopped counting after its answer; it may be this leader itself."""
    reads = ReadOnly()
    reads.add(1, b"a", 5)
    reads.acknowledge(2, reads.send_round())
    for doubted in (1, 2):
        assert reads.confirmed(1, THREE, partial(ne, doubted)) == []
    assert contexts(reads) == [b"a"]


def test_abandoned_reads_ask_for_no_heartbeat() -> None:
    reads = ReadOnly()
    reads.early.append((2, b"early"))
    reads.add(1, b"a", 5)
    assert reads.needs_heartbeat
    assert reads.abandon() == [(2, b"early"), (1, b"a")]
    assert not reads.needs_heartbeat
    assert len(reads) == 0


@given(
    st.lists(
        st.one_of(
            st.just("read"), st.just("send"), st.tuples(st.integers(2, 5), st.integers(1, 6))
        ),
        max_size=30,
    )
)
def test_a_read_is_confirmed_exactly_by_a_quorum_of_later_rounds(
    actions: list[str | tuple[int, int]],
) -> None:
    voters = JointConfig((1, 2, 3, 4, 5))
    reads = ReadOnly()
    sent = 0
    waiting: list[tuple[bytes, int]] = []
    answered: dict[int, int] = {}
    for number, action in enumerate(actions):
        if action == "read":
            context = b"%d" % number
            reads.add(1, context, number)
            waiting.append((context, sent + 1))
        elif action == "send":
            sent += bool(reads.needs_heartbeat)
            reads.send_round()
        elif isinstance(action, tuple):
            peer, round_ = action
            reads.acknowledge(peer, round_.to_bytes(8, "big"))
            if round_ <= sent:
                answered[peer] = max(answered.get(peer, 0), round_)
        done = [
            context
            for context, round_ in waiting
            if round_ <= sent and sum(a >= round_ for a in answered.values()) >= 2
        ]
        assert contexts(reads, voters) == done
        waiting = [item for item in waiting if item[0] not in done]
