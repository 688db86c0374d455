"""One replica of a partition on this node: what services call. The asynchronous rim.

It joins the pure parts to the host: who may append and read here (the leader, once it is ready,
S14 and S20), which error says what, when a linearizable barrier is needed, and the upkeep of the
log. The object lives as long as the replica; leaderships come and go beneath it.

Rules:

- Only the leader answers, after an entry of its own term is applied. A plain read of a leader that
  was deposed without knowing it may be stale, never wrong.
- `latest`, and "out of range" above the log's end, are said only after ReadIndex (S20): a fresh
  leader's end may lie below offsets that a client has an acknowledgement for. The same goes for
  what a producer is refused for (`refusals`).
- The appender, with its view of pending entries, belongs to one term. It is made when that term's
  first request comes, from the applied state, and never survives the term. Where anything is
  pending already it is not made: whatever that is, a new one would not know of it.
- Damage found while reading quarantines the replica and is reported as CORRUPT_RECORD; the answer
  is never shortened to what could still be read. A read that fails for another reason takes the
  replica out of service until the next start (`rakit.multiraft.quarantine`): NODE_UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rakit.api.v1 import error_pb2
from rakit.multiraft.errors import (
    MultiraftError,
    NotLeadingError,
    ProposalRefusedError,
    StoreCorruptError,
)
from rakit.multiraft.quarantine import is_for_good
from rakit.node.errors import RakitError
from rakit.node.partition import retention
from rakit.node.partition.answers import Appended, not_leading, outcome_unknown, refused
from rakit.node.partition.appender import Appender, Proposal
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Content, Fence
from rakit.node.partition.digest import Digest, digest
from rakit.node.partition.inquiry import ProducerAnswer, look_up
from rakit.node.partition.machine import PartitionMachine
from rakit.node.partition.producers import EPOCH_MAX, Stamp
from rakit.node.partition.reader import Chunk, Reader
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.surroundings import PartitionContext, Replica, ReplicaHost
from rakit.raft import CompactedError, Role

__all__ = ["Offsets", "Partition", "PartitionContext", "ReplicaHost"]

#: A new leader applies its first entry within a round trip and a sync.
_NOT_READY_RETRY_MS = 20


@dataclass(frozen=True, slots=True)
class Offsets:
    """The readable range of a partition."""

    earliest: int
    #: One past the last committed record.
    latest: int
    #: The first offset at or after the asked time; None when no time was asked for.
    at_time: int | None
    #: Bytes of log that are kept.
    size_bytes: int


class Partition:
    """A hosted replica of one partition."""

    def __init__(
        self,
        host: ReplicaHost,
        group_id: int,
        settings: Callable[[], TopicSettings],
        context: PartitionContext,
        stirred: Callable[[int], None],
    ) -> None:
        self.group_id = group_id
        self._host = host
        self._settings = settings
        self._context = context
        #: Told of this group whenever upkeep may have something to do that it had not before.
        self._stirred = stirred
        #: (term, appender) of the leadership that was last used.
        self._appender: tuple[int, Appender] | None = None
        #: (replica, reader): a replica that was made anew gets a new one.
        self._reader: tuple[Replica, Reader] | None = None
        self._wakers: set[Callable[[], None]] = set()
        self._end_applied = host.on_applied(group_id, self.wake)

    def close(self) -> None:
        """Lets go of the host and wakes all who wait, so that they see it."""
        self._end_applied()
        self.wake()

    @property
    def ready(self) -> bool:
        """Tells whether this replica leads and may serve (S14)."""
        replica = self._host.group(self.group_id)
        return replica is not None and replica.ready

    # Appending.

    def append(
        self,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        *,
        gather: bool = False,
    ) -> asyncio.Future[Appended]:
        """Appends a batch; raises `RakitError` at once, or through the future.

        With `gather`, as for a request that stands in no order, it may share an entry with others.
        """
        return self._leading_appender().append(
            batch, stamp, expected_offset, self._settings(), gather=gather
        )

    async def producer_state(
        self,
        producer_id: int,
        sequence: int,
        fence_epoch: int | None,
        sent_epoch: int | None = None,
    ) -> ProducerAnswer:
        """Says what became of a batch; with `fence_epoch`, after that epoch is in force (S21)."""
        # What came before is judged before it is asked about, and before a fence.
        self._leading_appender().flush()
        if fence_epoch is None:
            await self._barrier()
        else:
            _check_fence(fence_epoch, sent_epoch)
            raised = await self._fence(producer_id, fence_epoch)
            if raised and sent_epoch is None:
                sent_epoch = fence_epoch - 1
        return look_up(
            self._machine(self._leading()).state,
            self._leading_appender().outlook,
            producer_id,
            sequence,
            sent_epoch=sent_epoch,
        )

    async def _fence(self, producer_id: int, epoch: int) -> bool:
        """Commits a fence; tells whether it raised the epoch."""
        appender = self._leading_appender()
        raises = appender.outlook.ahead.producer(producer_id).epoch < epoch
        # Proposed even where the epoch is in force already: the commit also proves that whatever
        # was proposed before it is applied.
        proposed = appender.maintain(Fence(producer_id, epoch, appender.stamp_time()))
        # Shielded: a caller that goes away must not make the appender believe that it is settled.
        completion = await asyncio.shield(proposed)
        if completion.lost:
            raise outcome_unknown()
        return raises

    # Reading.

    async def read(
        self,
        offset: int,
        max_bytes: int,
        end_offset: int | None = None,
        *,
        at_least_one: bool = True,
    ) -> Chunk:
        """Returns what stands from `offset` on; nothing when it is the end.

        Raises OFFSET_OUT_OF_RANGE for an offset below the log, or above it after a barrier.
        """
        state = self._machine(self._leading()).state
        if offset > state.next_offset:
            await self._barrier()
        replica = self._leading()
        state = self._machine(replica).state
        if not state.start_offset <= offset <= state.next_offset:
            raise self._out_of_range(replica, offset)
        with self._damage_reported(replica, offset):
            reader = self._reader_of(replica)
            return reader.read(offset, max_bytes, end_offset, at_least_one=at_least_one)

    async def offsets(self, time_ms: int | None = None) -> Offsets:
        """Returns the readable range, linearizable, and the first offset at or after a time."""
        await self._barrier()
        replica = self._leading()
        state = self._machine(replica).state
        at_time: int | None = None
        if time_ms is not None:
            with self._damage_reported(replica, state.start_offset):
                at_time = self._reader_of(replica).offset_at(time_ms)
        return Offsets(state.start_offset, state.next_offset, at_time, state.log_bytes)

    async def offset_at(self, time_ms: int) -> int:
        """Returns the first offset appended at or after a time, else the end after a barrier."""
        replica = self._leading()
        with self._damage_reported(replica, self._machine(replica).state.start_offset):
            found = self._reader_of(replica).offset_at(time_ms)
        if found < self._machine(replica).state.next_offset:
            return found
        at_time = (await self.offsets(time_ms)).at_time
        assert at_time is not None, "a time was asked for"
        return at_time

    def append_time_at(self, offset: int) -> int:
        """Returns when the record at an offset was appended, or the first one kept; 0: none."""
        replica = self._leading()
        state = self._machine(replica).state
        offset = max(offset, state.start_offset)
        if offset >= state.next_offset:
            return 0
        with self._damage_reported(replica, offset):
            return self._reader_of(replica).read(offset, 1, offset + 1).batches[0].append_time_ms

    def earliest(self) -> int:
        """Returns the first offset that is kept."""
        return self._machine(self._leading()).state.start_offset

    async def latest(self) -> int:
        """Returns one past the last committed record, linearizable (S20)."""
        await self._barrier()
        return self._machine(self._leading()).state.next_offset

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back when there may be more to read, or nothing any more; returns what ends it."""
        self._wakers.add(callback)
        return lambda: self._wakers.discard(callback)

    @property
    def subscriber_count(self) -> int:
        """How many wait for this partition."""
        return len(self._wakers)

    def wake(self) -> None:
        """Wakes all who wait: entries were applied, or the replica's role changed."""
        self._stirred(self.group_id)
        for callback in tuple(self._wakers):
            callback()

    # Upkeep and comparison.

    def look_after(self) -> int | None:
        """Proposes what the log's upkeep asks for, if this replica leads.

        Returns from which time on there may be more to do though nothing happens; None: never.
        """
        replica = self._host.group(self.group_id)
        if replica is None or not replica.ready:
            self._appender = None
            return None
        held = self._appender
        appender = held[1] if held is not None and held[0] == replica.term else None
        if appender is not None:
            # What has gathered comes first, or it would be later in the log and older in time.
            appender.flush()
        state = appender.outlook.ahead if appender else self._machine(replica).state
        now_ms = max(state.append_time_ms, self._context.clock_ms())
        settings, clock_trusted = self._settings(), self._context.clock_trusted()
        due = retention.decide(state, settings, now_ms, clock_trusted=clock_trusted)
        for command in due:
            try:
                self._leading_appender().maintain(command)
            except RakitError:
                # Not leading any more, or too much is uncommitted: the next look decides anew.
                break
        if due or (
            not clock_trusted and retention.decide(state, settings, now_ms, clock_trusted=True)
        ):
            # What was proposed may be lost or not be all, and nobody tells when a clock is right.
            return 0
        return retention.next_due_ms(state, settings)

    def index_range(self) -> tuple[int, int]:
        """Returns the first and the last index that a digest may cover on this replica."""
        replica = self._replica()
        return replica.storage.first_index(), replica.applied

    async def digest(self, first_index: int, last_index: int) -> Digest:
        """Hashes a range of this replica's log, whatever its role."""
        replica = self._replica()
        first, last = self.index_range()
        if not first <= first_index <= last_index <= last:
            raise RakitError(
                error_pb2.ERROR_REASON_INVALID_REQUEST,
                f"This replica holds the entries {first} to {last}, not {first_index} to"
                f" {last_index}.",
            )
        with self._damage_reported(replica, self._machine(replica).state.start_offset):
            return await digest(replica.storage, first_index, last_index)

    # Who may answer.

    def _replica(self) -> Replica:
        replica = self._host.group(self.group_id)
        if replica is None:
            raise RakitError(
                error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                "This node holds no working replica of the partition.",
            )
        return replica

    def _leading(self) -> Replica:
        """The replica, if it leads and is ready; raises NOT_LEADER or NO_LEADER."""
        replica = self._replica()
        if replica.ready:
            return replica
        if replica.role is not Role.LEADER:
            raise not_leading(replica.leader_replica, replica.term)
        raise _not_ready(replica)

    def _leading_appender(self) -> Appender:
        replica = self._leading()
        if self._appender is None or self._appender[0] != replica.term:
            if replica.pending_count:
                raise _not_ready(replica)
            appender = Appender(
                self._machine(replica).state,
                partial(self._propose, replica, replica.term),
                self._context.clock_ms,
                lambda: len(replica.conf_state.voters) // 2 + 1,
                partial(self._still_leads, replica.term),
                may_gather=self._context.runs_are_read,
                fsynced=self._context.fsynced,
            )
            self._appender = (replica.term, appender)
        return self._appender[1]

    def _propose(self, replica: Replica, term: int, *pieces: Content) -> Proposal:
        """Proposes for one leadership, in which alone its appender's outlook is true."""
        if self._host.group(self.group_id) is not replica or replica.term != term:
            raise NotLeadingError(0, term)
        return self._host.propose(self.group_id, *pieces)

    async def _still_leads(self, term: int) -> bool:
        """Asks a majority whether this replica leads, and has done so since the term began."""
        try:
            await self._barrier()
        except RakitError:
            return False
        replica = self._host.group(self.group_id)
        return replica is not None and replica.ready and replica.term == term

    def _reader_of(self, replica: Replica) -> Reader:
        if self._reader is None or self._reader[0] is not replica:
            reader = Reader(self._context.disk, replica.storage, self._machine(replica))
            self._reader = (replica, reader)
        return self._reader[1]

    def _machine(self, replica: Replica) -> PartitionMachine:
        machine = replica.machine
        assert isinstance(machine, PartitionMachine), "the group replicates a partition"
        return machine

    async def _barrier(self) -> None:
        self._leading()
        try:
            await self._host.read_barrier(self.group_id)
        except ProposalRefusedError as error:
            raise refused(error) from error
        except MultiraftError as error:
            raise RakitError(
                error_pb2.ERROR_REASON_NO_QUORUM,
                "A majority of the partition's replicas did not confirm the leader in time.",
            ) from error

    def _out_of_range(self, replica: Replica, offset: int) -> RakitError:
        state = self._machine(replica).state
        return RakitError(
            error_pb2.ERROR_REASON_OFFSET_OUT_OF_RANGE,
            f"Offset {offset} is outside of the log, which holds {state.start_offset} up to, not"
            f" including, {state.next_offset}.",
            {"earliest": str(state.start_offset), "latest": str(state.next_offset)},
        )

    @contextmanager
    def _damage_reported(self, replica: Replica, offset: int) -> Generator[None]:
        """Turns what a log raises into what a client is told; damage shuts the replica out."""
        try:
            yield
        except CompactedError as error:
            # The log was cut between the look at its range and the read.
            raise self._out_of_range(replica, offset) from error
        except StoreCorruptError as error:
            if self._host.group(self.group_id) is not replica:
                # Its rows went with it while it was read; one that took its place is not to blame.
                raise RakitError(
                    error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                    "This node's replica of the partition was removed meanwhile.",
                ) from error
            for_good = is_for_good(error)
            self._host.quarantine(self.group_id, str(error), for_good=for_good)
            if not for_good:
                raise RakitError(
                    error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
                    f"This replica cannot be read and was taken out of service: {error}.",
                ) from error
            raise RakitError(
                error_pb2.ERROR_REASON_CORRUPT_RECORD,
                f"This replica is damaged and was taken out of service: {error}.",
            ) from error


def _not_ready(replica: Replica) -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        "The partition's new leader is not ready yet.",
        {"leader_term": str(replica.term), "retry_delay_ms": str(_NOT_READY_RETRY_MS)},
    )


def _check_fence(epoch: int, sent_epoch: int | None) -> None:
    if not 1 <= epoch <= EPOCH_MAX:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"fence_epoch is {epoch}; it must be from 1 to {EPOCH_MAX}.",
        )
    if sent_epoch is not None and epoch <= sent_epoch:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_REQUEST,
            f"fence_epoch is {epoch}, but the batch was sent with epoch {sent_epoch}: only a higher"
            " one keeps it out. InitProducer gives it.",
        )
