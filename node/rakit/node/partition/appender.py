"""From a checked batch to its answer, for one leadership of one partition.

This is the asynchronous rim around `pending`: it proposes what the outlook drafts, and turns the
completions of entries into the answers that producers wait for. It needs no host, only something
that proposes and something that confirms the leadership.

Rules:

- Validation, proposal and noting the proposal happen in one synchronous step, so that the next
  batch is judged against this one.
- An answer means: committed, which is fsynced on a majority of voters, and applied (S13).
- A completion that is lost means OUTCOME_UNKNOWN: the next leader may yet commit the entry. A
  duplicate of it shares that.
- A request that the log's content forbids is known to fail at once, and told so when it is certain
  that this node was the one to judge it (`refusals`).
- Nobody who waits is forgotten: every future is done when its entry's proposal is.
- After the first entry that was lost the outlook speaks of what may never be. An appender then
  takes nothing more, whatever its replica still believes (a host that stops, or whose store has
  failed, loses entries without a change of role, S12): a retry would be called a duplicate of a
  batch that nobody holds.

An appender is dropped with its leadership; its futures still resolve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import ProposalRefusedError
from rakit.node.partition.answers import (
    Appended,
    completed,
    fetch_error,
    leadership_over,
    outcome_unknown,
    refused,
)
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Maintenance
from rakit.node.partition.pending import Draft, Known, Outlook, Wait
from rakit.node.partition.producers import Stamp
from rakit.node.partition.refusals import Refusals
from rakit.node.partition.settings import TopicSettings
from rakit.node.partition.state import LogState, Stored
from rakit.raft import EntryID


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


class Appender:
    """Takes batches for one leadership, which begins with the applied state that is given."""

    def __init__(
        self,
        applied: LogState,
        propose: Callable[[*tuple[bytes, ...]], Proposal],
        clock_ms: Callable[[], int],
        majority: Callable[[], int],
        still_leads: Callable[[], Awaitable[bool]],
        *,
        fsynced: bool,
    ) -> None:
        self.outlook = Outlook(applied)
        self._propose = propose
        self._clock_ms = clock_ms
        #: How many replicas must have synced a committed entry: what a later answer can vouch for.
        self._majority = majority
        self._refusals = Refusals(still_leads)
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
        answer.add_done_callback(fetch_error)
        if isinstance(verdict, Known):
            answer.set_result(
                Appended(verdict.stored, self._majority(), self._fsynced, duplicate=True)
            )
        elif isinstance(verdict, Draft):
            done = self._start(verdict)
            done.add_done_callback(lambda done: self._answer(answer, done, duplicate=False))
        elif isinstance(verdict, Wait):
            done = self._proposals[verdict.index]
            done.add_done_callback(lambda done: self._answer(answer, done, duplicate=True))
        else:
            return self._refusals.hold(verdict.error, self._proposals.get(verdict.index))
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
            proposal = self._propose(*draft.pieces)
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
        self._is_over = self._is_over or completed(done) is None

    def _refuse_if_over(self) -> None:
        if self._is_over:
            raise leadership_over()

    def _answer(
        self,
        answer: asyncio.Future[Appended],
        done: asyncio.Future[Completion],
        *,
        duplicate: bool,
    ) -> None:
        if answer.done():
            return
        completion = completed(done)
        if completion is None:
            answer.set_exception(outcome_unknown())
            return
        stored = completion.result
        assert isinstance(stored, Stored), "an append completes with where it was stored"
        answer.set_result(Appended(stored, completion.replicas, self._fsynced, duplicate))
