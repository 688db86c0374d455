"""The boundary: what a Ready holds, when its messages may leave, and what its completion means."""

from __future__ import annotations

import pytest

from rakit.raft import (
    ConfState,
    DropKind,
    EntriesTemporarilyUnavailableError,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    NotLeaderError,
    Ready,
    Role,
    StepLocalMessageError,
    StepMalformedError,
    UncommittedLimitError,
)
from tests.raft.network import Network
from tests.raft.script import parse_change
from tests.raft.single import Single, append_message, of_kind

APP, APP_RESP = MessageType.APP, MessageType.APP_RESP
VOTE, VOTE_RESP = MessageType.VOTE, MessageType.VOTE_RESP
HEARTBEAT, HEARTBEAT_RESP = MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP


def leader(**options: int) -> Single:
    """A leader of three whose first entry, at index 2, is committed and applied."""
    node = Single([1], conf=None, **options)
    node.win()
    node.step(APP_RESP, 2, index=2)
    node.step(APP_RESP, 3, index=2)
    node.readys.clear()
    return node


def kinds(messages: list[Message]) -> list[MessageType]:
    return [message.type for message in messages]


def test_an_idle_replica_has_nothing_to_say() -> None:
    node = leader()
    assert not node.node.has_ready()
    node.node.tick()
    assert node.node.has_ready(), "heartbeats are due"


def test_a_ready_comes_once() -> None:
    node = leader()
    node.node.propose(b"x")
    assert node.node.has_ready()
    node.node.ready()
    assert not node.node.has_ready()


def test_numbers_rise_by_one() -> None:
    node = leader()
    numbers: list[int] = []
    for _ in range(3):
        node.node.propose(b"x")
        numbers.append(node.take().number)
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_only_entries_terms_votes_and_bases_force_a_sync() -> None:
    node = leader()
    node.node.propose(b"x")
    assert node.take().must_sync
    node.persist()
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=3))
    ready = node.take()
    assert ready.hard_state == HardState(2, 1, 3)
    assert not ready.must_sync, "a commit index alone never forces a sync"


def test_a_leaders_messages_leave_before_its_own_disk_is_done() -> None:
    node = leader()
    node.node.propose(b"x")
    ready = node.take()
    assert kinds(ready.messages) == [APP, APP]
    assert ready.entries
    assert not ready.messages_after_persist


@pytest.mark.parametrize(
    "message",
    [
        append_message(Single([1]), 2, (1, 1), 1, term=1),
        append_message(Single([1]), 2, (1, 7), term=2),
        Message(VOTE, 1, 2, 5, 1, 1),
        Message(VOTE, 1, 2, 5, 0, 0),
        Message(HEARTBEAT, 1, 2, 5),
    ],
    ids=["ack", "rejection", "grant", "refusal", "heartbeat of a new term"],
)
def test_what_a_follower_says_waits_for_its_disk(message: Message) -> None:
    node = Single([1])
    node.node.step(message)
    ready = node.take()
    assert ready.must_sync
    assert not ready.messages
    assert len(ready.messages_after_persist) == 1


def test_with_nothing_under_way_a_follower_answers_at_once() -> None:
    node = Single([1], term=2)
    node.step(HEARTBEAT, 2)
    node.node.step(append_message(node, 2, (2, 9), term=2))
    ready = node.take()
    assert not ready.must_sync
    assert kinds(ready.messages) == [APP_RESP]


def test_a_heartbeat_of_a_durable_term_is_answered_while_the_disk_works() -> None:
    node = Single([1], term=2)
    node.node.step(append_message(node, 2, (1, 1), 2, term=2))
    node.take()
    node.node.step(Message(HEARTBEAT, 1, 2, 2))
    ready = node.take()
    assert kinds(ready.messages) == [HEARTBEAT_RESP]
    node.node.step(append_message(node, 2, (2, 2), term=2))
    assert kinds(node.take().messages_after_persist) == [APP_RESP]


def test_vote_requests_and_the_own_vote_wait_for_the_disk() -> None:
    """A candidate that crashed could otherwise collect votes for a log that it lost."""
    node = Single([1], pre_vote=False)
    node.node.campaign()
    ready = node.take()
    assert not ready.messages
    assert kinds(ready.messages_after_persist) == [VOTE, VOTE]
    alone = Single([1], conf=ConfState((1,)), pre_vote=False)
    alone.node.campaign()
    alone.take()
    assert alone.role() is Role.CANDIDATE
    alone.persist()
    assert alone.role() is Role.LEADER


