"""From a checked batch to its answer, for one leadership of one partition.

This is the asynchronous rim around `pending`: it proposes what the outlook drafts, and turns the
completions of entries into the answers that producers wait for. It needs no host, only something
that proposes.

Rules:

- Validation, proposal and noting the proposal happen in one synchronous step, so that the next
  batch is judged against this one.
- An answer means: committed, which is fsynced on a majority of voters, and applied (S13).
- A completion that is lost means OUTCOME_UNKNOWN: the next leader may yet commit the entry. Whoever
  waited for somebody else's entry has proposed nothing: a duplicate shares the unknown outcome, a
  refusal turns into NO_LEADER, NOT_APPLIED.
- Nobody who waits is forgotten: every future is done when its entry's proposal is.
- After the first entry that was lost the outlook speaks of what may never be. An appender then
  takes nothing more, whatever its replica still believes (a host that stops, or whose store has
  failed, loses entries without a change of role, S12): a retry would be called a duplicate of a
  batch that nobody holds.

An appender is dropped with its leadership; its futures still resolve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProduceResponse
from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import NotLeadingError, OverloadedError, ProposalRefusedError
from rakit.multiraft.machine import node_of
from rakit.node.errors import RakitError
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Maintenance
from rakit.node.partition.pending import Draft, Known, Outlook
from rakit.node.partition.producers import Stamp
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import LogState, Stored
from rakit.raft import EntryID

#: What a client is told to wait when too much is uncommitted: a few rounds of the disk.
_OVERLOAD_RETRY_MS = 50


class Proposal(Protocol):
    """An entry in the leader's log, and the future of its one completion."""

    @property
    def entry(self) -> EntryID:
        """Its term and index."""
        ...

    @property
    def done(self) -> asyncio.Future[Completion]:
        """Resolves when it is applied, or lost."""
        ...


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to Produce."""

    stored: Stored
    #: How many replicas were known to have synced the batch.
    replicas: int
    fsynced: bool
    #: The batch had been stored before.
    duplicate: bool

    def fill(self, response: ProduceResponse) -> None:
        """Writes the answer into the response; header and partition are the caller's."""
        response.base_offset = self.stored.base_offset
        response.end_offset = self.stored.end_offset
        response.append_time_ms = self.stored.append_time_ms
        response.term = self.stored.term
        response.index = self.stored.index
        response.replicas = self.replicas
        response.fsynced = self.fsynced
        response.duplicate = self.duplicate


