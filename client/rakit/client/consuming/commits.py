"""Gathers commits: one request is on its way, and what is asked for meanwhile goes out together.

A commit says where the group goes on, so a newer one replaces an older one that has not left, and
one whose stream broke is simply sent again: committing the same offset twice does no harm. What the
server has not spoken of on a new stream waits: it would be refused. The class is pure but for the
futures that callers wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from rakit.api.v1.group_service_pb2 import CommitRequest, Committed
from rakit.client.consuming.places import TopicPartition
from rakit.client.errors import RakitError, from_status

#: Partitions of one request.
COMMIT_OFFSETS_COUNT_MAX: Final = 1_024

Outcome = Mapping[TopicPartition, RakitError]


@dataclass(slots=True, eq=False)
class _Waiter:
    """A caller, and the partitions of which it has not heard."""

    done: asyncio.Future[Outcome]
    missing: set[TopicPartition]
    errors: dict[TopicPartition, RakitError] = field(
        default_factory=dict[TopicPartition, RakitError]
    )

    def heard(self, name: TopicPartition, error: RakitError | None) -> None:
        """Takes in what became of one partition."""
        if name not in self.missing:
            return
        self.missing.discard(name)
        if error is not None:
            self.errors[name] = error
        if not self.missing and not self.done.done():
            self.done.set_result(self.errors)


class Commits:
    """What is to be committed, and what is on its way."""

    def __init__(self) -> None:
        self._wanted: dict[TopicPartition, int] = {}
        self._flying: dict[TopicPartition, int] = {}
        self._tag = 0
        self._wanted_waiters: list[_Waiter] = []
        self._flying_waiters: list[_Waiter] = []
        #: Why nothing will be committed any more.
        self._ended: RakitError | None = None

    def add(self, offsets: Mapping[TopicPartition, int]) -> asyncio.Future[Outcome]:
        """Asks for commits; the future tells which of them failed.

        A newer commit of the same partition may go out in this one's place.
        """
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if not offsets:
            done.set_result({})
            return done
        if self._ended is not None:
            done.set_result(dict.fromkeys(offsets, self._ended))
            return done
        self._wanted.update(offsets)
        self._wanted_waiters.append(_Waiter(done, set(offsets)))
        return done

    def take(self, may_go: Callable[[TopicPartition], bool]) -> CommitRequest | None:
        """Returns what is to be sent now; None while something is on its way, or for nothing."""
        if self._flying or not self._wanted:
            return None
        names = list(islice(filter(may_go, self._wanted), COMMIT_OFFSETS_COUNT_MAX))
        if not names:
            return None
        self._tag += 1
        request = CommitRequest(tag=self._tag)
        for name in names:
            offset = self._flying[name] = self._wanted.pop(name)
            request.offsets.add(topic=name.topic, partition=name.partition, offset=offset)
        self._flying_waiters, self._wanted_waiters = self._wanted_waiters, []
        return request

    def answered(self, answer: Committed) -> None:
        """Takes in an answer; one to a request of an earlier stream is of no interest."""
        if answer.tag != self._tag or not self._flying:
            return
        whole = from_status(answer.error) if answer.HasField("error") else None
        errors = {
            TopicPartition(each.topic, each.partition): from_status(each.error)
            for each in answer.errors
        }
        self._finish({name: errors.get(name, whole) for name in self._flying})

    def _finish(self, outcomes: Mapping[TopicPartition, RakitError | None]) -> None:
        waiters, self._flying_waiters = self._flying_waiters, []
        self._flying.clear()
        for waiter in waiters:
            for name, error in outcomes.items():
                # What is wanted again is another commit; this one was answered all the same.
                waiter.heard(name, error)
        # Those that wait for more than one request takes go on with the next.
        self._wanted_waiters[:0] = [each for each in waiters if each.missing]

    def broken(self) -> None:
        """The stream is gone: what was on its way is to be sent again."""
        self._wanted = {**self._flying, **self._wanted}
        self._flying = {}
        self._wanted_waiters[:0] = self._flying_waiters
        self._flying_waiters = []

    def refuse(self, names: Collection[TopicPartition], error: RakitError) -> None:
        """These were lost: what has not left would be committed for somebody else."""
        for name in names:
            if self._wanted.pop(name, None) is not None:
                answered = [] if name in self._flying else self._flying_waiters
                for waiter in (*self._wanted_waiters, *answered):
                    waiter.heard(name, error)
        self._wanted_waiters = [each for each in self._wanted_waiters if each.missing]

    def end(self, error: RakitError) -> None:
        """Nothing is committed any more, now or later."""
        self._ended = error
        self.drop(error)

    def drop(self, error: RakitError) -> None:
        """The membership is over: nothing that was asked for will be committed by it."""
        waiters = [*self._flying_waiters, *self._wanted_waiters]
        self._wanted, self._flying = {}, {}
        self._wanted_waiters, self._flying_waiters = [], []
        for waiter in waiters:
            for name in list(waiter.missing):
                waiter.heard(name, error)

    @property
    def is_idle(self) -> bool:
        """Nothing is wanted or on its way."""
        return not self._wanted and not self._flying