def test_acknowledgements_to_one_leader_subsume_each_other() -> None:
    node = Single([1])
    for index in (1, 2, 3):
        node.node.step(append_message(node, 2, (1, index), 1, term=1))
    node.node.step(append_message(node, 2, (1, 1), term=1))
    ready = node.take()
    assert [(m.type, m.index) for m in ready.messages_after_persist] == [(APP_RESP, 4)]


def test_a_rejection_is_not_subsumed() -> None:
    node = Single([1])
    node.node.step(append_message(node, 2, (1, 1), 1, term=1))
    node.node.step(append_message(node, 2, (1, 9), term=1))
    node.node.step(append_message(node, 2, (1, 2), 1, term=1))
    ready = node.take()
    assert [(m.reject, m.index) for m in ready.messages_after_persist] == [(False, 3), (True, 9)]


def test_answers_of_different_terms_stay_apart() -> None:
    node = Single([1])
    node.node.step(append_message(node, 2, (1, 1), 1, term=1))
    node.node.step(append_message(node, 2, (1, 2), 3, term=3))
    ready = node.take()
    assert [(m.term, m.index) for m in ready.messages_after_persist] == [(1, 2), (3, 3)]


# Several in flight (S18).


def test_s18_several_readys_may_be_under_way() -> None:
    node = leader()
    first = node.node.propose(b"a")
    node.take()
    node.node.propose(b"b")
    sent = node.take().messages
    assert [(m.index, [e.data for e in m.entries]) for m in sent] == [(3, [b"b"]), (3, [b"b"])]
    assert node.node.basic_status().durable_index == first[1] - 1
    node.persist()
    assert node.node.basic_status().durable_index == first[1]


def test_s18_a_ready_without_sync_completes_after_those_before_it() -> None:
    node = leader()
    node.node.propose(b"a")
    node.take()
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=3))
    node.node.step(Message(APP_RESP, 1, 3, node.term, index=3))
    commit = node.take()
    assert not commit.must_sync
    with pytest.raises(AssertionError, match="N1"):
        node.node.on_persisted(commit.number)


def test_s18_a_completion_attests_to_the_whole_log_as_of_its_ready() -> None:
    """After a change of term the next completion speaks for older entries too."""
    node = Single([1])
    node.node.step(append_message(node, 2, (1, 1), 1, 1, term=1))
    node.take()
    node.node.step(Message(HEARTBEAT, 1, 3, 2))
    node.take()
    node.persist()
    assert node.node.basic_status().durable_index == 1, "the term has moved"
    node.persist()
    assert node.node.basic_status().durable_index == 3


def test_s18_a_completion_counts_for_nothing_that_has_taken_the_place_of_what_it_wrote() -> None:
    """Rule U1 within one term: the second Ready attests to entries of term 1 (known bug 12)."""
    node = Single([1], term=1)
    node.node.step(append_message(node, 2, (1, 1), 1, 1, term=1))
    node.take()
    node.node.step(Message(MessageType.HEARTBEAT, 1, 3, 2))
    node.take()
    node.node.step(append_message(node, 3, (1, 1), 2, 2, term=2))
    node.take()
    node.persist(2)
    assert node.node.basic_status().durable_index == 1
    assert [node.synced.log.term(i) for i in (2, 3)] == [1, 1]
    node.persist()
    assert node.node.basic_status().durable_index == 3


def test_s18_a_vote_given_after_the_campaign_does_not_count_for_it() -> None:
    """The completion of term 2's record comes when the candidate is in term 3 already."""
    node = Single([1], conf=ConfState((1,)), pre_vote=False)
    node.node.campaign()
    node.take()
    node.node.campaign()
    node.take()
    node.persist()
    assert (node.role(), node.term) == (Role.CANDIDATE, 3)
    node.persist()
    assert (node.role(), node.term) == (Role.LEADER, 3)


def test_a_completion_that_nobody_waits_for_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="none is in flight"):
        Single([1]).node.on_persisted(1)


# Commit and apply (S13).


