"""Bugs that other implementations shipped, put back into ours, to prove that the simulator sees
them.

Each is a context manager that patches the real code. The numbers are those of docs/GUARANTEES.md,
"Bugs that are planted". A simulator that passes with one of these in force is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

from rakit.multiraft import quarantine
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.tail_cache import GroupTail
from rakit.node.partition import pending, state
from rakit.node.partition.producers import Producer, Ruling, Stamp
from rakit.raft import HardState, Message, RawNode, ReadState, Ready, Snapshot, messages, reads
from rakit.raft.log import RaftLog
from rakit.raft.quorum import JointConfig, VoteResult, majority_index, majority_vote
from rakit.raft.read_only import PendingRead, ReadOnly
from rakit.raft.state import Raft
from rakit.raft.types import Entry, EntryID
from tests.sim.disk import SimDisk

Bug = Callable[[], AbstractContextManager[None]]
BUGS: dict[str, Bug] = {}


def bug(plant: Callable[[], Generator[None]]) -> Callable[[], Generator[None]]:
    BUGS[plant.__name__] = contextmanager(plant)
    return plant


@bug
def the_vote_is_cleared_within_a_term() -> Generator[None]:
    original = Raft.reset

    def reset(self: Raft, term: int) -> None:
        original(self, term)
        self.vote = 0

    with patch.object(Raft, "reset", reset):
        yield


@bug
def term_and_vote_are_not_stored() -> Generator[None]:
    def set_hard_state(self: GroupLog, value: HardState, batch: WriteBatch) -> None:
        del batch
        self.hard_state = value

    with patch.object(GroupLog, "set_hard_state", set_hard_state):
        yield


@bug
def answers_leave_before_the_sync() -> Generator[None]:
    original = RawNode.ready

    def ready(self: RawNode) -> Ready:
        bundle = original(self)
        bundle.messages = [*bundle.messages, *bundle.messages_after_persist]
        bundle.messages_after_persist = []
        return bundle

    with patch.object(RawNode, "ready", ready):
        yield


@bug
def two_readys_share_a_list() -> Generator[None]:
    # Our own: found by this simulator in the first minutes of its life.
    def take_messages(self: Raft) -> tuple[list[Message], list[Message]]:
        now, later = self.outbox, self.outbox_durable
        if now:
            self.outbox = []
        if later:
            self.outbox_durable = []
            self._last_ack = None
        return now, later

    with patch.object(Raft, "take_messages", take_messages):
        yield


@bug
def a_disk_that_says_it_has_synced() -> Generator[None]:
    def sync(self: SimDisk, number: int) -> None:
        del self, number

    with patch.object(SimDisk, "sync", sync):
        yield


@bug
def votes_go_to_shorter_logs() -> Generator[None]:
    def is_up_to_date(self: RaftLog, last: EntryID) -> bool:
        del self, last
        return True

    with patch.object(RaftLog, "is_up_to_date", is_up_to_date):
        yield


@bug
def every_append_truncates() -> Generator[None]:
    def first_new(self: RaftLog, entries: tuple[Entry, ...]) -> int:
        del self, entries
        return 0

    with patch.object(RaftLog, "_first_new", first_new):
        yield


@bug
def the_base_is_newer_than_its_index() -> Generator[None]:
    original = GroupLog.snapshot

    def snapshot(self: GroupLog, to: int) -> Snapshot:
        base = original(self, to)
        newest = self.checkpoint(self.latest.index)
        return Snapshot(base.index, base.term, base.conf_state, newest.data)

    with patch.object(GroupLog, "snapshot", snapshot):
        yield


@bug
def the_tail_cache_is_not_truncated() -> Generator[None]:
    def truncate(self: GroupTail, index: int) -> None:
        del self, index

    with patch.object(GroupTail, "truncate", truncate):
        yield


@bug
def reads_need_no_round() -> Generator[None]:
    def add(self: ReadOnly, requester: int, context: bytes, commit: int) -> None:
        self._waiting.append(PendingRead(requester, context, commit, 0))

    with patch.object(ReadOnly, "add", add):
        yield


@bug
def a_new_leader_reads_before_its_first_commit() -> Generator[None]:
    def accept(raft: Raft, requester: int, context: bytes) -> None:
        raft.reads.add(requester, context, raft.log.committed)

    def answer(raft: Raft, requester: int, context: bytes, index: int) -> None:
        if requester == raft.id:
            raft.read_states.append(ReadState(index, context))
        else:
            raft.post(messages.read_index_response(requester, raft.id, raft.term, index, context))

    with patch.object(reads, "_accept", accept), patch.object(reads, "_answer", answer):
        yield


@bug
def a_joint_configuration_decides_by_its_new_half() -> Generator[None]:
    def committed_index(self: JointConfig, acked: Callable[[int], int]) -> int:
        return majority_index(self.incoming, acked)

    def vote_result(self: JointConfig, votes: Mapping[int, bool]) -> VoteResult:
        return majority_vote(self.incoming, votes)

    with (
        patch.object(JointConfig, "committed_index", committed_index),
        patch.object(JointConfig, "vote_result", vote_result),
    ):
        yield


@bug
def what_lost_its_tail_is_trusted() -> Generator[None]:
    original = DriverConfig.__post_init__

    def post_init(self: DriverConfig) -> None:
        original(self)
        object.__setattr__(self, "doubtful", False)

    with patch.object(DriverConfig, "__post_init__", post_init):
        yield


@bug
def what_is_shut_out_is_forgotten_by_a_restart() -> Generator[None]:
    # Our own: a replica without entries that it had acknowledged came back and voted them away.
    def note(group_id: int, replica: Quarantined, batch: WriteBatch) -> None:
        del group_id, replica, batch

    with patch.object(quarantine, "note", note):
        yield


@bug
def retries_are_stored_again() -> Generator[None]:
    def judge(
        producer: Producer, stamp: Stamp, content_crc32c: int, *, may_be_forgotten: bool = False
    ) -> Ruling:
        del producer, stamp, content_crc32c, may_be_forgotten
        return Ruling.APPEND

    with patch.object(pending, "judge", judge), patch.object(state, "judge", judge, create=True):
        yield
