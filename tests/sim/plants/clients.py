"""What clients are told, and whether they are served."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from rakit.node.metadata import topics
from rakit.node.metadata.registry import Registry
from rakit.node.partition.batches import Batch
from rakit.node.partition.pending import Known, Outlook, Verdict
from rakit.node.partition.producers import Producer, Stamp
from rakit.node.partition.state import Stored
from rakit.peer.v1.metadata_command_pb2 import InitProducer, MetadataResult
from rakit.raft import (
    EntryID,
    Message,
    NotLeaderError,
    Payload,
    UncommittedLimitError,
    leader,
    replication,
)
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.ONCE)
def retries_are_stored_again() -> Generator[None]:
    """A batch stands in the log twice."""
    original = Outlook.append

    def append(self: Outlook, batch: Batch, stamp: Stamp | None, *others: Any) -> Verdict:
        del stamp
        return original(self, batch, None, *others)

    with patch.object(Outlook, "append", append):
        yield


@bug(Invariant.ACKNOWLEDGED)
def a_retry_is_answered_before_its_batch_is_committed() -> Generator[None]:
    """And it may never be."""

    def duplicate(self: Outlook, producer: Producer, stamp: Stamp) -> Known:
        del self
        known = producer.find(stamp.sequence)
        assert known is not None, "a duplicate is a remembered batch"
        place = (known.base_offset, known.end_offset, known.append_time_ms, known.term, known.index)
        return Known(Stored(*place))

    with patch.object(Outlook, "_duplicate", duplicate):
        yield


@bug(Invariant.NOT_APPLIED)
def what_a_leader_appended_before_it_stepped_down_counts_as_refused() -> Generator[None]:
    """And is stored later."""
    original = leader.propose

    def propose(raft: Raft, payloads: Sequence[tuple[Payload, int | None]]) -> EntryID:
        entry = original(raft, payloads)
        if entry[1] % 20 == 0:
            raft.become_follower(raft.term, 0)
            raise NotLeaderError(0)
        return entry

    with patch.object(leader, "propose", propose):
        yield


@bug(Invariant.EPOCHS, Topic.REGISTRY)
def two_registrations_get_one_epoch() -> Generator[None]:
    """Neither fences the other."""
    original = topics.init_producer

    def init_producer(registry: Registry, command: InitProducer) -> MetadataResult:
        known = registry.producers.get(command.name)
        if known is not None and known.epoch % 4 == 0:
            registry.producers.put(command.name, replace(known, epoch=known.epoch - 1))
        return original(registry, command)

    with patch.object(topics, "init_producer", init_producer):
        yield


@bug(Invariant.SERVICE, Topic.EVERYTHING)
def a_transfer_that_failed_never_ends() -> Generator[None]:
    """A leader that takes nothing leads on."""
    original = leader.tick

    def tick(raft: Raft) -> None:
        target = raft.lead_transferee
        original(raft)
        if raft.lead == raft.id:
            raft.lead_transferee = target

    with patch.object(leader, "tick", tick):
        yield


@bug(Invariant.SERVICE)
def a_long_log_takes_no_more_proposals() -> Generator[None]:
    """All is at rest, and nobody is served."""
    original = leader.propose

    def propose(raft: Raft, payloads: Sequence[tuple[Payload, int | None]]) -> EntryID:
        if raft.log.last_index > 60:
            raise UncommittedLimitError("60 entries are enough")
        return original(raft, payloads)

    with patch.object(leader, "propose", propose):
        yield


@bug(Invariant.REST)
def a_probe_that_was_lost_is_not_repeated() -> Generator[None]:
    """A follower stays behind, and nothing commits."""

    def handle_heartbeat_response(raft: Raft, message: Message, progress: Progress) -> None:
        del raft, message
        progress.recent_active = True

    with patch.object(replication, "handle_heartbeat_response", handle_heartbeat_response):
        yield


@bug(Invariant.NO_DAMAGE)
def a_new_leader_judges_before_it_has_applied_its_first_entry() -> Generator[None]:
    """It knows its log by half: what a predecessor left there is appended again (S14)."""

    def ready_to_serve(raft: Raft) -> bool:
        return raft.lead == raft.id

    with patch.object(leader, "ready_to_serve", ready_to_serve):
        yield