def test_s13_a_commit_needs_no_particular_disk_and_applying_needs_the_own() -> None:
    node = leader()
    node.node.propose(b"x")
    node.take()
    for peer in (2, 3):
        node.node.step(Message(APP_RESP, 1, peer, node.term, index=3))
    assert node.node.basic_status().commit == 3
    assert not node.take().committed_entries
    node.persist(2)
    assert [e.data for e in node.take().committed_entries] == [b"x"]


def test_s13_the_own_disk_counts_like_any_other() -> None:
    node = leader()
    node.node.propose(b"x")
    node.take()
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=3))
    assert node.node.basic_status().commit == 2
    node.persist()
    assert node.node.basic_status().commit == 3


def test_s13_the_own_disk_counts_as_far_as_it_has_reported() -> None:
    node = leader()
    for _ in range(2):
        node.node.propose(b"x")
        node.take()
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=4))
    node.persist()
    assert node.node.basic_status().commit == 3, "the second write is under way"
    node.persist()
    assert node.node.basic_status().commit == 4


def test_the_holders_of_an_entry_are_counted_by_the_leader() -> None:
    node = leader()
    node.node.propose(b"x")
    node.take()
    assert [node.node.holder_count(index) for index in (2, 3)] == [3, 0]
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=3))
    node.persist()
    assert node.node.holder_count(3) == 2
    node.node.step_down()
    assert node.node.holder_count(3) == 0


def test_what_is_still_to_be_sent_is_told_by_the_leader() -> None:
    node = leader()
    for _ in range(2):
        node.node.propose(b"x")
    assert [node.node.unsent_from(first) for first in (1, 3, 4)] == [3, 3, 5]
    node.take()
    assert node.node.unsent_from(3) == 5, "what was sent is not read again"
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=4, reject=True, reject_hint=2))
    assert node.node.unsent_from(1) == 3, "its log ends there"
    for _ in range(40):
        node.node.tick()
        node.node.step(Message(APP_RESP, 1, 3, node.term, index=4))
    assert node.node.basic_status().role is Role.LEADER
    assert node.node.unsent_from(1) == 5, "who is not heard of is sent nothing"
    node.node.step_down()
    assert node.node.unsent_from(1) == 5


def test_s14_a_leader_is_ready_when_it_has_applied_its_own_first_entry() -> None:
    node = Single([1])
    node.win()
    assert not node.node.leader_ready()
    node.node.step(Message(APP_RESP, 1, 2, node.term, index=2))
    assert not node.node.leader_ready(), "committed, not applied"
    node.drain()
    assert node.node.leader_ready()
    node.node.step_down()
    assert not node.node.leader_ready()


# Proposals.


def test_a_batch_is_one_append_and_returns_its_first_id() -> None:
    node = leader()
    assert node.node.propose_batch([b"a", b"b", b"c"]) == (2, 3)
    assert node.node.propose(b"d") == (2, 6)
    sent = node.take().messages
    assert [[e.data for e in m.entries] for m in sent] == [[b"a", b"b", b"c", b"d"]] * 2


def test_a_follower_takes_no_proposal_and_names_the_leader() -> None:
    node = Single([1])
    node.append(3, (1, 1), term=1)
    with pytest.raises(NotLeaderError) as caught:
        node.node.propose(b"x")
    assert caught.value.lead == 3
    assert node.terms() == [1]


def test_too_many_uncommitted_bytes_push_back() -> None:
    node = leader(max_uncommitted_bytes=100)
    node.node.propose(b"x" * 500)
    with pytest.raises(UncommittedLimitError):
        node.node.propose(b"y")
    node.node.propose(b"")
    node.drain()
    for peer in (2, 3):
        node.step(APP_RESP, peer, index=4)
    node.node.propose(b"y")


def test_the_limit_counts_this_terms_proposals_only() -> None:
    node = Single([1, 1, 1], max_uncommitted_bytes=100)
    node.store.log.entries(1, 2, 1)
    node.win()
    node.step(APP_RESP, 2, index=4)
    assert node.node._raft.uncommitted_bytes == 0
    node.node.propose(b"x" * 60)
    with pytest.raises(UncommittedLimitError):
        node.node.propose(b"x" * 60)


def test_losing_leadership_leaves_proposals_with_an_unknown_outcome() -> None:
    node = leader()
    _, index = node.node.propose(b"x")
    node.drain()
    node.append(2, (1, 1), term=9)
    drops = [drop for ready in node.readys for drop in ready.dropped]
    assert [(d.kind, d.term, d.index) for d in drops] == [(DropKind.PROPOSALS, 2, index - 1)]


