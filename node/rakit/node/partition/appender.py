"""From a checked batch to its answer, for one leadership of one partition.

This is the asynchronous rim around `pending`: it proposes what the outlook drafts, and turns the
completions of entries into the answers that producers wait for. It needs no host, only something
that proposes and something that confirms the leadership.

Rules:

- Whatever is decided by the outlook is decided after what has gathered has left: `flush` first.
- Validation, proposal and noting the proposal happen in one synchronous step, so that the next
  batch is judged against this one.
- Small batches that stand in no order gather while an entry is on its way (`gathering`). They are
  judged when they leave, in the order in which they came, and before whatever came after them.
- An answer means: committed, which is fsynced on a majority of voters, and applied (S13).
- A completion that is lost means OUTCOME_UNKNOWN: the next leader may yet commit the entry. A
  duplicate of it shares that.
- A request that the log's content forbids is known to fail at once, and told so when it is certain
  that this node was the one to judge it (`refusals`).
- Nobody who waits is forgotten: every future is done when its entry's proposal is, and what gathers
  becomes an entry or is told why not.
- After the first entry that was lost the outlook speaks of what may never be. An appender then
  takes nothing more, whatever its replica still believes (a host that stops, or whose store has
  failed, loses entries without a change of role, S12): a retry would be called a duplicate of a
  batch that nobody holds.

An appender is dropped with its leadership; its futures still resolve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, cast

from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import ProposalRefusedError
from rakit.node.errors import RakitError
from rakit.node.partition.answers import (
    Appended,
    GatheredAnswer,
    completed,
    fetch_error,
    leadership_over,
    outcome_unknown,
    refused,
)
from rakit.node.partition.batches import Batch
from rakit.node.partition.commands import Content, Maintenance
from rakit.node.partition.gathering import BATCH_BYTES_MAX, Gathering, Request
from rakit.node.partition.pending import Draft, Known, Outlook, Refusal, Run, Wait
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
        propose: Callable[[*tuple[Content, ...]], Proposal],
        clock_ms: Callable[[], int],
        majority: Callable[[], int],
        still_leads: Callable[[], Awaitable[bool]],
        *,
        may_gather: Callable[[], bool],
        fsynced: bool,
    ) -> None:
        self.outlook = Outlook(applied)
        self._propose = propose
        self._clock_ms = clock_ms
        #: How many replicas must have synced a committed entry: what a later answer can vouch for.
        self._majority = majority
        self._refusals = Refusals(still_leads)
        #: Whether everybody who will have to reads entries of several batches.
        self._may_gather = may_gather
        self._gathering = Gathering(self._propose_gathered)
        #: Those of the newest request.
        self._settings = TopicSettings()
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
        *,
        gather: bool = False,
    ) -> asyncio.Future[Appended]:
        """Appends a batch; raises `RakitError` at once, or through the future.

        With `gather` it may wait for others and share an entry with them.
        """
        self._refuse_if_over()
        self._settings = settings
        if gather and expected_offset is None and self._gathers(batch, stamp):
            return self._gathering.add(batch, stamp, next(reversed(self._proposals), 0))
        self._gathering.flush()
        verdict = self.outlook.append(batch, stamp, expected_offset, self._clock_ms(), settings)
        if isinstance(verdict, Refusal):
            return self._refusals.hold(verdict.error, self._proposals.get(verdict.index))
        answer: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(fetch_error)
        if isinstance(verdict, Draft):
            done = self._start(verdict)
            done.add_done_callback(partial(self._answer, answer))
        else:
            self._answer_duplicate(answer, verdict)
        return answer

    def _gathers(self, batch: Batch, stamp: Stamp | None) -> bool:
        """Whether a batch that may wait for others has any to wait for."""
        if len(batch.content) > BATCH_BYTES_MAX or not self.outlook.is_news(stamp):
            return False
        if self._gathering.count:
            return not self._gathering.knows(stamp)
        return bool(self._proposals) and self._may_gather()

    def _propose_gathered(self, requests: list[Request]) -> None:
        """Judges what has gathered, and proposes it."""
        run, answers = Run(), list[GatheredAnswer]()
        for request in requests:
            if request.answer.done():
                continue  # the caller has gone
            request.answer.is_judged = True
            try:
                self._refuse_if_over()
                verdict = self.outlook.objection(request.batch, request.stamp, run)
            except RakitError as error:
                request.answer.set_exception(error)
                continue
            if verdict is None:
                run.add(request.batch, request.stamp)
                answers.append(request.answer)
            else:
                self._doom(request.answer, verdict)
        if answers:
            self._propose_run(run, answers)

    def _propose_run(self, run: Run, answers: list[GatheredAnswer]) -> None:
        draft = self.outlook.join(run, self._clock_ms(), self._settings)
        try:
            done = self._propose_draft(draft)
        except ProposalRefusedError as error:
            for answer in answers:
                answer.set_exception(refused(error))
            return
        for at, answer in enumerate(answers):
            done.add_done_callback(partial(self._answer, answer, at=at))

    def _doom(self, answer: GatheredAnswer, refused: Refusal) -> None:
        doomed = self._refusals.hold(refused.error, self._proposals.get(refused.index))
        answer.doom = doomed.doom

        def tell(doomed: asyncio.Future[Appended]) -> None:
            error = doomed.exception()
            assert error is not None, "a refusal ends in an error"
            if not answer.done():
                answer.set_exception(error)

        doomed.add_done_callback(tell)

    def _answer_duplicate(self, answer: asyncio.Future[Appended], known: Known | Wait) -> None:
        """Answers now, or when the entry of the first one is settled."""
        stored = known.stored
        if isinstance(known, Known):
            answer.set_result(Appended(stored, self._majority(), self._fsynced, duplicate=True))
            return
        done = self._proposals[stored.index]
        done.add_done_callback(lambda done: self._answer(answer, done, stored))

    def flush(self) -> None:
        """Has everything judged that has come: done before anything is decided by the outlook."""
        self._gathering.flush()

    def maintain(self, command: Maintenance) -> asyncio.Future[Completion]:
        """Proposes a command without content; raises `RakitError` when it cannot be proposed.

        The caller has flushed before it decided on the command.
        """
        assert not self._gathering.count, "what has gathered comes before what is decided"
        self._refuse_if_over()
        return self._start(self.outlook.maintain(command))

    def stamp_time(self) -> int:
        """Returns the append time of an entry that is proposed now (S3)."""
        return self.outlook.stamp_time(self._clock_ms())

    def _start(self, draft: Draft) -> asyncio.Future[Completion]:
        try:
            return self._propose_draft(draft)
        except ProposalRefusedError as error:
            raise refused(error) from error

    def _propose_draft(self, draft: Draft) -> asyncio.Future[Completion]:
        self.outlook.check(draft)
        proposal = self._propose(*draft.pieces)
        term, index = proposal.entry
        try:
            self.outlook.proposed(draft, term, index)
        except BaseException:
            # A bug, behind which the outlook is another than the log.
            self._is_over = True
            raise
        self._proposals[index] = proposal.done
        proposal.done.add_done_callback(partial(self._settled, index, len(draft.batches)))
        return proposal.done

    def _settled(self, index: int, batch_count: int, done: asyncio.Future[Completion]) -> None:
        del self._proposals[index]
        self.outlook.settled(index)
        self._is_over = self._is_over or completed(done) is None
        if self._is_over:
            self._gathering.flush()
        else:
            self._gathering.settled(index, batch_count)

    def _refuse_if_over(self) -> None:
        if self._is_over:
            raise leadership_over()

    def _answer(
        self,
        answer: asyncio.Future[Appended],
        done: asyncio.Future[Completion],
        original: Stored | None = None,
        *,
        at: int = 0,
    ) -> None:
        """Answers for batch `at` of an entry that is settled, or for a duplicate of `original`."""
        if answer.done():
            return
        completion = completed(done)
        if completion is None:
            answer.set_exception(outcome_unknown())
            return
        stored = original or _place(completion.result, at)
        replicas, duplicate = completion.replicas, original is not None
        answer.set_result(Appended(stored, replicas, self._fsynced, duplicate))


def _place(result: object, at: int) -> Stored:
    """Where batch `at` of an entry went, by what applying the entry came to."""
    stored = cast("tuple[Stored, ...]", result)[at] if isinstance(result, tuple) else result
    assert isinstance(stored, Stored), "an append completes with where it was stored"
    return stored