class Appender:
    """Takes batches for one leadership, which begins with the applied state that is given."""

    def __init__(
        self,
        applied: LogState,
        propose: Callable[[bytes], Proposal],
        clock_ms: Callable[[], int],
        majority: Callable[[], int],
        *,
        fsynced: bool,
    ) -> None:
        self.outlook = Outlook(applied)
        self._propose = propose
        self._clock_ms = clock_ms
        #: How many replicas must have synced a committed entry: what a later answer can vouch for.
        self._majority = majority
        self._fsynced = fsynced
        #: Pending entries by index. Bounded by what the group may have uncommitted.
        self._proposals: dict[int, asyncio.Future[Completion]] = {}
        #: An entry was lost: nothing more is judged by this outlook.
        self._is_over = False

    def append(
        self,
        batch: Batch,
        stamp: Stamp | None,
        expected_offset: int | None,
        settings: TopicSettings,
    ) -> asyncio.Future[Appended]:
        """Appends a batch; raises `RakitError` at once, or through the future."""
        self._refuse_if_over()
        verdict = self.outlook.append(batch, stamp, expected_offset, self._clock_ms(), settings)
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        # A caller that has gone must not make the loop complain about an error nobody fetched.
        answer.add_done_callback(_fetch_error)
        if isinstance(verdict, Known):
            answer.set_result(
                Appended(verdict.stored, self._majority(), self._fsynced, duplicate=True)
            )
        elif isinstance(verdict, Draft):
            done = self._start(verdict)
            done.add_done_callback(lambda done: self._answer(answer, done, duplicate=False))
        else:
            error, done = verdict.error, self._proposals[verdict.index]
            if error is None:
                done.add_done_callback(lambda done: self._answer(answer, done, duplicate=True))
            else:
                done.add_done_callback(lambda done: _refuse(answer, done, error))
        return answer

    def maintain(self, command: Maintenance) -> asyncio.Future[Completion]:
        """Proposes a command without content; raises `RakitError` when it cannot be proposed."""
        self._refuse_if_over()
        return self._start(self.outlook.maintain(command))

    def stamp_time(self) -> int:
        """Returns the append time of an entry that is proposed now (S3)."""
        return self.outlook.stamp_time(self._clock_ms())

    def _start(self, draft: Draft) -> asyncio.Future[Completion]:
        try:
            proposal = self._propose(draft.payload)
        except ProposalRefusedError as error:
            raise refused(error) from error
        term, index = proposal.entry
        self.outlook.proposed(draft, term, index)
        self._proposals[index] = proposal.done
        proposal.done.add_done_callback(lambda done: self._settled(index, done))
        return proposal.done

    def _settled(self, index: int, done: asyncio.Future[Completion]) -> None:
        del self._proposals[index]
        self.outlook.settled(index)
        self._is_over = self._is_over or _completed(done) is None

    def _refuse_if_over(self) -> None:
        if self._is_over:
            raise RakitError(
                error_pb2.ERROR_REASON_NO_LEADER,
                "This leadership of the partition is over. Nothing of this request was stored.",
            )

    def _answer(
        self,
        answer: asyncio.Future[Appended],
        done: asyncio.Future[Completion],
        *,
        duplicate: bool,
    ) -> None:
        if answer.done():
            return
        completion = _completed(done)
        if completion is None:
            answer.set_exception(outcome_unknown())
            return
        stored = completion.result
        assert isinstance(stored, Stored), "an append completes with where it was stored"
        answer.set_result(Appended(stored, completion.replicas, self._fsynced, duplicate))


def _completed(done: asyncio.Future[Completion]) -> Completion | None:
    """The completion of an entry that is applied; None when its fate is not known."""
    if done.cancelled() or done.exception() is not None:
        return None
    completion = done.result()
    return None if completion.lost else completion


def _refuse(
    answer: asyncio.Future[Appended], done: asyncio.Future[Completion], error: RakitError
) -> None:
    if answer.done():
        return
    if _completed(done) is None:
        error = RakitError(
            error_pb2.ERROR_REASON_NO_LEADER,
            "The partition's leader changed before the answer was certain. Nothing of this request"
            " was stored.",
        )
    answer.set_exception(error)


def _fetch_error(answer: asyncio.Future[Appended]) -> None:
    if not answer.cancelled():
        answer.exception()


def outcome_unknown() -> RakitError:
    """Returns the error for a batch that was proposed and whose fate is not known."""
    return RakitError(
        error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        "The partition's leader changed while the batch was being replicated: it may or may not"
        " have been stored. Repeat it with the same producer sequence, or ask GetProducerState.",
    )


def refused(error: ProposalRefusedError) -> RakitError:
    """Returns what a client is told when nothing was proposed."""
    if isinstance(error, OverloadedError):
        return RakitError(
            error_pb2.ERROR_REASON_THROTTLED,
            "Too many bytes of this partition wait for a majority of its replicas.",
            {"retry_delay_ms": str(_OVERLOAD_RETRY_MS)},
        )
    if isinstance(error, NotLeadingError):
        return not_leading(error.leader_replica, error.term)
    return RakitError(
        error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
        "This node holds no working replica of the partition.",
    )


def not_leading(leader_replica: int, term: int) -> RakitError:
    """Returns the error of a replica that does not lead, with the leader as it knows it."""
    if leader_replica == 0:
        return RakitError(
            error_pb2.ERROR_REASON_NO_LEADER,
            "The partition has no leader at the moment; an election takes a second or two.",
            {"leader_term": str(term)},
        )
    node_id = node_of(leader_replica)
    return RakitError(
        error_pb2.ERROR_REASON_NOT_LEADER,
        f"The partition is led by node {node_id}.",
        {"leader_node_id": str(node_id), "leader_term": str(term)},
    )