def test_a_leader_without_open_proposals_drops_nothing() -> None:
    node = leader()
    node.node.step_down()
    node.drain()
    assert not any(ready.dropped for ready in node.readys)


def test_a_message_without_a_term_is_refused() -> None:
    with pytest.raises(StepMalformedError):
        Single([1]).node.step(Message(HEARTBEAT, 1, 2, 0))


@pytest.mark.parametrize("field", ["index", "log_term", "commit", "reject_hint"])
def test_a_message_with_a_number_below_nothing_is_refused(field: str) -> None:
    message = Message(MessageType.APP, 1, 2, 3)
    setattr(message, field, -1)
    with pytest.raises(StepMalformedError):
        Single([1]).node.step(message)


@pytest.mark.parametrize(
    "kind",
    ["HUP", "BEAT", "PROP", "UNREACHABLE", "SNAP_STATUS", "CHECK_QUORUM", "TRANSFER_LEADER"],
)
def test_what_only_the_host_may_ask_is_refused_from_a_peer(kind: str) -> None:
    node = Single([1])
    with pytest.raises(StepLocalMessageError):
        node.node.step(Message(MessageType[kind], 1, 2, 9))
    assert node.term == 1


# Applying.


def test_committed_entries_come_in_pages_and_under_a_quota() -> None:
    node = Single([], max_committed_bytes_per_ready=100, term=1)
    entries = tuple(Entry(1, i, data=b"x" * 40) for i in range(1, 6))
    node.node.step(Message(APP, 1, 2, 1, 0, 0, entries, commit=5))
    node.node.ready()
    node.store.log.append(list(entries))
    node.node.on_persisted(1)
    pages = [node.node.ready().committed_entries for _ in range(3)]
    assert [[e.index for e in page] for page in pages] == [[1], [2], [3]]
    assert not node.node.has_ready(), "120 bytes are outstanding"
    node.node.on_applied(1, 40)
    assert [e.index for e in node.node.ready().committed_entries] == [4]


def unavailable(*_: int) -> list[Entry]:
    """Stands for a storage that fetches the entries first."""
    raise EntriesTemporarilyUnavailableError


def test_entries_that_are_being_fetched_pause_the_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Single([1, 1], commit=2)
    monkeypatch.setattr(node.store.log, "entries", unavailable)
    assert not node.node.ready().committed_entries
    assert not node.node.has_ready(), "asking again would spin"
    monkeypatch.undo()
    node.node.on_entries_fetched(1, 1)
    assert [e.index for e in node.node.ready().committed_entries] == [1, 2]


def test_entries_that_are_being_fetched_pause_only_the_peer_that_needs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Single([1, 1, 1])
    node.win()
    node.step(APP_RESP, 2, index=4)
    monkeypatch.setattr(node.store.log, "entries", unavailable)
    assert node.step(APP_RESP, 3, index=3, reject=True, reject_hint=1) == []
    monkeypatch.undo()
    node.node.on_entries_fetched(3, node.term)
    assert [(m.to, m.index) for m in of_kind(node.drain(), APP)] == [(3, 1)]


