from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.raft.quorum import JointConfig
from rakit.raft.tracker import Inflights, Membership, Progress, ProgressState, Tracker, Window


def progress(match: int = 0, next_index: int = 1, *, messages: int = 2) -> Progress:
    return Progress(match, next_index, Inflights(messages, 1000), learner=False)


# Inflights.


def test_the_window_is_full_by_messages_or_by_bytes() -> None:
    window = Inflights(2, 100)
    window.add(5, 10)
    assert not window.full
    window.add(6, 10)
    assert window.full
    heavy = Inflights(10, 100)
    heavy.add(5, 150)
    assert heavy.full


def test_an_acknowledgement_frees_a_prefix() -> None:
    window = Inflights(3, 100)
    for index in (5, 7, 9):
        window.add(index, 10)
    window.free_to(8)
    assert (len(window), window.bytes) == (1, 10)
    window.free_to(9)
    assert (len(window), window.bytes) == (0, 0)


def test_nothing_is_sent_into_a_full_window() -> None:
    window = Inflights(1, 100)
    window.add(5, 10)
    with pytest.raises(AssertionError, match="full window"):
        window.add(6, 10)


@given(
    st.lists(st.one_of(st.integers(1, 30), st.tuples(st.integers(1, 5), st.integers(0, 40)))),
    st.integers(1, 4),
)
def test_the_window_is_like_a_list(actions: list[int | tuple[int, int]], messages_max: int) -> None:
    """Numbers acknowledge, pairs (step, size) send; a plain list does the same sums."""
    window = Inflights(messages_max, 60)
    naive: list[tuple[int, int]] = []
    last = 0
    for action in actions:
        if isinstance(action, int):
            window.free_to(action)
            naive = [(index, size) for index, size in naive if index > action]
        elif not window.full:
            last += action[0]
            window.add(last, action[1])
            naive.append((last, action[1]))
        assert len(window) == len(naive)
        assert window.bytes == sum(size for _, size in naive)
        assert window.full == (len(naive) >= messages_max or window.bytes >= 60)


# Progress.


def test_a_probe_is_one_message_at_a_time() -> None:
    peer = progress()
    peer.sent(1, 1, 10, commit=0)
    assert peer.paused
    assert peer.next == 1


def test_replication_runs_ahead_until_the_window_is_full() -> None:
    peer = progress(match=4, next_index=5)
    peer.become_replicate()
    peer.sent(2, 6, 10, commit=4)
    assert (peer.next, peer.paused) == (7, False)
    peer.sent(1, 7, 10, commit=4)
    assert (peer.next, peer.paused) == (8, True)


def test_match_never_falls_and_next_stays_above_it() -> None:
    peer = progress(match=7, next_index=8)
    assert not peer.acknowledge(5)
    assert (peer.match, peer.next) == (7, 8)
    assert peer.acknowledge(12)
    assert (peer.match, peer.next) == (12, 13)


def test_a_late_rejection_is_ignored_while_replicating() -> None:
    peer = progress(match=7, next_index=8)
    peer.become_replicate()
    assert not peer.reject(6, 2)
    assert peer.next == 8
    assert peer.reject(9, 2)
    assert peer.next == 8


def test_a_rejection_of_another_probe_is_ignored() -> None:
    peer = progress(match=0, next_index=10)
    assert not peer.reject(5, 2)
    assert peer.reject(9, 4)
    assert peer.next == 5


def test_a_peer_that_rejects_what_it_acknowledged_is_not_asked_again_before_a_heartbeat() -> None:
    """There is nothing lower to ask about: question and answer would chase each other."""
    peer = progress(match=7, next_index=8)
    peer.sent(1, 8, 10, commit=0)
    assert not peer.reject(7, 3)
    assert (peer.next, peer.paused) == (8, True)


def test_a_probe_never_goes_below_match() -> None:
    peer = progress(match=6, next_index=10)
    assert peer.reject(9, 1)
    assert peer.next == 7


