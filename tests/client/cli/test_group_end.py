"""When `rakit consume --group` is through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace, TracebackType
from typing import Self

import pytest

from rakit.api.v1.record_pb2 import Batch
from rakit.client import RecordBatch, TopicPartition
from rakit.client.cli import consume_group
from rakit.client.cli.consume import VALUE_LINES, Wanted
from rakit.client.cli.output import Format
from rakit.client.errors import LocalReason, RakitError, make_error
from rakit.client.records import fill_columns

T0 = TopicPartition("t", 0)


class OneBehind:
    """A cluster and a member of it, which gets its second record while it commits the first."""

    def __init__(self) -> None:
        self.admin = self
        self.assignment = (T0,)
        self.committed: list[int] = []
        #: What the next commits fail with.
        self.failures: list[RakitError] = []
        self._position = 0
        self._is_committing = asyncio.Event()
        self._is_here = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is to be closed."""

    async def get_offsets(self, _topic: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(partition=0, latest=2)]

    def group_consumer(self, *_names: object, **_options: object) -> Self:
        return self

    def positions(self) -> dict[TopicPartition, int]:
        return {T0: self._position}

    async def batches(self) -> AsyncGenerator[RecordBatch]:
        yield self._batch(0)
        await self._is_committing.wait()
        self._is_here.set()
        yield self._batch(1)
        await asyncio.Event().wait()

    def _batch(self, offset: int) -> RecordBatch:
        stored = Batch(base_offset=offset, record_count=1, append_time_ms=1)
        fill_columns(stored.records, [b"%d" % offset])
        self._position = offset + 1
        return RecordBatch("t", 0, stored, range(offset, offset + 1))

    async def commit(self, *, offsets: Mapping[TopicPartition, int]) -> None:
        self.committed.append(offsets[T0])
        self._is_committing.set()
        await self._is_here.wait()
        if self.failures:
            raise self.failures.pop()


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> OneBehind:
    found = OneBehind()

    def connect(_bootstrap: str | None) -> OneBehind:
        return found

    monkeypatch.setattr(consume_group, "connect", connect)
    # In a look at which nothing came.
    monkeypatch.setattr(consume_group, "LOOK_S", 0.1)
    monkeypatch.setattr(consume_group, "COMMIT_EVERY_S", 0.05)
    return found


WANTED = Wanted("earliest", None, False, VALUE_LINES, Format.TABLE, "g")


async def test_a_batch_that_comes_during_a_commit_is_printed_before_the_end(
    member: OneBehind, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with asyncio.timeout(10):
        assert await consume_group.run(None, "t", WANTED) == 0
    assert capfdbinary.readouterr().out == b"0\n1\n"
    assert member.committed == [1, 2]


async def test_what_was_printed_and_not_committed_is_committed_at_the_end_though_a_commit_failed(
    member: OneBehind, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    member.failures.append(make_error(LocalReason.UNREACHABLE, "no node answers"))
    async with asyncio.timeout(10):
        with pytest.raises(RakitError, match="no node answers"):
            await consume_group.run(None, "t", WANTED)
    assert capfdbinary.readouterr().out == b"0\n"
    assert member.committed == [1, 1]