def test_whether_a_change_waits_to_be_applied_is_known_without_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replica with much to apply may be asked to stand at every tick (rule M3)."""
    node = Single([1, 1], commit=2)
    monkeypatch.setattr(node.store.log, "entries", unavailable)
    assert node.node.campaign()
    node = Single([1, 1], commit=2)
    node.store.log.append([Entry(1, 2, EntryType.CONF_CHANGE, parse_change(["v4"]).encode())])
    monkeypatch.setattr(node.store.log, "entries", unavailable)
    assert not node.node.campaign()
    monkeypatch.undo()
    node.drain()
    assert node.node.campaign()


# What a host that has no room asks for.


def test_a_ready_sends_a_share_to_every_peer_and_the_next_one_goes_on() -> None:
    node = leader(max_size_per_msg_bytes=100, max_sent_bytes_per_ready=200)
    for _ in range(8):
        node.node.propose(b"x" * 70)
    shares: list[list[tuple[int, int]]] = []
    while node.node.has_ready():
        ready = node.node.ready()
        shares.append([(message.to, message.index) for message in ready.messages])
        assert ready.sent_bytes == 94 * len(ready.messages)
    full = [share for share in shares if share]
    assert [to for to, _ in full[0]] == [2, 2, 2, 3, 3, 3], "nobody waits for another's backlog"
    assert sorted(each for share in full for each in share) == [
        (to, index) for to in (2, 3) for index in range(2, 10)
    ]


@pytest.mark.parametrize("compacted", [0, 4])
def test_an_append_from_before_the_commit_index_is_answered_with_it(compacted: int) -> None:
    """Rule F3: also where the entries are gone; a refusal would look like a loss (D5)."""
    node = Single([1] * 5, commit=5)
    node.drain()
    node.store.log.compact(compacted)
    (answer,) = node.append(2, (1, 2), 1)
    assert (answer.type, answer.index, answer.reject) == (APP_RESP, 5, False)


def test_an_acknowledgement_makes_room_in_the_window() -> None:
    node = leader(max_inflight_messages=1)
    sent: list[int] = []
    for _ in range(3):
        node.node.propose(b"x")
        sent += [len(m.entries) for m in of_kind(node.drain(), APP) if m.to == 2]
    assert sent == [1]
    for index in (3, 5):
        sent += [len(m.entries) for m in of_kind(node.step(APP_RESP, 2, index=index), APP)]
    assert sent == [1, 2, 0], "what waited for room, then word of the commit"


def test_s17_a_held_peer_is_sent_nothing_until_it_is_released() -> None:
    node = leader()
    assert node.node.hold(lambda peer: peer == 2) == [2]
    _, index = node.node.propose(b"x")
    assert {message.to for message in of_kind(node.drain(), APP)} == {3}
    node.step(HEARTBEAT_RESP, 2)
    node.node.report_unreachable(2)
    node.node.tick()
    assert not [m for m in node.drain() if m.to == 2 and m.type is APP]
    node.node.release(2)
    sent = [m for m in of_kind(node.drain(), APP) if m.to == 2]
    assert [message.entries[-1].index for message in sent] == [index]
    node.node.release(2)
    assert not node.node.has_ready(), "it was not held any more"


def test_only_a_leader_holds_anybody() -> None:
    node = Single([1])
    assert node.node.hold(lambda _: True) == []
    node.node.release(2)
    assert not node.node.has_ready()


# Other requests of the host.


def test_a_leader_may_step_down_within_its_term() -> None:
    node = leader()
    node.node.step_down()
    assert (node.role(), node.term) == (Role.FOLLOWER, 2)
    assert node.node.basic_status().vote == 1, "the vote of the term stays"


def test_an_unreachable_peer_is_probed_again() -> None:
    node = leader()
    node.node.propose(b"x")
    node.drain()
    node.node.report_unreachable(2)
    sent = [m for m in of_kind(node.drain(), APP) if m.to == 2]
    assert [(m.index, len(m.entries)) for m in sent] == [(2, 1)]
    node.node.propose(b"y")
    assert all(m.to == 3 for m in of_kind(node.drain(), APP)), "one probe at a time"


def test_s15_a_peer_that_is_back_is_asked_at_once() -> None:
    node = leader()
    node.node.report_reachable(2)
    assert [(m.to, m.index) for m in of_kind(node.drain(), APP)] == [(2, 2)]


def test_reports_about_strangers_are_ignored() -> None:
    node = leader()
    node.node.report_unreachable(99)
    node.node.report_reachable(1)
    node.node.report_snapshot(99, ok=True)
    node.node.on_entries_fetched(99, 2)
    assert not node.node.has_ready()


def test_s16_a_sole_voter_leads_at_once_when_it_campaigns() -> None:
    network = Network((1,))
    network[1].campaign()
    network.run()
    assert network[1].leader_ready()


def test_two_runs_with_one_seed_are_equal() -> None:
    """Row 23: no clock, no global generator, no order of sets."""

    def story() -> list[Ready]:
        network = Network((1, 2, 3), learners=(4,))
        network.tick(40)
        leader_id = network.leader()
        network[leader_id].propose(b"x")
        network[leader_id].propose_conf_change(parse_change(["v4"]))
        network.run()
        network.isolate(leader_id)
        network.tick(40)
        return [ready for replica in network.replicas.values() for ready in replica.outcome]

    assert story() == story()