def test_after_a_base_the_probe_starts_behind_it() -> None:
    peer = progress(match=3, next_index=4)
    peer.become_snapshot(20)
    assert peer.paused
    peer.become_probe()
    assert (peer.next, peer.pending_snapshot, peer.paused) == (21, 0, False)


def test_a_lost_base_is_forgotten() -> None:
    peer = progress(match=3, next_index=4)
    peer.become_snapshot(20)
    peer.pending_snapshot = 0
    peer.become_probe()
    assert peer.next == 4


def test_a_commit_index_is_worth_a_message_only_if_the_peer_can_use_it() -> None:
    peer = progress(match=4, next_index=7)
    peer.become_replicate()
    peer.sent(2, 6, 10, commit=4)
    assert not peer.can_bump_commit(4)
    assert peer.can_bump_commit(5)
    peer.sent(0, 6, 0, commit=6)
    assert not peer.can_bump_commit(9), "the peer has nothing above 6 to commit"


def test_a_restart_in_doubt_is_the_one_case_in_which_match_falls() -> None:
    peer = progress(match=9, next_index=10)
    peer.become_replicate()
    peer.restart()
    assert (peer.match, peer.next, peer.state) == (0, 10, ProgressState.PROBE)


# Tracker.


def tracker(voters: JointConfig, learners: tuple[int, ...] = ()) -> Tracker:
    built = Tracker()
    membership = Membership(voters, learners)
    built.install(
        1,
        membership,
        {i: Progress(0, 1, Inflights(4, 100), learner=i in learners) for i in membership.ids},
    )
    return built


def test_progress_must_cover_the_configuration_exactly() -> None:
    with pytest.raises(AssertionError, match="exactly"):
        Tracker().install(1, Membership(JointConfig((1, 2))), {1: progress()})


def test_learners_do_not_count_towards_a_commit() -> None:
    built = tracker(JointConfig((1, 2, 3)), learners=(4, 5))
    for replica_id, match in {1: 3, 2: 1, 3: 2, 4: 9, 5: 9}.items():
        built.progress[replica_id].match = match
    assert built.committed_index() == 2


def test_s8_a_peer_that_does_not_count_holds_nothing() -> None:
    built = tracker(JointConfig((1, 2, 3)))
    for replica_id, match in {1: 3, 2: 3, 3: 0}.items():
        built.progress[replica_id].match = match
    assert built.committed_index() == 3
    built.progress[2].counts = False
    assert built.committed_index() == 0


def test_a_quorum_is_heard_in_both_halves() -> None:
    built = tracker(JointConfig((1, 2, 3), (1, 4, 5)))
    assert built.quorum_recently_active(1)
    built.progress[4].recent_active = False
    assert built.quorum_recently_active(1)
    built.progress[5].recent_active = False
    assert not built.quorum_recently_active(1)


def test_a_new_leader_knows_only_its_own_disk() -> None:
    built = tracker(JointConfig((1, 2, 3)))
    built.progress[2].match = 8
    built.restart(1, last_index=9, durable_index=7, window=Window(4, 100))
    assert [built.progress[i].match for i in (1, 2, 3)] == [7, 0, 0]
    assert [built.progress[i].next for i in (2, 3)] == [10, 10]


def test_peers_come_in_the_order_of_their_ids() -> None:
    built = tracker(JointConfig((1, 3, 9), (2, 3)), learners=(5,))
    assert [id_ for id_, _ in built.peers] == [2, 3, 5, 9]


def test_members_and_peers_come_in_order_whatever_order_they_are_kept_in() -> None:
    """These ids, taken as a set, come in another one."""
    membership = Membership(JointConfig((1, 8, 64), (8, 33)), learners=(16,))
    assert membership.ids == (1, 8, 16, 33, 64)
    built = Tracker()
    built.install(8, membership, {id_: progress() for id_ in (64, 33, 16, 8, 1)})
    assert [id_ for id_, _ in built.peers] == [1, 16, 33, 64]


def test_only_a_single_voter_without_an_outgoing_half_is_alone() -> None:
    assert tracker(JointConfig((1,)), learners=(2,)).is_sole_voter(1)
    assert not tracker(JointConfig((1,), (1, 2))).is_sole_voter(1)
